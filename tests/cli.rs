//! The command as a stranger meets it: wrong usage, wrong files, closed pipes, Ctrl-C.

mod cli_support;
#[cfg(feature = "gpu")]
mod support;

use cli_support::{Handmill, fixture, tiny_gguf};
use handmill_runtime::{
    format::{Bytes, Tensor, gguf::GgufWriter},
    quant::DType,
};
use serde_json::json;
use std::{fs, process::Stdio};
#[cfg(feature = "gpu")]
use support::no_adapter;

fn run(args: &[&str]) -> cli_support::Answer {
    Handmill::new().run(args)
}

#[test]
fn wrong_usage_is_exit_code_2_and_says_how_it_goes() {
    let model = fixture("llama2");
    let cases: &[&[&str]] = &[
        &[],
        &["no-such-command"],
        &["run", "--no-such-option"],
        &["run", &model, "-p", "x", "--temp", "hot"],
        &["run", &model, "-p", "x", "--threads", "0"],
        &["run", &model, "-p", "x", "--top-p", "2"],
        &["run", &model, "-p", "x", "--temp=-1"],
        &["run", &model, "-p", "x", "--logit-bias", "5"],
        &["run", &model, "-p", "x", "--file", "y"],
        &["run", &model],
        &["logits", &model, "--tokens", "1,x", "--out", "x.npy"],
        &["logits", &model, "--tokens", "", "--out", "x.npy"],
        &["bench", &model, "--reps", "0"],
        &["bench", &model, "--batch", "1,0"],
        &["bench", &model, "--batch", "4", "-n", "0"],
        &["bench", &model, "--synthetic", "config.json"],
        &["bench", "--layers", "2"],
        &["bench", "--synthetic", "config.json", "--layers", "0"],
        &["bench", "--synthetic", "config.json", "--format", "q9_z"],
        &["perplexity", &model],
        &["detokenize", &model, "abc"],
        &["inspect", "no-such-alias"],
        &["inspect", "hf:no-slash"],
    ];
    for args in cases {
        let answer = run(args);
        assert_eq!(answer.code, Some(2), "{args:?}: {}", answer.stderr);
        assert_eq!(answer.stdout, "", "{args:?}");
        assert!(!answer.stderr.trim().is_empty() && !answer.stderr.contains("panicked"), "{args:?}: {}", answer.stderr);
    }
}

#[test]
fn help_and_version_go_to_standard_output() {
    for args in [&["--help"][..], &["--version"], &["run", "--help"], &["bench", "--help"]] {
        let answer = run(args);
        answer.assert_ok();
        assert!(!answer.stdout.is_empty() && answer.stderr.is_empty(), "{args:?}");
    }
}

#[test]
fn wrong_files_are_one_clear_line() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let weights = fs::read(fixture("llama2") + "/model.safetensors").unwrap();
    let truncated = tempfile::tempdir().unwrap();
    fs::copy(fixture("llama2") + "/config.json", truncated.path().join("config.json")).unwrap();
    fs::write(truncated.path().join("model.safetensors"), &weights[..weights.len() / 2]).unwrap();
    let cases = [
        ("does/not/exist.gguf".to_owned(), "does not exist"),
        (write("empty.gguf", b""), "empty.gguf"),
        (write("text.gguf", b"This is no model at all."), "text.gguf"),
        (write("half.gguf", &tiny_gguf(1000)[..500]), "half.gguf"),
        (truncated.path().to_str().unwrap().to_owned(), "model.safetensors"),
        (folder.path().to_str().unwrap().to_owned(), "could not open the model"),
        (write("unheard-of.gguf", &tiny_gguf(10)), "unheard-of"),
    ];
    for (path, text) in &cases {
        run(&["run", path, "-p", "Hi"]).assert_failed(1, text);
        run(&["bench", path]).assert_failed(1, text);
    }
}

