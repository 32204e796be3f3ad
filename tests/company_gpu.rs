//! On a GPU a row's result depends on its own tokens and on its role, whether it is of a prompt or was chosen, bit by bit: not
//! on how a prompt is cut, nor on which prompts are beside it, nor on how many other sequences get a token.
#![cfg(feature = "gpu")]

mod support;

use std::sync::Arc;

use handmill_models::{
    Model,
    engine::{DeviceChoice, Engine, EngineOptions, Step},
};
use handmill_runtime::{gpu::Gpu, quant::DType, step::Outputs};
use support::{Fixture, made_up, open_gpu};

/// Full attention, windows, experts, latent keys, recurrent states.
const KINDS: [&str; 5] = ["llama2", "gemma3", "qwen3-moe", "deepseek-v3", "qwen3-next"];

/// Models with made-up weights in blocks.
const IN_BLOCKS: [(&str, DType); 3] = [("llama2", DType::Q8_0), ("llama2", DType::Q4_K), ("qwen3-moe", DType::Q8_0)];

/// Tokens of the prompt: more than two pages.
const LEN: usize = 150;

/// Tokens of a sequence whose keys some tokens later are in two parts: more than 256.
const LONG: usize = 254;

/// Lengths of a sequence, and of those beside it. Keys of the longest are in three parts.
const COMPANY: &[(usize, &[&[usize]])] =
    &[(LONG, &[&[20], &[3, 600], &[300, 3, 23, 43], &[3; 9]]), (20, &[&[300], &[600, 3]])];

fn engine(model: &Model, gpu: &Arc<Gpu>, max_step_tokens: usize) -> Engine {
    let options = EngineOptions {
        device: DeviceChoice::Gpu(gpu.clone()),
        n_ctx: Some(2048),
        max_step_tokens,
        ..EngineOptions::default()
    };
    Engine::new(model, &options).expect("an engine")
}

fn tokens(model: &Model, seed: usize, n: usize) -> Vec<u32> {
    let vocab = model.info().vocab_size;
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|x| x.to_bits()).collect()
}

/// Logits of the prompt's last token, and of tokens behind it, each in a step with a token of every other sequence: there is
/// one for each length in `others`.
fn answers(engine: &mut Engine, prompt: &[u32], more: &[u32], others: &[usize]) -> Vec<Vec<u32>> {
    let model = engine.model().clone();
    let mut sequence = engine.sequence();
    let mut all = vec![bits(engine.prefill(&mut sequence, prompt).expect("a prompt"))];
    let mut company: Vec<_> = (5..)
        .zip(others)
        .map(|(seed, len)| {
            let mut other = engine.sequence();
            engine.prefill(&mut other, &tokens(&model, seed, *len)).expect("another prompt");
            other
        })
        .collect();
    for (k, token) in more.iter().enumerate() {
        let long = tokens(&model, k, 30);
        let mut newcomer = engine.sequence();
        let mut steps: Vec<Step<'_>> = company.iter_mut().map(|s| Step::new(s, &[3], Outputs::Last)).collect();
        let own = steps.len() / 2;
        steps.insert(own, Step::new(&mut sequence, std::slice::from_ref(token), Outputs::Last));
        // A prompt of somebody else beside it.
        if others.len() > 1 {
            steps.insert(0, Step::new(&mut newcomer, &long, Outputs::None));
        }
        let vocab = model.info().vocab_size;
        all.push(bits(&engine.step(&mut steps).expect("a step")[own * vocab..][..vocab]));
    }
    all
}

/// What differs for a model.
fn differences(what: &str, model: &Model, gpu: &Arc<Gpu>) -> Vec<String> {
    let (long, more) = (tokens(model, 1, LONG), tokens(model, 2, 5));
    let mut found = Vec::new();
    let mut whole = engine(model, gpu, 512);
    let prompt = &long[..LEN];
    let want = answers(&mut whole, prompt, &more[..1], &[]);
    for part in [1, 7, 64] {
        if answers(&mut engine(model, gpu, part), prompt, &more[..1], &[]) != want {
            found.push(format!("{what}, its prompt in parts of {part}"));
        }
    }
    for (len, company) in COMPANY {
        let want = answers(&mut whole, &long[..*len], &more, &[]);
        for others in *company {
            let got = answers(&mut whole, &long[..*len], &more, others);
            if let Some(at) = got.iter().zip(&want).position(|(got, want)| got != want) {
                found.push(format!("{what} beside sequences of {others:?} tokens: from position {} on", len + at - 1));
            }
        }
    }
    found
}

#[test]
fn a_row_depends_on_its_own_tokens_and_role_alone() {
    let test = "a_row_depends_on_its_own_tokens_and_role_alone";
    let Some(gpu) = open_gpu(test, &Default::default()) else { return };
    let mut found = Vec::new();
    for name in KINDS {
        let model = Model::open(&Fixture::load(name).dir).expect("the fixture");
        found.extend(differences(name, &model, &gpu));
    }
    for (name, format) in IN_BLOCKS {
        found.extend(differences(&format!("{name} in {format}"), &made_up(name, format, &[]), &gpu));
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}
