//! Anthropic's routes.

use serde_json::{Value, json};

use super::{
    say, serve,
    thinker::{Thinker, bias},
    with,
};

const MESSAGES: &str = "/v1/messages";
const COUNT: &str = "/v1/messages/count_tokens";

/// The message that a stream's events make, put together as Anthropic's own clients do it.
#[track_caller]
fn message(events: &[Value]) -> Value {
    assert_eq!(
        (&events[0]["type"], &events.last().unwrap()["type"]),
        (&json!("message_start"), &json!("message_stop"))
    );
    let mut message = events[0]["message"].clone();
    assert_eq!((&message["content"], &message["stop_reason"]), (&json!([]), &Value::Null));
    let (mut inputs, mut open) = (Vec::new(), None);
    for event in events {
        let index = event["index"].as_u64().unwrap_or_default() as usize;
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                let content = message["content"].as_array_mut().unwrap();
                assert!(open.is_none() && index == content.len(), "{event}");
                content.push(event["content_block"].clone());
                inputs.push(String::new());
                open = Some(index);
            }
            "content_block_delta" => {
                assert_eq!(open, Some(index));
                let (block, delta) = (&mut message["content"][index], &event["delta"]);
                let mut add = |name: &str| {
                    let text = block[name].as_str().unwrap().to_owned() + delta[name].as_str().unwrap();
                    block[name] = text.into();
                };
                match delta["type"].as_str().unwrap() {
                    "text_delta" => add("text"),
                    "thinking_delta" => add("thinking"),
                    "signature_delta" => add("signature"),
                    "input_json_delta" => inputs[index] += delta["partial_json"].as_str().unwrap(),
                    other => panic!("{other}"),
                }
            }
            "content_block_stop" => {
                assert_eq!(open.take(), Some(index));
                if message["content"][index]["type"] == "tool_use" {
                    message["content"][index]["input"] = serde_json::from_str(&inputs[index]).unwrap();
                }
            }
            "message_delta" => {
                for name in ["stop_reason", "stop_sequence"] {
                    message[name] = event["delta"][name].clone();
                }
                message["usage"] = event["usage"].clone();
            }
            "message_start" | "message_stop" => {}
            other => panic!("{other}"),
        }
    }
    assert!(open.is_none());
    message
}

/// Asks for it whole and as a stream, which must be alike but for the names of objects and what the cache had.
#[track_caller]
fn both(server: &super::Serving, body: &Value) -> Value {
    let plain = |mut message: Value| {
        assert!(message["id"].as_str().unwrap().starts_with("msg_"), "{message}");
        for name in ["id", "usage"] {
            message.as_object_mut().unwrap().shift_remove(name);
        }
        for block in message["content"].as_array_mut().unwrap() {
            if block["type"] == "tool_use" {
                assert!(block.as_object_mut().unwrap().shift_remove("id").unwrap().is_string());
            }
        }
        message
    };
    let whole = server.post(MESSAGES, body);
    let streamed = message(&server.events(MESSAGES, &with(body, json!({ "stream": true }))));
    assert_eq!(whole["usage"]["output_tokens"], streamed["usage"]["output_tokens"]);
    assert_eq!(plain(streamed), plain(whole.clone()));
    whole
}

