//! Answers that are bound to a form, and calls that are forced.

use std::fs;

use serde_json::{Value, json};

use super::{
    CHAT, TEXT, chat,
    cli_support::{copy, serving::Serving},
    say, serve, text_of, with,
};

/// Fields of a request, and whether a text has the form that they ask for.
type Form<'a> = (Value, &'a dyn Fn(&str) -> bool);

#[test]
fn answers_have_the_form_that_is_asked_for() {
    let server = serve(&[]);
    let schema = json!({
        "type": "object",
        "properties": { "size": { "type": "integer", "minimum": 0, "maximum": 9 }, "kind": { "enum": ["a", "b"] } },
        "required": ["size", "kind"], "additionalProperties": false,
    });
    let named = |schema: &Value| json!({ "type": "json_schema", "json_schema": { "name": "x", "schema": schema } });
    let pattern = |text: &str| text.len() == 3 && text.bytes().all(|b| b"ab".contains(&b));
    let is_of_schema = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        value["size"].as_u64().is_some_and(|n| n < 10) && ["a", "b"].contains(&value["kind"].as_str().unwrap())
    };
    let forms: &[Form] = &[
        (json!({ "response_format": named(&schema) }), &is_of_schema),
        (json!({ "response_format": { "type": "json_object", "schema": schema } }), &is_of_schema),
        (json!({ "guided_json": schema.to_string() }), &is_of_schema),
        (json!({ "json_schema": schema }), &is_of_schema),
        (json!({ "guided_regex": "[ab]{3}" }), &pattern),
        (json!({ "structured_outputs": { "regex": "[ab]{3}" } }), &pattern),
        (json!({ "guided_choice": ["yes", "no"] }), &|text| ["yes", "no"].contains(&text)),
        (json!({ "grammar": "root ::= [ab] [ab] [ab]" }), &pattern),
        (json!({ "guided_grammar": "start: /[ab]/ /[ab]{2}/" }), &pattern),
    ];
    for (form, check) in forms {
        for seed in 1..4 {
            // `ignore_eos` ends nothing that is complete.
            let body = with(&chat("Hello", 200, seed), form.clone());
            let whole = server.post(CHAT, &body);
            let text = whole["choices"][0]["message"]["content"].as_str().unwrap();
            // Spaces in JSON may go on for long.
            if whole["choices"][0]["finish_reason"] == "stop" {
                assert!(check(text), "{form}: {text:?}");
            } else {
                assert!(form.to_string().contains("size"), "{whole}");
            }
            let events = server.stream(CHAT, &with(&body, json!({ "stream": true })));
            assert_eq!(text_of(&events, 0, "/delta/content"), text, "{form}");
        }
        let body = with(&json!({ "prompt": "Hello", "max_tokens": 200, "seed": 5, "n": 2 }), form.clone());
        for choice in server.post(TEXT, &body)["choices"].as_array().unwrap() {
            assert!(choice["finish_reason"] != "stop" || check(choice["text"].as_str().unwrap()), "{form}: {choice}");
        }
    }
    server.stop();
}

#[test]
fn a_call_can_be_forced() {
    let folder = copy("llama3");
    let template = "{{ bos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% for c in m.tool_calls or [] %}\
        <tool_call>{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}</tool_call>\
        {% endfor %}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let server = Serving::start(&[folder.path().to_str().unwrap(), "--ctx", "512"]);
    let tool = |name: &str, values: Value| {
        let parameters = json!({ "type": "object", "properties": { "unit": { "enum": values } }, "required": ["unit"],
            "additionalProperties": false });
        json!({ "type": "function", "function": { "name": name, "parameters": parameters } })
    };
    let tools = json!([tool("weather", json!(["C", "F"])), tool("length", json!(["m"]))]);
    let body = json!({ "messages": say("abc"), "max_tokens": 200, "tools": tools });
    for seed in 1..5 {
        for (choice, only) in [
            (json!("required"), None),
            (json!({ "type": "function", "function": { "name": "length" } }), Some("length")),
        ] {
            let more = json!({ "tool_choice": choice, "seed": seed, "parallel_tool_calls": false });
            let answer = server.post(CHAT, &with(&body, more.clone()));
            let message = &answer["choices"][0]["message"];
            assert_eq!(answer["choices"][0]["finish_reason"], "tool_calls", "{answer}");
            let calls = message["tool_calls"].as_array().unwrap();
            assert_eq!(calls.len(), 1, "{answer}");
            let call = &calls[0]["function"];
            let unit: Value = serde_json::from_str(call["arguments"].as_str().unwrap()).unwrap();
            match call["name"].as_str().unwrap() {
                "weather" => assert!(only.is_none() && ["C", "F"].contains(&unit["unit"].as_str().unwrap())),
                name => assert_eq!((name, &unit), ("length", &json!({ "unit": "m" }))),
            }
            let events = server.stream(CHAT, &with(&with(&body, more), json!({ "stream": true })));
            let name = events.iter().find_map(|event| event.pointer("/choices/0/delta/tool_calls/0/function/name"));
            assert_eq!(name, Some(&call["name"]));
        }
    }
    let none = json!({ "tool_choice": { "type": "function", "function": { "name": "other" } } });
    assert_eq!(server.refused(CHAT, &with(&body, none)).1["param"], "tool_choice");
    let both = json!({ "tool_choice": "required", "guided_regex": "a" });
    assert_eq!(server.refused(CHAT, &with(&body, both)).1["param"], "guided_regex");
    server.stop();
}
