//! Models made up from their configurations alone: every family gives numbers, and absurd input a clear error.

mod support;

use std::{num::NonZeroUsize, path::PathBuf};

use handmill_models::{
    Error, Model,
    engine::{Engine, EngineOptions, Step, sampling::SamplingParams},
    synthetic::{Synthetic, SyntheticOptions},
};
use handmill_runtime::{
    graph::{Device, Plan, StageKind},
    quant::DType,
    step::Outputs,
};
use serde_json::{Value, json};
use support::{FAMILIES, Fixture, Spelling, argmax};

fn options(format: DType) -> SyntheticOptions {
    let threads = NonZeroUsize::new(2).expect("two");
    SyntheticOptions { format, threads, limit: Some(1 << 30), ..SyntheticOptions::default() }
}

/// Logits of a few tokens, one prompt and one step behind it.
fn logits(made_up: &Synthetic) -> Vec<f32> {
    let mut engine = Engine::new(&made_up.model, &EngineOptions::default()).expect("an engine");
    let mut sequence = engine.sequence();
    let mut all = Vec::new();
    for tokens in [&[1, 5, 2, 9, 7][..], &[3]] {
        let step = Step::new(&mut sequence, tokens, Outputs::All);
        all.extend(engine.step(&mut [step]).expect("a step"));
    }
    all
}

#[test]
fn every_family_can_be_made_up() {
    for name in FAMILIES {
        let fixture = Fixture::load(name);
        for spelling in [Spelling::V5, Spelling::Legacy] {
            let (folder, _guard) = fixture.folder(spelling);
            let build = |format| {
                let made_up = Synthetic::new(&folder.join("config.json"), &options(format));
                made_up.unwrap_or_else(|e| panic!("{name}, {spelling:?}: {e}"))
            };
            let one = build(DType::Q8_0);
            let values = logits(&one);
            assert_eq!(values.len(), 6 * fixture.logits.cols, "{name}");
            assert!(values.iter().all(|v| v.is_finite()), "{name}, {spelling:?}");
            assert!(values.iter().any(|v| v.abs() > 1e-3), "{name}, {spelling:?}");
            assert_eq!(values, logits(&build(DType::Q8_0)), "{name}: the same seed, other values");
            // Rows of 80 elements take none of the formats with blocks.
            let halves = one.bytes.contains_key(&DType::F16);
            assert!(one.bytes.contains_key(&DType::Q8_0) || halves, "{name}: {:?}", one.bytes);
            // Rows of these models are too short for blocks of 256 elements.
            assert!(!build(DType::Q4_K).bytes.contains_key(&DType::Q4_K), "{name}");
        }
    }
}

/// The steps of a model's plan: names, ops, formats, and whether experts are read by rows of inputs.
fn steps(model: &Model) -> Vec<(String, String, Vec<bool>)> {
    let plan = Plan::new(model.graph().clone(), |_, _, _| Ok(Device::Cpu)).expect("a plan");
    let parts = |kind: &StageKind| match kind {
        StageKind::Experts(experts) => experts.parts.iter().map(|p| p.op.input_major).collect(),
        _ => Vec::new(),
    };
    plan.stages.iter().enumerate().map(|(i, s)| (s.name.clone(), plan.op_label(i), parts(&s.kind))).collect()
}

#[test]
fn made_up_weights_run_the_graph_of_real_ones() {
    // Of those families that safetensors keep the experts of by rows of inputs, or in two tensors.
    for (name, format) in [("llama4", DType::BF16), ("gpt-oss", DType::BF16), ("gpt-oss-mxfp4", DType::MXFP4)] {
        let fixture = Fixture::load(name);
        let real = Model::open(&fixture.dir).expect("the fixture");
        let made_up = Synthetic::new(&fixture.dir.join("config.json"), &options(format)).expect("weights");
        let without_format = |steps: Vec<(String, String, Vec<bool>)>| -> Vec<_> {
            // Other matrices than experts have the formats that converters leave them.
            let word = |label: &str, name: &str| match name.contains("gate_up") || name.contains("down") {
                true => label.to_owned(),
                false => label.split(' ').next().unwrap_or_default().to_owned(),
            };
            steps.into_iter().map(|(name, label, major)| (word(&label, &name), name, major)).collect()
        };
        assert_eq!(without_format(steps(&made_up.model)), without_format(steps(&real)), "{name}");
    }
    // In blocks, as GGUF has them: gate and up each by themselves, with a row for each output.
    let fixture = Fixture::load("llama4");
    let file = tempfile::NamedTempFile::new().expect("a file");
    support::write_gguf(&fixture, file.path()).expect("GGUF");
    let real = Model::open(file.path()).expect("the file");
    let made_up = Synthetic::new(&fixture.dir.join("config.json"), &options(DType::Q8_0)).expect("weights");
    let experts = |model: &Model| -> Vec<_> {
        steps(model).into_iter().filter(|s| !s.2.is_empty()).map(|(name, _, major)| (name, major)).collect()
    };
    assert_eq!(experts(&made_up.model), experts(&real));
}

/// A config.json made from a fixture's by `change`.
fn config(name: &'static str, change: impl FnOnce(&mut Value)) -> (PathBuf, tempfile::TempDir) {
    let mut config = Fixture::load(name).config;
    change(&mut config);
    let temp = tempfile::TempDir::new().expect("temporary folder");
    let path = temp.path().join("config.json");
    std::fs::write(&path, config.to_string()).expect("writing");
    (path, temp)
}

