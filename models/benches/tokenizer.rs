//! Our tokenizer of a `tokenizer.json` beside the crate `tokenizers`, on one thread:
//! `cargo bench -p handmill-models --no-default-features --bench tokenizer [filter]`.
//!
//! The two take turns inside of each measurement, so that both see the same machine. The vocabulary is Llama 3's, from
//! `$HANDMILL_TEST_VOCABS/llama3/tokenizer.json` or the cache, or else a made one of the same size.

use std::fmt::Write;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handmill_models::text::Tokenizer;
use tokenizers::Tokenizer as Oracle;

const ENGLISH: &str = include_str!("../../README.md");
const CODE: &str = include_str!("../src/text/tokenizer.rs");

/// Measures both functions under one name.
fn side_by_side(c: &mut Criterion, name: &str, bytes: usize, ours: &dyn Fn(), oracle: &dyn Fn()) {
    let timed = |run: &dyn Fn()| {
        let start = Instant::now();
        run();
        start.elapsed()
    };
    let mut group = c.benchmark_group(name);
    group.sample_size(20).throughput(Throughput::Bytes(bytes as u64));
    group.bench_function("ours", |b| {
        b.iter_custom(|n| (0..n).map(|_| (timed(ours), timed(oracle)).0).sum::<Duration>());
    });
    group.bench_function("tokenizers", |b| {
        b.iter_custom(|n| (0..n).map(|_| (timed(ours), timed(oracle)).1).sum::<Duration>());
    });
    group.finish();
}

fn llama3() -> Vec<u8> {
    let folder = |name: &str, more: &str| std::env::var_os(name).map(|path| PathBuf::from(path).join(more));
    let folders = [
        folder("HANDMILL_TEST_VOCABS", ""),
        folder("HANDMILL_CACHE", "vocabs"),
        folder("HOME", ".cache/handmill/vocabs"),
    ];
    let found = folders.into_iter().flatten().find_map(|at| std::fs::read(at.join("llama3/tokenizer.json")).ok());
    found.unwrap_or_else(made)
}

/// 128,000 tokens and 280,000 merges: words of two letters, and merges of those.
fn made() -> Vec<u8> {
    let letters: Vec<char> = ('!'..='~').chain('¡'..='¬').chain('®'..='ŀ').collect();
    let printable = |c: char| if matches!(c, '"' | '\\') { format!("\\{c}") } else { c.to_string() };
    let mut words: Vec<String> =
        letters.iter().map(|&c| printable(c)).chain(["Ł".into(), "ł".into(), "Ń".into()]).collect();
    let mut merges = Vec::new();
    let n = letters.len();
    for i in 0..n * n {
        let (left, right) = (printable(letters[i / n]), printable(letters[i % n]));
        words.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    for i in 0.. {
        if words.len() >= 128_000 {
            break;
        }
        let (left, right) = (words[n + 3 + i].clone(), words[i % n].clone());
        words.push(format!("{left}{right}"));
        merges.push(format!("{left} {right}"));
    }
    let two: Vec<String> = merges.iter().cycle().take(280_000).cloned().collect();
    let mut json = String::from(
        r#"{"added_tokens": [], "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true}, "version": "1.0",
            "model": {"type": "BPE", "vocab": {"#,
    );
    for (id, word) in words.iter().enumerate() {
        let _ = write!(json, "{}\"{word}\": {id}", if id > 0 { "," } else { "" });
    }
    json.push_str("}, \"merges\": [");
    for (i, merge) in two.iter().enumerate() {
        let _ = write!(json, "{}\"{merge}\"", if i > 0 { "," } else { "" });
    }
    json.push_str("]}}");
    json.into_bytes()
}

fn load(c: &mut Criterion) {
    let json = llama3();
    let ours = || drop(black_box(Tokenizer::from_tokenizer_json("bench", &json).expect("a tokenizer")));
    let oracle = || drop(black_box(Oracle::from_bytes(&json).expect("a tokenizer")));
    side_by_side(c, "load", json.len(), &ours, &oracle);
}

fn encode(c: &mut Criterion) {
    let json = llama3();
    let ours = Tokenizer::from_tokenizer_json("bench", &json).expect("a tokenizer");
    let oracle = Oracle::from_bytes(&json).expect("a tokenizer");
    // A text longer than any document, in which words come again as they do in one.
    let long: String = [ENGLISH, CODE].repeat(40).concat();
    for (name, text) in [("encode_english", ENGLISH), ("encode_code", CODE), ("encode_long", &long)] {
        let ours = || drop(black_box(ours.encode(text, false, true).expect("ids")));
        let oracle = || drop(black_box(oracle.encode_fast(text, false).expect("ids")));
        side_by_side(c, name, text.len(), &ours, &oracle);
    }
}

criterion_group!(benches, load, encode);
criterion_main!(benches);
