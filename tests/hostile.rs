//! Damaged and lying model files through the public API and through the command: always an error or a working model,
//! never a panic, a signal or a hang. (The readers' own tests are in `runtime/src/format`.)

mod support;

use std::{
    fs,
    io::Read,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use support::{Fixture, Options, Session, Spelling, handmill, write_gguf};
use tempfile::TempDir;

/// Opens `path` and, where that works, computes a few tokens. A panic is what this looks for.
fn try_out(path: &Path) -> Result<(), String> {
    let run = || Session::try_open(path, Options::default())?.try_feed(&[1, 5, 7]);
    run().map(drop).map_err(|e| e.to_string())
}

/// xorshift: where to damage, the same in every run.
fn random(state: &mut u64) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state as usize
}

fn gguf_bytes(name: &'static str) -> Vec<u8> {
    let temp = TempDir::new().expect("temporary folder");
    let path = temp.path().join("model.gguf");
    write_gguf(&Fixture::load(name), &path).expect("expressible");
    fs::read(path).expect("the file just written")
}

/// Lengths to cut a file of `len` bytes to: all short ones, and some all over.
fn cuts(len: usize) -> impl Iterator<Item = usize> {
    (0..64).chain((64..len).step_by(len / 97)).chain([len - 1])
}

#[test]
fn truncated_gguf() {
    let bytes = gguf_bytes("llama2");
    let temp = TempDir::new().expect("temporary folder");
    let path = temp.path().join("cut.gguf");
    for cut in cuts(bytes.len()) {
        fs::write(&path, &bytes[..cut]).expect("writing");
        let message = try_out(&path).expect_err("a cut file is no model");
        assert!(message.contains("cut.gguf"), "cut at {cut}: the message names no file: {message}");
    }
}

#[test]
fn damaged_gguf() {
    let bytes = gguf_bytes("qwen3");
    // Weights are the greater part of the file and any of their bits may flip; keys and shapes are what lies.
    let header = bytes.windows(16).rposition(|w| w == b"attn_q_norm.weig").expect("tensor names") + 64;
    let temp = TempDir::new().expect("temporary folder");
    let path = temp.path().join("damaged.gguf");
    let mut state = 0x9e37_79b9_7f4a_7c15;
    for round in 0..600 {
        let mut damaged = bytes.clone();
        for _ in 0..1 + round % 3 {
            let at = random(&mut state) % header;
            damaged[at] = match round % 4 {
                0 => 0,
                1 => 0xff,
                2 => damaged[at] ^ 1 << (random(&mut state) % 8),
                _ => random(&mut state) as u8,
            };
        }
        fs::write(&path, &damaged).expect("writing");
        let _ = try_out(&path);
    }
}

#[test]
fn truncated_safetensors() {
    let fixture = Fixture::load("llama2");
    let (folder, _guard) = fixture.folder(Spelling::Legacy);
    let path = folder.join("model.safetensors");
    let bytes = fs::read(&path).expect("weights");
    for cut in cuts(bytes.len()) {
        fs::write(&path, &bytes[..cut]).expect("writing");
        assert!(try_out(&folder).is_err(), "cut at {cut} and opened all the same");
    }
}

/// Changes to a config, each of which must be refused: what a config claims is checked against the weights. (Sizes that
/// the weights themselves have, like intermediate_size, are taken from them.)
#[test]
fn lying_configs() {
    let fixture = Fixture::load("llama2");
    let (folder, _guard) = fixture.folder(Spelling::Legacy);
    let path = folder.join("config.json");
    let config: Value = serde_json::from_slice(&fs::read(&path).expect("config")).expect("JSON");
    let huge = json!(1_000_000_000_000_000_000u64);
    for (key, value) in [
        ("model_type", json!("no_such_family")),
        ("model_type", json!(7)),
        ("num_hidden_layers", json!(4)),
        ("num_hidden_layers", json!(-1)),
        ("num_hidden_layers", json!("three")),
        ("num_hidden_layers", huge.clone()),
        ("hidden_size", json!(0)),
        ("hidden_size", json!(95)),
        ("hidden_size", huge.clone()),
        ("num_attention_heads", json!(0)),
        ("num_attention_heads", json!(7)),
        ("num_attention_heads", huge.clone()),
        ("num_key_value_heads", json!(0)),
        ("num_key_value_heads", json!(4)),
        ("head_dim", json!(0)),
        ("head_dim", json!(15)),
        ("head_dim", huge.clone()),
        ("rope_theta", json!("fast")),
        ("rope_scaling", json!({"type": "no_such_scaling", "factor": 2.0})),
        ("rope_scaling", json!({"type": "linear"})),
        ("rope_scaling", json!([1, 2])),
        ("hidden_act", json!("no_such_activation")),
    ] {
        let mut lying = config.clone();
        lying[key] = value.clone();
        fs::write(&path, lying.to_string()).expect("writing");
        let opened = try_out(&folder);
        assert!(opened.is_err(), "{key} = {value} was accepted");
    }
    for text in ["", "{", "[]", "null", "{\"model_type\": \"llama\"}", "\u{0}\u{1}"] {
        fs::write(&path, text).expect("writing");
        assert!(try_out(&folder).is_err(), "config {text:?} was accepted");
    }
    fs::remove_file(&path).expect("removing");
    assert!(try_out(&folder).is_err(), "a folder without a config was accepted");
}

