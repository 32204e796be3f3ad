//! Models that compute infinities or what is no number: every way to logits ends with an error that names the first op,
//! on the CPU and a GPU, and with the kernels that could hide them.

mod support;

use std::{collections::HashMap, num::NonZeroUsize};

use handmill_models::{
    Engine, EngineOptions, Error, KvChoice, Model, PrecisionChoice,
    engine::{DeviceChoice, sampling::SamplingParams},
};
use handmill_runtime::{
    format::{Bytes, Checkpoint, FormatError, Tensor, TensorSource},
    quant::DType,
};
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use support::Fixture;

/// A checkpoint folder of a fixture whose weights `change` has changed, by name.
fn changed(name: &'static str, change: impl Fn(&str, &mut [f32])) -> tempfile::TempDir {
    let fixture = Fixture::load(name);
    let folder = tempfile::tempdir().expect("a folder");
    let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = fixture
        .weights()
        .into_iter()
        .map(|mut w| {
            change(&w.name, &mut w.values);
            (w.name, (w.shape, w.values.iter().flat_map(|v| v.to_le_bytes()).collect()))
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).expect("a tensor")));
    let file = safetensors::serialize(views, None).expect("safetensors");
    std::fs::write(folder.path().join("model.safetensors"), file).expect("writing");
    std::fs::copy(fixture.dir.join("config.json"), folder.path().join("config.json")).expect("copying");
    folder
}

/// The CPU and the first GPU; the latter as if it were one with 16-bit floats and byte products where `rounding` says so.
fn devices(rounding: bool) -> Vec<(String, DeviceChoice)> {
    #[allow(unused_mut)]
    let mut all = vec![("the CPU".to_owned(), DeviceChoice::Cpu)];
    #[cfg(feature = "gpu")]
    if let Some(adapter) = handmill_runtime::gpu::Gpu::adapters(None).first() {
        use handmill_runtime::gpu::{CapsOverride, Gpu, GpuOptions};
        let caps = CapsOverride { pretend_hardware: rounding, ..CapsOverride::default() };
        let options = GpuOptions { device: Some(adapter.index.to_string()), caps, ..GpuOptions::default() };
        let gpu = Gpu::open(&options).expect("an adapter");
        all.push((gpu.name().to_owned(), DeviceChoice::Gpu(gpu.into())));
    }
    #[cfg(not(feature = "gpu"))]
    let _ = rounding;
    all
}

const PROMPT: [u32; 6] = [1, 5, 2, 9, 7, 3];

/// The step that is to blame, by each way to logits: greedy tokens chosen on the device, chosen by the host, and logits.
fn blamed(model: &Model, device: &DeviceChoice, kv: KvChoice) -> [Option<(String, bool)>; 3] {
    let precision = if kv == KvChoice::F32 { PrecisionChoice::Exact } else { PrecisionChoice::Fast };
    let device = device.clone();
    let options = EngineOptions { device, kv, precision, n_ctx: Some(64), ..EngineOptions::default() };
    let mut engine = Engine::new(model, &options).expect("an engine");
    let by_host = SamplingParams { repetition_penalty: 1.1, ..SamplingParams::greedy() };
    let ways = [
        engine.generate_ids(&PROMPT, &SamplingParams::greedy(), 3).map(drop),
        engine.generate_ids(&PROMPT, &by_host, 3).map(drop),
        engine.logits(&PROMPT, |_| {}),
    ];
    assert_eq!(engine.backend().pages().bytes_in_use(), 0, "all pages are back");
    ways.map(|done| match done {
        Ok(()) => None,
        Err(Error::NotFinite { name, beyond_f16, .. }) => Some((name, beyond_f16)),
        Err(other) => panic!("{other}"),
    })
}

