//! Tables of replies: for every syntax complete, truncated and malformed ones, cut in several ways.

use serde_json::{Value, json};

use super::{ReplyEvent, ReplyParser, ReplySyntax};

/// What a reply comes to, its deltas joined: `R` reasoning, `T` text, `C` a call's name, identifier and arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    R(String),
    T(String),
    C(String, Option<String>, String),
}

pub(super) fn r(text: &str) -> Part {
    Part::R(text.to_owned())
}

pub(super) fn t(text: &str) -> Part {
    Part::T(text.to_owned())
}

pub(super) fn c(name: &str, arguments: &str) -> Part {
    Part::C(name.to_owned(), None, arguments.to_owned())
}

fn ci(name: &str, id: &str, arguments: &str) -> Part {
    Part::C(name.to_owned(), Some(id.to_owned()), arguments.to_owned())
}

/// Joins events, and checks that those of a call come in order.
pub(super) fn join(events: Vec<ReplyEvent>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut open, mut calls) = (false, 0);
    for event in events {
        assert!(!open || matches!(event, ReplyEvent::CallArguments { .. } | ReplyEvent::CallEnds { .. }), "{event:?}");
        match (event, parts.last_mut()) {
            (ReplyEvent::Reasoning(text), Some(Part::R(last))) => last.push_str(&text),
            (ReplyEvent::Reasoning(text), _) => parts.push(Part::R(text)),
            (ReplyEvent::Text(text), Some(Part::T(last))) => last.push_str(&text),
            (ReplyEvent::Text(text), _) => parts.push(Part::T(text)),
            (ReplyEvent::CallBegins { index, name, id }, _) => {
                assert_eq!(index, calls);
                open = true;
                parts.push(Part::C(name, id, String::new()));
            }
            (ReplyEvent::CallArguments { index, json }, Some(Part::C(_, _, all))) => {
                assert_eq!(index, calls);
                all.push_str(&json);
            }
            (ReplyEvent::CallEnds { index }, Some(Part::C(_, _, all))) => {
                assert_eq!(index, calls);
                assert!(serde_json::from_str::<Value>(all).expect("arguments are JSON").is_object(), "{all}");
                (open, calls) = (false, calls + 1);
            }
            (event, last) => panic!("{event:?} after {last:?}"),
        }
    }
    assert!(!open);
    parts
}

/// Parses `chunks`.
pub(super) fn parse<'a>(mut parser: ReplyParser, chunks: impl IntoIterator<Item = &'a str>) -> Vec<Part> {
    let mut all = Vec::new();
    for chunk in chunks {
        let mut events = Vec::new();
        parser.push(chunk, &mut events);
        all.extend(events);
    }
    parser.finish(&mut all);
    join(all)
}

/// `text` cut into pieces of `n` characters.
pub(super) fn cut(text: &str, n: usize) -> Vec<&str> {
    let mut at: Vec<usize> = text.char_indices().map(|(at, _)| at).step_by(n).collect();
    at.push(text.len());
    at.windows(2).map(|w| &text[w[0]..w[1]]).collect()
}

fn named(name: &str) -> ReplySyntax {
    ReplySyntax::named(name).unwrap_or_else(|| panic!("{name}"))
}

/// Checks a reply at once and in pieces of 1, 3 and 7 characters.
fn check_with(syntax: &str, prompt: &str, tools: &[Value], reply: &str, expect: &[Part]) {
    for n in [usize::MAX, 1, 3, 7] {
        let parser = ReplyParser::new(&named(syntax), prompt).with_tools(tools);
        assert_eq!(parse(parser, cut(reply, n)), expect, "{syntax}: {reply:?} after {prompt:?}, by {n}");
    }
}

fn check(syntax: &str, prompt: &str, reply: &str, expect: &[Part]) {
    check_with(syntax, prompt, &[], reply, expect);
}

