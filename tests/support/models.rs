//! The command, real models through its own fetch, and skips that stay visible.

use std::{
    io::Write,
    path::PathBuf,
    process::Command,
    sync::{Mutex, PoisonError},
};

use serde_json::Value;

use super::fixture::{fixtures_dir, json};

/// Why a test did not run. `.ci/run` fails on the first kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Skip {
    /// Something that can be had was not: a model that could not be fetched.
    Missing,
    /// This machine cannot do it.
    Hardware,
    /// It is asked for by a variable that is not set.
    OptIn,
}

/// Says on stderr, past the test harness's capture, that `test` was skipped and why.
pub fn skip(kind: Skip, test: &str, why: &str) {
    let kind = match kind {
        Skip::Missing => "",
        Skip::Hardware => " (hardware)",
        Skip::OptIn => " (opt-in)",
    };
    // `eprintln!` would be captured and shown only where the test fails.
    // In one piece: the harness writes its own lines meanwhile.
    let line = format!("SKIPPED{kind}: {test}: {}\n", why.trim().replace('\n', " | "));
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Says that `test` was skipped for want of an adapter, and what brings one.
pub fn no_adapter(test: &str) {
    skip(Skip::Missing, test, "no Vulkan driver (on Debian: apt-get install mesa-vulkan-drivers)");
}

/// Whether tests that take long or fetch much were asked for (`HANDMILL_TEST_FULL=1`, as `.ci/full` does); says so where
/// they were not.
pub fn full(test: &str) -> bool {
    let asked = is_full();
    if !asked {
        skip(Skip::OptIn, test, "HANDMILL_TEST_FULL=1 runs all, and fetches the larger models");
    }
    asked
}

/// The same without a word.
pub fn is_full() -> bool {
    std::env::var_os("HANDMILL_TEST_FULL").is_some_and(|v| v == "1")
}

/// The command under test.
pub fn handmill() -> Command {
    Command::new(env!("CARGO_BIN_EXE_handmill"))
}

/// The file of the model that the command knows as `alias`, fetched if need be; says visibly that `test` is skipped
/// where it cannot be had.
pub fn model_path(test: &str, alias: &str) -> Option<PathBuf> {
    // One fetch at a time: the tests of a file run in parallel.
    static FETCH: Mutex<()> = Mutex::new(());
    let _guard = FETCH.lock().unwrap_or_else(PoisonError::into_inner);
    let out = handmill().args(["inspect", alias, "--json"]).output().expect("running the command");
    if !out.status.success() {
        skip(Skip::Missing, test, &format!("{alias}: {}", String::from_utf8_lossy(&out.stderr)));
        return None;
    }
    let inspected: Value = serde_json::from_slice(&out.stdout).expect("`inspect --json` prints JSON");
    Some(PathBuf::from(inspected["path"].as_str().expect("`inspect --json` names the file as `path`")))
}

/// What llama.cpp computes with a real model.
pub struct Golden {
    pub greedy: Vec<Greedy>,
    pub perplexity: f64,
    /// First tokens of `text.txt`, BOS included where the model adds one.
    pub text_ids: Vec<u32>,
    /// Log-probability of each of `text_ids` but the first, given those before it.
    pub text_logprobs: Vec<f64>,
}

/// A greedy continuation.
pub struct Greedy {
    pub prompt: String,
    pub prompt_ids: Vec<u32>,
    pub gen_ids: Vec<u32>,
}

/// The golden of the model `alias`.
pub fn golden(alias: &str) -> Golden {
    let file = json(&fixtures_dir().join("goldens").join(format!("{alias}.json")));
    let floats =
        |v: &Value| -> Vec<f64> { v.as_array().into_iter().flatten().map(|n| n.as_f64().expect("a number")).collect() };
    let ids = |v: &Value| -> Vec<u32> { floats(v).into_iter().map(|n| n as u32).collect() };
    let greedy = file["greedy"].as_array().expect("greedy").iter();
    Golden {
        greedy: greedy
            .map(|g| Greedy {
                prompt: g["prompt"].as_str().expect("prompt").to_owned(),
                prompt_ids: ids(&g["prompt_ids"]),
                gen_ids: ids(&g["gen_ids"]),
            })
            .collect(),
        perplexity: file["perplexity"]["value"].as_f64().expect("perplexity"),
        text_ids: ids(&file["text"]["first_ids"]),
        text_logprobs: floats(&file["text"]["logprobs"]),
    }
}
