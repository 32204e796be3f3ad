//! `verify`, `bench` and `--profile` as users meet them, on the best adapter there is.
#![cfg(feature = "gpu")]

mod cli_support;
mod support;

use std::sync::Arc;

use cli_support::Handmill;
use handmill_models::{
    Engine, EngineOptions, Model,
    engine::{DeviceChoice, verify::compare},
};
use handmill_runtime::{
    gpu::{CapsOverride, Gpu, GpuOptions},
    profile::Clock,
};
use serde_json::Value;
use support::{fixtures_dir, model_path, no_adapter};

fn fixture() -> String {
    fixtures_dir().join("families/qwen3").to_str().expect("UTF-8").to_owned()
}

/// Whether there is an adapter; says so where there is none.
fn gpu(test: &str) -> bool {
    let any = !Gpu::adapters(None).is_empty();
    if !any {
        no_adapter(test);
    }
    any
}

#[test]
fn verify_lists_every_stage() {
    if !gpu("cli_gpu::verify_lists_every_stage") {
        return;
    }
    let answer = Handmill::new().run(&["verify", &fixture(), "--json"]).json();
    assert_eq!(answer["passed"], true, "{answer}");
    let device = &answer["gpu"];
    assert!(device["driver"].is_string() && device["features"].is_array(), "{device}");
    assert!(device["limits"]["storage_binding_bytes"].as_u64() > Some(0), "{device}");
    let stages = answer["steps"].as_array().expect("steps");
    for phase in ["prompt", "generation"] {
        let names: Vec<&str> =
            stages.iter().filter(|s| s["phase"] == phase).filter_map(|s| s["name"].as_str()).collect();
        // Five stages a layer of three, and the head.
        assert_eq!(names.len(), 16, "{phase}: {names:?}");
        for name in ["layer.0.q", "layer.1.attention", "layer.2.down", "head"] {
            assert!(names.contains(&name), "{phase}: {name} in {names:?}");
        }
    }
    for stage in stages {
        assert!(stage["rows"].as_u64() > Some(0), "{stage}");
        // f32 on both sides: rounding alone.
        assert!(stage["error"].as_f64().is_some_and(|e| e < 1e-3), "{stage}");
    }
    let table = Handmill::new().run(&["verify", &fixture()]);
    table.assert_ok();
    assert!(table.stdout.contains("layer.1.attention") && table.stdout.contains("32 of 32"), "{}", table.stdout);
    assert!(table.stdout.contains("driver ") && table.stdout.contains("bindings "), "{}", table.stdout);
}

/// With weights that the CPU multiplies with inputs of 8 bits.
#[test]
fn verify_passes_on_a_real_model() {
    let test = "cli_gpu::verify_passes_on_a_real_model";
    if !gpu(test) {
        return;
    }
    let Some(model) = model_path(test, "smollm2") else { return };
    let answer = Handmill::new().run(&["verify", model.to_str().expect("UTF-8"), "--json"]).json();
    assert_eq!(answer["passed"], true, "{answer}");
    let stages = answer["steps"].as_array().expect("steps").iter();
    let down: Vec<_> = stages.filter(|s| s["name"].as_str().is_some_and(|name| name.ends_with(".down"))).collect();
    for stage in &down {
        // Only the order of sums differs where nothing is rounded.
        assert!(stage["exact_error"].as_f64() < Some(1e-4) && stage["exact_bound"].as_f64() < Some(1e-3), "{stage}");
    }
    // What the CPU rounds to 8 bits counts twice, by what the stages compute: by the residual sums that they go into it would
    // be a tenth.
    let mut bounds: Vec<f64> = down.iter().filter_map(|s| s["bound"].as_f64()).collect();
    bounds.sort_by(f64::total_cmp);
    assert!(bounds[bounds.len() / 2] > 1e-2 + 2.0 * 3e-3, "{bounds:?}");
}

#[test]
fn bench_has_its_steady_names() {
    if !gpu("cli_gpu::bench_has_its_steady_names") {
        return;
    }
    let fixture = fixture();
    let args = ["bench", &fixture, "--backend", "gpu", "-p", "5", "-n", "4", "--reps", "1", "--json"];
    let value = Handmill::new().run(&args).json();
    for name in [
        "tokens_per_second",
        "dispatches_per_token",
        "submits_per_token",
        "host_ms_per_token",
        "share_of_read_bandwidth",
    ] {
        assert!(value["generation"][name].as_f64() > Some(0.0), "{name} in {value}");
    }
    let weights = |value: &Value| {
        ["weights_copied_bytes", "weights_imported_bytes"]
            .map(|name| value[name].as_u64().expect(name))
            .iter()
            .sum::<u64>()
    };
    assert!(weights(&value) > 0, "{value}");
    // The wall is the device's own.
    assert!(value["read_bandwidth"].as_f64() > Some(0.0), "{value}");
    assert!(value["fma_peak"].is_null() && value["prompt"]["share_of_fma_peak"].is_null(), "{value}");
    // Two devices have no wall in common.
    let value = Handmill::new().run(&[&args[..], &["--gpu-layers", "1"]].concat()).json();
    assert!(value["read_bandwidth"].is_null() && value["generation"]["share_of_read_bandwidth"].is_null(), "{value}");
    assert!(weights(&value) > 0, "{value}");
}