#[test]
fn messages_are_answered_whole_and_streamed_alike() {
    let server = serve(&[]);
    let body = json!({ "model": "claude", "max_tokens": 24, "messages": say("Hello"), "seed": 7, "ignored": [1] });
    let message = both(&server, &body);
    assert_eq!(
        (&message["type"], &message["role"], &message["model"]),
        (&json!("message"), &json!("assistant"), &json!("small"))
    );
    let usage = |message: &Value, name: &str| message["usage"][name].as_u64().unwrap();
    assert!(usage(&message, "output_tokens") <= 24 && usage(&message, "input_tokens") > 0);
    let greedy = with(&body, json!({ "temperature": 0, "logit_bias": { "2": -100 } }));
    let message = both(&server, &greedy);
    let text = message["content"][0]["text"].as_str().unwrap();
    assert_eq!((&message["content"][0]["type"], &message["stop_reason"]), (&json!("text"), &json!("max_tokens")));
    // OpenAI's route says the same.
    let other = json!({ "messages": say("Hello"), "max_tokens": 24, "temperature": 0, "ignore_eos": true,
        "logit_bias": { "2": -100 } });
    assert_eq!(server.post(super::CHAT, &other)["choices"][0]["message"]["content"], text);
    let parts = json!([{ "role": "user", "content": [{ "type": "text", "text": "Hello", "cache_control": { "type": "ephemeral" } }] }]);
    assert_eq!(server.post(MESSAGES, &with(&greedy, json!({ "messages": parts })))["content"][0]["text"], text);
    // Sampling, and the text that ends an answer.
    for same in [json!({ "temperature": 1, "top_k": 1 }), json!({ "temperature": 1, "top_p": 1e-6 })] {
        assert_eq!(server.post(MESSAGES, &with(&greedy, same))["content"][0]["text"], text);
    }
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped = both(&server, &with(&greedy, json!({ "stop_sequences": ["never", stop] })));
    assert_eq!((&stopped["stop_reason"], &stopped["stop_sequence"]), (&json!("stop_sequence"), &json!(stop)));
    assert_eq!(stopped["content"][0]["text"].as_str(), text.split(&stop).next());
    let ended = both(&server, &with(&greedy, json!({ "logit_bias": { "2": 100 } })));
    assert_eq!((&ended["stop_reason"], &ended["content"]), (&json!("end_turn"), &json!([])));
    // A schema.
    let schema = json!({ "type": "object", "properties": { "unit": { "enum": ["C"] } }, "required": ["unit"],
        "additionalProperties": false });
    let format =
        json!({ "output_config": { "format": { "type": "json_schema", "schema": schema } }, "max_tokens": 200 });
    let message = both(&server, &with(&body, format));
    let value: Value = serde_json::from_str(message["content"][0]["text"].as_str().unwrap()).unwrap();
    assert_eq!((value, &message["stop_reason"]), (json!({ "unit": "C" }), &json!("end_turn")));
    server.stop();
}

#[test]
fn reasoning_is_a_block_of_its_own() {
    let server = Thinker::start();
    let body = json!({ "max_tokens": 60, "messages": say("Hello"), "logit_bias": bias() });
    let mut both_kinds = 0;
    for seed in 1..5 {
        let message = both(
            &server,
            &with(&body, json!({ "seed": seed, "thinking": { "type": "enabled", "budget_tokens": 1024 } })),
        );
        let kinds: Vec<&str> =
            message["content"].as_array().unwrap().iter().map(|b| b["type"].as_str().unwrap()).collect();
        both_kinds += usize::from(kinds == ["thinking", "text"]);
        if kinds[0] == "thinking" {
            assert!(message["content"][0]["signature"].as_str().is_some_and(|text| !text.is_empty()));
        }
        let none = both(&server, &with(&body, json!({ "seed": seed, "thinking": { "type": "disabled" } })));
        assert!(none["content"].as_array().unwrap().iter().all(|block| block["type"] == "text"), "{none}");
    }
    assert!(both_kinds > 0);
    // What came is taken back.
    let count =
        |messages: Value| server.post(COUNT, &json!({ "messages": messages }))["input_tokens"].as_u64().unwrap();
    let answered = |content: Value| json!([{ "role": "user", "content": "a" }, { "role": "assistant", "content": content }, { "role": "user", "content": "b" }]);
    let text = json!({ "type": "text", "text": "x" });
    let thinking = json!({ "type": "thinking", "thinking": "Long thoughts", "signature": "handmill" });
    let redacted = json!({ "type": "redacted_thinking", "data": "0000" });
    assert!(count(answered(json!([thinking, text]))) > count(answered(json!([text]))));
    assert_eq!(count(answered(json!([redacted, text]))), count(answered(json!([text]))));
    server.stop();
}