#[test]
fn reasoning() {
    let rows: &[(&str, &str, &str, &[Part])] = &[
        ("think", "\n", "<think>\nhmm\n</think>\n\nDone.", &[r("hmm"), t("Done.")]),
        ("think", "<think>\n", "a\n\nb\n</think>\n\nDone.\n", &[r("a\n\nb"), t("Done.\n")]),
        ("think", "<think>", "hmm</think>Done.", &[r("hmm"), t("Done.")]),
        ("think", "<think>\n\n</think>\n\n", "Done.", &[t("Done.")]),
        ("think", "<think>\n</think>", "\n\nDone.", &[t("Done.")]),
        ("think", "</think>", "Done.", &[t("Done.")]),
        // Truncated.
        ("think", "\n", "<think>\nhmm", &[r("hmm")]),
        ("think", "\n", "<think>\nhmm</thi", &[r("hmm</thi")]),
        ("think", "\n", "<thi", &[t("<thi")]),
        ("think", "<think>\n", "", &[]),
        // No marker, or not where one counts.
        ("think", "\n", "Done.", &[t("Done.")]),
        ("think", "\n", "The tags <think> and </think>.", &[t("The tags <think> and </think>.")]),
        ("think", "\n", "\n<think></think>\n\nDone.", &[t("Done.")]),
        ("think", "\n", "</think>\n\nDone.", &[t("Done.")]),
        ("think", "\n", "<thinking>no</thinking>", &[t("<thinking>no</thinking>")]),
        ("think-response", "\n", "<think>a</think><response>b</response>", &[r("a"), t("b")]),
        ("seed-think", "\n", "<seed:think>hmm</seed:think>\nDone.", &[r("hmm"), t("Done.")]),
        ("mm-think", "\n", "<mm:think>hmm</mm:think>Done.", &[r("hmm"), t("Done.")]),
        ("mm-think", "\n", "</mm:think>Done.", &[t("Done.")]),
        ("mistral-think", "[/INST]", "[THINK]hmm[/THINK]Done.", &[r("hmm"), t("Done.")]),
        ("mistral-think", "[/INST]", "a[THINK]b[/THINK]c", &[t("a"), r("b"), t("c")]),
        (
            "cohere-thinking",
            "<|CHATBOT_TOKEN|>",
            "<|START_THINKING|>hmm<|END_THINKING|><|START_RESPONSE|>Done.<|END_RESPONSE|>",
            &[r("hmm"), t("Done.")],
        ),
        ("cohere-thinking", "<|START_THINKING|><|END_THINKING|>", "<|START_RESPONSE|>a<|END_RESPONSE|>", &[t("a")]),
        ("gemma-channel", "\n", "<|channel>thought\nhmm<channel|>Done.", &[r("hmm"), t("Done.")]),
        ("gemma-channel", "<|channel>thought\n<channel|>", "Done.", &[t("Done.")]),
        ("apertus-inner", ">", "<|inner_prefix|>hmm<|inner_suffix|>Done.", &[r("hmm"), t("Done.")]),
        ("apriel-steps", "Here are my reasoning steps:\n", "hm\n[BEGIN FINAL RESPONSE]\nDone.", &[r("hm"), t("Done.")]),
        (
            "apriel-steps",
            "\n",
            "Here are my reasoning steps:\nhm\n[BEGIN FINAL RESPONSE]\nDone.\n[END FINAL RESPONSE]",
            &[r("hm"), t("Done.")],
        ),
    ];
    for (syntax, prompt, reply, expect) in rows {
        check(syntax, prompt, reply, expect);
    }
}

#[test]
fn spaces() {
    // Text without any syntax is not touched, but for the space that belongs to the prompt.
    check("text", "\n", " a \n b \n", &[t(" a \n b \n")]);
    check("text", "Assistant:", " a ", &[t("a ")]);
    check("text", "Assistant:", "\na", &[t("\na")]);
    check("hermes", "\n", "\n a \n b \n", &[t("\n a \n b \n")]);
    check("hermes", "\n", " \n", &[t(" \n")]);
    check("think", "<think>\n", "\n \n</think>\n\n", &[]);
    check("think + hermes", "\n", "\n<tool_call>", &[t("\n<tool_call>")]);
}