#[test]
fn wrong_stages_are_seen() {
    let model = Model::open(fixture().as_ref()).expect("the fixture");
    let engine = || Engine::new(&model, &EngineOptions::default()).expect("an engine");
    let other = Model::open(&fixtures_dir().join("families/llama2")).expect("the fixture");
    let mut wrong = Engine::new(&other, &EngineOptions::default()).expect("an engine");
    for rounded in [false, true] {
        let compare = |other: &mut Engine| {
            let mut near = rounded.then(engine);
            compare(&mut engine(), near.as_mut(), other, &[1, 2, 3]).expect("stages")
        };
        let [prompt, generation] = compare(&mut engine());
        assert!(prompt.iter().chain(&generation).all(|c| c.passed() && c.error == 0.0));
        // Other weights.
        let [prompt, _] = compare(&mut wrong);
        assert!(prompt.iter().any(|c| !c.passed()));
    }
}

#[test]
fn layers_are_shared_out() {
    if !gpu("cli_gpu::layers_are_shared_out") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let array = |name: &str, more: &[&str]| {
        let file = folder.path().join(name);
        let out = file.to_str().expect("UTF-8");
        let fixture = fixture();
        let mut args = vec!["logits", &fixture, "--tokens", "1,2,3,4,5", "--out", out];
        args.extend(more);
        Handmill::new().run(&args).assert_ok();
        let bytes = std::fs::read(&file).expect("an array");
        let data = &bytes[bytes.len() % 4..];
        data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect::<Vec<f32>>()
    };
    let cpu = array("cpu.npy", &["--backend", "cpu"]);
    for n in ["0", "1", "99"] {
        let mixed = array("mixed.npy", &["--backend", "gpu", "--gpu-layers", n]);
        assert_eq!(mixed.len(), cpu.len());
        // The header's bytes are equal.
        let off = mixed.iter().zip(&cpu).filter(|(m, c)| (*m - *c).abs() > 1e-3).count();
        assert_eq!(off, 0, "--gpu-layers {n}");
    }
    let wrong = ["logits", &fixture(), "--tokens", "1", "--out", "x", "--backend", "cpu", "--gpu-layers", "1"];
    Handmill::new().run(&wrong).assert_failed(2, "--gpu-layers");
}

#[test]
fn profiles_name_kernels() {
    if !gpu("cli_gpu::profiles_name_kernels") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("trace.json");
    let path = file.to_str().expect("UTF-8");
    let args = ["run", &fixture(), "--backend", "gpu", "-p", "Hello there", "-n", "3", "--ignore-eos"];
    let answer = Handmill::new().run(&[&args[..], &["--profile", path]].concat());
    answer.assert_ok();
    assert!(answer.stderr.contains("linear f32") && answer.stderr.contains("attention"), "{}", answer.stderr);
    let names = names(&std::fs::read_to_string(&file).expect("the trace"));
    assert!(names.iter().any(|n| n.starts_with("linear_")), "{names:?}");
    assert!(names.iter().any(|n| n.starts_with("attention_")), "{names:?}");
    assert!(names.iter().any(|n| n == "norm"), "{names:?}");

    // The CPU, by stage of the plan.
    let args = ["bench", &fixture(), "--backend", "cpu", "-p", "5", "-n", "2", "--reps", "1", "--no-walls", "--json"];
    let answer = Handmill::new().run(&[&args[..], &["--profile", path]].concat());
    answer.assert_ok();
    assert!(answer.stderr.contains("prompt: 1 step(s), 5 token(s)"), "{}", answer.stderr);
    let names = self::names(&std::fs::read_to_string(&file).expect("the trace"));
    assert!(names.contains(&"linear f32".to_owned()) && names.contains(&"attention".to_owned()), "{names:?}");
    // A model is never taken for the trace's file.
    assert_eq!(Handmill::new().run(&["run", "-p", "x", "--profile", "smollm2"]).code, Some(2));
}

/// The names of a trace's timed events.
fn names(trace: &str) -> Vec<String> {
    let events: Vec<Value> = serde_json::from_str(trace).expect("a JSON array");
    let timed = events.iter().filter(|e| e["ph"] == "X");
    timed
        .map(|e| {
            assert!(e["ts"].is_number() && e["dur"].is_number() && e["pid"].is_number(), "{e}");
            e["name"].as_str().expect("a name").to_owned()
        })
        .collect()
}

#[test]
fn devices_without_timestamps_are_timed_by_the_host() {
    if !gpu("cli_gpu::devices_without_timestamps_are_timed_by_the_host") {
        return;
    }
    let caps = CapsOverride { no_timestamps: true, ..CapsOverride::default() };
    let gpu = Gpu::open(&GpuOptions { caps, ..GpuOptions::default() }).expect("a device");
    let model = Model::open(fixture().as_ref()).expect("the fixture");
    let options = EngineOptions { device: DeviceChoice::Gpu(Arc::new(gpu)), ..EngineOptions::default() };
    let mut engine = Engine::new(&model, &options).expect("an engine");
    let run = |engine: &mut Engine| {
        let mut sequence = engine.sequence();
        engine.prefill(&mut sequence, &[1, 2, 3, 4]).expect("logits").to_vec()
    };
    let plain = run(&mut engine);
    engine.backend().set_tracing(true).expect("tracing");
    assert_eq!(run(&mut engine), plain);
    let trace = engine.backend().trace().expect("a trace").clone();
    assert_eq!(trace.clock, Clock::Submits);
    let calls = &trace.last[0].calls;
    assert!(calls.iter().any(|c| c.kernel.starts_with("linear") && !c.time.is_zero() && c.cost.flops > 0));
    // Every stage of the plan has a call.
    let stages = engine.backend().plan().stages.len();
    assert!((0..stages).all(|i| calls.iter().any(|c| c.stage == Some(i))));
    engine.backend().set_tracing(false).expect("no tracing");
    assert_eq!(run(&mut engine), plain);
}
