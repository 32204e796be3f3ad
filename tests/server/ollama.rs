//! Ollama's routes.

use std::fs;

use serde_json::{Value, json};

use super::{
    cli_support::{copy, serving::Serving},
    say, serve,
    thinker::{Thinker, bias},
    with,
};

const CHAT: &str = "/api/chat";
const GENERATE: &str = "/api/generate";

/// Asks for it whole and as lines, which must say the same; the whole answer.
#[track_caller]
fn both(server: &Serving, path: &str, body: &Value) -> Value {
    let whole = server.post(path, &with(body, json!({ "stream": false })));
    let lines = server.lines(path, body);
    let (last, before) = lines.split_last().unwrap();
    assert!(last["done"] == true && before.iter().all(|line| line["done"] == false), "{lines:?}");
    let said = |line: &Value| if path == CHAT { line["message"].clone() } else { line.clone() };
    for name in ["content", "response", "thinking"] {
        let joined: String = lines.iter().filter_map(|line| said(line)[name].as_str().map(str::to_owned)).collect();
        assert_eq!(joined, said(&whole)[name].as_str().unwrap_or_default(), "{name}");
    }
    let plain = |calls: Vec<Value>| calls.into_iter().map(|call| call["function"].clone()).collect::<Vec<_>>();
    let calls = |line: &Value| said(line)["tool_calls"].as_array().cloned().unwrap_or_default();
    assert_eq!(plain(lines.iter().flat_map(calls).collect()), plain(calls(&whole)));
    for name in ["model", "done_reason", "prompt_eval_count", "eval_count"] {
        assert_eq!(last[name], whole[name], "{name}");
    }
    for name in ["total_duration", "load_duration", "prompt_eval_duration", "eval_duration"] {
        assert!(last[name].is_u64() && whole[name].is_u64(), "{name}");
    }
    assert!(whole["created_at"].as_str().is_some_and(|time| time.len() == 30 && time.ends_with('Z')), "{whole}");
    whole
}

#[test]
fn probes_find_the_model() {
    let server = serve(&["--embeddings"]);
    assert_eq!(server.request("HEAD", "/", "", "").status, 200);
    let version = server.get("/api/version")["version"].as_str().unwrap().to_owned();
    assert!(version.split('.').all(|part| part.parse::<u32>().is_ok()), "{version}");
    let tags = server.get("/api/tags");
    let model = &tags["models"][0];
    assert_eq!((&model["name"], &model["model"]), (&json!("small"), &json!("small")));
    assert!(model["size"].as_u64().unwrap() > 0 && model["digest"].as_str().unwrap().len() == 64, "{model}");
    let details = &model["details"];
    assert_eq!((&details["format"], &details["family"]), (&json!("safetensors"), &json!("llama")));
    assert!(["F16", "BF16", "F32"].contains(&details["quantization_level"].as_str().unwrap()), "{details}");
    let running = server.get("/api/ps");
    assert_eq!((&running["models"][0]["name"], &running["models"][0]["digest"]), (&model["name"], &model["digest"]));
    assert_eq!(running["models"][0]["context_length"], 512);
    let shown = server.post("/api/show", &json!({ "name": "small:latest" }));
    assert_eq!(shown["model_info"]["llama.context_length"], 512);
    assert_eq!((&shown["details"], &shown["capabilities"]), (details, &json!(["completion", "embedding"])));
    assert!(shown["parameters"].as_str().unwrap().contains("num_ctx 512"));
    server.stop();
    let thinker = Thinker::start();
    let shown = thinker.post("/api/show", &json!({ "model": "small" }));
    assert_eq!(shown["capabilities"], json!(["completion", "tools", "thinking"]));
    thinker.stop();
}