#[test]
fn tools_are_used_and_their_results_read() {
    let server = Thinker::start();
    let tool = |name: &str, value: &str| {
        let schema = json!({ "type": "object", "properties": { "unit": { "enum": [value] } }, "required": ["unit"],
            "additionalProperties": false });
        json!({ "name": name, "description": "A tool", "input_schema": schema })
    };
    let tools =
        json!([tool("weather", "C"), tool("length", "m"), { "type": "web_search_20250305", "name": "web_search" }]);
    let body = json!({ "max_tokens": 300, "messages": say("abc"), "tools": tools, "thinking": { "type": "disabled" } });
    for (choice, only) in
        [(json!({ "type": "any" }), None), (json!({ "type": "tool", "name": "length" }), Some("length"))]
    {
        let choice = with(&choice, json!({ "disable_parallel_tool_use": true }));
        let message = both(&server, &with(&body, json!({ "tool_choice": choice, "seed": 3 })));
        assert_eq!(message["stop_reason"], "tool_use");
        let calls: Vec<&Value> =
            message["content"].as_array().unwrap().iter().filter(|b| b["type"] == "tool_use").collect();
        assert_eq!(calls.len(), 1, "{message}");
        let unit = if calls[0]["name"] == "weather" { "C" } else { "m" };
        assert_eq!(calls[0]["input"], json!({ "unit": unit }));
        assert!(only.is_none_or(|only| calls[0]["name"] == only));
        // The client answers with what the tool said.
        let more = json!([
            { "role": "user", "content": "abc" },
            { "role": "assistant", "content": message["content"] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": calls[0]["id"], "content": "17" },
                { "type": "text", "text": "And now?" },
            ] },
        ]);
        let next = both(&server, &with(&body, json!({ "messages": more, "max_tokens": 8, "seed": 1 })));
        assert!(next["usage"]["cache_read_input_tokens"].as_u64().unwrap() > 0, "{next}");
    }
    let count = |more: Value| server.post(COUNT, &with(&body, more))["input_tokens"].as_u64().unwrap();
    assert!(count(json!({})) > count(json!({ "tool_choice": { "type": "none" } })));
    assert_eq!(count(json!({ "tools": null })), count(json!({ "tool_choice": { "type": "none" } })));
    server.stop();
}

#[test]
fn the_changing_line_of_claude_code_leaves_the_prefix_in_the_cache() {
    let server = Thinker::start();
    // As that client asks: blocks of system text, a beta in the query, tools, marks for caches, a stream.
    let ask = |cch: &str| {
        let system = json!([
            { "type": "text", "text": format!("x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch={cch};") },
            { "type": "text", "text": "You are an agent in a terminal.", "cache_control": { "type": "ephemeral" } },
            { "type": "text", "text": "Be brief, read files, run tests, and so on and on. ".repeat(4), "cache_control": { "type": "ephemeral" } },
        ]);
        let messages = json!([{ "role": "user", "content": [
            { "type": "text", "text": "<system-reminder>Today is a day.</system-reminder>" },
            { "type": "text", "text": "hey", "cache_control": { "type": "ephemeral" } },
        ] }]);
        let tools = json!([{ "name": "Bash", "description": "Runs a command",
            "input_schema": { "$schema": "http://json-schema.org/draft-07/schema#", "type": "object",
                "properties": { "command": { "type": "string" } }, "required": ["command"], "additionalProperties": false } }]);
        let body = json!({
            "model": "claude-sonnet-4-5-20250929", "messages": messages, "system": system, "tools": tools,
            "metadata": { "user_id": "user_0_account__session_0" }, "max_tokens": 8, "temperature": 1, "stream": true,
            "thinking": { "type": "disabled" }, "context_management": { "edits": [] }, "output_config": { "effort": "low" },
        });
        message(&server.events("/v1/messages?beta=true", &body))["usage"].clone()
    };
    let first = ask("fa690");
    let second = ask("0c3d1");
    let of = |usage: &Value, name: &str| usage[name].as_u64().unwrap();
    let all = |usage: &Value| of(usage, "input_tokens") + of(usage, "cache_read_input_tokens");
    assert_eq!(all(&first), all(&second));
    assert!(of(&second, "cache_read_input_tokens") * 10 >= all(&second) * 8, "{second}");
    server.stop();
}

