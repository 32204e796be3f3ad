//! A model on the GPU as a whole: some of its layers on the CPU, too little memory, a device that goes away, pipelines
//! kept on disk. On the best adapter that there is, which in CI is a software one.
#![cfg(feature = "gpu")]

mod support;

use std::{fs, path::Path, sync::Arc};

use handmill_models::{Engine, EngineOptions, Error, Model, engine::Step};
use handmill_runtime::{
    Backend, Precision, SplitBackend,
    cpu::CpuOptions,
    gpu::{CapsOverride, Gpu, GpuBackendOptions, GpuOptions},
    graph::{Device, Plan, StageKind},
    step::{KvType, Outputs, PAGE_TOKENS, SequenceKv, SequenceStep},
};
use support::{
    DeviceChoice, Fixture, Greedy, KvChoice, Matrix, Options, PrecisionChoice, Session, Skip, argmax, assert_close,
    open_gpu, skip,
};

/// Largest |Δlogit| allowed with f32 weights and f32 keys and values.
const TOLERANCE: f32 = 1e-3;

/// A device of the test's own; none, and a visible line, where there is no adapter.
fn open(test: &str, options: GpuOptions) -> Option<Arc<Gpu>> {
    open_gpu(&format!("gpu_backend::{test}"), &options)
}

fn with_caps(caps: CapsOverride) -> GpuOptions {
    GpuOptions { caps, ..GpuOptions::default() }
}

fn layers(fixture: &Fixture) -> usize {
    Model::open(&fixture.dir).expect("a model").info().n_layers
}

#[test]
fn any_number_of_layers_gives_the_same_logits() {
    let Some(gpu) = open("any_number_of_layers_gives_the_same_logits", GpuOptions::default()) else { return };
    for name in ["llama3", "qwen2", "gemma3", "qwen3-moe", "qwen3-next", "gemma3n"] {
        let fixture = Fixture::load(name);
        let ids = &fixture.prompt_ids;
        let n_layers = layers(&fixture);
        for n in 0..=n_layers + 1 {
            if !["llama3", "qwen2", "gemma3"].contains(&name) && n != 2 {
                continue;
            }
            let options =
                || Options { device: DeviceChoice::Gpu(gpu.clone()), gpu_layers: Some(n), ..Options::default() };
            let what = |part: &str| format!("{name}, {part}, {n} of {n_layers} layers on {}", gpu.name());
            let mut session = Session::open(&fixture.dir, options());
            assert_close(&what("prompt"), &session.feed(ids), &fixture.logits, TOLERANCE);
            let mut steps = fixture.logits.row(ids.len() - 1).to_vec();
            for &id in &fixture.gen_ids[..fixture.gen_ids.len() - 1] {
                steps.extend(session.feed(&[id]).data);
            }
            let steps = Matrix::new(fixture.logits.cols, steps);
            assert_close(&what("generation"), &steps, &fixture.gen_step_logits, TOLERANCE);
            let mut session = Session::open(&fixture.dir, options());
            let rows = ids.chunks(5).flat_map(|chunk| session.feed(chunk).data).collect();
            assert_close(&what("chunks"), &Matrix::new(fixture.logits.cols, rows), &fixture.logits, TOLERANCE);
            let mut session = Session::open(&fixture.dir, options());
            let prompts: [&[u32]; 3] = [&ids[..5], ids, &ids[..1]];
            for (prompt, logits) in prompts.iter().zip(session.feed_batch(&prompts)) {
                assert_close(&what("batch"), &logits, &fixture.logits.slice(0..prompt.len()), TOLERANCE);
            }
        }
    }
}

/// An engine that rounds nothing but sums, with room for any fixture.
fn engine(dir: &Path, gpu: &Arc<Gpu>, gpu_layers: Option<usize>) -> Result<Engine, Error> {
    engine_for(dir, gpu, gpu_layers, Some(256))
}

/// As [`engine`], with room for `n_ctx` tokens.
fn engine_for(dir: &Path, gpu: &Arc<Gpu>, gpu_layers: Option<usize>, n_ctx: Option<usize>) -> Result<Engine, Error> {
    let device = DeviceChoice::Gpu(gpu.clone());
    let (kv, precision) = (KvChoice::F32, PrecisionChoice::Exact);
    let options = EngineOptions { device, gpu_layers, n_ctx, kv, precision, ..EngineOptions::default() };
    Engine::new(&Model::open(dir)?, &options)
}

