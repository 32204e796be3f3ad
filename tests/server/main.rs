//! `handmill serve` over HTTP: every route and field, streams, errors, clients that leave, and the end.

mod anthropic;
#[path = "../cli_support/mod.rs"]
mod cli_support;
mod forms;
mod llama;
mod metrics;
mod ollama;
mod responses;
mod thinker;

use cli_support::{Handmill, copy, fixture, serving::Serving, wait_for};
use serde_json::{Value, json};
use std::{fs, io::Read, net::Shutdown, thread};

const CHAT: &str = "/v1/chat/completions";
const TEXT: &str = "/v1/completions";

fn serve(args: &[&str]) -> Serving {
    Serving::start(&[&[&fixture("llama3"), "--alias", "small", "--ctx", "512"], args].concat())
}

fn say(text: &str) -> Value {
    json!([{ "role": "user", "content": text }])
}

/// A request for an answer of so many tokens.
fn chat(text: &str, n: usize, seed: u64) -> Value {
    json!({ "model": "small", "messages": say(text), "max_tokens": n, "seed": seed, "ignore_eos": true })
}

fn with(body: &Value, more: Value) -> Value {
    let mut body = body.clone();
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// The texts of the chunks of a choice, joined.
fn text_of(events: &[Value], index: usize, path: &str) -> String {
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    choices.filter(|choice| choice["index"] == index).filter_map(|choice| choice.pointer(path)?.as_str()).collect()
}

#[test]
fn small_routes_say_what_runs() {
    let server = serve(&[]);
    assert_eq!(server.get("/health"), json!({ "status": "ok" }));
    assert!(server.get("/version")["version"].is_string());
    let props = server.get("/props");
    assert_eq!(props["default_generation_settings"]["n_ctx"], 512);
    assert!(props["chat_template"].as_str().unwrap().contains("add_generation_prompt"));
    let models = server.get("/v1/models");
    assert_eq!((&models["object"], &models["data"][0]["id"]), (&json!("list"), &json!("small")));
    assert_eq!(models["data"][0]["max_model_len"], 512);
    assert_eq!(server.get("/v1/models/small"), models["data"][0]);
    assert_eq!(server.request("GET", "/v1/models/other", "", "").status, 404);
    // llama-server's shape and vLLM's; BOS is the first token of the second.
    let theirs = server.post("/tokenize", &json!({ "content": "abc" }));
    let others = server.post("/tokenize", &json!({ "prompt": "abc" }));
    let plain = server.post("/tokenize", &json!({ "prompt": "abc", "add_special_tokens": false }));
    assert_eq!(theirs["tokens"], plain["tokens"]);
    assert_eq!((&others["tokens"][0], others["count"].as_u64()), (&json!(1), plain["count"].as_u64().map(|n| n + 1)));
    let back = server.post("/detokenize", &json!({ "tokens": theirs["tokens"] }));
    assert_eq!((&back["content"], &back["prompt"]), (&json!("abc"), &json!("abc")));
    let pieces = server.post("/tokenize", &json!({ "content": "abc", "with_pieces": true }));
    assert!(pieces["tokens"][0]["piece"].is_string(), "{pieces}");
    for (method, path, status) in [("GET", "/nowhere", 404), ("GET", CHAT, 405), ("POST", "/v1/models", 405)] {
        let response = server.request(method, path, "", "");
        assert_eq!(response.status, status, "{path}");
        assert!(serde_json::from_str::<Value>(&response.body).unwrap()["error"]["message"].is_string());
    }
    let named = server.request("GET", "/health", "x-request-id: abc-1\r\n", "");
    assert!(named.head.contains("x-request-id: abc-1"), "{}", named.head);
    server.stop();
}

#[test]
fn a_chat_is_answered_whole_and_streamed_alike() {
    let server = serve(&[]);
    let body = chat("Hello", 24, 7);
    let whole = server.post(CHAT, &body);
    assert_eq!((&whole["object"], &whole["model"]), (&json!("chat.completion"), &json!("small")));
    let (choice, usage) = (&whole["choices"][0], &whole["usage"]);
    assert_eq!((&choice["message"]["role"], &choice["finish_reason"]), (&json!("assistant"), &json!("length")));
    assert_eq!(usage["completion_tokens"], 24);
    assert_eq!(usage["total_tokens"].as_u64(), usage["prompt_tokens"].as_u64().map(|n| n + 24));
    let text = choice["message"]["content"].as_str().unwrap();
    assert!(!text.is_empty() && choice["logprobs"].is_null());
    // The command says the same.
    let run = Handmill::new().run(&[
        "run",
        &fixture("llama3"),
        "--backend",
        "cpu",
        "-p",
        "Hello",
        "-n",
        "24",
        "--seed",
        "7",
        "--ignore-eos",
        "--json",
    ]);
    assert_eq!(run.json()["text"], text);
    let streamed = with(&body, json!({ "stream": true, "stream_options": { "include_usage": true } }));
    let events = server.stream(CHAT, &streamed);
    assert_eq!(events[0]["choices"][0]["delta"], json!({ "role": "assistant", "content": "" }));
    assert_eq!(text_of(&events, 0, "/delta/content"), text);
    let (last, before) = events.split_last().unwrap();
    assert_eq!((&last["choices"], &last["usage"]["completion_tokens"]), (&json!([]), &json!(24)));
    assert!(before.iter().all(|event| event["usage"].is_null() && event["id"] == last["id"]));
    assert_eq!(before.last().unwrap()["choices"][0]["finish_reason"], "length");
    assert!(before.iter().all(|event| event["object"] == "chat.completion.chunk"));
    // Usage in each chunk, and none at all.
    let always = with(
        &body,
        json!({ "stream": true, "stream_options": { "include_usage": true, "continuous_usage_stats": true } }),
    );
    assert!(server.stream(CHAT, &always).iter().all(|event| event["usage"]["prompt_tokens"].is_u64()));
    let never = server.stream(CHAT, &with(&body, json!({ "stream": true })));
    assert!(never.iter().all(|event| event.get("usage").is_none() && event["choices"] != json!([])));
    server.stop();
}

#[test]
fn fields_of_a_chat_do_what_they_say() {
    let server = serve(&[]);
    let body = chat("Tell me", 16, 1);
    let text = |more: Value| {
        let answer = server.post(CHAT, &with(&body, more));
        answer["choices"][0]["message"]["content"].as_str().unwrap_or_else(|| panic!("{answer}")).to_owned()
    };
    let plain = text(json!({}));
    // Parts and null say the same, and so does what nobody knows.
    assert_eq!(
        text(json!({ "messages": [{ "role": "user", "content": [{ "type": "text", "text": "Tell me" }] }] })),
        plain
    );
    let unknown =
        json!({ "stop": null, "logit_bias": null, "seed": 1.0, "user": "x", "no_such_field": { "a": 1 }, "n": 1 });
    assert_eq!(text(unknown), plain);
    assert_eq!(text(json!({ "max_tokens": null, "max_completion_tokens": 16 })), plain);
    assert_eq!(text(json!({ "tool_choice": "none", "tools": [] })), plain);
    // Other choices.
    for more in [
        json!({ "seed": 2 }),
        json!({ "temperature": 1.9, "min_p": 0, "top_p": 1, "top_k": 0 }),
        json!({ "presence_penalty": 2 }),
        json!({ "frequency_penalty": 2 }),
        json!({ "repetition_penalty": 1.8 }),
        json!({ "repeat_penalty": 1.8 }),
    ] {
        assert_ne!(text(more.clone()), plain, "{more}");
    }
    let greedy = text(json!({ "temperature": 0 }));
    for same in [json!({ "top_k": 1 }), json!({ "min_p": 1 }), json!({ "top_p": 1e-6 })] {
        assert_eq!(text(same.clone()), greedy, "{same}");
    }
    // A token that is forbidden is not said; one that is wanted is all there is.
    let id = server.post("/tokenize", &json!({ "content": "q" }))["tokens"][0].to_string();
    assert_eq!(text(json!({ "logit_bias": { &id: 100 }, "temperature": 0 })), "q".repeat(16));
    assert!(!text(json!({ "logit_bias": { &id: -100 }, "temperature": 0 })).contains('q'));
    // The end of an answer.
    let stop: String = greedy.chars().skip(3).take(2).collect();
    let stopped = server.post(CHAT, &with(&body, json!({ "temperature": 0, "stop": [stop, "never"] })));
    let choice = &stopped["choices"][0];
    assert_eq!(choice["finish_reason"], "stop");
    assert_eq!(choice["message"]["content"].as_str(), greedy.split(&stop).next());
    let eos = json!({ "logit_bias": { "2": 100 }, "temperature": 0, "ignore_eos": false });
    let ended = server.post(CHAT, &with(&body, eos));
    assert_eq!(
        (&ended["choices"][0]["finish_reason"], &ended["usage"]["completion_tokens"]),
        (&json!("stop"), &json!(1))
    );
    // Several choices: the first is the one that would come alone.
    let three = server.post(CHAT, &with(&body, json!({ "n": 3 })));
    let texts: Vec<_> = (0..3).map(|i| three["choices"][i]["message"]["content"].as_str().unwrap()).collect();
    assert!(texts[0] == plain && texts[1] != plain && texts[2] != texts[1], "{texts:?}");
    assert_eq!(three["usage"]["completion_tokens"], 48);
    let events = server.stream(CHAT, &with(&body, json!({ "n": 3, "stream": true })));
    for (i, text) in texts.iter().enumerate() {
        assert_eq!(&text_of(&events, i, "/delta/content"), text);
    }
    server.stop();
}

#[test]
fn log_probabilities_are_the_same_wherever_they_stand() {
    let server = serve(&[]);
    let body = with(&chat("Say it", 12, 3), json!({ "logprobs": true, "top_logprobs": 4 }));
    let whole = server.post(CHAT, &body)["choices"][0]["logprobs"]["content"].clone();
    let whole = whole.as_array().unwrap();
    assert_eq!(whole.len(), 12);
    for token in whole {
        let top = token["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 4);
        assert!(token["logprob"].as_f64().unwrap() <= 0.0 && token["bytes"].is_array());
        let same: Vec<_> =
            top.iter().filter(|one| one["token"] == token["token"] && one["bytes"] == token["bytes"]).collect();
        assert!(same.iter().all(|one| one["logprob"] == token["logprob"]));
    }
    let events = server.stream(CHAT, &with(&body, json!({ "stream": true })));
    let choices = events.iter().flat_map(|event| event["choices"].as_array().unwrap());
    let numbers = choices.filter_map(|choice| choice["logprobs"]["content"].as_array()).flatten();
    assert_eq!(numbers.collect::<Vec<_>>(), whole.iter().collect::<Vec<_>>());
    // lm-eval's way: the prompt's own numbers, and whether each token was the likeliest.
    let ids: Vec<u32> = (0..40).map(|i| 3 + i * 7 % 280).collect();
    let ask = |max_tokens: usize| {
        let body = json!({ "prompt": [ids, [5, 6, 7]], "echo": true, "logprobs": 1, "max_tokens": max_tokens, "temperature": 0, "seed": 1234 });
        server.post(TEXT, &body)
    };
    let (one, none) = (ask(1), ask(0));
    let numbers = &one["choices"][0]["logprobs"];
    let list = |of: &Value, name: &str| of[name].as_array().unwrap().clone();
    for name in ["tokens", "token_logprobs", "top_logprobs", "text_offset"] {
        assert_eq!(list(numbers, name).len(), 41, "{name}");
        assert_eq!(list(numbers, name)[..40], list(&none["choices"][0]["logprobs"], name)[..], "{name}");
    }
    assert!(numbers["token_logprobs"][0].is_null() && numbers["top_logprobs"][0].is_null());
    let greedy = server.post(TEXT, &json!({ "prompt": ids, "logprobs": 1, "max_tokens": 1, "temperature": 0 }));
    let greedy = &greedy["choices"][0]["logprobs"];
    assert_eq!(greedy["token_logprobs"][0], numbers["token_logprobs"][40]);
    let largest = greedy["top_logprobs"][0].as_object().unwrap().values().next().unwrap();
    assert_eq!(largest, &greedy["token_logprobs"][0]);
    assert_eq!((&one["choices"][1]["index"], list(&one["choices"][1]["logprobs"], "tokens").len()), (&json!(1), 4));
    server.stop();
}

#[test]
fn completions_continue_texts_and_ids() {
    let server = serve(&[]);
    let ids = server.post("/tokenize", &json!({ "prompt": "once upon" }))["tokens"].clone();
    let ask =
        |more: Value| server.post(TEXT, &with(&json!({ "temperature": 0, "max_tokens": 8, "ignore_eos": true }), more));
    let text = ask(json!({ "prompt": "once upon" }));
    let said = text["choices"][0]["text"].clone();
    assert_eq!((&text["object"], &text["usage"]["completion_tokens"]), (&json!("text_completion"), &json!(8)));
    assert_eq!(text["usage"]["prompt_tokens"].as_u64(), ids.as_array().map(|ids| ids.len() as u64));
    assert_eq!(ask(json!({ "prompt": ids }))["choices"][0]["text"], said);
    for list in [json!(["once upon", "other"]), json!([ids, [9, 10]])] {
        let both = ask(json!({ "prompt": list, "n": 2 }));
        assert_eq!(both["choices"].as_array().unwrap().len(), 4);
        assert_eq!((&both["choices"][0]["text"], &both["choices"][1]["text"]), (&said, &said));
        assert!(both["choices"][3]["index"] == 3 && both["usage"]["completion_tokens"] == 32, "{both}");
    }
    let echoed = ask(json!({ "prompt": "once upon", "echo": true }));
    assert_eq!(echoed["choices"][0]["text"], format!("once upon{}", said.as_str().unwrap()));
    assert!(echoed["choices"][0]["logprobs"].is_null());
    let empty = ask(json!({ "prompt": "once upon", "max_tokens": 0 }));
    assert_eq!((&empty["choices"][0]["text"], &empty["choices"][0]["finish_reason"]), (&json!(""), &json!("length")));
    assert_eq!(server.post(TEXT, &json!({ "prompt": "a", "ignore_eos": true }))["usage"]["completion_tokens"], 16);
    let stream = json!({ "prompt": ["once upon", "other"], "temperature": 0, "max_tokens": 8, "ignore_eos": true,
        "stream": true, "echo": true, "logprobs": 1, "stream_options": { "include_usage": true } });
    let events = server.stream(TEXT, &stream);
    assert_eq!(text_of(&events, 0, "/text"), format!("once upon{}", said.as_str().unwrap()));
    assert_eq!(events.last().unwrap()["usage"]["completion_tokens"], 16);
    // What the cache has of a prompt is not run again.
    let long = "a b c d e f g h i j ".repeat(12);
    let cached = |answer: Value| answer["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    // Earlier prompts may begin alike, but not for a page.
    assert!(cached(ask(json!({ "prompt": long }))) < 64);
    assert!(cached(ask(json!({ "prompt": long }))) >= 64);
    server.stop();
}

#[test]
fn wrong_requests_are_named() {
    let server = serve(&[]);
    let ok = chat("x", 1, 1);
    for (more, param) in [
        (json!({ "messages": [] }), json!("messages")),
        (json!({ "messages": null }), json!("messages")),
        (json!({ "messages": "hi" }), json!("messages")),
        (json!({ "messages": [{ "role": "user", "content": 1 }] }), json!("messages[0].content")),
        (
            json!({ "messages": [{ "role": "user", "content": [{ "type": "image_url" }] }] }),
            json!("messages[0].content[0].type"),
        ),
        (json!({ "temperature": "hot" }), json!("temperature")),
        (json!({ "temperature": -1 }), json!("temperature")),
        (json!({ "top_p": 0 }), json!("top_p")),
        (json!({ "top_k": -2 }), json!("top_k")),
        (json!({ "top_k": 1.5 }), json!("top_k")),
        (json!({ "min_p": 2 }), json!("min_p")),
        (json!({ "n": 0 }), json!("n")),
        (json!({ "n": 1000 }), json!("n")),
        (json!({ "max_tokens": -1 }), json!("max_tokens")),
        (json!({ "stop": [1] }), json!("stop")),
        (json!({ "seed": "x" }), json!("seed")),
        (json!({ "logit_bias": { "x": 1 } }), json!("logit_bias")),
        (json!({ "logit_bias": { "5": 101 } }), json!("logit_bias")),
        (json!({ "logit_bias": { "99999": 1 } }), json!("logit_bias")),
        (json!({ "top_logprobs": 3 }), json!("top_logprobs")),
        (json!({ "logprobs": true, "top_logprobs": 21 }), json!("top_logprobs")),
        (json!({ "stream": "yes" }), json!("stream")),
        (json!({ "stream_options": {} }), json!("stream_options")),
        (json!({ "response_format": { "type": "xml" } }), json!("response_format.type")),
        (json!({ "response_format": { "type": "json_schema" } }), json!("response_format.json_schema.schema")),
        (json!({ "guided_json": { "type": "bogus" } }), json!("guided_json")),
        (json!({ "guided_json": { "$ref": "https://example.org/x" } }), json!("guided_json")),
        (json!({ "guided_choice": "a" }), json!("guided_choice")),
        (json!({ "guided_regex": "(" }), json!("guided_regex")),
        (json!({ "structured_outputs": { "choice": [] } }), json!("structured_outputs.choice")),
        (json!({ "guided_regex": "a", "response_format": { "type": "json_object" } }), json!("guided_regex")),
        (json!({ "tools": [{ "type": "function" }] }), json!("tools[0].function.name")),
        (json!({ "tool_choice": "required" }), json!("tool_choice")),
        (json!({ "tool_choice": { "type": "function" } }), json!("tool_choice")),
        (json!({ "functions": [{}] }), json!("functions")),
        (json!({ "grammar": "root" }), json!("grammar")),
        (json!({ "chat_template_kwargs": 1 }), json!("chat_template_kwargs")),
        (json!({ "priority": "high" }), json!("priority")),
    ] {
        let (status, error) = server.refused(CHAT, &with(&ok, more.clone()));
        assert_eq!((status, &error["param"]), (400, &param), "{more}: {error}");
        assert!(error["message"].as_str().unwrap().contains(param.as_str().unwrap()), "{error}");
    }
    for (body, param) in [
        (json!({}), "prompt"),
        (json!({ "prompt": [] }), "prompt"),
        (json!({ "prompt": [[]] }), "prompt"),
        (json!({ "prompt": [5, -1] }), "prompt"),
        (json!({ "prompt": [99999] }), "prompt"),
        (json!({ "prompt": [["a"]] }), "prompt"),
        (json!({ "prompt": {} }), "prompt"),
        (json!({ "prompt": "a", "suffix": "b" }), "suffix"),
        (json!({ "prompt": "a", "best_of": 2 }), "best_of"),
        (json!({ "prompt": "a", "logprobs": 50 }), "logprobs"),
    ] {
        let (status, error) = server.refused(TEXT, &body);
        assert_eq!((status, error["param"].as_str()), (400, Some(param)), "{body}: {error}");
    }
    // Prompts are never cut.
    let (status, error) = server.refused(TEXT, &json!({ "prompt": vec![5; 513] }));
    assert_eq!((status, &error["code"]), (400, &json!("context_length_exceeded")));
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("513") && message.contains("512"), "{message}");
    for body in ["", "{", "[1]", "\u{0}"] {
        assert_eq!(server.request("POST", CHAT, "", body).status, 400, "{body:?}");
    }
    let (status, error) = server.refused("/v1/embeddings", &json!({ "input": "x" }));
    assert_eq!((status, &error["code"]), (501, &json!("no_embeddings")));
    assert_eq!(server.request("POST", CHAT, "", &"x".repeat((16 << 20) + 1)).status, 413);
    assert_eq!(server.refused("/detokenize", &json!({ "tokens": ["a"] })).0, 400);
    assert_eq!(server.refused("/tokenize", &json!({})).0, 400);
    server.stop();
}

#[test]
fn tools_reasoning_and_variables_reach_the_template_and_come_back() {
    // The template says what it was given; the model's own tokens are forced to spell a reply.
    let folder = copy("llama3");
    let template = "{{ bos_token }}{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}\
        {{ c.function.arguments.x }}{% endfor %}{% endfor %}{% if tools %}T{{ tools | length }}{% endif %}\
        {{ reasoning_effort or '' }}{{ mood or '' }}{# <tool_call> </tool_call> \"arguments\" #}";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let server = Serving::start(&[folder.path().to_str().unwrap(), "--ctx", "512"]);
    let tokens = |more: Value| {
        let body = with(&json!({ "messages": say("abc"), "max_tokens": 1, "ignore_eos": true }), more);
        server.post(CHAT, &body)["usage"]["prompt_tokens"].as_u64().unwrap()
    };
    let plain = tokens(json!({}));
    let tool = json!({ "type": "function", "function": { "name": "f", "parameters": { "type": "object" } } });
    assert!(tokens(json!({ "tools": [tool] })) > plain);
    // Tools of other kinds are left out, and with `none` all are.
    assert_eq!(tokens(json!({ "tools": [{ "type": "web_search" }] })), plain);
    assert_eq!(tokens(json!({ "tools": [tool], "tool_choice": "none" })), plain);
    assert!(tokens(json!({ "reasoning_effort": "high" })) > plain);
    assert!(tokens(json!({ "chat_template_kwargs": { "mood": "merry" } })) > plain);
    let call = json!({ "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"x\": \"12345\"}" } });
    let before =
        json!([{ "role": "user", "content": "abc" }, { "role": "assistant", "content": null, "tool_calls": [call] }]);
    assert!(tokens(json!({ "messages": before })) > plain);
    server.stop();
}

#[test]
fn the_page_is_there_for_browsers_and_probes() {
    let server = serve(&["--api-key", "secret"]);
    let page = server.request("GET", "/", "accept: text/html,*/*\r\n", "");
    assert_eq!(page.status, 200);
    assert!(page.head.contains("content-security-policy: default-src 'none'"), "{}", page.head);
    for part in page.body.split('"').filter(|part| part.starts_with("page/")) {
        assert_eq!(server.request("GET", &format!("/{part}"), "", "").status, 200, "{part}");
    }
    assert!(page.body.contains("page/app.js"));
    assert_eq!(server.request("GET", "/", "", "").body, "Ollama is running");
    assert_eq!(server.request("GET", "/page/secret", "", "").status, 404);
    assert_eq!(server.request("GET", "/v1/models", "", "").status, 401);
    server.stop();
}

#[test]
fn embeddings_are_vectors_of_length_1() {
    let server = serve(&["--embeddings", "--pooling", "mean"]);
    let both = server.post("/v1/embeddings", &json!({ "input": ["one", "another"], "model": "small" }));
    let vector = |at: usize| -> Vec<f64> {
        both["data"][at]["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap()).collect()
    };
    assert_eq!((vector(0).len(), &both["data"][1]["index"]), (96, &json!(1)));
    assert!((vector(0).iter().map(|x| x * x).sum::<f64>() - 1.0).abs() < 1e-5 && vector(0) != vector(1));
    let ids = server.post("/tokenize", &json!({ "prompt": "one" }))["tokens"].clone();
    let of_ids = server.post("/v1/embeddings", &json!({ "input": ids, "encoding_format": "base64" }));
    let coded = of_ids["data"][0]["embedding"].as_str().unwrap();
    assert_eq!(coded.len(), 512, "96 numbers of 4 bytes in base64");
    assert_eq!(
        server.post("/v1/embeddings", &json!({ "input": [ids] }))["data"][0]["embedding"],
        both["data"][0]["embedding"]
    );
    assert_eq!(both["usage"]["total_tokens"], both["usage"]["prompt_tokens"]);
    for (body, param) in [
        (json!({ "input": "x", "dimensions": 8 }), "dimensions"),
        (json!({ "input": "x", "encoding_format": "hex" }), "encoding_format"),
        (json!({}), "input"),
    ] {
        assert_eq!(server.refused("/v1/embeddings", &body).1["param"], param);
    }
    // Answers go on beside them.
    assert_eq!(server.post(CHAT, &chat("x", 5, 1))["usage"]["completion_tokens"], 5);
    server.stop();
}

#[test]
fn many_clients_have_the_answers_that_each_would_have_alone() {
    let server = serve(&[]);
    let bodies: Vec<Value> = (0..16).map(|i| chat(&"word ".repeat(1 + 3 * (i % 8)), 20 + i, i as u64)).collect();
    let text = |body: &Value| server.post(CHAT, body)["choices"][0]["message"]["content"].clone();
    let alone: Vec<Value> = bodies.iter().map(&text).collect();
    let together: Vec<Value> = thread::scope(|scope| {
        let all: Vec<_> = bodies.iter().map(|body| scope.spawn(|| text(body))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    assert_eq!(together, alone);
    server.stop();
}

#[test]
fn clients_that_leave_give_back_what_they_had() {
    let server = serve(&["--parallel", "4"]);
    for i in 0..20 {
        let stream = i % 2 == 0;
        let body = with(&chat(&"word ".repeat(20 + i), 400, i as u64), json!({ "stream": stream, "n": 1 + i % 3 }));
        let mut connection = server.send("POST", CHAT, "", &body.to_string());
        if stream {
            // Some of it has come.
            connection.read_exact(&mut vec![0; 100 * (1 + i % 5)]).unwrap();
        }
        connection.shutdown(Shutdown::Both).unwrap();
    }
    let status = || server.get("/props")["status"].clone();
    wait_for(|| status()["running"] == 0 && status()["waiting"] == 0);
    // All that is not free is kept for prompts to come, in whole pages: none of it is in the way of the longest prompt.
    let answer = server.post(TEXT, &json!({ "prompt": vec![7; 511], "max_tokens": 1, "ignore_eos": true }));
    assert_eq!(answer["usage"]["completion_tokens"], 1);
    server.stop();
}

#[test]
fn a_key_is_asked_for_where_there_is_one() {
    let open = Handmill::new().env("HANDMILL_API_KEY", "of the environment");
    let server = Serving::start_as(open, &[&fixture("llama3"), "--ctx", "64", "--api-key", "secret"]);
    let body = chat("x", 1, 1).to_string();
    let status = |headers: &str| server.request("POST", CHAT, headers, &body).status;
    for (headers, expected) in [
        ("", 401),
        ("authorization: Bearer wrong\r\n", 401),
        ("x-api-key: secre\r\n", 401),
        ("authorization: Bearer secret\r\n", 200),
        ("x-api-key: secret\r\n", 200),
        ("authorization: Bearer of the environment\r\n", 200),
    ] {
        assert_eq!(status(headers), expected, "{headers}");
    }
    assert_eq!(server.request("GET", "/health", "", "").status, 200);
    assert_eq!(server.request("GET", "/v1/models", "", "").status, 401);
    assert!(!server.stderr().contains("secret"), "{}", server.stderr());
    server.stop();
}

#[test]
fn pages_of_other_origins_are_let_in_by_name_alone() {
    let server = serve(&["--cors", "https://chat.example"]);
    let body = chat("x", 1, 1).to_string();
    let foreign = server.request("POST", CHAT, "origin: https://evil.example\r\n", &body);
    assert_eq!((foreign.status, foreign.head.contains("access-control-allow-origin")), (403, false));
    let friend = server.request("POST", CHAT, "origin: https://chat.example\r\n", &body);
    assert!(friend.status == 200 && friend.head.contains("access-control-allow-origin: https://chat.example"));
    let own = server.request("POST", CHAT, &format!("origin: http://{}\r\n", server.address), &body);
    assert_eq!(own.status, 200);
    let asked = "origin: https://chat.example\r\naccess-control-request-method: POST\r\naccess-control-request-headers: x-a\r\n";
    let preflight = server.request("OPTIONS", CHAT, asked, "");
    assert!(preflight.status == 204 && preflight.head.contains("access-control-allow-headers: x-a"), "{preflight:?}");
    // A page whose own name leads to this machine.
    let rebound = server.request("POST", CHAT, "host: evil.example\r\norigin: http://evil.example\r\n", &body);
    assert!(rebound.status == 403 && rebound.body.contains("foreign_host"), "{rebound:?}");
    assert_eq!(server.request("GET", "/health", "host: evil.example\r\n", "").status, 403);
    for host in ["localhost:1", "chat.example"] {
        assert_eq!(server.request("GET", "/health", &format!("host: {host}\r\n"), "").status, 200, "{host}");
    }
    server.stop();
    // Such a page does not know the key.
    let server = serve(&["--api-key", "secret"]);
    assert_eq!(server.request("GET", "/health", "host: proxy.example\r\n", "").status, 200);
    server.stop();
}

#[cfg(not(windows))]
#[test]
fn sigterm_and_ctrl_c_end_it_behind_what_is_under_way() {
    for name in ["TERM", "INT"] {
        let server = serve(&["-v"]);
        let body = with(&chat("Hello", 300, 5), json!({ "stream": true }));
        let mut connection = server.send("POST", CHAT, "", &body.to_string());
        let mut first = vec![0; 300];
        connection.read_exact(&mut first).unwrap();
        // A connection that is idle does not keep it.
        let idle = std::net::TcpStream::connect(&server.address).unwrap();
        server.signal(name);
        let mut rest = String::new();
        connection.read_to_string(&mut rest).unwrap();
        assert!(rest.contains("\"finish_reason\":\"length\"") && rest.contains("data: [DONE]"), "{rest}");
        wait_for(|| server.stderr().contains("stopping"));
        let stderr = server.stderr();
        assert!(stderr.contains("POST /v1/chat/completions 200") && !stderr.contains("Hello"), "{stderr}");
        server.wait().assert_ok();
        drop(idle);
    }
}

#[test]
fn what_cannot_be_served_is_one_line() {
    let model = fixture("llama3");
    let run = |args: &[&str]| Handmill::new().run(&[&["serve", &model], args].concat());
    run(&["--seed", "1"]).assert_failed(2, "--seed");
    run(&["--api-key", ""]).assert_failed(2, "--api-key");
    run(&["--host", "192.0.2.1", "--port", "0"]).assert_failed(1, "192.0.2.1");
    let server = serve(&[]);
    let port = server.address.rsplit(':').next().unwrap().to_owned();
    run(&["--port", &port]).assert_failed(1, &port);
    server.stop();
    let open = serve(&["--host", "0.0.0.0"]);
    assert!(open.stderr().contains("WARNING") && open.stderr().contains("--api-key"), "{}", open.stderr());
    open.stop();
}
