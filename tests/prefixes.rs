//! Sequences that begin with what others have left in the cache, and runs that wait while it is full: on the CPU their
//! logits and tokens are, bit by bit, those of sequences that run alone.

mod support;

use handmill_models::{
    Engine, EngineOptions, Error, Model,
    engine::{RunId, Running, Sequence, Step},
};
use handmill_runtime::step::Outputs;
use support::{argmax, fixtures_dir};

/// Full attention, windows, experts, latent keys, recurrent states, blocks of keys.
const KINDS: &[&str] =
    &["llama2", "gemma3", "gpt-oss", "deepseek-v3", "qwen3-next", "qwen3_5", "deepseek-v4", "gemma3n"];

fn model(name: &str) -> Model {
    Model::open(&fixtures_dir().join("families").join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn engine(model: &Model, n_ctx: usize) -> Engine {
    let options =
        EngineOptions { n_ctx: Some(n_ctx), threads: Some(2), max_step_tokens: 128, ..EngineOptions::default() };
    Engine::new(model, &options).expect("an engine")
}

fn text(model: &Model, seed: usize, n: usize) -> Vec<u32> {
    let vocab = model.info().vocab_size;
    (0..n).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % vocab) as u32).collect()
}

/// Runs the rest of `tokens`; the last one's logits.
fn run(engine: &mut Engine, sequence: &mut Sequence, tokens: &[u32]) -> Vec<f32> {
    let logits = engine.prefill(sequence, &tokens[sequence.len()..]).expect("room").to_vec();
    engine.keep_pages(sequence).expect("its own");
    logits
}

fn bits(logits: &[f32]) -> Vec<u32> {
    logits.iter().map(|v| v.to_bits()).collect()
}

#[test]
fn logits_behind_a_prefix_are_those_of_the_whole_prompt() {
    for name in KINDS {
        let model = model(name);
        let (mut warm, mut cold) = (engine(&model, 1024), engine(&model, 1024));
        let first = text(&model, 1, 300);
        let mut sequence = warm.begin(&first).expect("it fits");
        assert_eq!(sequence.len(), 0, "{name}");
        run(&mut warm, &mut sequence, &first);
        // An answer, and a second question behind it.
        let mut all = first.clone();
        for token in text(&model, 2, 30) {
            warm.step(&mut [Step::new(&mut sequence, &[token], Outputs::Last)]).expect("room");
            all.push(token);
        }
        warm.retain(&sequence).expect("its own");
        drop(sequence);
        let mut used = warm.kept_tokens();
        assert!(used >= 300, "{name}: {used}");
        for (what, kept, least, tail) in [
            ("the conversation goes on", all.len(), all.len(), 20),
            ("the same prompt", 299, 256, 1),
            ("another answer", 300, 256, 70),
            ("another question", 250, 128, 100),
            ("a short one", 130, 128, 2),
            ("something else", 0, 0, 90),
        ] {
            let prompt = [&all[..kept], &text(&model, 3, tail)].concat();
            // The tokens behind the prefix differ from the first one's, except of the same prompt.
            let prompt = if what == "the same prompt" { first.clone() } else { prompt };
            let mut sequence = warm.begin(&prompt).expect("it fits");
            let reused = sequence.len();
            assert!(reused >= least && reused <= kept + 1, "{name}, {what}: {reused} of {kept}");
            let logits = run(&mut warm, &mut sequence, &prompt);
            let mut alone = cold.sequence();
            let want = cold.prefill(&mut alone, &prompt).expect("room");
            assert_eq!(bits(&logits), bits(want), "{name}, {what}: {reused} tokens reused");
            warm.retain(&sequence).expect("its own");
            assert!(warm.kept_tokens() >= used, "{name}, {what}");
            used = warm.kept_tokens();
        }
        assert!(warm.prefix_stats().hits >= 5, "{name}: {:?}", warm.prefix_stats());
        warm.forget_prefixes().expect("its own");
        assert_eq!(warm.backend().pages().bytes_in_use(), 0, "{name}");
    }
}