#[test]
fn experts_can_stay_on_the_cpu() {
    let Some(gpu) = open("experts_can_stay_on_the_cpu", GpuOptions::default()) else { return };
    for name in ["qwen3-moe", "gpt-oss"] {
        let fixture = Fixture::load(name);
        let options = EngineOptions {
            device: DeviceChoice::Gpu(gpu.clone()),
            experts_on_cpu: true,
            n_ctx: Some(256),
            kv: KvChoice::F32,
            precision: PrecisionChoice::Exact,
            ..EngineOptions::default()
        };
        let mut engine = Engine::new(&Model::open(&fixture.dir).expect("a model"), &options).expect("an engine");
        let steps = &engine.backend().plan().stages;
        let expert = |kind: &StageKind| matches!(kind, StageKind::Experts(_));
        assert!(steps.iter().all(|s| (s.device == Device::Cpu) == expert(&s.kind)));
        let mut rows = Vec::new();
        engine.logits(&fixture.prompt_ids, |part| rows.extend_from_slice(part)).expect("logits");
        assert_close(name, &Matrix::new(fixture.logits.cols, rows), &fixture.logits, TOLERANCE);
    }
}

#[test]
fn steps_can_be_placed_one_by_one() {
    let Some(gpu) = open("steps_can_be_placed_one_by_one", GpuOptions::default()) else { return };
    for name in ["llama3", "gemma3"] {
        let fixture = Fixture::load(name);
        let model = Model::open(&fixture.dir).expect("a model");
        let ids = &fixture.prompt_ids;
        // Every other step; all attention on the CPU; as experts on the CPU would be; all but the head there.
        type Rule = fn(usize, &str, &StageKind) -> bool;
        let rules: [Rule; 5] = [
            |i, _, _| i % 2 == 0,
            |i, _, _| i % 2 == 1,
            |_, _, kind| !matches!(kind, StageKind::Attention(_)),
            |_, name, _| !(name.ends_with("gate") || name.ends_with("down")),
            |_, name, _| name == "head",
        ];
        for (r, on_gpu) in rules.into_iter().enumerate() {
            let mut step = 0;
            let plan = Plan::new(model.graph().clone(), |_, node, kind| {
                step += 1;
                Ok(if on_gpu(step - 1, &node.name, kind) { Device::Gpu } else { Device::Cpu })
            });
            let (kv_type, precision) = (KvType::F32, Precision::Exact);
            let gpu_options = GpuBackendOptions { kv_type, precision, ..GpuBackendOptions::default() };
            let cpu_options = CpuOptions { threads: 2, kv_type, precision, ..CpuOptions::default() };
            let plan = plan.expect("a plan");
            let mut backend =
                SplitBackend::new(gpu.clone(), plan, &gpu_options, &cpu_options, &mut |_, _| {}).expect("a backend");
            let mut kv = SequenceKv::default();
            let mut rows = Vec::new();
            for tokens in ids.chunks(ids.len() - 3) {
                let step = SequenceStep::new(&mut kv, tokens, Outputs::All);
                rows.extend(backend.forward(&mut [step]).expect("logits"));
            }
            let what = format!("{name}, rule {r}, {}", backend.describe());
            assert_close(&what, &Matrix::new(fixture.logits.cols, rows), &fixture.logits, TOLERANCE);
            let stats = backend.gpu_stats();
            assert!(stats.steps == 2 && stats.submits >= 4, "{stats:?}");
        }
    }
}