/// `(syntax, what a prompt ends with, a complete call, its parts)`: calls as templates write them.
pub(super) fn complete() -> Vec<(&'static str, &'static str, &'static str, Vec<Part>)> {
    let city = r#"{"city": "Zü \"q\" <b>", "days": 2}"#;
    let both = || vec![t("Let me."), c("f", r#"{"a": 1}"#), c("g", "{}")];
    vec![
        ("hermes", "\n", HERMES, both()),
        (
            "hermes",
            "\n",
            "<tool_call>{\"arguments\": {\"x\": \"</tool_call>\"}, \"name\": \"f\"}</tool_call>\nand",
            vec![c("f", r#"{"x": "</tool_call>"}"#), t("and")],
        ),
        ("hermes", "\n", r#"<tool_call>{"name": "f"}</tool_call>"#, vec![c("f", "{}")]),
        (
            "hermes",
            "\n",
            r#"<tool_call>{"name": "f", "arguments": "{\"a\":1}"}</tool_call>"#,
            vec![c("f", r#"{"a":1}"#)],
        ),
        (
            "think + hermes",
            "<think>\n",
            "I call <tool_call>\n</think>\n\n<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>",
            vec![r("I call <tool_call>"), c("f", "{}")],
        ),
        (
            "apriel",
            "\n",
            r#"Let me.
<tool_calls>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]</tool_calls>"#,
            both(),
        ),
        (
            "phi",
            ">",
            r#"Let me.<|tool_call|>{"name": "f", "arguments": {"a": 1}}<|/tool_call|><|tool_call|>[{"name": "g", "arguments": {}}]<|/tool_call|>"#,
            both(),
        ),
        (
            "granite",
            ">",
            r#"Let me.<|tool_call|>[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
            both(),
        ),
        ("gigachat", "\n", r#"Let me.<|function_call|>{"name": "f", "arguments": {"a": 1}}"#, both()[..2].to_vec()),
        (
            "functools",
            "\n",
            r#"Let me. functools[{"name": "f", "arguments": {"a": 1}}, {"name": "g", "arguments": {}}]"#,
            both(),
        ),
        ("apertus", ">", r#"Let me.<|tools_prefix|>[{"f": {"a": 1}}, {"g": {}}]<|tools_suffix|>"#, both()),
        (
            "command-r",
            ">",
            "Let me.\nAction:\n```json\n[\n    {\n        \"tool_name\": \"f\",\n        \"parameters\": {\"a\": 1}\n    },\n    {\n        \"tool_name\": \"g\",\n        \"parameters\": {}\n    }\n]```\n",
            both(),
        ),
        (
            "cohere-thinking + command-r7b",
            ">",
            "<|START_THINKING|>hmm<|END_THINKING|><|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"f\", \"parameters\": {\"a\": 1}},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"g\", \"parameters\": {}}\n]<|END_ACTION|>",
            vec![r("hmm"), ci("f", "0", r#"{"a": 1}"#), ci("g", "1", "{}")],
        ),
        (
            "mistral-list",
            "[/INST]",
            r#"[TOOL_CALLS] [{"name": "f", "arguments": {"a": 1}, "id": "callabcd1"}, {"name": "g", "arguments": {}}]"#,
            vec![ci("f", "callabcd1", r#"{"a": 1}"#), c("g", "{}")],
        ),
        ("mistral-args", "[/INST]", r#"Let me.[TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[ARGS]{}"#, both()),
        (
            "mistral-args",
            "[/INST]",
            r#"[TOOL_CALLS]f[CALL_ID]callabcd1[ARGS]{"a": 1}"#,
            vec![ci("f", "callabcd1", r#"{"a": 1}"#)],
        ),
        (
            "deepseek",
            ">",
            "Let me.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\": 1}\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            both(),
        ),
        (
            "deepseek",
            ">",
            "Let me.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
            both(),
        ),
        (
            "think + dsml",
            "<think>",
            "hmm</think>Let me.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"f\">\n<｜DSML｜parameter name=\"s\" string=\"true\">5</｜DSML｜parameter>\n<｜DSML｜parameter name=\"n\" string=\"false\">[1, 2]</｜DSML｜parameter>\n</｜DSML｜invoke>\n<｜DSML｜invoke name=\"g\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"s":"5","n":[1, 2]}"#), c("g", "{}")],
        ),
        (
            "think + dsml",
            "</think>",
            "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"g\">\n\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
            vec![c("g", "{}")],
        ),
        (
            "minimax",
            "\n",
            "Let me.\n<minimax:tool_call>\n<invoke name=\"f\">\n<parameter name=\"a\">1</parameter>\n<parameter name=\"city\">Zü \"q\" <b></parameter>\n<parameter name=\"n\">null</parameter>\n</invoke>\n<invoke name=\"g\">\n</invoke>\n</minimax:tool_call>",
            vec![t("Let me."), c("f", r#"{"a":1,"city":"Zü \"q\" <b>","n":null}"#), c("g", "{}")],
        ),
        (
            "mm-think + minimax-nested",
            "\n",
            "<mm:think>hmm</mm:think>Let me.]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"f\">]<]minimax[>[<city>Zü <b>]<]minimax[>[</city>]<]minimax[>[<o>]<]minimax[>[<a>]<]minimax[>[<item>1]<]minimax[>[</item>]<]minimax[>[<item>b]<]minimax[>[</item>]<]minimax[>[</a>]<]minimax[>[</o>]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"city":"Zü <b>","o":{"a":[1,"b"]}}"#)],
        ),
        (
            "kimi",
            ">",
            r#"Let me.<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{"a": 1}<|tool_call_end|><|tool_call_begin|>functions.g:1<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"#,
            vec![t("Let me."), ci("f", "functions.f:0", r#"{"a": 1}"#), ci("g", "functions.g:1", "{}")],
        ),
        // A control token ends reasoning.
        (
            "think + kimi",
            "<think>",
            r#"hmm <|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|><|tool_calls_section_end|>"#,
            vec![r("hmm"), ci("f", "functions.f:0", "{}")],
        ),
        (
            "glm",
            "\n",
            "Let me.\n<tool_call>f\n<arg_key>city</arg_key>\n<arg_value>Zü \"q\" <b></arg_value>\n<arg_key>days</arg_key>\n<arg_value>2</arg_value>\n<arg_key>o</arg_key>\n<arg_value>{\"a\": [1, \"b\"]}</arg_value>\n</tool_call>\n<tool_call>g\n</tool_call>",
            vec![t("Let me."), c("f", r#"{"city":"Zü \"q\" <b>","days":2,"o":{"a": [1, "b"]}}"#), c("g", "{}")],
        ),
        (
            "think + glm",
            "<think>",
            "hmm</think><tool_call>f<arg_key>a</arg_key><arg_value>x</arg_value></tool_call><tool_call>g</tool_call>",
            vec![r("hmm"), c("f", r#"{"a":"x"}"#), c("g", "{}")],
        ),
        (
            "xml-function",
            "\n",
            "Let me.\n\n<tool_call>\n<function=f>\n<parameter=city>\nZü \"q\" <b>\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=t>\nTrue\n</parameter>\n<parameter=n>\nNone\n</parameter>\n<parameter=m>\n a\nb \n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=g>\n</function>\n</tool_call>",
            vec![
                t("Let me."),
                c("f", r#"{"city":"Zü \"q\" <b>","days":2,"t":true,"n":null,"m":" a\nb "}"#),
                c("g", "{}"),
            ],
        ),
        (
            "xml-function",
            "\n",
            "<function=f>\n<parameter=a>\n1\n</parameter>\n</function>\n",
            vec![c("f", r#"{"a":1}"#)],
        ),
        (
            "seed-think + seed",
            "\n",
            "<seed:think>hmm</seed:think>\nLet me.\n\n<seed:tool_call>\n<function=f>\n<parameter=o>{'a': [1, 'b']}</parameter>\n</function>\n</seed:tool_call>",
            vec![r("hmm"), t("Let me."), c("f", r#"{"o":{"a":[1,"b"]}}"#)],
        ),
        (
            "minicpm",
            "\n",
            "Let me.\n<function name=\"f\"><param name=\"city\"><![CDATA[Zü <b>]]></param><param name=\"d\">2</param><param name=\"t\">True</param></function>\n<function name=\"g\"></function>",
            vec![t("Let me."), c("f", r#"{"city":"Zü <b>","d":2,"t":true}"#), c("g", "{}")],
        ),
        (
            "pythonic",
            "\n",
            r#"Let me.<|tool_call_start|>[f(city='Zü "q"', days=2, x=-1.5, t=True, n=None, o={"a": [1, 'b)']}), g()]<|tool_call_end|>"#,
            vec![
                t("Let me."),
                c("f", r#"{"city":"Zü \"q\"","days":2,"x":-1.5,"t":true,"n":null,"o":{"a":[1,"b)"]}}"#),
                c("g", "{}"),
            ],
        ),
        (
            "gemma-channel + gemma",
            "\n",
            "<|channel>thought\nhmm<channel|><|tool_call>call:f{city:<|\"|>Zü \"q\" {<|\"|>,days:2,f:true,n:None,o:{a:[1,<|\"|>b<|\"|>]}}<tool_call|><|tool_call>call:g{}<tool_call|>Let me.",
            vec![
                r("hmm"),
                c("f", r#"{"city":"Zü \"q\" {","days":2,"f":true,"n":null,"o":{"a":[1,"b"]}}"#),
                c("g", "{}"),
                t("Let me."),
            ],
        ),
        (
            "solar-think + solar",
            "<|begin|>assistant",
            r#"<|think|>hmm<|end|><|begin|>assistant<|tool_calls|><|tool_call:begin|>callabcd1<|tool_call:name|>f<|tool_call:args|>{"a": 1}<|tool_call:end|><|tool_call:begin|>2<|tool_call:name|>g<|tool_call:args|>{}<|tool_call:end|><|calls|>"#,
            vec![r("hmm"), ci("f", "callabcd1", r#"{"a": 1}"#), ci("g", "2", "{}")],
        ),
        (
            "solar-think + solar",
            "<|begin|>assistant",
            "<|think|>hmm<|end|><|begin|>assistant<|content|>Done.",
            vec![r("hmm"), t("Done.")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>User says hi.<|end|><|start|>assistant<|channel|>final<|message|>Hello! 👋🏽",
            vec![r("User says hi."), t("Hello! 👋🏽")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>Need weather.<|end|><|start|>assistant<|channel|>commentary to=functions.f <|constrain|>json<|message|>{\"city\":\"Zürich\"}",
            vec![r("Need weather."), c("f", r#"{"city":"Zürich"}"#)],
        ),
        (
            "harmony",
            "<|start|>assistant",
            " to=functions.f<|channel|>commentary json<|message|>{}<|call|>",
            vec![c("f", "{}")],
        ),
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>commentary<|message|>I call.<|end|><|start|>assistant<|channel|>commentary to=functions.f json<|message|>{}",
            vec![t("I call."), c("f", "{}")],
        ),
        ("harmony", "<|channel|>final<|message|>", "Done.", vec![t("Done.")]),
        (
            "muse",
            "<|start|>assistant",
            " to=self<|message|>hmm<|eom|><|start|>assistant to=f<|message|><atem:function_calls>\n<atem:invoke name=\"f\">\n<atem:parameter name=\"a\">x</atem:parameter>\n</atem:invoke>\n</atem:function_calls><|eom|><|start|>assistant to=user<|message|>Done.",
            vec![r("hmm"), c("f", r#"{"a":"x"}"#), t("Done.")],
        ),
        ("functionary", ">>>", "all\nLet me.>>>f\n{\"a\": 1}>>>g\n{}", both()),
        ("functionary", ">>>", "all\nType >>> to begin.", vec![t("Type >>> to begin.")]),
        ("llama", TOOLS, r#"{"name": "f", "parameters": {"city": "Zü \"q\" <b>", "days": 2}}"#, vec![c("f", city)]),
        ("llama", TOOLS, r#"<|python_tag|>{"type": "function", "name": "f", "parameters": {}}"#, vec![c("f", "{}")]),
        ("llama", TOOLS, "<|python_tag|>brave.search.call(query=\"a)\")", vec![c("brave.search", r#"{"query":"a)"}"#)]),
    ]
}

const HERMES: &str = "Let me.\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_call>";
const TOOLS: &str = "\"parameters\": dictionary of argument name and its value}\n\n";

#[test]
fn calls() {
    for (syntax, prompt, reply, expect) in complete() {
        check(syntax, prompt, reply, &expect);
    }
}

/// Replies that look like calls and are none. All of their text comes out, but for spaces at their ends.
#[test]
fn malformed() {
    let rows: &[(&str, &str, &str)] = &[
        ("hermes", "\n", "<tool_call>\nget_weather()\n</tool_call>"),
        ("hermes", "\n", "<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": 1}\n</tool_call>"),
        ("hermes", "\n", "<tool_call>\n{\"name\": \"f\", \"arguments\": {'a': 1}}\n</tool_call>"),
        ("hermes", "\n", "<tool_call>{\"name\": \"f\", \"arguments\": [1]}</tool_call>"),
        ("hermes", "\n", "<tool_call>{\"arguments\": {}}</tool_call>"),
        ("hermes", "\n", "<tool_call>{\"name\": \"f\"} and </tool_call>"),
        ("hermes", "\n", "<tool_call>[]</tool_call>"),
        ("hermes", "\n", "a <tool_call> b"),
        ("glm", "\n", "<tool_call>not a call</tool_call>"),
        ("glm", "\n", "<tool_call>f<arg_key>a</arg_key>x</tool_call>"),
        ("glm", "\n", "<tool_call></tool_call>"),
        ("xml-function", "\n", "<tool_call>\n{\"name\": \"f\"}\n</tool_call>"),
        ("xml-function", "\n", "<tool_call>\n<function=f>\nx\n</function>\n</tool_call>"),
        ("xml-function", "\n", "<tool_call></tool_call>"),
        ("seed", "\n", "<seed:tool_call><function=></function></seed:tool_call>"),
        ("minimax", "\n", "<minimax:tool_call>\n</minimax:tool_call>"),
        (
            "minimax-nested",
            "\n",
            "]<]minimax[>[<tool_call>]<]minimax[>[<invoke name=\"f\">]<]minimax[>[<a>1]<]minimax[>[</b>",
        ),
        (
            "dsml",
            "\n",
            "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"false\">x</｜DSML｜parameter>",
        ),
        ("minicpm", "\n", "<function name=\"f\">x</function>"),
        ("mistral-list", "]", "[TOOL_CALLS] f"),
        ("mistral-args", "]", "[TOOL_CALLS][{\"name\": \"f\"}]"),
        ("mistral-args", "]", "[TOOL_CALLS]f[ARGS][1]"),
        ("deepseek", ">", "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{\"a\" 1}<｜tool▁call▁end｜>"),
        ("deepseek", ">", "<｜tool▁calls▁begin｜><｜tool▁calls▁end｜>"),
        ("kimi", ">", "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_end|>"),
        ("solar", ">", "<|tool_calls|><|tool_call:begin|>1<|tool_call:name|><|tool_call:args|>{}"),
        ("functools", ">", "functools are nice"),
        ("command-r", ">", "Action: none"),
        ("command-r", ">", "Action:\n```python\n[]```"),
        ("apertus", ">", "<|tools_prefix|>[{\"f\": {}, \"g\": {}}]<|tools_suffix|>"),
        ("pythonic", "\n", "<|tool_call_start|>[f(1)]<|tool_call_end|>"),
        ("pythonic", "\n", "<|tool_call_start|>[f(a=x)]<|tool_call_end|>"),
        ("pythonic", "\n", "<|tool_call_start|>f<|tool_call_end|>"),
        ("gemma", "\n", "<|tool_call>call:f{a:x}<tool_call|>"),
        ("gemma", "\n", "<|tool_call>f{}<tool_call|>"),
        ("functionary", ">>>", "f\nno JSON"),
        ("harmony", "<|start|>assistant", "Hello, no heading."),
        ("harmony", "<|start|>assistant", "<|channel|>commentary to=functions.f <|constrain|>json<|message|>print(1)"),
        ("llama", TOOLS, "{\"answer\": 1}"),
        ("llama", TOOLS, "{\"name\": \"Bob\", \"age\": 1"),
        ("llama", "\n", "{\"name\": \"f\", \"parameters\": {}}"),
        ("llama", TOOLS, "<|python_tag|>print(1)"),
    ];
    for (syntax, prompt, reply) in rows {
        check(syntax, prompt, reply, &[t(reply)]);
    }
}

/// Every beginning of every complete reply: complete calls stay, the rest comes out as text, and nothing else is there.
#[test]
fn truncated() {
    for (syntax, prompt, reply, expect) in complete() {
        for (at, _) in reply.char_indices() {
            let cut_off = &reply[..at];
            let whole = parse(ReplyParser::new(&named(syntax), prompt), [cut_off]);
            assert_eq!(
                whole,
                parse(ReplyParser::new(&named(syntax), prompt), cut(cut_off, 1)),
                "{syntax}: {cut_off:?}"
            );
            let calls =
                |parts: &[Part]| -> Vec<Part> { parts.iter().filter(|p| matches!(p, Part::C(..))).cloned().collect() };
            let (found, all) = (calls(&whole), calls(&expect));
            assert_eq!(found, all[..found.len()], "{syntax}: {cut_off:?}");
            if found.is_empty() && expect.iter().all(|p| !matches!(p, Part::R(_))) && syntax != "functionary" {
                let text: String = whole.iter().map(|p| if let Part::T(text) = p { text } else { "" }).collect();
                let squeezed = |text: &str| text.split_whitespace().collect::<String>();
                let lost = squeezed(cut_off).len() - squeezed(&text).len();
                assert!(lost == 0 || ["harmony", "muse"].contains(&syntax), "{syntax}: {cut_off:?} gave {text:?}");
            }
        }
    }
}

/// The first call is complete, the second is not: only the second is text.
#[test]
fn complete_calls_survive() {
    check(
        "hermes",
        "\n",
        &format!("{}x", &HERMES[..HERMES.len() - 1]),
        &[t("Let me."), c("f", r#"{"a": 1}"#), t("<tool_call>\n{\"name\": \"g\", \"arguments\": {}}\n</tool_callx")],
    );
    check(
        "kimi",
        ">",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_call_end|>no",
        &[ci("f", "functions.f:0", "{}"), t("no")],
    );
    check(
        "hermes",
        "\n",
        "<tool_call>\n<tool_call>\n{\"name\": \"f\"}\n</tool_call>",
        &[t("<tool_call>"), c("f", "{}")],
    );
}

/// Values of bare text, by the tool's schema.
#[test]
fn types_of_parameters() {
    let tools = [json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {
        "s": {"type": "string"}, "i": {"type": "integer"}, "e": {"enum": ["1", "2"]}, "b": {"type": ["boolean", "null"]},
        "any": {}, "both": {"type": ["string", "integer"]}
    }}}})];
    let row = |key: &str, value: &str| {
        format!("<tool_call>f<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>")
    };
    let rows = [
        ("s", "5", r#""5""#),
        ("s", "{\"a\": 1}", r#""{\"a\": 1}""#),
        ("s", "null", r#""null""#),
        ("s", "\"quoted\"", r#""\"quoted\"""#),
        ("i", "5", "5"),
        ("i", "five", r#""five""#),
        ("e", "1", r#""1""#),
        ("b", "true", "true"),
        ("b", "null", "null"),
        ("any", "5", "5"),
        ("both", "5", "5"),
        ("unknown", "5", "5"),
        ("unknown", "05", r#""05""#),
        ("unknown", "True", r#""True""#),
        ("unknown", "[1, 2]", "[1, 2]"),
    ];
    for (key, value, expect) in rows {
        let arguments = format!("{{\"{key}\":{expect}}}");
        check_with("glm", "\n", &tools, &row(key, value), &[c("f", &arguments)]);
    }
    // Tools of an unknown form.
    check_with("glm", "\n", &[json!(1), json!({"name": 2})], &row("s", "5"), &[c("f", r#"{"s":5}"#)]);
}

#[test]
fn nothing_is_held_without_need() {
    let mut parser = ReplyParser::new(&named("think + hermes"), "\n");
    let mut given = |text: &str| {
        let mut events = Vec::new();
        parser.push(text, &mut events);
        join(events)
    };
    assert_eq!(given("<thi"), []);
    assert_eq!(given("nk>hm"), [r("hm")]);
    assert_eq!(given("m <"), [r("m")]);
    assert_eq!(given("/think>"), [r(" <")][..0]);
    assert_eq!(given("Hello"), [t("Hello")]);
    assert_eq!(given(" <"), []);
    assert_eq!(given("b"), [t(" <b")]);
    assert_eq!(given("<tool_call>{"), []);
    assert_eq!(given("\"name\" x"), [t("<tool_call>{\"name\" x")]);
    assert_eq!(given("<tool_call>{\"name\": \"f\"}"), []);
    assert_eq!(given("</tool_call>"), [c("f", "{}")]);
}