#[test]
fn the_first_op_that_is_not_finite_is_named() {
    // The name of a weight, what becomes of it, and who is to blame with keys and values of 16 and of 32 bits.
    type Case = (&'static str, fn(&mut [f32]), Option<(&'static str, bool)>, Option<(&'static str, bool)>);
    let attention = Some(("layer.1.attention", true));
    let cases: [Case; 6] = [
        ("layers.1.self_attn.v_proj.weight", |w| w.iter_mut().for_each(|x| *x *= 1e8), attention, None),
        ("layers.1.self_attn.k_proj.weight", |w| w.iter_mut().for_each(|x| *x *= 1e8), attention, None),
        // One element of a value alone.
        ("layers.1.self_attn.v_proj.weight", |w| w[..64].iter_mut().for_each(|x| *x *= 1e8), attention, None),
        (
            "layers.1.mlp.down_proj.weight",
            |w| w[3] = f32::NAN,
            Some(("layer.1.down", false)),
            Some(("layer.1.down", false)),
        ),
        (
            "layers.0.mlp.down_proj.weight",
            |w| w.iter_mut().for_each(|x| *x *= 3e38),
            Some(("layer.0.down", false)),
            Some(("layer.0.down", false)),
        ),
        ("", |_| {}, None, None),
    ];
    for (device, choice) in devices(false) {
        for (weight, change, half, single) in &cases {
            let folder = changed("llama2", |name, values| {
                if !weight.is_empty() && name.ends_with(weight) {
                    change(values);
                }
            });
            let model = Model::open(folder.path()).expect("a model");
            for (kv, expected) in [(KvChoice::F16, half), (KvChoice::F32, single)] {
                let expected = expected.map(|(step, beyond)| (step.to_owned(), beyond));
                let got = blamed(&model, &choice, kv);
                assert_eq!(got, [(); 3].map(|()| expected.clone()), "{device}, {kv:?}, {weight}");
            }
        }
    }
}

/// Makes weights up; the values of the second layer's attention are beyond all that 16 bits hold.
#[derive(Debug)]
struct Source(DType);

impl TensorSource for Source {
    fn tensor(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor, FormatError> {
        let shape = shapes[0];
        let most = if name == "model.layers.1.self_attn.v_proj.weight" { 6e4 } else { 0.1 };
        let (dtype, range) = if shape.len() < 2 { (DType::F32, [0.5, 1.5]) } else { (self.0, [-most, most]) };
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        Ok(Tensor::random(dtype, shape, range, seed, NonZeroUsize::MIN).expect("memory").expect("whole blocks"))
    }

    fn bytes(&self, _: &str, _: &str, _: &[usize]) -> Result<Option<Bytes>, FormatError> {
        Ok(None)
    }
}

/// What is multiplied with inputs of 8 bits and of halves, which have no place for what is no number.
#[test]
fn rounded_inputs_hide_nothing() {
    for format in [DType::Q4_K, DType::F16] {
        let config = json!({
            "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5,
            "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
        });
        let Value::Object(config) = config else { panic!("an object") };
        let checkpoint = Checkpoint::synthetic("made-up".as_ref(), config, Box::new(Source(format)));
        let model = Model::from_checkpoint(checkpoint).expect("a model");
        for (device, choice) in devices(true) {
            let expected = Some(("layer.1.attention".to_owned(), true));
            let got = blamed(&model, &choice, KvChoice::F16);
            assert_eq!(got, [(); 3].map(|()| expected.clone()), "{device}, {format}");
        }
    }
}

#[test]
fn a_model_may_forbid_tokens() {
    let folder = changed("phi2", |name, values| {
        if name.ends_with("lm_head.bias") {
            values[5] = f32::NEG_INFINITY;
        }
    });
    let model = Model::open(folder.path()).expect("a model");
    for (device, choice) in devices(false) {
        assert_eq!(blamed(&model, &choice, KvChoice::F32), [None, None, None], "{device}");
        let options = EngineOptions { device: choice, n_ctx: Some(64), ..EngineOptions::default() };
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let mut forbidden = 0;
        let vocab = model.info().vocab_size;
        let count = |rows: &[f32]| rows.chunks(vocab).filter(|row| row[5] == f32::NEG_INFINITY).count();
        engine.logits(&PROMPT, |rows| forbidden += count(rows)).expect("logits");
        assert_eq!(forbidden, PROMPT.len(), "{device}");
        let ids = engine.generate_ids(&PROMPT, &SamplingParams::default(), 20).expect("tokens");
        assert!(!ids.contains(&5), "{device}: {ids:?}");
    }
}