#[test]
fn a_forked_prompt_and_a_profile_on_two_devices() {
    let Some(gpu) = open("a_forked_prompt_and_a_profile_on_two_devices", GpuOptions::default()) else { return };
    let fixture = Fixture::load("qwen2");
    let ids = &fixture.prompt_ids;
    let mut engine = engine(&fixture.dir, &gpu, Some(1)).expect("an engine");
    assert!(engine.gpu().is_none(), "not all steps run on the GPU");
    let mut first = engine.sequence();
    // The shared page is cut in the middle, on both devices.
    engine.prefill(&mut first, &ids[..ids.len() - 1]).expect("a prompt");
    let mut second = engine.fork(&first).expect("a fork");
    engine.prefill(&mut first, &[1]).expect("another token");
    engine.backend().set_tracing(true).expect("tracing");
    let logits = engine.prefill(&mut second, &ids[ids.len() - 1..]).expect("the last token").to_vec();
    let last = fixture.logits.slice(ids.len() - 1..ids.len());
    assert_close("a forked prompt", &Matrix::new(last.cols, logits), &last, TOLERANCE);
    let stages = engine.backend().plan().stages.len();
    let trace = engine.backend().trace().expect("a trace").clone();
    assert!((0..stages).all(|i| trace.last[0].calls.iter().any(|c| c.stage == Some(i))));
    // Too long a step is refused, and the sequence stays as it was.
    let most = engine.backend().max_step_tokens();
    let long = vec![1; most + 1];
    let before = second.len();
    let step = Step::new(&mut second, &long, Outputs::Last);
    assert!(engine.step(&mut [step]).is_err());
    assert_eq!(second.len(), before);
}

#[test]
fn too_little_memory_says_how_many_layers_fit() {
    let copies = CapsOverride { no_host_import: true, ..CapsOverride::default() };
    let Some(gpu) = open("too_little_memory_says_how_many_layers_fit", with_caps(copies)) else { return };
    let fixture = Fixture::load("gemma3");
    let n_layers = layers(&fixture);
    let whole = {
        let _engine = engine(&fixture.dir, &gpu, None).expect("all layers");
        gpu.memory_in_use()
    };
    if whole == 0 {
        return skip(
            Skip::Hardware,
            "gpu_backend::too_little_memory_says_how_many_layers_fit",
            "memory is not counted",
        );
    }
    let mut fits = Vec::new();
    for eighths in 1..8 {
        let caps = CapsOverride { max_memory: Some(whole * eighths / 8), ..copies };
        let gpu = Arc::new(Gpu::open(&with_caps(caps)).expect("a device"));
        let Err(error) = engine(&fixture.dir, &gpu, None) else { continue };
        let message = error.to_string();
        let Error::DeviceMemory { layers, fit, .. } = error else { panic!("{message}") };
        assert_eq!(layers, n_layers);
        assert!(message.contains(gpu.name()), "{message}");
        if fit > 0 {
            assert!(message.contains(&format!("{fit} of the {n_layers} layers would fit")), "{message}");
            let options =
                Options { device: DeviceChoice::Gpu(gpu.clone()), gpu_layers: Some(fit), ..Options::default() };
            let logits = Session::open(&fixture.dir, options).feed_last(&fixture.prompt_ids);
            let last = fixture.logits.slice(fixture.logits.rows - 1..fixture.logits.rows);
            assert_close(&message, &Matrix::new(last.cols, logits), &last, TOLERANCE);
        } else {
            assert!(message.contains("use the CPU"), "{message}");
        }
        fits.push(fit);
    }
    assert!(fits.is_sorted(), "{fits:?}");
    assert!(fits.first() == Some(&0) || fits.len() > 1, "{fits:?}");
}

fn all_logits(engine: &mut Engine, ids: &[u32]) -> Result<Vec<f32>, Error> {
    let mut all = Vec::new();
    engine.logits(ids, |rows| all.extend_from_slice(rows))?;
    Ok(all)
}

