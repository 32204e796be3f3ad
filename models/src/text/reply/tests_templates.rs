//! Real chat templates: the syntax of each, and the call that it renders parsed back.
//!
//! The templates belong to their makers and are not in the repository: `$HANDMILL_TEST_TEMPLATES` is a folder of
//! `<name>/template.jinja` and `<name>/cases.json`. Without it the test says so and counts as skipped.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::tests::{Part, cut, parse};
use super::{ReplyParser, ReplySyntax};

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("HANDMILL_TEST_TEMPLATES").map(PathBuf::from).filter(|f| f.is_dir());
    if folder.is_none() {
        // `eprintln!` would be captured and shown only where the test fails.
        let line = b"SKIPPED (opt-in): replies of real templates: name their folder in $HANDMILL_TEST_TEMPLATES\n";
        let _ = std::io::stderr().write_all(line);
    }
    folder
}

/// A set of cases.
fn cases(folder: &Path, name: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(folder.join(name).join("cases.json")).expect("cases.json");
    let mut file: Value = serde_json::from_str(&text).expect("JSON");
    serde_json::from_value(file["cases"].take()).expect("a list of cases")
}

fn rendered<'a>(cases: &'a [Value], id: &str) -> Option<&'a str> {
    cases.iter().find(|c| c["id"] == id)?["rendered"].as_str()
}

#[test]
fn syntaxes_of_real_templates() {
    let Some(folder) = folder() else { return };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let source = std::fs::read_to_string(entry.path().join("template.jinja")).expect("a template");
        let syntax = ReplySyntax::of_template(&source);
        found.push((entry.file_name().into_string().expect("UTF-8"), syntax.name()));
        assert_eq!(ReplySyntax::named(&syntax.name()).expect("a known name").name(), syntax.name());
    }
    found.sort();
    let expected: Vec<(String, String)> = SYNTAXES.iter().map(|(n, s, _)| (n.to_string(), s.to_string())).collect();
    for pair in &found {
        assert!(expected.contains(pair), "{pair:?}");
    }
    assert_eq!(found.len(), expected.len());
}

/// The text between the user's message and the tool's answer holds the call as the template writes it.
#[test]
fn calls_of_real_templates() {
    let Some(folder) = folder() else { return };
    for (name, syntax, calls) in SYNTAXES {
        let cases = cases(&folder, name);
        let syntax = ReplySyntax::named(syntax).expect("a known name");
        let opening =
            rendered(&cases, "user_gen").and_then(|text| text.rsplit_once("Hello!")).map_or("", |(_, end)| end);
        let asked = [("toolcall_notools_gen", "Weather?"), ("toolcall_dict_gen", "Weather in Zürich?")];
        let answers = asked.map(|(id, message)| Some(rendered(&cases, id)?.rsplit_once(message)?.1));
        let rendered = answers.into_iter().flatten().filter(|text| text.contains("get_weather"));
        for answer in rendered.clone() {
            let (prompt, reply) = answer.split_at(opening_len(opening, answer));
            let reply = reply.split("{\"temp\"").next().expect("a first part");
            check_call(name, &syntax, prompt, reply);
        }
        assert_eq!(rendered.count() > 0, *calls, "{name}");
    }
}

/// Bytes of `answer` that every answer begins with, up to the end of a marker or line.
fn opening_len(opening: &str, answer: &str) -> usize {
    let same = opening.chars().zip(answer.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8());
    answer[..same.sum()].rfind(['>', '\n', ':', ']']).map_or(0, |at| at + 1)
}

fn check_call(name: &str, syntax: &ReplySyntax, prompt: &str, reply: &str) {
    // Llama's prompt tells the form of calls, far in front.
    let prompt = format!("dictionary of argument name and its value {prompt}");
    let parts = parse(ReplyParser::new(syntax, &prompt), [reply]);
    assert_eq!(parts, parse(ReplyParser::new(syntax, &prompt), cut(reply, 1)), "{name}");
    let mut calls = parts.iter().filter_map(|part| match part {
        Part::C(name, _, arguments) => Some((name.as_str(), serde_json::from_str::<Value>(arguments).expect("JSON"))),
        _ => None,
    });
    let expect = ("get_weather", serde_json::json!({"city": "Zürich", "days": 2}));
    assert_eq!(calls.next(), Some(expect), "{name}: {reply:?} after {prompt:?}");
    assert_eq!(calls.next(), None, "{name}: {reply:?}");
}

/// Harmony's cases lie beside the templates.
#[test]
fn harmony_as_its_library_parses_it() {
    let Some(file) = folder().and_then(|f| std::fs::read_to_string(f.parent()?.join("harmony/cases.json")).ok()) else {
        return;
    };
    let file: Value = serde_json::from_str(&file).expect("JSON");
    for case in file["parse"].as_array().expect("cases") {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let messages = case["messages"].as_array().expect("messages").iter();
        let expect: Vec<Part> = messages
            .map(|m| match (text(&m["recipient"]), text(&m["content"][0]["text"])) {
                (to, body) if !to.is_empty() => Part::C(to.replacen("functions.", "", 1), None, body),
                (_, body) if m["channel"] == "analysis" => Part::R(body),
                (_, body) => Part::T(body),
            })
            .collect();
        let reply = text(&case["text"]);
        for n in [1, usize::MAX] {
            let parser = ReplyParser::new(&ReplySyntax::named("harmony").expect("a known name"), "<|start|>assistant");
            assert_eq!(parse(parser, cut(&reply, n)), expect, "{}", case["id"]);
        }
    }
}