#[test]
fn an_owner_can_go_back_as_far_as_it_said() {
    for name in KINDS {
        let model = model(name);
        let mut engine = engine(&model, 512);
        let (mut sequence, mut logits) = (engine.sequence(), Vec::new());
        engine.prefill(&mut sequence, &text(&model, 1, 200)).expect("room");
        sequence.keep_back(4);
        let answer = text(&model, 2, 8);
        for token in &answer {
            logits.push(bits(engine.prefill(&mut sequence, &[*token]).expect("room")));
        }
        let mut fork = engine.fork_at(&sequence, 206).expect("its own").expect("two tokens back");
        assert!(engine.truncate(&mut sequence, 204).expect("its own"), "{name}");
        for (sequence, done) in [(&mut sequence, 4), (&mut fork, 6)] {
            for (token, want) in answer.iter().zip(&logits).skip(done) {
                let again = bits(engine.prefill(sequence, &[*token]).expect("room"));
                assert_eq!(&again, want, "{name}: {done} tokens of the answer kept");
            }
        }
        drop((sequence, fork));
        assert_eq!(engine.backend().pages().bytes_in_use(), 0, "{name}");
    }
}

#[test]
fn prefixes_make_room_for_sequences() {
    let model = model("qwen3-next");
    let mut engine = engine(&model, 256);
    for seed in 0..20 {
        let prompt = text(&model, seed, 200);
        let mut sequence = engine.begin(&prompt).expect("it fits");
        run(&mut engine, &mut sequence, &prompt);
        engine.retain(&sequence).expect("its own");
    }
    assert!(engine.prefix_stats().evicted_tokens > 0 && engine.kept_tokens() <= 256);
    // Plain sequences find room, too, and share nothing.
    let mut plain: Vec<Sequence> = (0..3).map(|_| engine.sequence()).collect();
    for sequence in &mut plain {
        engine.prefill(sequence, &text(&model, 19, 200)).expect("room");
    }
    let full = engine.prefill(&mut engine.sequence(), &text(&model, 30, 200)).map(drop);
    let message = full.expect_err("three sequences fill the cache").to_string();
    assert!(message.contains("sequence 0 of the step") && message.contains("all sequences together"), "{message}");
    let long = engine.step(&mut [Step::new(&mut plain[0], &[1; 57], Outputs::Last)]).map(drop);
    assert!(matches!(long, Err(Error::ContextFull { tokens: 257, n_ctx: 256 })), "{long:?}");
}

#[test]
fn rotations_that_depend_on_the_length_are_shared_as_far_as_they_do_not() {
    for name in ["llama-dynamic", "phi3-longrope"] {
        let model = model(name);
        let mut engine = engine(&model, 1024);
        let original = engine
            .backend()
            .plan()
            .graph
            .ropes()
            .iter()
            .filter_map(|rope| (1..1000).find(|len| rope.regime(*len) > 0).map(|len| len - 1));
        let original = original.min().expect("a length");
        let prompt = text(&model, 1, original.max(80) + 40);
        for n in [original.min(70), prompt.len(), prompt.len()] {
            let mut sequence = engine.begin(&prompt[..n]).expect("it fits");
            assert!(n <= original || sequence.is_empty(), "{name}: {n} tokens, {original} alike");
            run(&mut engine, &mut sequence, &prompt[..n]);
            engine.retain(&sequence).expect("its own");
        }
        assert!(engine.kept_tokens() <= original, "{name}");
    }
}

