//! OpenAI's responses, as Codex asks for them.

use serde_json::{Value, json};

use super::{
    cli_support::serving::Serving,
    say, serve,
    thinker::{Thinker, bias},
    with,
};

const RESPONSES: &str = "/v1/responses";

/// Checks the events of a stream; the response at its end.
#[track_caller]
fn response(events: &[Value]) -> Value {
    for (i, event) in events.iter().enumerate() {
        assert_eq!(event["sequence_number"], i, "{event}");
    }
    assert_eq!((&events[0]["type"], &events[1]["type"]), (&json!("response.created"), &json!("response.in_progress")));
    let last = events.last().unwrap();
    let response = &last["response"];
    assert_eq!(last["type"], format!("response.{}", response["status"].as_str().unwrap()));
    assert!(events.iter().filter_map(|event| event.get("response")).all(|other| other["id"] == response["id"]));
    assert_eq!(
        (&events[0]["response"]["status"], &events[0]["response"]["output"]),
        (&json!("in_progress"), &json!([]))
    );
    // Each item begins, grows and ends, and what grew is what it has.
    for (i, item) in response["output"].as_array().unwrap().iter().enumerate() {
        let of_item: Vec<&Value> = events.iter().filter(|event| event["output_index"] == i).collect();
        let kind = |event: &Value| event["type"].as_str().unwrap().strip_prefix("response.").unwrap().to_owned();
        let (name, place, has_parts) = match item["type"].as_str().unwrap() {
            "reasoning" => ("reasoning_text", "/content/0/text", true),
            "message" => ("output_text", "/content/0/text", true),
            "function_call" => ("function_call_arguments", "/arguments", false),
            other => panic!("{other}"),
        };
        let mut kinds: Vec<String> = of_item.iter().map(|event| kind(event)).collect();
        kinds.dedup();
        let (delta, done) = (format!("{name}.delta"), format!("{name}.done"));
        let expected = match has_parts {
            true => {
                vec!["output_item.added", "content_part.added", &delta, &done, "content_part.done", "output_item.done"]
            }
            false => vec!["output_item.added", &delta, &done, "output_item.done"],
        };
        assert_eq!(kinds, expected);
        let grown: String = of_item.iter().filter_map(|event| event["delta"].as_str()).collect();
        assert_eq!(item.pointer(place).unwrap().as_str(), Some(&*grown));
        assert_eq!(&of_item.last().unwrap()["item"], item);
        assert_eq!((&of_item[0]["item"]["id"], &of_item[0]["item"]["status"]), (&item["id"], &json!("in_progress")));
        assert!(of_item.iter().filter_map(|event| event.get("item_id")).all(|id| *id == item["id"]));
    }
    response.clone()
}

/// Asks for it whole and as a stream, which must be alike but for names and what the cache had.
#[track_caller]
fn both(server: &Serving, body: &Value) -> Value {
    let plain = |mut response: Value| {
        for name in ["id", "created_at"] {
            assert!(response.as_object_mut().unwrap().shift_remove(name).is_some());
        }
        response["usage"]["input_tokens_details"] = Value::Null;
        for item in response["output"].as_array_mut().unwrap() {
            for name in ["id", "call_id"] {
                item.as_object_mut().unwrap().shift_remove(name);
            }
        }
        response
    };
    let whole = server.post(RESPONSES, body);
    let streamed = response(&server.events(RESPONSES, &with(body, json!({ "stream": true }))));
    assert_eq!(plain(streamed), plain(whole.clone()));
    whole
}

