//! Sequences belong to the engine that ran them: others refuse them, and whoever drops them gives their cache back.

mod support;

use handmill_models::{
    Engine, EngineOptions, Error, KvChoice, Model,
    engine::{DeviceChoice, Sequence, Step},
};
use handmill_runtime::{
    BackendError,
    step::{Outputs, StepError},
};
use support::{Greedy, fixtures_dir};

const PROMPT: [u32; 6] = [1, 5, 2, 9, 7, 3];

/// The CPU, and where there is a GPU that and both together.
fn engines(name: &str) -> Vec<Engine> {
    made(name, KvChoice::Auto).into_iter().map(|made| made.expect("an engine")).collect()
}

/// The same with keys and values stored so.
fn made(name: &str, kv: KvChoice) -> Vec<Result<Engine, Error>> {
    let model = Model::open(&fixtures_dir().join("families").join(name)).expect("the fixture");
    let engine = |device, gpu_layers| {
        let options = EngineOptions { device, gpu_layers, kv, n_ctx: Some(256), ..EngineOptions::default() };
        Engine::new(&model, &options)
    };
    #[allow(unused_mut)]
    let mut all = vec![engine(DeviceChoice::Cpu, None)];
    #[cfg(feature = "gpu")]
    if let Some(adapter) = handmill_runtime::gpu::Gpu::adapters(None).first() {
        use handmill_runtime::gpu::{Gpu, GpuOptions};
        let options = GpuOptions { device: Some(adapter.index.to_string()), ..GpuOptions::default() };
        let gpu: std::sync::Arc<_> = Gpu::open(&options).expect("an adapter").into();
        all.extend([None, Some(1)].map(|layers| engine(DeviceChoice::Gpu(gpu.clone()), layers)));
    }
    all
}

fn refused(done: Result<(), Error>, what: &str) {
    let Err(Error::Backend(BackendError::Step(StepError::OtherBackend { tokens }))) = done else {
        panic!("{what}: {done:?}");
    };
    assert_eq!(tokens, PROMPT.len(), "{what}");
}

/// Steps that build on others under way are refused, too, and so are tickets.
fn ahead(own: &mut Engine, other: &mut Engine) {
    let (own, other) = (own.backend(), other.backend());
    let mut greedy = Greedy::new();
    greedy.submit(own, Some(&PROMPT)).expect("a step");
    let refused = greedy.submit(other, Some(&[4]));
    assert!(matches!(refused, Err(BackendError::Step(StepError::OtherBackend { .. }))), "{refused:?}");
    let refused = greedy.submit(other, None);
    assert!(matches!(refused, Err(BackendError::Step(StepError::NotUnderWay))), "{refused:?}");
    assert!(greedy.collect(own).expect("a token").is_some());
}

#[test]
fn a_sequence_of_another_engine_is_refused_at_every_entry() {
    // Pages alone, and states beside them.
    for name in ["llama2", "qwen3_5"] {
        for (mut own, mut other) in engines(name).into_iter().zip(engines(name)) {
            let what = own.backend().describe();
            let mut sequence = own.sequence();
            let expected = own.prefill(&mut sequence, &PROMPT).expect("a prompt").to_vec();
            let mut local = other.sequence();
            other.prefill(&mut local, &PROMPT).expect("a prompt");
            let (len, used) = (sequence.len(), other.backend().pages().bytes_in_use());

            refused(other.prefill(&mut sequence, &[4]).map(drop), &what);
            refused(other.truncate(&mut sequence, 3).map(drop), &what);
            refused(other.fork(&sequence).map(drop), &what);
            let mut steps = [&mut local, &mut sequence].map(|sequence| Step::new(sequence, &[4], Outputs::Last));
            refused(other.step(&mut steps).map(drop), &what);
            assert_eq!((sequence.len(), local.len()), (len, len), "{what}");
            assert_eq!(other.backend().pages().bytes_in_use(), used, "{what}");

            // It goes on where it belongs.
            assert!(own.truncate(&mut sequence, 0).expect("its own"));
            assert_eq!(own.prefill(&mut sequence, &PROMPT).expect("a prompt"), expected, "{what}");
            drop(sequence);
            ahead(&mut own, &mut other);
            assert_eq!(own.backend().pages().bytes_in_use(), 0, "{what}");
        }
    }
}

