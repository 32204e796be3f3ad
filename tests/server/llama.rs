//! llama-server's own routes.

use std::fs;

use serde_json::{Value, json};

use super::{
    cli_support::{copy, serving::Serving},
    say, serve, with,
};

const COMPLETION: &str = "/completion";

/// Asks for it whole and as events, which must say the same; the whole answer.
#[track_caller]
fn both(server: &Serving, path: &str, body: &Value) -> Value {
    let whole = server.post(path, &with(body, json!({ "return_tokens": true })));
    let events = server.open_stream(path, &with(body, json!({ "stream": true })));
    let (last, before) = events.split_last().unwrap();
    assert!(last["stop"] == true && before.iter().all(|event| event["stop"] == false), "{events:?}");
    let joined: String = events.iter().map(|event| event["content"].as_str().unwrap()).collect();
    assert_eq!(joined, whole["content"]);
    for name in
        ["stop_type", "stopping_word", "tokens_predicted", "tokens_evaluated", "prompt", "has_new_line", "model"]
    {
        assert_eq!(last[name], whole[name], "{name}");
    }
    for name in ["prompt_n", "prompt_ms", "predicted_n", "predicted_ms", "cache_n"] {
        assert!(whole["timings"][name].is_number() && last["timings"][name].is_number(), "{name}: {whole}");
    }
    let rows = |all: &[Value]| -> Vec<Value> {
        all.iter().filter_map(|event| event["completion_probabilities"].as_array()).flatten().cloned().collect()
    };
    assert_eq!(rows(&events), rows(std::slice::from_ref(&whole)));
    whole
}

#[test]
fn texts_are_continued() {
    let server = serve(&[]);
    let body = json!({ "prompt": "Hello", "n_predict": 20, "seed": 5, "ignore_eos": true, "cache_prompt": true,
        "mirostat": 0, "typical_p": 1.0, "dry_multiplier": 0.0, "xtc_probability": 0, "n_probs": 2 });
    let whole = both(&server, COMPLETION, &body);
    assert_eq!((&whole["stop_type"], &whole["tokens_predicted"]), (&json!("limit"), &json!(20)));
    assert_eq!((&whole["prompt"], &whole["truncated"], &whole["index"]), (&json!("Hello"), &json!(false), &json!(0)));
    assert_eq!(whole["generation_settings"]["n_predict"], 20);
    let tokens = whole["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 20);
    let rows = whole["completion_probabilities"].as_array().unwrap();
    for (row, id) in rows.iter().zip(tokens) {
        assert_eq!((&row["id"], row["top_logprobs"].as_array().unwrap().len()), (id, 2));
        assert!(row["logprob"].as_f64().unwrap() <= 0.0 && row["bytes"].is_array());
    }
    // OpenAI's route says the same, and so do ids, and texts with ids.
    let theirs = json!({ "prompt": "Hello", "max_tokens": 20, "seed": 5, "ignore_eos": true });
    let text = whole["content"].as_str().unwrap();
    assert_eq!(server.post("/v1/completions", &theirs)["choices"][0]["text"], text);
    let ids = server.post("/tokenize", &json!({ "content": "Hello", "add_special": true }))["tokens"].clone();
    let ids = ids.as_array().unwrap();
    let rest = server.post("/detokenize", &json!({ "tokens": ids[1..] }))["content"].clone();
    for prompt in [json!(ids), json!([ids[0], rest])] {
        assert_eq!(server.post(COMPLETION, &with(&body, json!({ "prompt": prompt })))["content"], text, "{prompt}");
    }
    // Several prompts have several answers.
    let several = server.post("/completions", &with(&body, json!({ "prompt": ["Hello", "abc"] })));
    let several = several.as_array().unwrap();
    assert_eq!((several.len(), &several[0]["content"], &several[1]["index"]), (2, &whole["content"], &json!(1)));
    // A stop text, and a form.
    let stop: String = text.chars().skip(4).take(3).collect();
    let stopped = both(&server, COMPLETION, &with(&body, json!({ "stop": [stop] })));
    assert_eq!((&stopped["stop_type"], &stopped["stopping_word"]), (&json!("word"), &json!(stop)));
    assert!(text.starts_with(stopped["content"].as_str().unwrap()));
    let digits = with(&body, json!({ "grammar": "root ::= [0-9] [0-9]", "ignore_eos": false }));
    let digits = server.post(COMPLETION, &digits)["content"].as_str().unwrap().to_owned();
    assert!(digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()), "{digits:?}");
    server.stop();
}

