//! `/metrics` and `/slots`: what was counted, and what runs.

use std::{collections::HashMap, io::Read, net::Shutdown};

use serde_json::{Value, json};

use super::{
    CHAT, TEXT, chat,
    cli_support::{serving::Serving, wait_for},
    serve, with,
};

/// Samples by their name and labels.
type Samples = HashMap<String, f64>;

/// Reads the metrics line by line, as a scraper does.
#[track_caller]
fn scrape(server: &Serving) -> Samples {
    let response = server.request("GET", "/metrics", "", "");
    assert!(response.status == 200 && response.body.ends_with('\n'), "{response:?}");
    assert!(response.head.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{}", response.head);
    let (mut samples, mut family, mut kind) = (Samples::new(), String::new(), String::new());
    for line in response.body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
            assert!(name.starts_with("handmill_") && !words.is_empty() && name != family, "{line}");
            family = name.to_owned();
        } else if let Some(of_type) = line.strip_prefix("# TYPE ") {
            let (name, of) = of_type.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
            assert!(name == family && ["counter", "gauge", "histogram"].contains(&of), "{line}");
            assert_eq!(of == "counter", name.ends_with("_total"), "{line}");
            kind = of.to_owned();
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no sample: {line}"));
            let bare = name.split('{').next().unwrap();
            let of_family = match kind.as_str() {
                "histogram" => ["_bucket", "_sum", "_count"].iter().any(|end| bare == format!("{family}{end}")),
                _ => bare == family,
            };
            assert!(of_family && name.contains('{') == name.ends_with("\"}"), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("no number: {line}"));
            assert_eq!(samples.insert(name.to_owned(), value), None, "{line}");
        }
    }
    samples
}

fn requests(samples: &Samples, outcome: &str) -> f64 {
    samples[&format!("handmill_requests_total{{outcome=\"{outcome}\"}}")]
}