#[test]
fn an_unknown_architecture_can_be_inspected() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, tiny_gguf(10)).unwrap();
    let path = path.to_str().unwrap();
    let value = run(&["inspect", path, "--json"]).json();
    assert_eq!(value["architecture"], "unheard-of");
    assert_eq!(value["supported"], false);
    assert!(value["why_not"].as_str().unwrap().contains("unheard-of"), "{value}");
    let text = run(&["inspect", path]);
    text.assert_ok();
    assert!(text.stdout.contains("no: "), "{}", text.stdout);
    run(&["inspect", path, "--graph", "dot"]).assert_failed(1, "unheard-of");
}

#[test]
fn inspect_says_what_is_in_a_checkpoint() {
    let value = run(&["inspect", &fixture("llama2"), "--json"]).json();
    assert_eq!(value["supported"], true, "{value}");
    assert_eq!(value["format"], "safetensors");
    assert_eq!(value["architecture"], "llama");
    let shares: f64 = value["formats"].as_array().unwrap().iter().map(|f| f["share"].as_f64().unwrap()).sum();
    assert!((shares - 1.0).abs() < 1e-9);
    let elements: u64 = value["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|t| t["shape"].as_array().unwrap().iter().map(|d| d.as_u64().unwrap()).product::<u64>())
        .sum();
    assert_eq!(value["parameters"].as_u64().unwrap(), elements);
    let dot = run(&["inspect", &fixture("llama2"), "--graph", "dot"]);
    dot.assert_ok();
    assert!(dot.stdout.starts_with("digraph"));
    assert!(run(&["inspect", &fixture("llama2"), "--graph", "json"]).json()["nodes"].is_array());
}

#[test]
fn a_tensor_is_written_as_floats_in_its_shape() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out) = (folder.path().join("x.gguf"), folder.path().join("x.npy"));
    let mut blocks = Vec::new();
    let values: Vec<f32> = (0..3 * 256).map(|i| (i as f32 / 50.0).sin()).collect();
    DType::Q3_K.encode_row(&values, &mut blocks).unwrap();
    let mut decoded = vec![0.0; values.len()];
    DType::Q3_K.decode_row(&blocks, &mut decoded).unwrap();
    let tensor = Tensor::new(DType::Q3_K, vec![3, 256], Bytes::heap(blocks)).unwrap();
    fs::write(&model, GgufWriter::new().put("general.architecture", "unheard-of").tensor("w", &tensor).to_bytes())
        .unwrap();
    let [model, out] = [&model, &out].map(|path| path.to_str().unwrap());
    let value = run(&["inspect", model, "--dequantize", "w", "--out", out, "--json"]).json();
    assert_eq!((value["type"].as_str(), &value["shape"]), (Some("q3_k"), &json!([3, 256])), "{value}");
    let file = fs::read(out).unwrap();
    assert!(String::from_utf8_lossy(&file[..128]).contains("'shape': (3, 256), }"));
    let got: Vec<f32> =
        file[file.len() - 4 * decoded.len()..].as_chunks().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
    assert_eq!(got, decoded);
    run(&["inspect", model, "--dequantize", "v", "--out", out]).assert_failed(1, "`v`");
    run(&["inspect", model, "--dequantize", "w"]).assert_failed(2, "arguments were not provided");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "scratch files are left");
}

#[test]
fn text_goes_to_ids_and_back() {
    let model = fixture("llama2");
    let text = "Hello, naïve world! 日本語 \n done";
    let ids = run(&["tokenize", &model, text, "--no-special", "--json"]).json()["ids"].clone();
    let listed = ids.as_array().unwrap().iter().map(|id| id.to_string()).collect::<Vec<_>>();
    assert!(listed.len() > 3);
    let back = run(&["detokenize", &model, &listed.join(","), "--json"]).json();
    assert_eq!(back["text"], text);
    // The same by a file, by standard input and from a bare tokenizer.json.
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    fs::write(&file, text).unwrap();
    let bare = model.clone() + "/tokenizer.json";
    let by_file = run(&["tokenize", &bare, "--file", file.to_str().unwrap(), "--no-special", "--json"]).json();
    assert_eq!(by_file["ids"], ids);
    let plain = Handmill::new().stdin(text.as_bytes()).run(&["tokenize", &model, "--no-special"]);
    plain.assert_ok();
    assert_eq!(plain.stdout.trim(), listed.join(" "));
    let by_stdin = Handmill::new().stdin(plain.stdout.as_bytes()).run(&["detokenize", &model]);
    assert_eq!(by_stdin.stdout, text);
}