/// As [`lying_configs`], for what other families' configurations have: what a graph cannot have is refused, never
/// ignored.
#[test]
fn lying_configs_of_other_families() {
    let longrope = |key: &'static str, value: Value| {
        move |c: &mut Value| {
            c["rope_parameters"][key] = value.clone();
        }
    };
    let set = |key: &'static str, value: Value| move |c: &mut Value| c[key] = value.clone();
    let huge = json!(1_000_000_000_000_000_000u64);
    type Change = Box<dyn Fn(&mut Value)>;
    let changes: Vec<(&'static str, Change)> = vec![
        ("mistral", Box::new(set("sliding_window", json!(0)))),
        ("mistral", Box::new(set("sliding_window", json!("long")))),
        ("mistral", Box::new(set("hidden_act", json!("gelu")))),
        ("mistral", Box::new(set("num_local_experts", json!(8)))),
        ("mistral", Box::new(set("layer_types", json!(["full_attention", "sliding_attention", "full_attention"])))),
        ("mistral", Box::new(longrope("llama_4_scaling_beta", json!(0.1)))),
        ("mistral", Box::new(longrope("rope_type", json!("xpos")))),
        ("mistral", Box::new(set("intermediate_size", huge.clone()))),
        ("ministral", Box::new(set("layer_types", json!(["full_attention"])))),
        ("ministral", Box::new(set("layer_types", json!(["a", "b", "c", "d"])))),
        ("ministral3", Box::new(longrope("llama_4_scaling_beta", json!("hot")))),
        ("ministral3", Box::new(longrope("original_max_position_embeddings", json!(0)))),
        ("ministral3", Box::new(longrope("factor", json!(-1)))),
        ("phi2", Box::new(set("hidden_act", json!("gelu")))),
        ("phi2", Box::new(set("qk_layernorm", json!(true)))),
        ("phi2", Box::new(longrope("partial_rotary_factor", json!(0.0)))),
        ("phi2", Box::new(longrope("partial_rotary_factor", json!(1.5)))),
        ("phi3-longrope", Box::new(longrope("long_factor", json!([1.0, 2.0])))),
        ("phi3-longrope", Box::new(longrope("short_factor", json!("none")))),
        ("phi3-longrope", Box::new(longrope("short_factor", json!([0, 0, 0, 0, 0, 0, 0, 0])))),
        ("phi3-longrope", Box::new(set("original_max_position_embeddings", json!(0)))),
        ("phi3-longrope", Box::new(set("num_attention_heads", json!(5)))),
        ("phi3-longrope", Box::new(set("intermediate_size", json!(161)))),
        ("phi3-longrope", Box::new(set("intermediate_size", huge.clone()))),
        ("phi3-longrope", Box::new(set("intermediate_size", json!(0)))),
        ("gemma", Box::new(set("hidden_activation", json!("relu")))),
        ("gemma", Box::new(set("use_bidirectional_attention", json!(true)))),
        ("gemma2", Box::new(set("query_pre_attn_scalar", json!(0)))),
        ("gemma2", Box::new(set("query_pre_attn_scalar", json!(-4)))),
        ("gemma2", Box::new(set("final_logit_softcapping", json!(-1.0)))),
        ("gemma2", Box::new(set("attn_logit_softcapping", json!(-1.0)))),
        ("gemma2", Box::new(set("sliding_window", json!(0)))),
        ("gemma2", Box::new(set("layer_types", json!(vec!["chunked_attention"; 4])))),
        ("olmo2", Box::new(set("num_key_value_heads", json!(3)))),
        ("olmo3", Box::new(set("sliding_window", json!(0)))),
        ("olmo3", Box::new(set("hidden_act", json!("relu")))),
        ("granite", Box::new(set("logits_scaling", json!(0)))),
        ("granite", Box::new(set("num_local_experts", json!(4)))),
        ("granite", Box::new(set("residual_multiplier", json!("much")))),
        ("smollm3", Box::new(set("no_rope_layers", json!([1, 0])))),
        ("smollm3", Box::new(set("no_rope_layers", json!("none")))),
    ];
    for (i, (name, change)) in changes.iter().enumerate() {
        let fixture = Fixture::load(name);
        let mut changed = Value::Null;
        let folder = fixture.changed(|c| {
            change(c);
            changed = c.clone();
        });
        let opened = try_out(folder.path());
        assert!(opened.is_err(), "change {i} of {name} was accepted: {changed}");
        assert!(!opened.unwrap_err().is_empty());
    }
}