/// Some buffers have grown by then, and what is bound must not be the old ones.
#[test]
fn a_step_without_memory_leaves_the_others_right() {
    let test = "a_step_without_memory_leaves_the_others_right";
    let folder = tempfile::tempdir().expect("a folder");
    let options = |max_memory| GpuOptions {
        caps: CapsOverride { no_host_import: true, max_memory, ..CapsOverride::default() },
        cache_dir: Some(folder.path().to_owned()),
        ..GpuOptions::default()
    };
    let Some(gpu) = open(test, options(None)) else { return };
    let fixture = Fixture::load("llama3");
    let short = &fixture.prompt_ids[..4];
    // More than the first pages hold, in one step.
    let long: Vec<u32> = fixture.prompt_ids.iter().copied().cycle().take(400).collect();
    for gpu_layers in [None, Some(layers(&fixture) - 1)] {
        let engine = |gpu: &Arc<Gpu>| engine_for(&fixture.dir, gpu, gpu_layers, Some(1024));
        let used = gpu.memory_in_use();
        let mut whole = engine(&gpu).expect("an engine");
        let expected = all_logits(&mut whole, short).expect("logits");
        let least = gpu.memory_in_use() - used;
        all_logits(&mut whole, &long).expect("logits");
        let most = gpu.memory_in_use() - used;
        if least == 0 {
            return skip(Skip::Hardware, &format!("gpu_backend::{test}"), "memory is not counted");
        }
        let mut grown = 0;
        // While a buffer grows it is there twice.
        for i in 8..24 {
            let gpu = Arc::new(Gpu::open(&options(Some(least + most * i / 16))).expect("a device"));
            let Ok(mut engine) = engine(&gpu) else { continue };
            let mut sequence = engine.sequence();
            let Ok(()) = engine.prefill(&mut sequence, short).map(drop) else { continue };
            let Ok(first) = all_logits(&mut engine, short) else { continue };
            assert_eq!(first, expected, "{i}");
            let before = gpu.memory_in_use();
            let step = Step::new(&mut sequence, &long, Outputs::All);
            let Err(failed) = engine.step(&mut [step]) else { continue };
            assert!(failed.to_string().contains("out of memory"), "{failed}");
            assert_eq!(sequence.len(), short.len(), "the step is taken back, {gpu_layers:?} layers");
            grown += u32::from(gpu.memory_in_use() > before);
            assert_eq!(all_logits(&mut engine, short).expect("logits"), expected, "{i}, after {failed}");
        }
        assert!(grown > 0, "nothing had grown when memory ran out");
    }
}

#[test]
fn a_cache_grows_one_layer_after_the_other() {
    let test = "a_cache_grows_one_layer_after_the_other";
    let fixture = Fixture::load("llama3");
    let ids: Vec<u32> = fixture.prompt_ids.iter().copied().cycle().take(257).collect();
    // The cache's bytes when its first pages are full, and memory in use behind the token that no longer fits them.
    let grow = |gpu: &Arc<Gpu>| -> Result<(u64, u64), Error> {
        let mut engine = engine_for(&fixture.dir, gpu, None, Some(1024))?;
        let mut sequence = engine.sequence();
        engine.prefill(&mut sequence, &ids[..256])?;
        let cached = engine.gpu().expect("a GPU").kv_bytes();
        engine.prefill(&mut sequence, &ids[256..])?;
        assert!(engine.gpu().expect("a GPU").kv_bytes() > cached, "the first pages hold more");
        gpu.wait().expect("a device");
        Ok((cached, gpu.memory_in_use()))
    };
    let with_most = |max_memory| with_caps(CapsOverride { max_memory, ..CapsOverride::default() });
    let Some(gpu) = open(test, with_most(None)) else { return };
    let (cached, after) = grow(&gpu).expect("enough memory");
    if after == 0 {
        return skip(Skip::Hardware, &format!("gpu_backend::{test}"), "memory is not counted");
    }
    // A layer's old pages beside its new ones, but not those of all layers.
    let layer = cached / layers(&fixture) as u64;
    let gpu = Arc::new(Gpu::open(&with_most(Some(after + layer + layer / 2))).expect("a device"));
    grow(&gpu).expect("memory for one layer more");
}