#[test]
fn the_first_layers_are_kept() {
    for name in ["llama2", "qwen2", "gemma3"] {
        let (path, _guard) = config(name, |_| {});
        let options = SyntheticOptions { layers: NonZeroUsize::new(2), ..options(DType::F16) };
        let made_up = Synthetic::new(&path, &options).expect(name);
        assert_eq!(made_up.model.info().n_layers, 2, "{name}");
        assert_eq!(
            (made_up.layers, made_up.of_layers),
            (2, Fixture::load(name).config["num_hidden_layers"].as_u64().expect("layers") as usize)
        );
        assert!(logits(&made_up).iter().all(|v| v.is_finite()), "{name}");
        assert!(made_up.model.tokenizer().is_err());
    }
}

/// There is no text then, but there are tokens.
#[test]
fn ids_are_generated_without_a_tokenizer() {
    let (path, _guard) = config("llama2", |_| {});
    let made_up = Synthetic::new(&path, &options(DType::Q8_0)).expect("a model");
    let options = EngineOptions { n_ctx: Some(8), ..EngineOptions::default() };
    let mut engine = Engine::new(&made_up.model, &options).expect("an engine");
    let (prompt, greedy) = ([1, 5, 2], SamplingParams::greedy());
    let ids = engine.generate_ids(&prompt, &greedy, 6).expect("tokens");
    assert_eq!(ids.len(), 6);
    let mut sequence = engine.sequence();
    let mut tokens = prompt.to_vec();
    for id in ids {
        assert_eq!(id as usize, argmax(engine.prefill(&mut sequence, &tokens).expect("logits")));
        tokens = vec![id];
    }
    let error = engine.generate_ids(&prompt, &greedy, 7);
    assert!(matches!(error, Err(Error::ContextFull { tokens: 9, n_ctx: 8 })), "{error:?}");
}

/// As in DeepSeek V3, whose 128 query heads are cut into parts that share keys.
#[test]
fn many_heads_share_a_key() {
    for (name, key_heads) in [("deepseek-v3", 32), ("llama2", 1)] {
        let (path, _guard) = config(name, |c| {
            c["num_attention_heads"] = json!(32);
            c["num_key_value_heads"] = json!(key_heads);
        });
        let made_up = Synthetic::new(&path, &options(DType::Q8_0)).expect(name);
        assert!(logits(&made_up).iter().all(|v| v.is_finite()), "{name}");
    }
}

#[test]
fn formats_are_those_asked_for() {
    let (path, _guard) = config("llama2", |c| {
        for (key, value) in
            [("hidden_size", 512), ("intermediate_size", 768), ("head_dim", 128), ("num_attention_heads", 4)]
        {
            c[key] = json!(value);
        }
    });
    for format in DType::ALL {
        let made_up = Synthetic::new(&path, &options(format)).expect("a model");
        let expected = match format {
            DType::F32 => vec![DType::F32],
            // For experts, which this model has none of.
            DType::MXFP4 => vec![DType::F32, DType::Q8_0],
            _ => vec![DType::F32, format],
        };
        assert_eq!(made_up.bytes.keys().copied().collect::<Vec<_>>(), expected, "{format}");
        assert!(logits(&made_up).iter().all(|v| v.is_finite()), "{format}");
    }
    let (path, _guard) = config("gpt-oss-mxfp4", |_| {});
    let made_up = Synthetic::new(&path, &options(DType::MXFP4)).expect("a model");
    assert_eq!(made_up.bytes.keys().copied().collect::<Vec<_>>(), [DType::F32, DType::Q8_0, DType::MXFP4_SPLIT]);
    assert!(logits(&made_up).iter().all(|v| v.is_finite()));
}

#[test]
fn absurd_input_is_refused() {
    let error = |change: fn(&mut Value), options: SyntheticOptions| {
        let (path, _guard) = config("llama2", change);
        Synthetic::new(&path, &options).err().map(|e: Error| e.to_string()).unwrap_or_default()
    };
    let q8 = || options(DType::Q8_0);
    let too_many = SyntheticOptions { layers: NonZeroUsize::new(99), ..q8() };
    assert!(error(|_| {}, too_many).contains("the model has 3 layers"));
    let small = SyntheticOptions { limit: Some(1000), ..q8() };
    assert!(error(|_| {}, small).contains("take fewer"));
    for (key, value) in [
        ("num_hidden_layers", json!(0)),
        ("num_hidden_layers", json!(1u64 << 60)),
        ("num_hidden_layers", json!("three")),
        ("vocab_size", json!(0)),
        ("vocab_size", Value::Null),
        ("vocab_size", json!(1u64 << 62)),
        ("hidden_size", json!(1u64 << 40)),
        ("intermediate_size", json!(1u64 << 50)),
        ("model_type", json!("no_such_family")),
    ] {
        let (path, _guard) = config("llama2", |c| c[key] = value.clone());
        let error = Synthetic::new(&path, &q8()).err().map(|e| e.to_string());
        let error = error.unwrap_or_else(|| panic!("{key} = {value} was taken"));
        assert!(error.contains("config.json"), "{error}");
    }
    let temp = tempfile::TempDir::new().expect("temporary folder");
    for (name, text) in [("list.json", "[1]"), ("cut.json", "{\"a\""), ("empty.json", "")] {
        let path = temp.path().join(name);
        std::fs::write(&path, text).expect("writing");
        let error = Synthetic::new(&path, &q8()).err().expect(name).to_string();
        assert!(error.contains(name), "{error}");
    }
    assert!(Synthetic::new(&temp.path().join("none.json"), &q8()).is_err());
}