#[test]
fn responses_are_answered_whole_and_streamed_alike() {
    let server = serve(&[]);
    let body = json!({ "model": "small", "input": "Hello", "max_output_tokens": 24, "temperature": 0, "logit_bias": { "2": -100 } });
    let whole = both(&server, &body);
    assert_eq!((&whole["object"], &whole["model"]), (&json!("response"), &json!("small")));
    assert_eq!(
        (&whole["status"], &whole["incomplete_details"]["reason"]),
        (&json!("incomplete"), &json!("max_output_tokens"))
    );
    assert_eq!((&whole["usage"]["output_tokens"], &whole["temperature"]), (&json!(24), &json!(0)));
    let item = &whole["output"][0];
    assert_eq!(
        (&item["type"], &item["role"], &item["status"]),
        (&json!("message"), &json!("assistant"), &json!("incomplete"))
    );
    let text = item["content"][0]["text"].as_str().unwrap();
    let other = json!({ "messages": say("Hello"), "max_tokens": 24, "temperature": 0, "logit_bias": { "2": -100 } });
    assert_eq!(server.post(super::CHAT, &other)["choices"][0]["message"]["content"], text);
    // Items say the same, and so do fields that nobody knows.
    for input in [
        json!([{ "role": "user", "content": "Hello" }]),
        json!([{ "type": "message", "role": "user", "content": [{ "type": "input_text", "text": "Hello" }] }]),
    ] {
        let more = json!({ "input": input, "store": true, "include": ["reasoning.encrypted_content"], "truncation": "auto", "x": 1 });
        assert_eq!(server.post(RESPONSES, &with(&body, more))["output"][0]["content"][0]["text"], text);
    }
    let instructed = both(&server, &with(&body, json!({ "instructions": "Be." })));
    let messages = json!([{ "role": "system", "content": "Be." }, { "role": "user", "content": "Hello" }]);
    let other = server.post(super::CHAT, &with(&other, json!({ "messages": messages })));
    assert_eq!(instructed["output"][0]["content"][0]["text"], other["choices"][0]["message"]["content"]);
    assert_eq!(instructed["instructions"], "Be.");
    let ended = both(&server, &with(&body, json!({ "logit_bias": { "2": 100 } })));
    assert_eq!((&ended["status"], &ended["output"], &ended["error"]), (&json!("completed"), &json!([]), &Value::Null));
    // Forms.
    let schema = json!({ "type": "object", "properties": { "unit": { "enum": ["C"] } }, "required": ["unit"],
        "additionalProperties": false });
    let format = json!({ "type": "json_schema", "name": "x", "strict": true, "schema": schema });
    let formed = both(
        &server,
        &with(&body, json!({ "text": { "format": format, "verbosity": "low" }, "max_output_tokens": 200 })),
    );
    let said: Value = serde_json::from_str(formed["output"][0]["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((said, &formed["status"]), (json!({ "unit": "C" }), &json!("completed")));
    assert_eq!(formed["text"]["format"], format);
    let object = both(&server, &with(&body, json!({ "text": { "format": { "type": "json_object" } } })));
    assert!(object["output"][0]["content"][0]["text"].as_str().unwrap().starts_with('{'), "{object}");
    server.stop();
}

#[test]
fn reasoning_is_an_item_of_its_own() {
    let server = Thinker::start();
    let mut thoughts = 0;
    for seed in 1..5 {
        let body = json!({ "input": "Hello", "max_output_tokens": 60, "seed": seed, "logit_bias": bias() });
        let whole = both(&server, &with(&body, json!({ "reasoning": { "effort": "high", "summary": "auto" } })));
        let kinds: Vec<&Value> = whole["output"].as_array().unwrap().iter().map(|item| &item["type"]).collect();
        let tokens = whole["usage"]["output_tokens_details"]["reasoning_tokens"].as_u64().unwrap();
        assert_eq!(tokens > 0, kinds[0] == "reasoning", "{whole}");
        thoughts += usize::from(kinds == ["reasoning", "message"]);
        assert_eq!(whole["reasoning"]["effort"], "high");
        let none = both(&server, &with(&body, json!({ "reasoning": { "effort": "none" } })));
        assert!(none["output"].as_array().unwrap().iter().all(|item| item["type"] == "message"), "{none}");
    }
    assert!(thoughts > 0);
    server.stop();
}

#[test]
fn codex_calls_tools_turn_by_turn() {
    let server = Thinker::start();
    let parameters = json!({ "type": "object", "properties": { "command": { "enum": ["ls"] } }, "required": ["command"],
        "additionalProperties": false });
    // Tools of other types come with the functions.
    let tools = json!([
        { "type": "function", "name": "shell", "description": "Runs a command", "strict": false, "parameters": parameters },
        { "type": "custom", "name": "apply_patch", "description": "x", "format": { "type": "grammar", "syntax": "lark", "definition": "start: \"x\"" } },
        { "type": "web_search", "external_web_access": false },
        { "type": "local_shell" },
    ]);
    let message = |role: &str, text: &str| json!({ "type": "message", "role": role, "content": [{ "type": "input_text", "text": text }] });
    let mut input = vec![
        message("developer", "<permissions instructions>Ask first.</permissions instructions>"),
        message("user", "<environment_context><cwd>/x</cwd></environment_context>"),
        message("user", "list files"),
    ];
    let body = |input: &[Value]| {
        json!({
            "model": "gpt-5-codex", "instructions": "You are a coding agent. ".repeat(6), "input": input, "tools": tools,
            "tool_choice": "auto", "parallel_tool_calls": false, "reasoning": { "effort": "none", "summary": "auto" },
            "store": false, "stream": true, "include": ["reasoning.encrypted_content"], "prompt_cache_key": "x",
            "text": { "verbosity": "medium" }, "client_metadata": { "a": "b" }, "max_output_tokens": 300, "seed": 5,
        })
    };
    let forced = with(&body(&input), json!({ "tool_choice": "required" }));
    let first = response(&server.events(RESPONSES, &forced));
    let call = &first["output"][0];
    assert_eq!((&call["type"], &call["name"]), (&json!("function_call"), &json!("shell")), "{first}");
    assert_eq!((call["arguments"].as_str(), &first["status"]), (Some("{\"command\": \"ls\"}"), &json!("completed")));
    assert!(call["call_id"].is_string() && call["call_id"] != call["id"], "{call}");
    // The same is chosen by name, and among tools that are allowed.
    for choice in [
        json!({ "type": "function", "name": "shell" }),
        json!({ "type": "allowed_tools", "mode": "required", "tools": [{ "type": "function", "name": "shell" }] }),
    ] {
        let whole = both(&server, &with(&body(&input), json!({ "tool_choice": choice, "stream": false })));
        assert_eq!(whole["output"][0]["name"], "shell");
    }
    // What came goes back with what the tool said; the prompt goes on from the one before.
    input.push(json!({ "type": "reasoning", "summary": [], "content": null, "encrypted_content": null }));
    input.push(call.clone());
    input.push(json!({ "type": "function_call_output", "call_id": call["call_id"], "output": "a.rs b.rs" }));
    let second = response(&server.events(RESPONSES, &with(&body(&input), json!({ "max_output_tokens": 8 }))));
    let tokens = |name: &str| second["usage"].pointer(name).and_then(Value::as_u64).unwrap();
    assert!(tokens("/input_tokens_details/cached_tokens") * 10 >= tokens("/input_tokens") * 6, "{second}");
    server.stop();
}

#[test]
fn wrong_responses_are_named() {
    let server = serve(&[]);
    let ok = json!({ "input": "x", "max_output_tokens": 4 });
    let item = |item: Value| json!({ "input": [item] });
    for (more, param) in [
        (json!({ "input": null }), "input"),
        (json!({ "input": [] }), "input"),
        (json!({ "input": 1 }), "input"),
        (item(json!(1)), "input[0].type"),
        (item(json!({ "role": "bot", "content": "x" })), "input[0].role"),
        (item(json!({ "role": "user" })), "input[0].content"),
        (item(json!({ "role": "user", "content": [{ "type": "input_image" }] })), "input[0].content[0].type"),
        (item(json!({ "type": "function_call", "name": "f", "arguments": "{}" })), "input[0].call_id"),
        (item(json!({ "type": "function_call_output", "call_id": "c" })), "input[0].output"),
        (item(json!({ "type": "item_reference", "id": "x" })), "input[0].type"),
        (item(json!({ "type": "web_search_call" })), "input"),
        (json!({ "previous_response_id": "resp_1" }), "previous_response_id"),
        (json!({ "conversation": "conv_1" }), "conversation"),
        (json!({ "background": true }), "background"),
        (json!({ "prompt": { "id": "x" } }), "prompt"),
        (json!({ "instructions": 1 }), "instructions"),
        (json!({ "max_output_tokens": 0 }), "max_output_tokens"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "top_p": 2 }), "top_p"),
        (json!({ "reasoning": "high" }), "reasoning"),
        (json!({ "reasoning": { "effort": 1 } }), "reasoning.effort"),
        (json!({ "text": { "format": { "type": "xml" } } }), "text.format.type"),
        (json!({ "text": { "format": { "type": "json_schema" } } }), "text.format.schema"),
        (
            json!({ "text": { "format": { "type": "json_schema", "schema": { "type": "bogus" } } } }),
            "text.format.schema",
        ),
        (json!({ "tools": [{ "name": "f" }] }), "tools[0].type"),
        (json!({ "tools": [{ "type": "function" }] }), "tools[0].name"),
        (json!({ "tool_choice": "required" }), "tool_choice"),
        (json!({ "tool_choice": { "type": "allowed_tools", "mode": "auto" } }), "tool_choice.tools"),
        (json!({ "stream": "yes" }), "stream"),
    ] {
        let (status, error) = server.refused(RESPONSES, &with(&ok, more.clone()));
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{more}: {error}");
    }
    let (status, error) = server.refused(RESPONSES, &json!({ "input": "word ".repeat(600) }));
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    server.stop();
}
