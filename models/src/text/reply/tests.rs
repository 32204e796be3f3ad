//! Tables of replies: for every syntax complete, truncated and malformed ones, cut in several ways.

use serde_json::{Value, json};

use super::tests_complete::{HERMES, TOOLS, complete};
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

pub(super) fn ci(name: &str, id: &str, arguments: &str) -> Part {
    Part::C(name.to_owned(), Some(id.to_owned()), arguments.to_owned())
}

/// Joins events, and checks that those of a call come in order.
pub(super) fn join(events: Vec<ReplyEvent>) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let (mut open, mut calls) = (false, 0);
    for event in events {
        assert!(
            !open || matches!(event, ReplyEvent::CallArguments { .. } | ReplyEvent::CallEnds { .. }),
            "{e\
            vent:?}"
        );
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

/// Parses `chunks`, after which the model ended its turn.
pub(super) fn parse<'a>(parser: ReplyParser, chunks: impl IntoIterator<Item = &'a str>) -> Vec<Part> {
    parse_to(true, parser, chunks)
}

/// Parses `chunks`; `complete` says whether the model ended its turn after them.
fn parse_to<'a>(complete: bool, mut parser: ReplyParser, chunks: impl IntoIterator<Item = &'a str>) -> Vec<Part> {
    let mut all = Vec::new();
    for chunk in chunks {
        let mut events = Vec::new();
        parser.push(chunk, &mut events);
        all.extend(events);
    }
    parser.finish(complete, &mut all);
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
        ("harmony", "<|start|>assistant", "<|channel|>analysis<|message|>half a thou", &[r("half a thou")]),
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
        (
            "apriel-steps",
            "Here are my reasoning steps:\n",
            "hm\n[BEGIN FINAL RESPONSE]\nDone.",
            &[
                r("hm"),
                t("D\
            one."),
            ],
        ),
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
            "]<]minimax[>[<tool_call>]<]minimax[>[<invoke name=\"f\">]<]minimax\
            [>[<a>1]<]minimax[>[</b>",
        ),
        (
            "dsml",
            "\n",
            "<｜DSML｜tool_calls><｜DSML｜invoke name=\"f\"><｜DSML｜parameter name=\"a\" string=\"false\
            \">x</｜DSML｜parameter>",
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
        (
            "harmony",
            "<|start|>assistant",
            "<|channel|>commentary to=functions.f <|constrain|>json<|message|>p\
            rint(1)",
        ),
        ("llama", TOOLS, "{\"answer\": 1}"),
        ("llama", TOOLS, "{\"name\": \"Bob\", \"age\": 1"),
        ("llama", "\n", "{\"name\": \"f\", \"parameters\": {}}"),
        ("llama", "\n", "<|python_tag|>{\"name\": print(1)"),
        ("llama", "\n", "<|python_tag|><|eom_id|>"),
        ("functionary", ">>>", "f\nprint(1)"),
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
            let parser = || ReplyParser::new(&named(syntax), prompt);
            let whole = parse_to(false, parser(), [cut_off]);
            assert_eq!(whole, parse_to(false, parser(), cut(cut_off, 1)), "{syntax}: {cut_off:?}");
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

/// Code for a tool has no end but the turn's: where a limit cuts the reply off, it is text.
#[test]
fn code_that_is_cut_off_is_no_call() {
    for (syntax, prompt, reply) in [
        ("llama", TOOLS, "<|python_tag|>import os\nos.remove(\"a"),
        ("llama", TOOLS, "<|python_tag|>brave_search.call(query=\"a\")"),
        ("harmony", "<|start|>assistant", "<|channel|>analysis to=python code<|message|>print(1"),
        ("functionary", ">>>", "python\nprint(1"),
    ] {
        for n in [usize::MAX, 1] {
            let parts = parse_to(false, ReplyParser::new(&named(syntax), prompt), cut(reply, n));
            assert_eq!(parts, [t(reply)], "{syntax}");
        }
    }
    // Its own end marker completes it, whatever ended the reply.
    let reply = "<|channel|>analysis to=python code<|message|>print(1)<|call|>";
    let parser = ReplyParser::new(&named("harmony"), "<|start|>assistant");
    assert_eq!(parse_to(false, parser, [reply]), [c("python", r#"{"code": "print(1)"}"#)]);
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
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.f:0<|tool_call_argument_begin|>{}<|tool_cal\
            l_end|>no",
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
        "s": {"type": "string"}, "i": {"type": "integer"}, "e": {"enum": ["1", "2"]}, "b": {"type": ["boolean", "n\
            ull"]},
        "any": {}, "both": {"type": ["string", "integer"]}
    }}}})];
    let row = |key: &str, value: &str| {
        format!(
            "<tool_call>f<arg_key>{key}</arg_key><arg_value>{value}\
        </arg_value></tool_call>"
        )
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

/// Values nested deeper than readers of JSON allow are no values.
#[test]
fn deep_values() {
    for n in [50, 110, 125, 1000] {
        let nested = format!("{}{}", "[".repeat(n), "]".repeat(n));
        let json = format!("<tool_call>{{\"name\": \"f\", \"arguments\": {{\"a\": {nested}}}}}</tool_call>");
        let bare = format!("<tool_call>f<arg_key>a</arg_key><arg_value>{nested}</arg_value></tool_call>");
        let deep = n > 110;
        let arguments = if deep { format!("{{\"a\":\"{nested}\"}}") } else { format!("{{\"a\":{nested}}}") };
        check("glm", "\n", &bare, &[c("f", &arguments)]);
        let call = c("f", &format!("{{\"a\": {nested}}}"));
        check("hermes", "\n", &json, &[if deep { t(&json) } else { call }]);
        let python = format!("<|tool_call_start|>[f(a={nested})]<|tool_call_end|>");
        check("pythonic", "\n", &python, &[if n > 90 { t(&python) } else { c("f", &arguments) }]);
    }
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