#[test]
fn errors_have_anthropics_shape_and_name_the_field() {
    let server = serve(&["--api-key", "secret"]);
    let refused = |body: &Value| {
        let response = server.request(
            "POST",
            MESSAGES,
            "x-api-key: secret\r\nanthropic-version: 2023-06-01\r\n",
            &body.to_string(),
        );
        let json: Value = serde_json::from_str(&response.body).unwrap();
        assert_eq!(json["type"], "error", "{json}");
        (response.status, json["error"]["type"].clone(), json["error"]["message"].as_str().unwrap().to_owned())
    };
    let ok = json!({ "max_tokens": 4, "messages": say("x") });
    let block = |block: Value| json!({ "messages": [{ "role": "user", "content": [block] }] });
    for (more, field) in [
        (json!({ "max_tokens": null }), "max_tokens"),
        (json!({ "max_tokens": 0 }), "max_tokens"),
        (json!({ "messages": [] }), "messages"),
        (json!({ "messages": "x" }), "messages"),
        (json!({ "messages": [{ "role": "bot", "content": "x" }] }), "messages[0].role"),
        (json!({ "messages": [{ "role": "user" }] }), "messages[0].content"),
        (
            json!({ "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "{" }] }),
            "messages",
        ),
        (block(json!({ "type": "image", "source": {} })), "messages[0].content[0].type"),
        (block(json!({ "type": "document" })), "messages[0].content[0].type"),
        (block(json!({ "type": "text" })), "messages[0].content[0].text"),
        (block(json!({ "type": "tool_result", "content": "x" })), "messages[0].content[0].tool_use_id"),
        (
            block(json!({ "type": "tool_result", "tool_use_id": "t", "content": [{ "type": "image" }] })),
            "messages[0].content[0].content[0].type",
        ),
        (json!({ "system": 1 }), "system"),
        (json!({ "system": [{ "type": "image" }] }), "system[0].type"),
        (json!({ "temperature": "hot" }), "temperature"),
        (json!({ "stop_sequences": [1] }), "stop_sequences"),
        (json!({ "thinking": { "type": "maybe" } }), "thinking.type"),
        (json!({ "tools": [{ "description": "x" }] }), "tools[0].name"),
        (json!({ "tools": [{ "name": "f", "input_schema": 1 }] }), "tools[0].input_schema"),
        (json!({ "tool_choice": { "type": "some" } }), "tool_choice.type"),
        (json!({ "tool_choice": { "type": "any" } }), "tool_choice"),
        (json!({ "output_config": { "format": { "type": "xml" } } }), "output_config.format.type"),
    ] {
        let (status, kind, message) = refused(&with(&ok, more.clone()));
        assert_eq!((status, &kind), (400, &json!("invalid_request_error")), "{more}: {message}");
        assert!(message.contains(&format!("`{field}`")), "{more}: {message}");
    }
    // Claude Code shortens the conversation where the message begins so.
    let (status, _, message) = refused(&with(&ok, json!({ "messages": say(&"word ".repeat(600)) })));
    assert!(status == 400 && message.starts_with("prompt is too long: ") && message.contains("512"), "{message}");
    let keyless = server.request("POST", MESSAGES, "", &ok.to_string());
    let json: Value = serde_json::from_str(&keyless.body).unwrap();
    assert_eq!(
        (keyless.status, &json["type"], &json["error"]["type"]),
        (401, &json!("error"), &json!("authentication_error"))
    );
    server.stop();
}
