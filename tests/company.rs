//! A row's result on the CPU, bit by bit, depends on its own tokens alone: not on how many rows a step has, how a prompt
//! is cut, what else runs, how many threads there are, whether the sequence is a fork, or which of the instruction sets
//! with fused multiply-adds computes.
//!
//! Models are made up with weights in blocks, because fixtures have floats, whose arithmetic is another.

mod support;

use handmill_models::{
    Model,
    engine::{Engine, EngineOptions, KvChoice, Sequence, Step},
};
use handmill_runtime::{cpu::Isa, quant::DType, step::Outputs};
use support::{FAMILIES, full, made_up};

/// Models whose rotations depend on the length of the sequence, as their makers have it: a token in a longer prompt is
/// another token there.
const TURN_BY_LENGTH: &[&str] = &["llama-dynamic", "phi3-longrope", "phi4-mini", "phimoe"];

/// Full attention, windows, experts, latent keys, recurrent states.
const KINDS: &[&str] = &["llama2", "gemma3", "qwen3-moe", "deepseek-v3", "qwen3-next"];

/// Models whose keys and values are cached in blocks of 32, and what makes their rows whole blocks: heads, windows, latent
/// keys, blocks of tokens with index keys.
const IN_BLOCKS: &[(&str, &[(&str, u32)])] = &[
    ("llama2", &[("head_dim", 32)]),
    ("gemma3", &[("head_dim", 64)]),
    ("deepseek-v3", &[("head_dim", 32), ("qk_rope_head_dim", 32), ("qk_head_dim", 56)]),
    ("deepseek-v4", &[("index_head_dim", 32)]),
];

/// Tokens of the sequence that is looked at: more than a page and a piece of keys.
const LEN: usize = 300;

fn tokens(model: &Model, seed: usize) -> Vec<u32> {
    let vocab = model.info().vocab_size;
    (0..LEN).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

/// Adds `tokens` to `sequence` in parts of `chunk`, each in one step with a part of every one of `others`; its logits.
fn run(engine: &mut Engine, sequence: &mut Sequence, tokens: &[u32], chunk: usize, others: &[Vec<u32>]) -> Vec<f32> {
    let vocab = engine.model().info().vocab_size;
    let mut company: Vec<(Sequence, &[u32])> = others.iter().map(|other| (engine.sequence(), &other[..])).collect();
    let mut logits = Vec::new();
    for (i, part) in tokens.chunks(chunk).enumerate() {
        let mut steps = Vec::new();
        // Some have one token in the step and some have more, before it and behind it.
        for (j, (other, rest)) in company.iter_mut().enumerate() {
            let n = if (i + j) % 3 == 0 { 5 } else { 1 }.min(rest.len());
            let (now, later) = rest.split_at(n);
            *rest = later;
            steps.push(Step::new(other, now, Outputs::None));
        }
        let at = steps.len() / 2;
        steps.insert(at, Step::new(sequence, part, Outputs::All));
        let out = engine.step(&mut steps).expect("a step");
        assert_eq!(out.len(), part.len() * vocab);
        logits.extend_from_slice(out);
    }
    logits
}

/// The first position at which the two differ.
fn first_difference(a: &[f32], b: &[f32], vocab: usize) -> Option<usize> {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits()).map(|at| at / vocab)
}

/// What differs, and from which position on.
fn differences(name: &'static str, format: DType) -> Vec<String> {
    differences_of(name, &made_up(name, format, &[]), format, KvChoice::Auto)
}

fn differences_of(name: &str, model: &Model, format: DType, kv: KvChoice) -> Vec<String> {
    let engine = |model: &Model, threads: usize, isa: Option<Isa>| {
        let (threads, n_ctx) = (Some(threads), Some(64 * 128));
        let options = EngineOptions { threads, isa, kv, n_ctx, ..EngineOptions::default() };
        Engine::new(model, &options).expect("an engine")
    };
    let vocab = model.info().vocab_size;
    let mine = tokens(model, 1);
    let mut one = engine(model, 1, None);
    let mut sequence = one.sequence();
    let alone = run(&mut one, &mut sequence, &mine, 1, &[]);
    assert!(alone.iter().all(|v| v.is_finite()) && alone.iter().any(|v| v.abs() > 1e-3), "{name}");
    let mut found = Vec::new();
    let mut same = |what: &str, logits: &[f32], want: &[f32]| {
        if let Some(at) = first_difference(logits, want, vocab) {
            found.push(format!("{name} in {format}, {kv:?}, {what}: from position {at} on"));
        }
    };
    for (threads, chunk, company) in [(1, LEN, 0), (2, 1, 1), (3, 64, 0), (2, 7, 2), (1, 1, 4), (3, 7, 7), (2, 1, 16)] {
        let others: Vec<_> = (0..company).map(|i| tokens(model, i + 2)).collect();
        let mut engine = engine(model, threads, None);
        let mut sequence = engine.sequence();
        let logits = run(&mut engine, &mut sequence, &mine, chunk, &others);
        same(&format!("{threads} threads, {chunk} at a time, {company} others"), &logits, &alone);
    }
    let mut two = engine(model, 2, None);
    let mut sequence = two.sequence();
    let (before, behind) = mine.split_at(LEN * 2 / 3);
    run(&mut two, &mut sequence, before, 50, &[]);
    let mut fork = two.fork(&sequence).expect("a fork");
    for (what, sequence) in [("the fork", &mut fork), ("what was forked", &mut sequence)] {
        let logits = run(&mut two, sequence, behind, 9, &[]);
        same(what, &logits, &alone[before.len() * vocab..]);
    }
    for isa in Isa::available().into_iter().filter(|isa| *isa != Isa::Generic) {
        let mut engine = engine(model, 2, Some(isa));
        let mut sequence = engine.sequence();
        let logits = run(&mut engine, &mut sequence, &mine, 33, &[]);
        same(&format!("{isa:?}"), &logits, &alone);
    }
    found
}