#[test]
fn a_text_that_begins_with_bos_is_warned_about() {
    let (model, folder) = (fixture("llama2"), tempfile::tempdir().unwrap());
    let file = folder.path().join("text.txt");
    fs::write(&file, format!("<s>{}", "a b ".repeat(40))).unwrap();
    let file = file.to_str().unwrap();
    let twice = run(&["tokenize", &model, "<s>Hi", "--json"]);
    assert_eq!(twice.json()["ids"].as_array().unwrap()[..2], [1, 1]);
    let doubled: &[&[&str]] = &[
        &["tokenize", &model, "<s>Hi"],
        &["run", &model, "-p", "<s>Hi", "-n", "1", "--raw", "--backend", "cpu"],
        &["run", &model, "-f", file, "-n", "1", "--parse-special", "--backend", "cpu"],
        &["perplexity", &model, "-f", file, "--ctx", "16", "--backend", "cpu"],
    ];
    for args in doubled {
        let answer = run(args);
        answer.assert_ok();
        assert!(answer.stderr.contains("begins with <s>, the BOS token"), "{args:?}: {}", answer.stderr);
    }
    let single: &[&[&str]] = &[
        &["tokenize", &model, "Hi<s>"],
        &["tokenize", &model, "<s>Hi", "--no-special"],
        &["run", &model, "-p", "Hi", "-n", "1", "--raw", "--backend", "cpu"],
        &["run", &model, "-p", "<s>Hi", "-n", "1", "--backend", "cpu"],
    ];
    for args in single {
        let answer = run(args);
        answer.assert_ok();
        assert!(!answer.stderr.contains("BOS"), "{args:?}: {}", answer.stderr);
    }
}

#[test]
fn a_special_id_out_of_range_is_told_on_standard_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("vocab.gguf");
    let mut gguf = GgufWriter::new();
    gguf.put("general.architecture", "llama").put("tokenizer.ggml.model", "gpt2").put("tokenizer.ggml.pre", "gpt-2");
    gguf.put("tokenizer.ggml.tokens", vec!["H", "i"]).put("tokenizer.ggml.merges", Vec::<String>::new());
    gguf.put("tokenizer.ggml.bos_token_id", 32000u32).put("tokenizer.ggml.add_bos_token", true);
    fs::write(&path, gguf.to_bytes()).unwrap();
    let answer = run(&["tokenize", path.to_str().unwrap(), "Hi", "--json"]);
    assert_eq!(answer.json()["ids"], json!([0, 1]));
    assert!(answer.stderr.contains("warning: tokenizer.ggml.bos_token_id is 32000"), "{}", answer.stderr);
}

#[test]
fn ids_outside_the_vocabulary_are_refused() {
    let model = fixture("llama2");
    run(&["detokenize", &model, "4000000"]).assert_failed(1, "there is no token 4000000");
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.npy");
    run(&["logits", &model, "--tokens", "4000000", "--out", path.to_str().unwrap()]).assert_failed(1, "4000000");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0, "a failed run leaves nothing behind");
}

#[test]
fn input_that_is_no_text_is_refused() {
    let model = fixture("llama2");
    let answer = Handmill::new().stdin(b"\xff\xfe").run(&["tokenize", &model]);
    answer.assert_failed(1, "standard input is not UTF-8 text");
    run(&["perplexity", &model, "--file", "/does/not/exist"]).assert_failed(1, "could not read /does/not/exist");
}