#[test]
fn lying_shard_indexes() {
    let fixture = Fixture::load("qwen3-sharded");
    let (folder, _guard) = fixture.folder(Spelling::Legacy);
    let path = folder.join("model.safetensors.index.json");
    let index: Value = serde_json::from_slice(&fs::read(&path).expect("index")).expect("JSON");
    let key = "model.norm.weight";
    let lie = |file: &str| {
        let mut lying = index.clone();
        lying["weight_map"][key] = json!(file);
        fs::write(&path, lying.to_string()).expect("writing");
    };
    // Not a lie but old: all parts are there.
    lie("missing.safetensors");
    try_out(&folder).expect("a model in parts");
    for file in ["../config.json", "/etc/passwd", "config.json", "", "."] {
        lie(file);
        assert!(try_out(&folder).is_err(), "an index that names {file:?} was accepted");
    }
    for text in ["", "{}", "{\"weight_map\": []}", "{\"weight_map\": {\"a\": 1}}"] {
        fs::write(&path, text).expect("writing");
        assert!(try_out(&folder).is_err(), "index {text:?} was accepted");
    }
}

/// The command on damaged files: exit code 1, a message that names the file, no backtrace, soon.
#[test]
fn command_on_damaged_files() {
    let bytes = gguf_bytes("llama2");
    let temp = TempDir::new().expect("temporary folder");
    let write = |name: &str, bytes: &[u8]| {
        let path = temp.path().join(name);
        fs::write(&path, bytes).expect("writing");
        path
    };
    let mut big_endian = bytes.clone();
    big_endian[4..8].reverse();
    let mut future = bytes.clone();
    future[4] = 9;
    for path in [
        write("empty.gguf", b""),
        write("cut-in-keys.gguf", &bytes[..200]),
        write("cut-in-weights.gguf", &bytes[..bytes.len() / 2]),
        write("big-endian.gguf", &big_endian),
        write("future.gguf", &future),
        write("page.gguf", b"<!DOCTYPE html><html>Not found</html>"),
        temp.path().join("not-there.gguf"),
        temp.path().to_owned(),
    ] {
        let name = path.file_name().and_then(|n| n.to_str()).expect("a name").to_owned();
        for command in ["inspect", "run", "logits", "perplexity", "bench"] {
            let mut child = handmill();
            child.arg(command).arg(&path);
            match command {
                "run" => child.args(["-p", "hello", "-n", "2"]),
                "logits" => child.args(["--tokens", "1,2", "--out"]).arg(temp.path().join("out.npy")),
                "perplexity" => child.arg("--file").arg(support::fixtures_dir().join("goldens/text.txt")),
                _ => &mut child,
            };
            let (code, stderr) = run_within(&mut child, Duration::from_secs(20));
            assert_eq!(code, Some(1), "{command} {name}: {stderr}");
            assert!(stderr.contains(&name), "{command} {name}: the message names no file: {stderr}");
            assert!(!stderr.contains("panicked"), "{command} {name}: {stderr}");
        }
    }
}

/// Weights that are no numbers make no sensible logits, and no panic either.
#[test]
fn nan_weights() {
    let mut bytes = gguf_bytes("llama2");
    let end = bytes.len();
    bytes[end - 40_000..].fill(0xff);
    let temp = TempDir::new().expect("temporary folder");
    let path = temp.path().join("nan.gguf");
    fs::write(&path, bytes).expect("writing");
    let (code, stderr) =
        run_within(handmill().arg("run").arg(&path).args(["-p", "hello", "-n", "4"]), Duration::from_secs(20));
    assert!(matches!(code, Some(0 | 1)), "exit code {code:?}: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

/// Exit code (none where a signal ended it) and stderr of `command`; a failure where it takes longer than `limit`.
fn run_within(command: &mut Command, limit: Duration) -> (Option<i32>, String) {
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("running the command");
    let start = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("waiting for the command") {
            break status;
        }
        if start.elapsed() > limit {
            let _ = child.kill();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(2));
    };
    let mut stderr = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut stderr).expect("UTF-8");
    (status.code(), stderr)
}