#[test]
fn a_cache_that_no_binding_shows_is_refused_at_once() {
    let test = "a_cache_that_no_binding_shows_is_refused_at_once";
    let small = CapsOverride { max_binding: Some(128 << 10), ..CapsOverride::default() };
    let Some(gpu) = open(test, with_caps(small)) else { return };
    let fixture = Fixture::load("llama3");
    let engine = |n_ctx| engine_for(&fixture.dir, &gpu, None, n_ctx);
    // Nobody asked: as many as fit.
    let n_ctx = engine(None).expect("an engine").n_ctx();
    assert!((64..EngineOptions::MIN_CTX).contains(&n_ctx), "{n_ctx}");
    let mut full = engine(Some(n_ctx)).expect("an engine");
    let vocab = full.model().info().vocab_size as u32;
    let ids: Vec<u32> = (0..n_ctx as u32).map(|i| i * 7 % vocab).collect();
    all_logits(&mut full, &ids).expect("a full cache");
    // Further sequences would find pages, but no binding for them.
    for gpu_layers in [None, Some(layers(&fixture) / 2)] {
        let mut engine = engine_for(&fixture.dir, &gpu, gpu_layers, Some(n_ctx)).expect("an engine");
        let mut sequences = Vec::new();
        let full = loop {
            let mut sequence = engine.sequence();
            match engine.prefill(&mut sequence, &ids[..PAGE_TOKENS + 1]) {
                Ok(_) => sequences.push(sequence),
                Err(error) => break error.to_string(),
            }
        };
        assert!(full.contains("cache is full"), "{full}");
        assert!(!sequences.is_empty());
    }
    let refused = engine(Some(n_ctx + 1)).err().expect("one too many").to_string();
    assert!(refused.contains(&n_ctx.to_string()) && refused.contains("a shorter context"), "{refused}");
}

#[test]
fn a_token_takes_six_dispatches_a_layer() {
    let Some(gpu) = open("a_token_takes_six_dispatches_a_layer", GpuOptions::default()) else { return };
    let fixture = Fixture::load("llama3");
    let mut engine = engine(&fixture.dir, &gpu, None).expect("an engine");
    let mut sequence = engine.sequence();
    engine.prefill(&mut sequence, &fixture.prompt_ids).expect("a prompt");
    let before = engine.gpu_stats().expect("a GPU");
    engine.prefill(&mut sequence, &fixture.prompt_ids[..1]).expect("a token");
    let token = engine.gpu_stats().expect("a GPU").since(before);
    // q, k and v behind their norm; heads; attention; output and residual; gate and up behind theirs; down and residual.
    // The embedding, the last norm and the head come on top, and layers at both ends that do not quite fit.
    let layers = layers(&fixture) as u64;
    assert!(token.dispatches <= 6 * layers + 7, "{} dispatches for {layers} layers", token.dispatches);
    assert_eq!((token.submits, token.steps), (1, 1));
}

#[test]
fn long_prompts_are_cut_before_one_op_is_too_long() {
    let caps = CapsOverride { submit_flops: Some(4_000_000), ..CapsOverride::default() };
    let Some(gpu) = open("long_prompts_are_cut_before_one_op_is_too_long", with_caps(caps)) else { return };
    let fixture = Fixture::load("llama3");
    let mut engine = engine(&fixture.dir, &gpu, None).expect("an engine");
    let tokens: Vec<usize> = [0, 1000, 10_000, 1_000_000].map(|cached| engine.backend().step_tokens(cached)).into();
    // Matrix products bound the first, keys the others.
    assert!(tokens[0] < engine.backend().max_step_tokens() && tokens[3] == 1, "{tokens:?}");
    assert!(tokens.is_sorted_by(|a, b| a >= b) && tokens[1] > tokens[2], "{tokens:?}");
    let mut sequence = engine.sequence();
    let ids: Vec<u32> = fixture.prompt_ids.iter().copied().cycle().take(200).collect();
    let before = engine.gpu_stats().expect("a GPU").steps;
    engine.prefill(&mut sequence, &ids).expect("logits");
    let steps = engine.gpu_stats().expect("a GPU").steps - before;
    assert!(steps > 200 / 64, "{steps} steps, {tokens:?}");
}

