//! Real models against what llama.cpp computes with the same files: greedy tokens, log-probabilities, perplexity.
//! SmolLM2 always; the larger models where `HANDMILL_TEST_FULL=1` asks for them.

mod support;

use handmill_runtime::cpu::Isa;
use support::{
    Golden, KvChoice, Options, Session, argmax, fixtures_dir, full, golden, handmill, log_probability, model_path,
};

/// Where llama.cpp's margin is smaller, the choice hangs on rounding: both quantise activations, differently.
const MARGIN: f64 = 0.3;

macro_rules! goldens {
    ($($test:ident $alias:literal $needs_full:literal,)*) => {$(mod $test {
        use super::*;

        fn with_model(test: &str, check: impl FnOnce(Golden, std::path::PathBuf)) {
            let test = format!("goldens::{}::{test}", stringify!($test));
            if (!$needs_full || full(&test)) && let Some(path) = model_path(&test, $alias) {
                check(golden($alias), path);
            }
        }

        #[test]
        fn greedy_tokens() {
            with_model("greedy_tokens", |golden, path| super::greedy_tokens(&golden, &path));
        }
        #[test]
        fn log_probabilities() {
            with_model("log_probabilities", |golden, path| super::log_probabilities(&golden, &path));
        }
        #[test]
        fn tokens_and_perplexity_by_command() {
            with_model("tokens_and_perplexity_by_command", |golden, path| super::by_command(&golden, &path));
        }
    })*};
}

goldens! {
    smollm2 "smollm2" false,
    gemma3 "gemma3" true,
    qwen05 "qwen05" true,
}

fn real_model() -> Options {
    Options { kv: KvChoice::F16, n_ctx: 512, ..Options::default() }
}

fn open(path: &std::path::Path) -> Session {
    Session::open(path, real_model())
}

/// A token must be llama.cpp's where its margin is large and exact arithmetic (f32 activations, keys and values) prefers the
/// same token. Exact arithmetic may prefer another only by little: that choice hangs on rounding whatever the margin is.
fn greedy_tokens(golden: &Golden, path: &std::path::Path) {
    let (mut compared, mut set_aside) = (0, 0);
    for g in &golden.greedy {
        let mut session = open(path);
        let mut exact = Session::open(path, Options { kv: KvChoice::F32, ..real_model() });
        let (mut row, mut exact_row) = (session.feed_last(&g.prompt_ids), exact.feed_last(&g.prompt_ids));
        for (k, (&id, &margin)) in g.gen_ids.iter().zip(&g.margins).enumerate() {
            // The reference's own tokens are fed back, so that one close call does not end the comparison.
            if margin > MARGIN {
                let best = argmax(&exact_row);
                let over = f64::from(exact_row[best] - exact_row[id as usize]);
                assert!(over < MARGIN, "{:?}: token {k}: exact arithmetic prefers {best} by {over}", g.prompt);
                if best == id as usize {
                    assert_eq!(argmax(&row) as u32, id, "{:?}: token {k}, whose margin is {margin}", g.prompt);
                    compared += 1;
                } else {
                    println!("{:?}: token {k}: exact arithmetic prefers {best} to {id} by {over}", g.prompt);
                    set_aside += 1;
                }
            }
            (row, exact_row) = (session.feed_last(&[id]), exact.feed_last(&[id]));
        }
    }
    assert!(compared > 100 && set_aside <= 2, "{compared} tokens had a margin, {set_aside} hang on rounding");
}

fn log_probabilities(golden: &Golden, path: &std::path::Path) {
    let all = golden.text_ids.len();
    let (ratio, off) = against_reference(&mut open(path), golden, all);
    println!("perplexity is {ratio:.4} of llama.cpp's, log-probabilities are {off:.4} off on average");
    assert!((ratio - 1.0).abs() < 0.01, "perplexity of the first window is {ratio:.4} of llama.cpp's");
    assert!(off < 0.1, "log-probabilities are {off:.4} off on average");
    for isa in Isa::available() {
        let mut session = Session::open(path, Options { isa: Some(isa), ..real_model() });
        let (_, off) = against_reference(&mut session, golden, 48);
        println!("{isa:?}: {off:.4} off on average");
        assert!(off < 0.15, "{isa:?}: log-probabilities are {off:.4} off on average");
    }
}

/// Perplexity of the first `n` tokens of the text as a share of llama.cpp's, and the mean |Δ log-probability|.
fn against_reference(session: &mut Session, golden: &Golden, n: usize) -> (f64, f64) {
    let logits = session.feed(&golden.text_ids[..n]);
    let (mut drift, mut off) = (0.0, 0.0);
    for (i, &expected) in golden.text_logprobs[..n - 1].iter().enumerate() {
        let logprob = log_probability(logits.row(i), golden.text_ids[i + 1]);
        drift += expected - logprob;
        off += (expected - logprob).abs();
    }
    let scored = (n - 1) as f64;
    ((drift / scored).exp(), off / scored)
}

fn by_command(golden: &Golden, path: &std::path::Path) {
    let text = fixtures_dir().join("goldens/text.txt");
    let run = |args: &[&std::ffi::OsStr]| -> serde_json::Value {
        let out = handmill().args(args).output().expect("running the command");
        assert!(out.status.success(), "{args:?}: {}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("--json prints JSON")
    };
    let ids = |v: &serde_json::Value| -> Vec<u32> {
        v["ids"].as_array().expect("ids").iter().map(|n| n.as_u64().expect("an id") as u32).collect()
    };
    for g in &golden.greedy {
        // One of the prompts is a chat turn, spelled out.
        let args = ["tokenize", "--json"].map(AsRef::as_ref);
        let out = run(&[&args[..], &[path.as_ref(), g.prompt.as_ref()]].concat());
        assert_eq!(ids(&out), g.prompt_ids, "{:?}", g.prompt);
    }
    let file = text.as_os_str();
    let out = run(&["tokenize".as_ref(), path.as_ref(), "--file".as_ref(), file, "--json".as_ref()]);
    assert_eq!(ids(&out)[..golden.text_ids.len()], golden.text_ids);

    let out = run(&["perplexity".as_ref(), path.as_ref(), "--file".as_ref(), file, "--json".as_ref()]);
    let perplexity = out["perplexity"].as_f64().expect("perplexity");
    let off = perplexity / golden.perplexity - 1.0;
    assert!(off.abs() < 0.01, "perplexity {perplexity:.4}, llama.cpp's is {}", golden.perplexity);
}