#[test]
fn run_streams_text_and_keeps_statistics_on_standard_error() {
    let model = fixture("llama2");
    let args = ["run", &model, "-p", "ab", "-n", "8", "--temp", "0", "--ignore-eos"];
    let answer = run(&args);
    answer.assert_ok();
    assert!(answer.stderr.contains("tokens/s") && answer.stderr.contains("first token after"), "{}", answer.stderr);
    let piped = Handmill::new().stdin(b"ab").run(&["run", &model, "-n", "8", "--temp", "0", "--ignore-eos"]);
    assert_eq!(piped.stdout, answer.stdout);
    let value = run(&[&args[..], &["--json"]].concat()).json();
    assert_eq!(value["text"].as_str().unwrap().to_owned() + "\n", answer.stdout);
    assert_eq!(value["ids"].as_array().unwrap().len(), 8);
    assert_eq!(value["stop"], "max_tokens");
    assert!(value["generation"]["tokens_per_second"].as_f64().unwrap() > 0.0);
}

#[test]
fn the_same_seed_gives_the_same_answer() {
    let model = fixture("llama2");
    let ids = |seed: &str| {
        let args = ["run", &model, "-p", "ab", "-n", "24", "--temp", "2", "--seed", seed, "--ignore-eos", "--json"];
        run(&args).json()["ids"].clone()
    };
    assert_eq!(ids("7"), ids("7"));
    assert_ne!(ids("7"), ids("8"));
}

#[test]
fn a_biased_token_is_taken_and_a_forbidden_one_is_not() {
    let model = fixture("llama2");
    let ids = |bias: &str| {
        let args =
            ["run", &model, "-p", "ab", "-n", "6", "--temp", "0", "--logit-bias", bias, "--ignore-eos", "--json"];
        run(&args).json()["ids"].clone()
    };
    assert_eq!(ids("65=+1000"), serde_json::json!([65, 65, 65, 65, 65, 65]));
    let free =
        run(&["run", &model, "-p", "ab", "-n", "1", "--temp", "0", "--ignore-eos", "--json"]).json()["ids"][0].clone();
    let other = ids(&format!("{free}=-inf"));
    assert!(other.as_array().unwrap().iter().all(|id| *id != free));
}

#[test]
fn logits_are_a_numpy_array() {
    let out = tempfile::tempdir().unwrap();
    let path = out.path().join("x.npy");
    let value =
        run(&["logits", &fixture("llama2"), "--tokens", "1,2,3", "--out", path.to_str().unwrap(), "--json"]).json();
    let vocab = value["shape"][1].as_u64().unwrap() as usize;
    assert_eq!(value["shape"][0], 3);
    let file = fs::read(&path).unwrap();
    assert!(file.starts_with(b"\x93NUMPY\x01\x00"));
    let header = usize::from(u16::from_le_bytes([file[8], file[9]]));
    assert_eq!(file.len(), 10 + header + 3 * vocab * 4);
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 1);
}

#[test]
fn perplexity_has_its_steady_names() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("text.txt");
    fs::write(&file, "the quick brown fox jumps over the lazy dog. ".repeat(40)).unwrap();
    let file = file.to_str().unwrap();
    let value = run(&["perplexity", &fixture("llama2"), "--file", file, "--ctx", "64", "--json"]).json();
    assert!(value["perplexity"].as_f64().unwrap() > 1.0);
    assert_eq!(value["ctx"], 64);
    let windows = value["windows"].as_u64().unwrap();
    assert_eq!(value["scored_tokens"].as_u64().unwrap(), windows * 31);
    run(&["perplexity", &fixture("llama2"), "--file", file, "--ctx", "100000"]).assert_failed(1, "100000");
}