#[test]
fn a_lost_device_is_an_error_and_the_next_one_works() {
    let Some(gpu) = open("a_lost_device_is_an_error_and_the_next_one_works", GpuOptions::default()) else { return };
    let fixture = Fixture::load("llama3");
    let ids = &fixture.prompt_ids;
    let lost = |error: &dyn std::fmt::Display, gpu: &Gpu| {
        let message = error.to_string();
        assert!(message.contains(gpu.name()) && message.contains("lost"), "{message}");
    };
    // With tokens chosen on the device, several steps under way.
    let mut whole = engine(&fixture.dir, &gpu, None).expect("an engine");
    let mut parts = engine(&fixture.dir, &gpu, Some(1)).expect("an engine");
    let mut sequence = parts.sequence();
    parts.prefill(&mut sequence, ids).expect("a prompt");
    let (backend, mut greedy) = (whole.backend(), Greedy::new());
    greedy.submit(backend, Some(ids)).expect("a prompt");
    greedy.submit(backend, None).expect("a token");
    assert_eq!(greedy.collect(backend).expect("a token"), Some(fixture.gen_ids[0]));
    gpu.destroy();
    lost(&greedy.collect(backend).expect_err("lost"), &gpu);
    for _ in 0..6 {
        // More often than steps may be under way.
        let submitted = greedy.submit(backend, Some(&[1]));
        lost(&submitted.and_then(|()| greedy.collect(backend)).expect_err("lost"), &gpu);
    }
    for _ in 0..3 {
        let mut fresh = whole.sequence();
        lost(&whole.prefill(&mut fresh, ids).expect_err("lost"), &gpu);
        lost(&parts.prefill(&mut sequence, &[1]).expect_err("lost"), &gpu);
        assert_eq!((fresh.len(), sequence.len()), (0, ids.len()), "the steps are taken back");
    }
    lost(&gpu.read_bandwidth().expect_err("lost"), &gpu);
    match engine(&fixture.dir, &gpu, None) {
        Ok(_) => panic!("an engine on a device that is gone"),
        Err(e) => lost(&e, &gpu),
    }
    drop((whole, parts));
    let device = DeviceChoice::Gpu(Arc::new(Gpu::open(&GpuOptions::default()).expect("another device")));
    let logits = Session::open(&fixture.dir, Options { device, ..Options::default() }).feed(ids);
    assert_close("on another device", &logits, &fixture.logits, TOLERANCE);
}

/// Keys chosen, blocks pooled and experts fixed by tokens that only the device knows yet.
#[test]
fn tokens_chosen_steps_ahead_are_those_of_the_host() {
    let test = "tokens_chosen_steps_ahead_are_those_of_the_host";
    for name in ["deepseek-v3.2", "deepseek-v4"] {
        let Some(gpu) = open(test, GpuOptions::default()) else { return };
        let fixture = Fixture::load(name);
        let mut engine = engine(&fixture.dir, &gpu, None).expect("an engine");
        let (backend, mut greedy) = (engine.backend(), Greedy::new());
        greedy.submit(backend, Some(&fixture.prompt_ids)).expect("a prompt");
        for (k, (id, margin)) in fixture.gen_ids.iter().zip(&fixture.gen_margins).enumerate() {
            greedy.submit(backend, None).expect("a token");
            let chosen = greedy.collect(backend).expect("a token");
            if *margin < 2.0 * TOLERANCE {
                assert!(k > 0, "{name} chooses nothing for certain");
                break;
            }
            assert_eq!(chosen, Some(*id), "{name}, token {k}");
        }
    }
}