#[test]
fn chats_and_texts_are_answered_whole_and_in_lines_alike() {
    let server = serve(&[]);
    // As Open WebUI asks.
    let options = json!({ "temperature": 0, "num_predict": 20, "num_ctx": 512, "seed": 7, "num_keep": 4, "mirostat": 0,
        "logit_bias": { "2": -100 } });
    let body = json!({ "model": "small", "messages": say("Hello"), "options": options, "keep_alive": "5m", "tools": [],
        "metadata": { "chat_id": "x" } });
    let whole = both(&server, CHAT, &body);
    assert_eq!((&whole["model"], &whole["message"]["role"]), (&json!("small"), &json!("assistant")));
    assert_eq!((&whole["done_reason"], &whole["eval_count"]), (&json!("length"), &json!(20)));
    let text = whole["message"]["content"].as_str().unwrap().to_owned();
    let other = json!({ "messages": say("Hello"), "max_tokens": 20, "temperature": 0, "logit_bias": { "2": -100 } });
    assert_eq!(server.post(super::CHAT, &other)["choices"][0]["message"]["content"], text);
    let generate = json!({ "prompt": "Hello", "options": options });
    assert_eq!(both(&server, GENERATE, &generate)["response"], text);
    // Words of the system come first.
    let system = json!([{ "role": "system", "content": "Be." }, { "role": "user", "content": "Hello" }]);
    let with_system = both(&server, CHAT, &with(&body, json!({ "messages": system })));
    let same = both(&server, GENERATE, &with(&generate, json!({ "system": "Be." })));
    assert_eq!(same["response"], with_system["message"]["content"]);
    assert!(same["prompt_eval_count"].as_u64() > whole["prompt_eval_count"].as_u64());
    // A text as it is, as Continue completes code.
    let raw = json!({ "model": "small", "prompt": "fn main", "raw": true, "keep_alive": 1800, "suffix": "", "options": options });
    let continued = server.post(super::TEXT, &with(&other, json!({ "prompt": "fn main" })));
    assert_eq!(both(&server, GENERATE, &raw)["response"], continued["choices"][0]["text"]);
    // Each option is heard.
    let say_with = |more: Value| {
        let options = with(&options, json!({ "temperature": 1 }));
        let body = with(&body, json!({ "options": with(&options, more), "stream": false }));
        server.post(CHAT, &body)["message"]["content"].as_str().unwrap().to_owned()
    };
    let plain = say_with(json!({}));
    for same in [json!({ "top_k": 1 }), json!({ "min_p": 1 }), json!({ "top_p": 1e-6 })] {
        assert_eq!(say_with(same.clone()), text, "{same}");
    }
    for other in [
        json!({ "seed": 8 }),
        json!({ "repeat_penalty": 1.8 }),
        json!({ "presence_penalty": 2 }),
        json!({ "frequency_penalty": 2 }),
    ] {
        assert_ne!(say_with(other.clone()), plain, "{other}");
    }
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped = both(&server, CHAT, &with(&body, json!({ "options": with(&options, json!({ "stop": [stop] })) })));
    assert_eq!(stopped["done_reason"], "stop");
    assert_eq!(stopped["message"]["content"].as_str(), text.split(&stop).next());
    // Forms.
    let schema = json!({ "type": "object", "properties": { "unit": { "enum": ["C"] } }, "required": ["unit"],
        "additionalProperties": false });
    let more = json!({ "format": schema, "options": { "num_predict": 200, "seed": 1 } });
    for (path, place) in [(CHAT, "/message/content"), (GENERATE, "/response")] {
        let body = if path == CHAT { &body } else { &generate };
        let answer = both(&server, path, &with(body, more.clone()));
        let said = answer.pointer(place).unwrap().as_str().unwrap();
        assert_eq!(serde_json::from_str::<Value>(said).unwrap(), json!({ "unit": "C" }));
    }
    // Nothing is asked: the model is there.
    for (path, body) in [(CHAT, json!({ "messages": [] })), (GENERATE, json!({ "model": "small", "keep_alive": -1 }))] {
        let answer = server.post(path, &body);
        assert_eq!((&answer["done"], &answer["done_reason"]), (&json!(true), &json!("load")));
    }
    server.stop();
}

