//! Templates and conversations that somebody wrote to do harm.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::super::error::TextError;
use super::{ChatTemplate, Conversation, LocalTime};

fn render(source: &str, messages: Value) -> Result<String, TextError> {
    let conversation = Conversation::from_json(&json!({ "messages": messages }).to_string())?;
    let now = LocalTime::new(2025, 6, 17, 9, 30, 0).expect("a time");
    Ok(ChatTemplate::from_jinja("hostile.jinja", source)?.render(&conversation, now)?.text())
}

/// The error that `source` gives in a bounded time.
fn error(source: &str) -> String {
    let start = Instant::now();
    let error = render(source, json!([{ "role": "user", "content": "hi" }])).expect_err(source).to_string();
    assert!(start.elapsed() < Duration::from_secs(60), "{source}: {:?}", start.elapsed());
    assert!(error.starts_with("hostile.jinja: "), "{error}");
    error
}

#[test]
fn work_without_end_is_ended() {
    for source in [
        "{% for i in range(100000) %}{% for j in range(100000) %}{% endfor %}{% endfor %}",
        "{% for i in range(1000000000000) %}{% endfor %}",
        "{{ range(10**12) | list | length }}",
        "{{ 'x' * 10**9 }}",
        "{{ ['x'] * 10**9 }}",
        "{{ 'x'.join(['y' * 1000000] * 1000000) }}",
        "{{ ('x' * 1000000).replace('x', 'y' * 1000000) }}",
        "{{ ('x' * 1000000) | replace('x', 'y' * 1000000) }}",
        "{{ (['y' * 100000] * 100000) | join('z') }}",
        "{{ (['y' * 100000] * 100000) | tojson }}",
        "{{ '%1000000000d' | format(1) }}",
        "{{ 'x\n' * 1000 | indent(1000000000) }}",
        "{% set ns = namespace(s='x') %}{% for i in range(64) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(s=['x']) %}{% for i in range(64) %}{% set ns.s = ns.s + ns.s %}{% endfor %}{{ ns.s }}",
        "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{{ m(n - 1) }}{% endif %}{% endmacro %}{{ m(40) }}",
        "{% for x in [[]] recursive %}{{ loop([[x]]) }}{% endfor %}",
        "{{ 9 ** 9 ** 9 }}",
        "{{ 'x'.center(1000000000) }}",
        "{% include 'chat_template' %}",
        "{% import 'chat_template' as t %}",
        "{% extends 'chat_template' %}",
    ] {
        error(source);
    }
}

#[test]
fn nesting_without_end_is_ended() {
    for source in [
        format!("{{{{ {}1{} }}}}", "(".repeat(20_000), ")".repeat(20_000)),
        format!("{{{{ {}1{} }}}}", "[".repeat(20_000), "]".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "-".repeat(20_000)),
        format!("{{{{ {}1 }}}}", "not ".repeat(20_000)),
        format!("{{{{ 1{} }}}}", " ~ 1".repeat(20_000)),
        format!("{{{{ x{} }}}}", ".a".repeat(20_000)),
        format!("{{{{ x{} }}}}", "|upper".repeat(20_000)),
        "{% if 1 %}".repeat(20_000),
        "{% for x in [1] %}".repeat(15_000),
        "{% set ns = namespace(x=[]) %}{% for i in range(100000) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x }}"
            .to_owned(),
        "{% set ns = namespace(x={}) %}{% for i in range(100000) %}{% set ns.x = {'a': ns.x} %}{% endfor %}{{ ns.x | tojson }}"
            .to_owned(),
    ] {
        error(&source);
    }
}

#[test]
fn repeated_settings_nest_no_deeper() {
    for set in ["{% set x = [x] %}", "{% set x = {'a': x} %}", "{% set x = x[0:] %}", "{% set x = x | reverse %}"] {
        let source = "{% set x = [1] %}".to_owned() + &set.repeat(10_000);
        match render(&source, json!([{ "role": "user", "content": "hi" }])) {
            Ok(text) => assert_eq!(text, ""),
            Err(error) => assert!(error.to_string().contains("nested over 200 deep"), "{error}"),
        }
    }
}

#[test]
fn conversations_of_wrong_types_are_refused_by_name() {
    for (conversation, said) in [
        (json!([]), "the conversation is not a JSON object"),
        (json!({}), "the conversation has no `messages`"),
        (json!({ "messages": {} }), "`messages` of the conversation is no list"),
        (json!({ "messages": [], "tools": 1 }), "`tools` of the conversation is no list"),
        (json!({ "messages": [], "documents": "x" }), "`documents` of the conversation is no list"),
        (json!({ "messages": [], "add_generation_prompt": "yes" }), "`add_generation_prompt` of the conversation"),
        (json!({ "messages": [] }), "the conversation has no messages"),
        (json!({ "messages": ["hi"] }), "messages[0] of the conversation is no object"),
        (json!({ "messages": [{ "role": "user" }, {}] }), "messages[1] of the conversation has no role"),
        (json!({ "messages": [{ "role": 1 }] }), "messages[0] of the conversation has a role that is no string"),
    ] {
        let template = ChatTemplate::from_jinja("t", "{{ messages[0].role }}").expect("a template");
        let now = LocalTime::new(2025, 6, 17, 9, 30, 0).expect("a time");
        let result = Conversation::from_json(&conversation.to_string()).and_then(|c| template.render(&c, now));
        let error = result.expect_err(said).to_string();
        assert!(error.contains(said), "{conversation}: {error}");
    }
}

#[test]
fn contents_of_any_type_are_the_templates_to_refuse() {
    for content in [json!(null), json!(7), json!([{ "type": "text", "text": "x" }]), json!({ "a": 1 })] {
        let messages = json!([{ "role": "user", "content": content }]);
        let text = render("{{ messages[0].content | tojson }}", messages).expect("a text");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), content);
        let concatenated = render("{{ 'a' + messages[0].content }}", json!([{ "role": "user", "content": content }]));
        assert!(concatenated.is_err(), "{concatenated:?}");
    }
}