/// Keys that turn when they are read: however sequences grow, alternate and share steps, they turn as on the CPU. Their
/// angles stay on the device: what a step uploads does not grow with the sequence.
#[test]
fn angles_of_keys_stay_on_the_device() {
    for name in ["phi3-longrope", "llama-dynamic"] {
        let Some(gpu) = open("angles_of_keys_stay_on_the_device", GpuOptions::default()) else { return };
        let fixture = Fixture::load(name);
        let ids: Vec<u32> = fixture.prompt_ids.iter().copied().cycle().take(140).collect();
        let mut engine = engine(&fixture.dir, &gpu, None).expect("an engine");
        let cpu = || Session::open(&fixture.dir, Options::default());
        let check = |what: &str, got: &[f32], session: &mut Session, id: u32| {
            let want = Matrix::new(got.len(), session.feed_last(&[id]));
            assert_close(&format!("{name}, {what}"), &Matrix::new(got.len(), got.to_vec()), &want, TOLERANCE);
        };
        let (mut long, mut on_cpu) = (engine.sequence(), cpu());
        let mut uploaded = Vec::new();
        let uploads = |engine: &mut Engine| engine.gpu_stats().expect("a GPU").uploaded;
        for (i, &id) in ids.iter().enumerate() {
            let before = uploads(&mut engine);
            let logits = engine.prefill(&mut long, &[id]).expect("a token").to_vec();
            uploaded.push(uploads(&mut engine) - before);
            check(&format!("token {i}"), &logits, &mut on_cpu, id);
        }
        // A step of two sequences on either side of the original length, then one of the shorter alone.
        let (mut short, mut short_on_cpu) = (engine.sequence(), cpu());
        for &id in &ids[..12] {
            let before = uploads(&mut engine);
            let mut step = |tokens, both: bool| {
                let mut steps = vec![Step::new(&mut short, tokens, Outputs::Last)];
                if both {
                    steps.push(Step::new(&mut long, tokens, Outputs::Last));
                }
                engine.step(&mut steps).expect("a step").to_vec()
            };
            let (both, alone) = (step(&[id], true), step(&[id], false));
            uploaded.push(uploads(&mut engine) - before);
            let (of_short, of_long) = both.split_at(both.len() / 2);
            check("the shorter", of_short, &mut short_on_cpu, id);
            check("the longer", of_long, &mut on_cpu, id);
            check("the shorter alone", &alone, &mut short_on_cpu, id);
        }
        if name == "phi3-longrope" {
            // Behind the original length, in single steps and in pairs, most of which have as much to say as the others.
            for uploads in [&uploaded[20..ids.len()], &uploaded[ids.len() + 1..ids.len() + 8]] {
                let least = uploads.iter().min().expect("steps");
                let more = uploads.iter().filter(|bytes| **bytes > least + 32).count();
                assert!(more <= 2, "only where tables grow: {uploaded:?}");
            }
        }
        // Several steps under way while tables are filled anew.
        let (backend, mut greedy, mut on_cpu) = (engine.backend(), Greedy::new(), cpu());
        let mut logits = on_cpu.feed_last(&ids[..10]);
        greedy.submit(backend, Some(&ids[..10])).expect("a prompt");
        for k in 0..30 {
            greedy.submit(backend, None).expect("a token");
            let id = argmax(&logits);
            if logits.iter().filter(|x| **x > logits[id] - 2.0 * TOLERANCE).count() > 1 {
                assert!(k > 10, "{name} chooses nothing for certain");
                break;
            }
            assert_eq!(greedy.collect(backend).expect("a token"), Some(id as u32), "{name}, token {k} ahead");
            logits = on_cpu.feed_last(&[id as u32]);
        }
    }
}

#[test]
fn pipelines_are_kept_on_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let dir = folder.path().join("not/there/yet");
    let options = || GpuOptions { cache_dir: Some(dir.clone()), ..GpuOptions::default() };
    let Some(gpu) = open("pipelines_are_kept_on_disk", options()) else { return };
    let fixture = Fixture::load("llama3");
    let check = |gpu: Arc<Gpu>, what: &str| {
        let options = Options { device: DeviceChoice::Gpu(gpu), ..Options::default() };
        let logits = Session::open(&fixture.dir, options).feed(&fixture.prompt_ids);
        assert_close(what, &logits, &fixture.logits, TOLERANCE);
    };
    let pipeline_cache = gpu.caps().pipeline_cache;
    check(gpu, "nothing cached");
    if !pipeline_cache {
        return assert!(!dir.exists());
    }
    let files = || -> Vec<_> { fs::read_dir(&dir).expect("the folder").map(|e| e.expect("a file").path()).collect() };
    let [file] = &files()[..] else { panic!("{:?}", files()) };
    let whole = fs::read(file).expect("the file");
    let reopen = || Arc::new(Gpu::open(&options()).expect("a device"));
    check(reopen(), "all cached");
    // Cut off, of somebody else, empty: ignored and written anew.
    for bytes in [&whole[..whole.len() / 2], b"something else altogether, long enough for a header", b""] {
        fs::write(file, bytes).expect("to write");
        check(reopen(), "a bad file");
        assert_eq!(files().len(), 1);
        assert_eq!(fs::read(file).expect("the file")[..16], whole[..16]);
    }
    // A folder that cannot be: no cache, no error.
    let no_folder = GpuOptions { cache_dir: Some(file.join("below a file")), ..GpuOptions::default() };
    check(Arc::new(Gpu::open(&no_folder).expect("a device")), "no folder");
}