#[test]
fn a_row_depends_on_its_own_tokens_alone() {
    let mut found = Vec::new();
    let families = FAMILIES.iter().filter(|name| !TURN_BY_LENGTH.contains(name));
    families.for_each(|name| found.extend(differences(name, DType::Q8_0)));
    for format in [DType::Q4_1, DType::Q5_0, DType::MXFP4, DType::F16, DType::BF16] {
        KINDS.iter().for_each(|name| found.extend(differences(name, format)));
    }
    for format in [DType::Q2_K, DType::Q3_K, DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::IQ4_XS] {
        found.extend(differences("llama2", format));
    }
    for (name, changes) in IN_BLOCKS {
        let model = made_up(name, DType::Q8_0, changes);
        found.extend(differences_of(name, &model, DType::Q8_0, KvChoice::Q8_0));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

/// How a sequence comes to its first tokens.
#[derive(Clone, Copy, Debug)]
enum Start {
    /// It runs them.
    Fresh,
    /// It is a fork of another that ran them.
    Forked,
    /// They are in the cache.
    Cached,
}

/// What differs of all rows of a step x parts of a prompt x threads x starts.
fn differences_of_all(name: &'static str, format: DType) -> Vec<String> {
    let model = made_up(name, format, &[]);
    let vocab = model.info().vocab_size;
    let mine = tokens(&model, 1);
    let engine = |threads: usize| {
        let options = EngineOptions { threads: Some(threads), n_ctx: Some(64 * 128), ..EngineOptions::default() };
        Engine::new(&model, &options).expect("an engine")
    };
    let mut one = engine(1);
    let mut sequence = one.sequence();
    let alone = run(&mut one, &mut sequence, &mine, 1, &[]);
    let mut found = Vec::new();
    for threads in [1, 2, 3] {
        // A prefix of three pages and a bit, begun as servers begin it.
        let mut engine = engine(threads);
        let begun = &mine[..LEN * 2 / 3];
        let mut before = engine.begin(begun).expect("a sequence");
        while before.len() < begun.len() {
            let n = engine.part_tokens(&before, begun.len() - before.len(), 77);
            let part = &begun[before.len()..][..n];
            engine.step(&mut [Step::new(&mut before, part, Outputs::None)]).expect("a step");
            engine.keep_pages(&before).expect("pages");
        }
        engine.retain(&before).expect("pages");
        for company in [0, 1, 2, 4, 7, 16] {
            let others: Vec<_> = (0..company).map(|i| tokens(&model, i + 2)).collect();
            for chunk in [1, 7, 64, LEN] {
                for start in [Start::Fresh, Start::Forked, Start::Cached] {
                    let mut sequence = match start {
                        Start::Fresh => engine.sequence(),
                        Start::Forked => engine.fork(&before).expect("a fork"),
                        Start::Cached => engine.begin(&mine).expect("a sequence"),
                    };
                    let at = sequence.len();
                    let known = match start {
                        Start::Fresh => at == 0,
                        Start::Forked => at == begun.len(),
                        Start::Cached => at > 0,
                    };
                    assert!(known, "{name}: {start:?} with {at} tokens");
                    let logits = run(&mut engine, &mut sequence, &mine[at..], chunk, &others);
                    if let Some(at) = first_difference(&logits, &alone[at * vocab..], vocab) {
                        let what = format!("{threads} threads, {chunk} at a time, {company} others, {start:?}");
                        found.push(format!("{name} in {format}, {what}: from position {at} of these on"));
                    }
                }
            }
        }
    }
    found
}

#[test]
fn every_combination_gives_the_same_bits() {
    if !full("company::every_combination_gives_the_same_bits") {
        return;
    }
    let mut found: Vec<String> = KINDS.iter().flat_map(|name| differences_of_all(name, DType::Q8_0)).collect();
    found.extend(differences_of_all("llama2", DType::Q4_K));
    assert!(found.is_empty(), "{}", found.join("\n"));
}