#[test]
fn bench_has_its_steady_names() {
    let args = ["bench", &fixture("llama2"), "-p", "16", "-n", "4", "--threads", "2", "--reps", "2", "--json"];
    let value = run(&[&args[..], &["--no-walls", "--batch", "1,3"]].concat()).json();
    let sequences = value["batch"].as_array().unwrap().iter().map(|rate| {
        assert!(rate["tokens_per_second"].as_f64().unwrap() > 0.0, "{value}");
        rate["sequences"].as_u64().unwrap()
    });
    assert_eq!(sequences.collect::<Vec<_>>(), [1, 3]);
    for part in ["prompt", "generation"] {
        assert!(value[part]["tokens_per_second"].as_f64().unwrap() > 0.0, "{value}");
        assert!(value[part]["min"].as_f64() <= value[part]["max"].as_f64());
    }
    assert_eq!(value["threads"], 2);
    assert!(value["bytes_per_token"].as_u64().unwrap() > 0);
    assert!(value["read_bandwidth"].is_null());
    let walls = run(&args).json();
    assert!(walls["generation"]["share_of_read_bandwidth"].as_f64().unwrap() > 0.0, "{walls}");
    assert!(walls["prompt"]["share_of_fma_peak"].as_f64().unwrap() > 0.0, "{walls}");
}

#[test]
fn bench_makes_models_up() {
    let config = fixture("llama2") + "/config.json";
    let args = ["bench", "--synthetic", &config, "--layers", "2", "--format", "q8_0", "-p", "8", "-n", "2", "-r", "1"];
    let value = run(&[&args[..], &["--no-walls", "--json"]].concat()).json();
    assert_eq!((&value["synthetic"]["layers"], &value["synthetic"]["of_layers"]), (&2.into(), &3.into()), "{value}");
    let bytes = value["synthetic"]["weight_bytes"]["q8_0"].as_u64().unwrap();
    // Of the embedding table a token needs a row.
    assert!(value["bytes_per_token"].as_u64().unwrap() < bytes, "{value}");
    let text = run(&[&args[..], &["--no-walls"]].concat());
    text.assert_ok();
    assert!(text.stdout.contains("2 of 3 layers and the head, made up"), "{}", text.stdout);
    let many = ["bench", "--synthetic", &config, "--layers", "4"];
    run(&many).assert_failed(1, "num_hidden_layers");
    run(&["bench", "--synthetic", "no-such-file.json"]).assert_failed(1, "no-such-file.json");
}

#[test]
fn devices_names_the_cpu_and_what_is_not_there_says_so() {
    let value = run(&["devices", "--json"]).json();
    assert!(value["cpu"]["isa"].is_string());
    assert!(value["gpus"].is_array());
    Handmill::new().env("HANDMILL_CPU", "mmx").run(&["devices"]).assert_failed(1, "mmx");
    let generic = Handmill::new().env("HANDMILL_CPU", "generic").run(&["devices", "--json"]).json();
    assert_eq!(generic["cpu"]["isa"], "generic");
}

#[cfg(all(feature = "gpu", target_os = "linux"))]
#[test]
fn without_a_driver_there_is_no_gpu_and_the_cpu_answers() {
    let blind = || Handmill::new().env("VK_DRIVER_FILES", "/none.json").env("VK_ICD_FILENAMES", "/none.json");
    assert_eq!(blind().run(&["devices", "--json"]).json()["gpus"], serde_json::json!([]));
    let model = fixture("llama2");
    let asked = ["run", &model, "-p", "ab", "-n", "2", "--json"];
    blind().run(&[&asked[..], &["--backend", "gpu"]].concat()).assert_failed(1, "no GPU was found");
    assert_eq!(blind().run(&asked).json()["generation"]["tokens"], 2);
}