#[test]
fn what_cannot_be_served_is_named() {
    let server = serve(&[]);
    for (path, body, field) in [
        (COMPLETION, json!({}), "prompt"),
        (COMPLETION, json!({ "prompt": "a", "mirostat": 2 }), "mirostat"),
        (COMPLETION, json!({ "prompt": "a", "dry_multiplier": 0.8 }), "dry_multiplier"),
        (COMPLETION, json!({ "prompt": "a", "n_probs": 1000 }), "n_probs"),
        (COMPLETION, json!({ "prompt": [1, {}] }), "prompt"),
        ("/infill", json!({ "input_suffix": "b" }), "input_prefix"),
        ("/infill", json!({ "input_prefix": "a", "input_suffix": "b", "input_extra": [{}] }), "input_extra[0].text"),
        // The model has no marks of a gap.
        ("/infill", json!({ "input_prefix": "a", "input_suffix": "b" }), "input_suffix"),
        ("/apply-template", json!({}), "messages"),
    ] {
        let response = server.request("POST", path, "", &body.to_string());
        let error: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!((response.status, &error["error"]["param"]), (400, &json!(field)), "{path} {body}: {error}");
    }
    server.stop();
}

#[test]
fn conversations_are_rendered_and_the_tokenizer_is_described() {
    let server = serve(&[]);
    let body = json!({ "messages": say("Hello") });
    let prompt = server.post("/apply-template", &body)["prompt"].clone();
    assert!(prompt.as_str().unwrap().contains("Hello"), "{prompt}");
    let chat = with(&body, json!({ "max_tokens": 1 }));
    let chat = server.post("/v1/chat/completions", &chat)["usage"]["prompt_tokens"].clone();
    let ids = server.post("/tokenize", &json!({ "content": prompt }))["count"].clone();
    assert_eq!(ids, chat);
    let info = server.get("/tokenizer_info");
    assert_eq!((&info["bos_token"], &info["eos_token"]), (&json!("<s>"), &json!("</s>")));
    assert_eq!(info["chat_template"], server.get("/props")["chat_template"]);
    server.stop();
}

#[test]
fn gaps_are_filled() {
    let folder = copy("llama3");
    let path = folder.path().join("tokenizer.json");
    let mut tokenizer: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    // Three words become marks.
    let marks = ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"].map(str::to_owned);
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let words: Vec<(String, Value)> =
        vocab.iter().filter(|(_, id)| id.as_u64() > Some(284)).map(|(w, id)| (w.clone(), id.clone())).collect();
    assert_eq!(words.len(), 3);
    for ((word, id), mark) in words.iter().zip(&marks) {
        vocab.remove(word);
        vocab.insert(mark.clone(), id.clone());
    }
    let joined = |merge: &Value| match merge {
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect::<String>(),
        merge => merge.as_str().unwrap_or_default().replacen(' ', "", 1),
    };
    let merges = tokenizer["model"]["merges"].as_array_mut().unwrap();
    merges.retain(|merge| words.iter().all(|(word, _)| joined(merge) != *word));
    let added = tokenizer["added_tokens"].as_array_mut().unwrap();
    for ((_, id), mark) in words.iter().zip(&marks) {
        let token = with(&added[0], json!({ "id": id, "content": mark }));
        added.push(token);
    }
    fs::write(&path, tokenizer.to_string()).unwrap();
    let server = Serving::start(&[folder.path().to_str().unwrap(), "--ctx", "512"]);

    let options = json!({ "n_predict": 12, "max_tokens": 12, "seed": 3, "ignore_eos": true, "temperature": 0 });
    let body = with(&options, json!({ "input_prefix": "fn a(", "input_suffix": ") {}" }));
    let filled = both(&server, "/infill", &body)["content"].clone();
    let prompt = "<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>";
    assert_eq!(server.post(COMPLETION, &with(&options, json!({ "prompt": prompt })))["content"], filled);
    let gap = json!({ "prompt": "fn a(", "suffix": ") {}" });
    assert_eq!(server.post("/v1/completions", &with(&options, gap.clone()))["choices"][0]["text"], filled);
    let options = json!({ "num_predict": 12, "temperature": 0, "seed": 3, "logit_bias": { "2": -100 } });
    let theirs = with(&gap, json!({ "stream": false, "options": options }));
    assert_eq!(server.post("/api/generate", &theirs)["response"], filled);
    // Other files, and the start of what fills the gap.
    let more = json!({ "input_extra": [{ "filename": "b.rs", "text": "fn b() {}\n" }], "prompt": "x" });
    let more = server.post("/infill", &with(&body, more));
    let prompt = "b.rs\nfn b() {}\n<|fim_prefix|>fn a(<|fim_suffix|>) {}<|fim_middle|>x";
    let count = server.post("/tokenize", &json!({ "content": prompt, "add_special": true }))["count"].clone();
    assert_eq!(more["tokens_evaluated"], count);
    server.stop();
}
