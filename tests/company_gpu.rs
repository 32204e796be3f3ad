//! On a GPU a row's result depends on its own tokens and on its role, whether it is of a prompt or was chosen, bit by bit: not
//! on how a prompt is cut, nor on which prompts are beside it, nor on how many other sequences get a token.
#![cfg(feature = "gpu")]

mod support;

use std::sync::Arc;

use handmill_models::{
    Model,
    engine::{DeviceChoice, Engine, EngineOptions, Step},
};
use handmill_runtime::{gpu::Gpu, step::Outputs};
use support::{Fixture, open_gpu};

/// Full attention, windows, experts, latent keys, recurrent states.
const KINDS: [&str; 5] = ["llama2", "gemma3", "qwen3-moe", "deepseek-v3", "qwen3-next"];

/// Tokens of the prompt: more than two pages.
const LEN: usize = 150;

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

/// Logits of the prompt's last token, and of four tokens behind it.
fn answers(engine: &mut Engine, prompt: &[u32], more: &[u32], others: usize) -> Vec<Vec<u32>> {
    let model = engine.model().clone();
    let mut sequence = engine.sequence();
    let mut all = vec![bits(engine.prefill(&mut sequence, prompt).expect("a prompt"))];
    let mut company: Vec<_> = (0..others)
        .map(|i| {
            let mut other = engine.sequence();
            engine.prefill(&mut other, &tokens(&model, i + 5, 3 + 20 * i)).expect("another prompt");
            other
        })
        .collect();
    for (k, token) in more.iter().enumerate() {
        let long = tokens(&model, k, 30);
        let mut newcomer = engine.sequence();
        let mut steps: Vec<Step<'_>> = company.iter_mut().map(|s| Step::new(s, &[3], Outputs::None)).collect();
        // A prompt of somebody else beside it.
        if others > 0 {
            steps.insert(0, Step::new(&mut newcomer, &long, Outputs::None));
        }
        steps.insert(steps.len() / 2, Step::new(&mut sequence, std::slice::from_ref(token), Outputs::Last));
        all.push(bits(engine.step(&mut steps).expect("a step")));
    }
    all
}

#[test]
fn a_row_depends_on_its_own_tokens_and_role_alone() {
    let test = "a_row_depends_on_its_own_tokens_and_role_alone";
    let Some(gpu) = open_gpu(test, &Default::default()) else { return };
    let mut failed = Vec::new();
    for name in KINDS {
        let model = Model::open(&Fixture::load(name).dir).expect("the fixture");
        let (prompt, more) = (tokens(&model, 1, LEN), tokens(&model, 2, 4));
        let mut whole = engine(&model, &gpu, 512);
        let want = answers(&mut whole, &prompt, &more, 0);
        for part in [1, 7, 64] {
            let got = answers(&mut engine(&model, &gpu, part), &prompt, &more, 0);
            if got != want {
                failed.push(format!("{name} in parts of {part}"));
            }
        }
        // One chosen row alone goes through kernels that apply the norm before a linear themselves, which sums in another
        // order.
        let two = answers(&mut whole, &prompt, &more, 1);
        for others in [2, 3, 6] {
            if answers(&mut whole, &prompt, &more, others) != two {
                failed.push(format!("{name} with {others} others"));
            }
        }
        if two[0] != want[0] {
            failed.push(format!("{name}'s prompt"));
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}