/// The number of times in a histogram, whose buckets must agree with it.
#[track_caller]
fn count_of(samples: &Samples, name: &str) -> f64 {
    let start = format!("{name}_bucket{{le=\"");
    let bound = |key: &str| key.strip_prefix(&start)?.strip_suffix("\"}")?.parse::<f64>().ok();
    let mut buckets: Vec<(f64, f64)> = samples.iter().filter_map(|(key, count)| Some((bound(key)?, *count))).collect();
    buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
    assert!(buckets.len() > 5 && buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{name}: {buckets:?}");
    let count = samples[&format!("{name}_count")];
    assert_eq!(buckets.last(), Some(&(f64::INFINITY, count)), "{name}");
    // No time is longer than a test, and none is nothing.
    let sum = samples[&format!("{name}_sum")];
    assert!((sum > 0.0) == (count > 0.0) && sum < 600.0 * count.max(1.0), "{name}: {sum}");
    count
}

#[test]
fn metrics_count_what_was_served() {
    let server = serve(&["--embeddings"]);
    let before = scrape(&server);
    let info = format!("handmill_info{{version=\"{}\",model=\"small\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(before[&info], 1.0);
    for name in ["finished", "cancelled", "failed", "refused"] {
        assert_eq!(requests(&before, name), 0.0, "{name}");
    }
    assert_eq!(before["handmill_steps_total"], 0.0);
    let cache = |samples: &Samples| ["", "_free", "_kept"].map(|of| samples[&format!("handmill_cache_tokens{of}")]);
    let [all, free, kept] = cache(&before);
    assert!(all >= 1024.0 && free == all && kept == 0.0, "{all}, {free}, {kept}");
    // The second prompt is the first one's, so that some of it is in the cache; the third answer ends by itself.
    let long = "a b c d e f g h ".repeat(12);
    let ends = json!({ "logit_bias": { "2": 100 }, "temperature": 0, "ignore_eos": false });
    let bodies = [chat(&long, 20, 1), chat(&long, 30, 2), with(&chat("x", 9, 3), ends)];
    let (mut prompts, mut cached, mut generated) = (0.0, 0.0, 0.0);
    for body in &bodies {
        let usage = server.post(CHAT, body)["usage"].clone();
        prompts += usage["prompt_tokens"].as_f64().unwrap();
        cached += usage["prompt_tokens_details"]["cached_tokens"].as_f64().unwrap();
        generated += usage["completion_tokens"].as_f64().unwrap();
    }
    assert!(cached > 0.0 && generated == 51.0, "{cached}, {generated}");
    // What has been answered is counted already.
    let after = scrape(&server);
    assert_eq!(requests(&after, "finished"), 3.0);
    assert_eq!(after["handmill_prompt_tokens_cached_total"], cached);
    assert_eq!(after["handmill_prompt_tokens_total"], prompts - cached);
    assert_eq!(after["handmill_generated_tokens_total"], generated);
    // What is kept has pages of its own.
    let [_, free, kept] = cache(&after);
    assert!(kept >= 64.0 && free < all && free + kept <= all, "{all}, {free}, {kept}");
    assert_eq!(after["handmill_requests_running"] + after["handmill_requests_queued"], 0.0);
    // One after the other, each step has the tokens of one answer; its last one is not run.
    assert!(after["handmill_steps_total"] >= generated, "{}", after["handmill_steps_total"]);
    assert_eq!(count_of(&after, "handmill_time_to_first_token_seconds"), 3.0);
    assert_eq!(count_of(&after, "handmill_inter_token_seconds"), generated - 3.0);
    assert_eq!(count_of(&after, "handmill_queue_seconds"), 3.0);
    // Readers: a prompt with its log-probabilities, and a vector. Nothing of either comes from the cache.
    let ids: Vec<u32> = (0..40).map(|i| 3 + i).collect();
    server.post(TEXT, &json!({ "prompt": ids, "echo": true, "logprobs": 1, "max_tokens": 2, "ignore_eos": true }));
    server.post("/v1/embeddings", &json!({ "input": ids }));
    let read = scrape(&server);
    assert_eq!(requests(&read, "finished"), 5.0);
    assert_eq!(read["handmill_prompt_tokens_total"], prompts - cached + 80.0);
    assert_eq!(read["handmill_generated_tokens_total"], generated + 2.0);
    assert_eq!(count_of(&read, "handmill_time_to_first_token_seconds"), 4.0);
    assert_eq!(count_of(&read, "handmill_queue_seconds"), 5.0);
    // What goes wrong.
    assert_eq!(server.refused(TEXT, &json!({ "prompt": vec![5; 513] })).0, 400);
    // The form asks for the one token that is forbidden.
    let id = server.post("/tokenize", &json!({ "content": "q" }))["tokens"][0].to_string();
    let stuck = json!({ "guided_choice": ["q"], "logit_bias": { id: -100 } });
    assert_eq!(server.refused(CHAT, &with(&chat("x", 5, 1), stuck)).0, 500);
    let wrong = scrape(&server);
    let outcomes = ["finished", "cancelled", "failed", "refused"].map(|name| requests(&wrong, name));
    assert_eq!(outcomes, [5.0, 0.0, 1.0, 1.0]);
    assert_eq!(count_of(&wrong, "handmill_time_to_first_token_seconds"), 4.0, "no token, no time");
    server.stop();
}

#[test]
fn slots_show_numbers_of_what_runs_and_clients_that_leave_are_cancelled() {
    let server = serve(&["--parallel", "1"]);
    let idle = json!([{ "id": 0, "n_ctx": 512, "speculative": false, "is_processing": false }]);
    assert_eq!(server.get("/slots"), idle);
    assert_eq!(server.get("/slots?fail_on_no_slot=1"), idle);
    // One after the other, so that one runs and the others wait for long enough to be looked at.
    let many = json!({ "stream": true, "n": 64, "temperature": 0.5, "top_k": 7, "frequency_penalty": 0.25 });
    let body = with(&chat("secret words", 400, 11), many);
    let mut connection = server.send("POST", CHAT, "", &body.to_string());
    connection.read_exact(&mut vec![0; 2000]).unwrap();
    let slot = || server.get("/slots")[0].clone();
    let decoded = |slot: &Value| slot["next_token"][0]["n_decoded"].as_u64();
    // The first choices have ended: all have been taken, and those behind the first find its prompt in the cache.
    wait_for(|| slot()["id_task"].as_u64().is_some_and(|task| task > 1) && decoded(&slot()) > Some(0));
    wait_for(|| {
        let (first, second) = (slot(), slot());
        first["id_task"] == second["id_task"] && decoded(&first) < decoded(&second) && decoded(&first).is_some()
    });
    // Between two of them none may run.
    let text = |_| server.request("GET", "/slots", "", "").body;
    let text = (0..1000).map(text).find(|text| text.contains("next_token")).unwrap();
    assert!(!text.contains("secret") && !text.contains("prompt\""), "{text}");
    let slots: Value = serde_json::from_str(&text).unwrap();
    let shown = &slots[0];
    assert_eq!((slots.as_array().unwrap().len(), &shown["id"], &shown["n_ctx"]), (1, &json!(0), &json!(512)));
    let (prompt, run) = (shown["n_prompt_tokens"].as_u64(), shown["n_prompt_tokens_processed"].as_u64());
    assert!(prompt > Some(5) && run <= prompt, "{shown}");
    let next = &shown["next_token"][0];
    assert_eq!(next["n_remain"].as_u64(), decoded(shown).map(|n| 400 - n));
    assert_eq!(next["has_next_token"], true);
    let expected = [
        ("n_predict", json!(400)),
        ("temperature", json!(0.5)),
        ("top_k", json!(7)),
        ("frequency_penalty", json!(0.25)),
        ("ignore_eos", json!(true)),
    ];
    for (name, value) in expected {
        assert_eq!(shown["params"][name], value, "{name}: {shown}");
    }
    assert!(shown["params"]["seed"].as_u64().is_some_and(|seed| (11..75).contains(&seed)), "{shown}");
    wait_for(|| server.request("GET", "/slots?fail_on_no_slot=1", "", "").status == 503);
    let during = scrape(&server);
    assert!(during["handmill_requests_running"] <= 1.0 && during["handmill_requests_queued"] > 0.0);
    assert!(during["handmill_step_rows"] >= 1.0);
    connection.shutdown(Shutdown::Both).unwrap();
    wait_for(|| server.get("/slots") == idle);
    wait_for(|| scrape(&server)["handmill_requests_queued"] == 0.0);
    let after = scrape(&server);
    let (finished, cancelled) = (requests(&after, "finished"), requests(&after, "cancelled"));
    assert!(finished >= 1.0 && cancelled >= 1.0 && finished + cancelled == 64.0, "{finished}, {cancelled}");
    assert_eq!(requests(&after, "failed") + requests(&after, "refused"), 0.0);
    assert_eq!(after["handmill_requests_running"], 0.0);
    server.stop();
}

#[test]
fn a_full_queue_refuses_and_keys_are_asked_for_as_elsewhere() {
    let server = serve(&["--parallel", "1", "--queue", "1", "--api-key", "secret"]);
    let key = "authorization: Bearer secret\r\n";
    for path in ["/metrics", "/slots"] {
        assert_eq!(server.request("GET", path, "", "").status, 401, "{path}");
        assert_eq!(server.request("GET", path, key, "").status, 200, "{path}");
        assert_eq!(server.request("POST", path, key, "").status, 405, "{path}");
    }
    // One runs, one waits; the first that is refused ends the whole request.
    let body = json!({ "prompt": ["a", "b", "c", "d"], "max_tokens": 300, "ignore_eos": true });
    let response = server.request("POST", TEXT, key, &body.to_string());
    assert_eq!(response.status, 429, "{}", response.body);
    let metrics = server.request("GET", "/metrics", key, "").body;
    assert!(metrics.contains("handmill_requests_total{outcome=\"refused\"} 1\n"), "{metrics}");
    server.stop();
}