/// `(set, syntax, whether the template renders calls)`.
const SYNTAXES: &[(&str, &str, bool)] = &[
    ("Apertus-8B-Instruct", "apertus-inner + apertus", true),
    ("Apriel-1.6-15b-Thinker-fixed", "apriel-steps + apriel", true),
    ("Bielik-11B-v3.0-Instruct", "think + hermes", true),
    ("ByteDance-Seed-OSS", "seed-think + seed", true),
    ("CohereForAI-c4ai-command-r-plus-tool_use", "command-r", false),
    ("CohereForAI-c4ai-command-r7b-12-2024-tool_use", "cohere-thinking + command-r7b", true),
    ("GLM-4.6", "think + glm", true),
    ("GLM-4.7-Flash", "think + glm", true),
    ("GigaChat3.1-10B-A1.8B", "gigachat", true),
    ("HuggingFaceTB-SmolLM3-3B", "think", false),
    ("Kimi-K2-Instruct", "kimi", false),
    ("Kimi-K2-Thinking", "think + kimi", false),
    ("LFM2-8B-A1B", "pythonic", false),
    ("LFM2.5-8B-A1B", "think + pythonic", true),
    ("LFM2.5-Instruct", "think + pythonic", false),
    ("MiMo-VL", "hermes", true),
    ("MiniMax-M2", "think + minimax", true),
    ("MiniMax-M3", "mm-think + minimax-nested", true),
    ("Mistral-Small-3.2-24B-Instruct-2506", "mistral-args", true),
    ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", "think + xml-function", true),
    ("NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use", "hermes", true),
    ("NousResearch-Hermes-3-Llama-3.1-8B-tool_use", "hermes", true),
    ("Qwen-QwQ-32B", "think + hermes", true),
    ("Qwen-Qwen2.5-7B-Instruct", "hermes", true),
    ("Qwen3-Coder", "xml-function", true),
    ("Qwen3.5-4B", "think + xml-function", true),
    ("Reka-Edge", "think + hermes", true),
    ("Spark2.5", "think + glm", true),
    ("deepseek-ai-DeepSeek-R1-Distill-Llama-8B", "think + deepseek", false),
    ("deepseek-ai-DeepSeek-R1-Distill-Qwen-32B", "think + deepseek", true),
    ("deepseek-ai-DeepSeek-V3.1", "think + deepseek", true),
    ("deepseek-ai-DeepSeek-V3.2", "think + dsml", true),
    ("deepseek-ai-DeepSeek-V4-Flash-0731", "think + dsml", true),
    ("fireworks-ai-llama-3-firefunction-v2", "functools", false),
    ("gguf-Qwen2.5-Coder-0.5B", "hermes", true),
    ("gguf-SmolLM2-135M-Instruct", "text", false),
    ("gguf-gemma-4", "gemma-channel + gemma", true),
    ("gguf-phi-3", "text", false),
    ("gguf-qwen2", "text", false),
    ("google-gemma-2-2b-it", "text", false),
    ("google-gemma-4-31B-it-interleaved", "gemma-channel + gemma", true),
    ("ibm-granite-granite-3.3-2B-Instruct", "think-response + granite", false),
    ("ibm-granite-granite-4.0", "hermes", true),
    ("ibm-granite-granite-4.1", "hermes", true),
    ("lcpptest-DeepSeek-V2", "text", false),
    ("lcpptest-Llama-3", "text", false),
    ("lcpptest-Mistral-Large-Instruct-2407-mistralai-v3-templat", "mistral-list", true),
    ("lcpptest-Mistral-Nemo-Instruct-2407-mistralai-v3-tekken-t", "mistral-list", true),
    ("lcpptest-Phi-3-mini", "text", false),
    ("lcpptest-Phi-3-small", "text", false),
    ("lcpptest-bofenghuang-vigogne-2-70b-chat", "text", false),
    ("lcpptest-deepseek-ai-deepseek-coder-33b-instruct", "text", false),
    ("lcpptest-mistralai-Mistral-7B-Instruct-v0.2-NOTE-Old-pre-", "text", false),
    ("lcpptest-mistralai-Mistral-7B-Instruct-v0.2-mistralai-v1-", "text", false),
    ("lcpptest-mistralai-Mistral-Large-Instruct-2411-mistralai-", "text", false),
    ("lcpptest-openchat-openchat-3.5-0106", "text", false),
    ("lenml-deepseek_v3", "deepseek", false),
    ("lenml-gemini", "text", false),
    ("lenml-gemma3", "text", false),
    ("lenml-llama3", "text", false),
    ("lenml-qwen3", "think + hermes", true),
    ("llama-cpp-deepseek-r1", "think + deepseek", true),
    ("llama-cpp-microsoft-Phi-4-mini-instruct", "phi", true),
    ("llama-cpp-rwkv-world", "think", false),
    ("meetkai-functionary-medium-v3.2", "functionary", false),
    ("meta-llama-Llama-3.1-8B-Instruct", "llama", true),
    ("meta-llama-Llama-3.2-3B-Instruct", "llama", true),
    ("meta-llama-Llama-3.3-70B-Instruct", "llama", true),
    ("mistralai-Ministral-3-14B-Reasoning-2512", "mistral-think + mistral-args", true),
    ("mistralai-Mistral-Nemo-Instruct-2407", "mistral-list", true),
    ("moonshotai-Kimi-K2", "kimi", true),
    ("muse-glimmer", "muse", true),
    ("openbmb-MiniCPM5-1B", "think + minicpm", true),
    ("poolside-Laguna-S-2.1", "think + glm", true),
    ("poolside-Laguna-XS-2.1", "think + glm", true),
    ("poolside-Laguna-XS.2", "think + glm", true),
    ("unsloth-Apriel-1.5", "apriel-steps + apriel", true),
    ("unsloth-mistral-Devstral-Small-2507", "mistral-args", true),
    ("upstage-Solar-Open-100B", "solar-think + solar", true),
];