/// Runs the prompts together, as a server would, each until it has `n` tokens more; the answers, and how often a run was
/// set aside.
fn serve(engine: &mut Engine, prompts: &[Vec<u32>], n: usize) -> (Vec<Vec<u32>>, u64) {
    let vocab = engine.model().info().vocab_size;
    let mut running = Running::new();
    let ids: Vec<RunId> = prompts.iter().map(|p| running.add(engine, p.clone()).expect("it fits")).collect();
    let mut answers = vec![Vec::new(); prompts.len()];
    while answers.iter().any(|answer| answer.len() < n) {
        while running.admit(engine).expect("an engine").is_some() {}
        let wanted: Vec<(RunId, usize)> = running
            .sequences()
            .map(|(id, sequence)| (id, engine.part_tokens(sequence, running.pending(id).len(), 128 / prompts.len())))
            .collect();
        running.make_room(engine, &wanted, false).expect("an engine");
        let (stepped, mut steps): (Vec<RunId>, Vec<Step<'_>>) = running.steps(&wanted).into_iter().unzip();
        let outputs: Vec<bool> = steps.iter().map(|step| step.outputs == Outputs::Last).collect();
        let logits = engine.step(&mut steps).expect("room was made").to_vec();
        drop(steps);
        for (_, sequence) in running.sequences() {
            engine.keep_pages(sequence).expect("its own");
        }
        let mut rows = logits.chunks_exact(vocab);
        for id in stepped.into_iter().zip(outputs).filter_map(|(id, output)| output.then_some(id)) {
            let at = ids.iter().position(|of| *of == id).expect("a run");
            let token = argmax(rows.next().expect("a row")) as u32;
            answers[at].push(token);
            running.push(id, token);
            if answers[at].len() == n {
                let all = running.finish(engine, id).expect("its own").expect("a run");
                assert_eq!(all, [&prompts[at][..], &answers[at]].concat());
            }
        }
    }
    assert_eq!(running.waiting() + running.sequences().count(), 0);
    (answers, running.times_set_aside())
}

#[test]
fn runs_that_were_set_aside_give_the_tokens_of_a_roomy_cache() {
    for name in ["llama2", "gemma3", "qwen3-next", "deepseek-v3"] {
        let model = model(name);
        // Some begin alike.
        let prompts: Vec<_> = (0..8).map(|i| [text(&model, i / 3, 90), text(&model, i, 40)].concat()).collect();
        let n = 100;
        let (answers, set_aside) = serve(&mut engine(&model, 256), &prompts, n);
        assert!(set_aside > 0, "{name}: all had room");
        let mut roomy = engine(&model, 4096);
        let (others, none) = serve(&mut roomy, &prompts, n);
        assert_eq!(none, 0, "{name}");
        assert_eq!(answers, others, "{name}: {set_aside} times set aside");
        // Nor does it matter who else runs.
        let mut alone = engine(&model, 256);
        let (answer, _) = serve(&mut alone, &prompts[3..4], n);
        assert_eq!(answer[0], answers[3], "{name}");
    }
}

/// All layers on a GPU, or one: growth, copied pages, and room for steps ahead of the host.
#[cfg(feature = "gpu")]
#[test]
fn prefixes_on_a_gpu() {
    use handmill_models::{
        GenerateOptions,
        engine::{DeviceChoice, sampling::SamplingParams},
        runtime::gpu::GpuOptions,
    };
    use std::ops::ControlFlow;
    let test = "prefixes::prefixes_on_a_gpu";
    let Some(gpu) = support::open_gpu(test, &GpuOptions::default()) else { return };
    for (name, gpu_layers) in [("llama3", None), ("gemma3", None), ("qwen3-next", None), ("qwen3-next", Some(1))] {
        let model = model(name);
        let device = DeviceChoice::Gpu(gpu.clone());
        let options = EngineOptions { device, gpu_layers, n_ctx: Some(512), ..EngineOptions::default() };
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let prompt = text(&model, 1, 300);
        let mut first = engine.begin(&prompt).expect("it fits");
        let cold = run(&mut engine, &mut first, &prompt);
        let mut second = engine.begin(&prompt).expect("it fits");
        assert!(second.len() >= 256, "{name}: {}", second.len());
        // Both write behind what they share.
        let warm = run(&mut engine, &mut second, &prompt);
        let mut both =
            [&mut first, &mut second].map(|sequence| engine.prefill(sequence, &prompt[..5]).expect("room").to_vec());
        let difference = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        assert!(difference(&cold, &warm) < 2e-2, "{name}: {}", difference(&cold, &warm));
        let [a, b] = &mut both;
        assert!(difference(a, b) < 2e-2, "{name}: {}", difference(a, b));
        drop((first, second));
        // Far more than the cache holds beside a sequence that stays, with steps ahead of the host where the GPU runs all.
        let mut stays = engine.sequence();
        engine.prefill(&mut stays, &text(&model, 5, 400)).expect("room");
        let greedy = SamplingParams::greedy();
        let options = GenerateOptions { max_tokens: Some(8), sampling: greedy, ..GenerateOptions::default() };
        for seed in 0..8 {
            let prompt = text(&model, seed / 2 + 10, 310 + seed);
            let mut sequence = engine.begin(&prompt).expect("it fits");
            assert!(seed % 2 == 0 || sequence.len() >= 256, "{name}: {} of {}", sequence.len(), prompt.len());
            let rest = prompt[sequence.len()..].to_vec();
            let done = engine.continue_sequence(&mut sequence, &rest, &options, |_| ControlFlow::Continue(()));
            done.unwrap_or_else(|e| panic!("{name}: {e}"));
            engine.retain(&sequence).expect("its own");
        }
        assert!(engine.prefix_stats().evicted_tokens > 0, "{name}");
        engine.forget_prefixes().expect("its own");
        drop(stays);
        assert_eq!(engine.backend().pages().bytes_in_use(), 0, "{name}");
    }
}