#[test]
fn dropped_sequences_make_room_and_may_outlive_their_engine() {
    for mut engine in engines("llama2") {
        let what = engine.backend().describe();
        let left: Vec<Sequence> = std::thread::scope(|scope| {
            // Far more than the cache holds at a time.
            for _ in 0..40 {
                let mut sequence = engine.sequence();
                engine.prefill(&mut sequence, &[7; 200]).expect("there is room");
                let fork = engine.fork(&sequence).expect("its own");
                scope.spawn(move || drop(fork)).join().expect("a thread");
            }
            let mut last = engine.sequence();
            engine.prefill(&mut last, &PROMPT).expect("there is room");
            vec![engine.fork(&last).expect("its own"), last]
        });
        assert!(engine.backend().pages().bytes_in_use() > 0, "{what}");
        drop(engine);
        std::thread::spawn(move || drop(left)).join().expect("a thread");
    }
}

#[test]
fn a_failed_answer_leaves_the_sequences_of_others_alone() {
    for mut engine in engines("llama2") {
        let what = engine.backend().describe();
        let mut sequence = engine.sequence();
        let expected = engine.prefill(&mut sequence, &PROMPT).expect("a prompt").to_vec();
        // An id beyond the table in the last of several sequences.
        let mut other = engine.sequence();
        let mut steps = [(&mut sequence, &[4][..]), (&mut other, &[1 << 20])]
            .map(|(sequence, tokens)| Step::new(sequence, tokens, Outputs::Last));
        let Err(Error::Backend(BackendError::Step(StepError::TokenOutOfRange { .. }))) = engine.step(&mut steps) else {
            panic!("{what}: an id beyond the table");
        };
        assert_eq!((sequence.len(), other.len()), (PROMPT.len(), 0), "{what}");
        assert!(engine.truncate(&mut sequence, PROMPT.len() - 1).expect("its own"), "{what}");
        let again = engine.prefill(&mut sequence, &PROMPT[PROMPT.len() - 1..]).expect("the last token").to_vec();
        let error = again.iter().zip(&expected).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(error < 1e-3, "{what}: {error}");
    }
}

#[test]
fn heads_that_are_no_whole_blocks_are_refused_on_every_device() {
    // Keys of 16 elements.
    for made in made("llama2", KvChoice::Q8_0) {
        let error = made.err().expect("16 elements are no block").to_string();
        assert!(error.contains("16 elements") && error.contains("32") && error.contains("f16"), "{error}");
    }
}

/// Logits are near those with keys and values in halves. GPUs refuse them and say what to do.
#[test]
fn keys_and_values_in_blocks_run_on_the_cpu() {
    let run = |engine: &mut Engine| -> Vec<f32> {
        let mut rows = Vec::new();
        engine.logits(&PROMPT, |part| rows.extend_from_slice(part)).expect("logits");
        rows
    };
    // Keys of 32 elements.
    let halves = made("qwen3-next", KvChoice::F16);
    for (i, (halves, blocks)) in halves.into_iter().zip(made("qwen3-next", KvChoice::Q8_0)).enumerate() {
        if i > 0 {
            let error = blocks.err().expect("a GPU").to_string();
            assert!(error.contains("q8_0") && error.contains("f16") && error.contains("CPU"), "{error}");
            continue;
        }
        let (mut halves, mut blocks) = (halves.expect("an engine"), blocks.expect("an engine"));
        let (want, got) = (run(&mut halves), run(&mut blocks));
        let off: f32 = want.iter().zip(&got).map(|(want, got)| (want - got).powi(2)).sum();
        let all: f32 = want.iter().map(|x| x * x).sum();
        let device = blocks.backend().describe();
        assert!(off > 0.0 && (off / all).sqrt() < 1e-2, "{device}: {}", (off / all).sqrt());
        assert!(blocks.backend().pages().bytes_per_token() * 100 <= halves.backend().pages().bytes_per_token() * 57);
    }
}
