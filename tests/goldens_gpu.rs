//! Real models on the best adapter, against what llama.cpp computes with the same files and against exact arithmetic
//! (f32 activations, keys and values) on the CPU. SmolLM2 always; the larger models where `HANDMILL_TEST_FULL=1` asks for
//! them: their heads are longer than the bindings that WebGPU guarantees. Short, because CI's adapter is a CPU.
#![cfg(feature = "gpu")]

mod support;

use std::path::{Path, PathBuf};

use handmill_runtime::gpu::{CapsOverride, GpuOptions};
use support::{
    DeviceChoice, Golden, MARGIN, Options, Session, argmax, choice, full, golden, log_probability, model_path, open_gpu,
};

/// Tokens of the text, and how many of them at a time.
const TEXT: usize = 64;
const CHUNK: usize = 32;
/// Tokens of a continuation.
const CONTINUED: usize = 12;
/// Bytes of a binding: what WebGPU guarantees.
const BINDING: u64 = 128 << 20;
/// Mean |Δ log-probability| to exact arithmetic allowed to devices that round nothing but sums: twenty times what it is
/// with SmolLM2. llama.cpp, which rounds activations, is hundreds of times farther off.
const SOFTWARE: f64 = 1e-4;
/// Allowed to devices that round activations, to bytes or to f16.
const HARDWARE: f64 = 0.1;
/// Mean |Δ log-probability| to llama.cpp, which rounds activations to bytes: as on the CPU for so short a text.
const REFERENCE: f64 = 0.15;

macro_rules! goldens {
    ($($test:ident $alias:literal prompt $prompt:literal $needs_full:literal,)*) => {$(mod $test {
        use super::*;

        fn with_model(test: &str, check: impl FnOnce(&str, Golden, PathBuf)) {
            let test = format!("goldens_gpu::{}::{test}", stringify!($test));
            if (!$needs_full || full(&test)) && let Some(path) = model_path(&test, $alias) {
                check(&test, golden($alias), path);
            }
        }

        #[test]
        fn log_probabilities() {
            with_model("log_probabilities", |test, golden, path| {
                super::log_probabilities(test, &golden, &path, $needs_full);
            });
        }
        #[test]
        fn greedy_tokens() {
            with_model("greedy_tokens", |test, golden, path| super::greedy_tokens(test, &golden, $prompt, &path));
        }
    })*};
}

// Of each model's prompts, that with the largest margins at the beginning.
goldens! {
    smollm2 "smollm2" prompt 0 false,
    gemma3 "gemma3" prompt 1 true,
    qwen05 "qwen05" prompt 1 true,
}

/// The model on a device that imports weights where it can, or copies them.
fn open(test: &str, path: &Path, options: Options, no_host_import: bool) -> Option<Session> {
    let caps = CapsOverride { max_binding: Some(BINDING), no_host_import, ..CapsOverride::default() };
    let gpu = open_gpu(test, &GpuOptions { caps, ..GpuOptions::default() })?;
    Some(Session::open(path, Options { device: DeviceChoice::Gpu(gpu), n_ctx: 512, ..options }))
}

fn log_probabilities(test: &str, golden: &Golden, path: &Path, split: bool) {
    let Some(mut session) = open(test, path, Options::default(), false) else { return };
    let plan = session.engine().backend().plan();
    let longest = plan.graph.weights().map(|(_, w)| w.bytes().len() as u64).max();
    assert_eq!(longest > Some(BINDING), split, "the longest weight has {longest:?} bytes");
    let software = session.engine().gpu().expect("a GPU").gpu().caps().software;
    let mut cpu = Session::open(path, Options { n_ctx: 512, ..Options::default() });
    let (mut off, mut off_exact, mut worst) = (0.0, 0.0, 0.0f64);
    let mut next = golden.text_ids[1..=TEXT].iter().zip(&golden.text_logprobs);
    for chunk in golden.text_ids[..TEXT].chunks(CHUNK) {
        let (logits, exact) = (session.feed(chunk), cpu.feed(chunk));
        for (i, (&id, expected)) in (0..chunk.len()).zip(&mut next) {
            let [got, exact] = [&logits, &exact].map(|l| log_probability(l.row(i), id));
            off += (got - expected).abs() / TEXT as f64;
            off_exact += (got - exact).abs() / TEXT as f64;
            worst = worst.max((got - exact).abs());
        }
    }
    println!("log-probabilities are {off:.4} off llama.cpp's, {off_exact:.2e} off exact ones, at most {worst:.2e}");
    let tolerance = if software { SOFTWARE } else { HARDWARE };
    assert!(off_exact < tolerance, "log-probabilities are {off_exact:.2e} off exact ones on average");
    assert!(off < REFERENCE, "log-probabilities are {off:.4} off llama.cpp's on average");
}

fn greedy_tokens(test: &str, golden: &Golden, prompt: usize, path: &Path) {
    let Some(mut session) = open(test, path, Options::rounding(), true) else { return };
    let (copied, imported) = session.engine().gpu().expect("a GPU").weight_bytes();
    assert!(copied > 0 && imported == 0, "{copied} bytes of weights copied, {imported} imported");
    let g = &golden.greedy[prompt];
    let mut exact = Session::open(path, Options { n_ctx: 512, ..Options::default() });
    let mut fed = &g.prompt_ids[..];
    let mut compared = 0;
    for (k, id) in g.gen_ids.iter().enumerate().take(CONTINUED) {
        let row = session.feed_last(fed);
        let (best, margin) = choice(&exact.feed_last(fed));
        if margin > MARGIN {
            assert_eq!(argmax(&row), best, "{:?}: token {k}, whose margin is {margin}", g.prompt);
            compared += 1;
        }
        // llama.cpp's own tokens are fed back, so that one close call does not end the comparison.
        fed = std::slice::from_ref(id);
    }
    assert!(compared >= CONTINUED / 2, "{compared} tokens had a margin");
}