#[cfg(feature = "gpu")]
#[test]
fn a_gpu_answers_and_says_what_a_token_costs() {
    if run(&["devices", "--json"]).json()["gpus"] == serde_json::json!([]) {
        return no_adapter("cli::a_gpu_answers_and_says_what_a_token_costs");
    }
    let model = fixture("llama3");
    let args = ["bench", &model, "-p", "16", "-n", "4", "--reps", "1", "--no-walls", "--json", "--backend", "gpu"];
    let value = run(&args).json();
    let generation = &value["generation"];
    let layers = run(&["inspect", &model, "--json"]).json()["layers"].as_f64().unwrap();
    // Beside the layers: embedding, last norm, head.
    assert!(generation["dispatches_per_token"].as_f64().unwrap() <= 10.0 * layers + 5.0, "{generation}");
    assert_eq!(generation["submits_per_token"], 1.0);
    assert!(generation["host_ms_per_token"].as_f64().unwrap() > 0.0);
    // Greedy answers: the same tokens chosen on the device as by the CPU, and as with penalties, which the host knows.
    let answer = |more: &[&str]| {
        let args = ["run", &model, "-p", "ab", "-n", "12", "--temp", "0", "--ignore-eos", "--json"];
        let exact = ["--kv-type", "f32", "--precision", "exact"];
        run(&[&args[..], &exact, more].concat()).json()["ids"].clone()
    };
    let cpu = answer(&["--backend", "cpu"]);
    assert_eq!(answer(&["--backend", "gpu"]), cpu);
    assert_eq!(answer(&["--backend", "gpu", "--logit-bias", "3=0"]), cpu);
    let drawn =
        |seed: &str| run(&["run", &model, "-p", "ab", "-n", "12", "--seed", seed, "--backend", "gpu", "--json"]);
    assert_eq!(drawn("5").json()["ids"], drawn("5").json()["ids"]);
    run(&["run", &model, "-p", "ab", "--device", "no such"]).assert_failed(1, "no GPU matches `no such`");
    Handmill::new()
        .env("HANDMILL_GPU_WITHOUT", "wheels")
        .run(&["run", &model, "-p", "ab", "--backend", "gpu"])
        .assert_failed(2, "wheels");
}

#[test]
fn a_closed_pipe_ends_the_command_quietly() {
    for args in [
        &["inspect", &fixture("llama2"), "--json"][..],
        &["run", &fixture("llama2"), "-p", "ab", "-n", "100", "--ignore-eos"],
        &["tokenize", &fixture("llama2"), "text"],
    ] {
        let mut running = Handmill::new().start(args);
        drop(running.child.stdout.take());
        let answer = running.wait();
        assert_eq!(answer.code, Some(0), "{args:?}: {}", answer.stderr);
        assert!(!answer.stderr.contains("error") && !answer.stderr.contains("panicked"), "{args:?}: {}", answer.stderr);
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_output_device_is_an_error() {
    let full = || Stdio::from(fs::File::options().write(true).open("/dev/full").unwrap());
    for args in [&["tokenize", &fixture("llama2"), "text"][..], &["devices"], &["run", &fixture("llama2"), "-p", "ab"]]
    {
        Handmill::new().stdout(full()).run(args).assert_failed(1, "could not write to standard output");
    }
    run(&["logits", &fixture("llama2"), "--tokens", "1", "--out", "/proc/x.npy"]).assert_failed(1, "/proc/x.npy");
}

#[test]
fn ctrl_c_ends_an_answer_with_its_statistics() {
    use std::io::Read;
    let model = fixture("llama2");
    let args = ["run", &model, "-p", "ab", "-n", "1000000", "--ctx", "1000000", "--ignore-eos", "--temp", "2"];
    let mut running = Handmill::new().start(&args);
    let mut first = [0; 1];
    let mut out = running.child.stdout.take().unwrap();
    out.read_exact(&mut first).expect("the answer begins");
    // Read on, so that the program is not held up by a full pipe.
    let reader = std::thread::spawn(move || out.read_to_end(&mut Vec::new()));
    running.interrupt();
    let answer = running.wait();
    reader.join().unwrap().unwrap();
    assert_eq!(answer.code, Some(130), "{}", answer.stderr);
    assert!(answer.stderr.contains("tokens/s"), "the statistics are missing: {}", answer.stderr);
}