#[test]
fn reasoning_and_calls_come_apart_from_the_text() {
    let server = Thinker::start();
    let mut thoughts = 0;
    for seed in 1..5 {
        let body =
            json!({ "messages": say("Hello"), "options": { "num_predict": 60, "seed": seed, "logit_bias": bias() } });
        let answer = both(&server, CHAT, &with(&body, json!({ "think": true })));
        let thinking = answer["message"]["thinking"].as_str().unwrap_or_default();
        thoughts += usize::from(!thinking.is_empty() && answer["message"]["content"] != "");
        let generated = both(&server, GENERATE, &with(&body, json!({ "prompt": "Hello", "think": "low" })));
        assert!(generated["prompt_eval_count"].as_u64() > answer["prompt_eval_count"].as_u64(), "{generated}");
        let none = both(&server, CHAT, &with(&body, json!({ "think": false })));
        assert!(none["message"].get("thinking").is_none(), "{none}");
    }
    assert!(thoughts > 0);
    let parameters = json!({ "type": "object", "properties": { "unit": { "type": "string" } } });
    let tool = json!({ "type": "function", "function": { "name": "weather", "parameters": parameters } });
    let body = json!({ "messages": say("abc"), "tools": [tool], "think": false, "options": { "num_predict": 1 } });
    // Calls and results of earlier turns reach the template.
    let tokens = |messages: Value| {
        let answer = server.post(CHAT, &with(&body, json!({ "messages": messages, "stream": false })));
        answer["prompt_eval_count"].as_u64().unwrap()
    };
    let call = json!({ "function": { "name": "weather", "arguments": { "unit": "C" } } });
    let first = json!({ "role": "user", "content": "abc" });
    let result = json!({ "role": "tool", "tool_name": "weather", "content": "17" });
    let with_call =
        json!([first, { "role": "assistant", "content": "", "tool_calls": [call], "thinking": "Look" }, result]);
    let without = json!([first, { "role": "assistant", "content": "" }, result]);
    assert!(tokens(with_call) > tokens(without) + 20);
    server.stop();
}

#[test]
fn calls_come_whole_with_their_arguments_as_an_object() {
    // Llama's calls are plain JSON, which the form asks for.
    let folder = copy("llama3");
    let template = "{{ bos_token }}{% if tools %}{{ tools | tojson }} dictionary of argument name and its value{% endif %}\
        {% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>";
    fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let server = Serving::start(&[folder.path().to_str().unwrap(), "--ctx", "512"]);
    let only = |value: &str| json!({ "enum": [value] });
    let object = |properties: Value| {
        let names: Vec<&String> = properties.as_object().unwrap().keys().collect();
        json!({ "type": "object", "properties": properties, "required": names, "additionalProperties": false })
    };
    let tool = json!({ "type": "function", "function": { "name": "weather", "parameters": object(json!({ "unit": only("C") })) } });
    let format = object(json!({ "name": only("weather"), "parameters": object(json!({ "unit": only("C") })) }));
    let body = json!({ "messages": say("abc"), "tools": [tool], "format": format, "options": { "seed": 1 } });
    let answer = both(&server, CHAT, &body);
    let calls = answer["message"]["tool_calls"].as_array().unwrap_or_else(|| panic!("{answer}"));
    assert_eq!(calls.len(), 1);
    assert_eq!(calls[0]["function"], json!({ "name": "weather", "arguments": { "unit": "C" } }));
    assert_eq!((&answer["message"]["content"], &answer["done_reason"]), (&json!(""), &json!("stop")));
    server.stop();
}

#[test]
fn embeddings_are_openais() {
    let server = serve(&["--embeddings", "--pooling", "mean"]);
    let theirs = server.post("/v1/embeddings", &json!({ "input": ["one", "another"] }));
    let ours = server.post("/api/embed", &json!({ "model": "small", "input": ["one", "another"], "truncate": true }));
    for i in 0..2 {
        assert_eq!(ours["embeddings"][i], theirs["data"][i]["embedding"]);
    }
    assert_eq!((&ours["prompt_eval_count"], &ours["model"]), (&theirs["usage"]["prompt_tokens"], &json!("small")));
    assert_eq!(server.post("/api/embed", &json!({ "input": "one" }))["embeddings"][0], ours["embeddings"][0]);
    assert_eq!(server.post("/api/embeddings", &json!({ "prompt": "one" }))["embedding"], ours["embeddings"][0]);
    let long = server.request(
        "POST",
        "/api/embed",
        "",
        &json!({ "input": "word ".repeat(600), "truncate": true }).to_string(),
    );
    assert!(long.status == 400 && long.body.contains("512"), "{}", long.body);
    server.stop();
}

#[test]
fn errors_have_ollamas_shape_and_name_the_field() {
    let server = serve(&[]);
    let refused = |path: &str, body: &Value| {
        let response = server.request("POST", path, "", &body.to_string());
        let json: Value = serde_json::from_str(&response.body).unwrap();
        (response.status, json["error"].as_str().unwrap_or_else(|| panic!("{json}")).to_owned())
    };
    let ok = json!({ "messages": say("x"), "prompt": "x" });
    let message = |message: Value| json!({ "messages": [message] });
    for (path, more, field) in [
        (CHAT, json!({ "messages": "x" }), "messages"),
        (CHAT, message(json!({ "content": "x" })), "messages[0].role"),
        (CHAT, message(json!({ "role": "user", "content": "x", "images": ["AAAA"] })), "messages[0].images"),
        (CHAT, json!({ "options": 1 }), "options"),
        (CHAT, json!({ "options": { "temperature": "hot" } }), "options.temperature"),
        (CHAT, json!({ "options": { "temperature": -1 } }), "options.temperature"),
        (CHAT, json!({ "options": { "top_k": 1.5 } }), "options.top_k"),
        (CHAT, json!({ "options": { "stop": 1 } }), "options.stop"),
        (CHAT, json!({ "options": { "num_predict": "x" } }), "options.num_predict"),
        (CHAT, json!({ "format": "xml" }), "format"),
        (CHAT, json!({ "format": { "type": "bogus" } }), "format"),
        (CHAT, json!({ "think": "much" }), "think"),
        (CHAT, json!({ "stream": "yes" }), "stream"),
        (CHAT, json!({ "tools": [{ "type": "function" }] }), "tools[0].function.name"),
        (GENERATE, json!({ "suffix": "}" }), "suffix"),
        (GENERATE, json!({ "images": ["AAAA"] }), "images"),
        (GENERATE, json!({ "context": [1, 2] }), "context"),
        (GENERATE, json!({ "template": "{{ .Prompt }}" }), "template"),
        (GENERATE, json!({ "prompt": 1 }), "prompt"),
    ] {
        let (status, error) = refused(path, &with(&ok, more.clone()));
        assert!(status == 400 && error.contains(&format!("`{field}`")), "{more}: {status} {error}");
    }
    // Neither the context nor the prompt is cut in silence.
    let (status, error) = refused(CHAT, &with(&ok, json!({ "options": { "num_ctx": 4096 } })));
    assert!(status == 400 && error.contains("4096") && error.contains("512"), "{error}");
    let (status, error) = refused(CHAT, &json!({ "messages": say(&"word ".repeat(600)) }));
    assert!(status == 400 && error.contains("512"), "{error}");
    assert_eq!(refused("/api/pull", &json!({ "model": "x" })).0, 404);
    assert_eq!(refused("/api/embed", &json!({ "input": "x" })).0, 501);
    server.stop();
}
