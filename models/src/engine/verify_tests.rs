use std::num::NonZeroUsize;

use handmill_runtime::{
    format::{Bytes, Checkpoint, FormatError, Tensor, TensorSource},
    quant::DType,
};
use serde_json::{Value, json};

use super::{
    super::{KvChoice, PrecisionChoice},
    compare, difference, largest_difference,
};
use crate::{Engine, EngineOptions, Model};

/// Makes matrices of a format up, with one bit of one of them wrong.
#[derive(Debug)]
struct Source {
    format: DType,
    /// Tensor, byte and bit.
    wrong: Option<(&'static str, usize, u8)>,
}

impl TensorSource for Source {
    fn bytes(&self, _: &str, _: &str, _: &[usize]) -> Result<Option<Bytes>, FormatError> {
        Ok(None)
    }

    fn tensor(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor, FormatError> {
        let shape = shapes[0];
        let (dtype, range) = if shape.len() < 2 { (DType::F32, [0.5, 1.5]) } else { (self.format, [-0.1, 0.1]) };
        let seed = name.bytes().fold(7, |seed: u64, byte| seed.wrapping_mul(31) + u64::from(byte));
        let tensor =
            Tensor::random(dtype, shape, range, seed, NonZeroUsize::MIN).expect("memory").expect("whole blocks");
        Ok(match self.wrong {
            Some((wrong, at, bit)) if wrong == name => {
                let mut bytes = tensor.bytes().to_vec();
                bytes[at] ^= 1 << bit;
                Tensor::new(dtype, shape.to_vec(), Bytes::heap(bytes)).expect("the same length")
            }
            _ => tensor,
        })
    }
}

fn engine(format: DType, wrong: Option<(&'static str, usize, u8)>, exact: bool) -> Engine {
    let config = json!({
        "model_type": "llama", "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300, "rms_norm_eps": 1e-5,
        "max_position_embeddings": 64, "rope_theta": 10000.0, "tie_word_embeddings": false, "hidden_act": "silu",
    });
    let Value::Object(config) = config else { unreachable!("an object") };
    let checkpoint = Checkpoint::synthetic("made-up".as_ref(), config, Box::new(Source { format, wrong }));
    let model = Model::from_checkpoint(checkpoint).expect("a model");
    let (kv, precision) = match exact {
        true => (KvChoice::F32, PrecisionChoice::Exact),
        false => (KvChoice::F16, PrecisionChoice::Fast),
    };
    let options = EngineOptions { kv, precision, threads: Some(1), ..EngineOptions::default() };
    Engine::new(&model, &options).expect("an engine")
}

/// Stages whose comparison fails, of both phases.
fn failing(exact: &mut Engine, rounded: Option<&mut Engine>, other: &mut Engine) -> Vec<String> {
    let checks = compare(exact, rounded, other, &[5, 260, 9, 31, 77]).expect("stages");
    checks
        .iter()
        .flatten()
        .filter(|c| !c.passed())
        .map(|c| format!("{} {:e} of {:e}", c.name, c.error, c.bound))
        .collect()
}

#[test]
fn a_wrong_bit_of_a_k_quant_is_seen() {
    for format in [DType::Q4_K, DType::Q5_K, DType::Q6_K, DType::Q8_0, DType::Q4_0] {
        let exact = |wrong| engine(format, wrong, true);
        let mut right = exact(None);
        assert_eq!(failing(&mut right, None, &mut exact(None)), [""; 0], "{format}");
        // The lowest bit of a number in the middle of each matrix: of 10 % that rounding was given, nothing was left to see.
        for (name, step) in [
            ("model.layers.0.self_attn.q_proj.weight", "layer.0.q"),
            ("model.layers.0.mlp.down_proj.weight", "layer.0.down"),
            ("lm_head.weight", "head"),
        ] {
            let at = format.row_bytes(256).expect("whole blocks") / 2 + 5;
            let failed = failing(&mut right, None, &mut exact(Some((name, at, 0))));
            assert!(failed.iter().any(|f| f.starts_with(step)), "{format}, {name}: {failed:?}");
        }
    }
}

#[test]
fn what_rounds_as_it_should_passes_and_a_wrong_kernel_does_not() {
    for format in [DType::Q4_K, DType::Q5_K, DType::Q8_0, DType::Q4_0] {
        let rounding = |wrong| engine(format, wrong, false);
        let mut exact = engine(format, None, true);
        let failed = failing(&mut exact, Some(&mut rounding(None)), &mut rounding(None));
        assert_eq!(failed, [""; 0], "{format}");
        // The scale of the first block twice as large, or half of it.
        let wrong = Some(("lm_head.weight", 1, 2));
        let failed = failing(&mut exact, Some(&mut rounding(None)), &mut rounding(wrong));
        assert!(failed.iter().any(|f| f.starts_with("head")), "{format}: {failed:?}");
    }
}

#[test]
fn differences_are_relative_and_see_what_is_not_finite() {
    let of = |got: &[f32], want: &[f32]| difference(got, want, want);
    assert_eq!(of(&[1.0, 2.0], &[1.0, 2.0]), (0.0, 0));
    assert_eq!(of(&[3.0, 0.0], &[2.0, 0.0]), (0.5, 0));
    assert_eq!(of(&[f32::NAN, 1.0, f32::INFINITY], &[1.0, 1.0, f32::INFINITY]), (0.0, 1));
    assert_eq!(of(&[1.0], &[0.0]).0, f64::INFINITY);
    assert_eq!(of(&[1.0], &[]).0, f64::INFINITY);
    assert_eq!(difference(&[9.0, 8.0], &[8.0, 8.0], &[0.0, 2.0]), (0.5, 0));
}

#[test]
fn one_wrong_element_of_many_is_seen() {
    let want = vec![1.0; 10_000];
    let mut got = want.clone();
    got[77] = 1.01;
    assert!(difference(&got, &want, &want).0 < 2e-4, "the norm hides it");
    assert!((largest_difference(&got, &want, &want).0 - 0.01).abs() < 1e-6);
    got[77] = f32::NAN;
    assert_eq!(largest_difference(&got, &want, &want), (0.0, 1));
    // The residual is so large that what was added shows only in its last bits.
    assert_eq!(largest_difference(&[1e6], &[1e6 + 0.0625], &[0.01]).0, 0.0);
    assert_eq!(largest_difference(&[1.0], &[], &[]).0, f64::INFINITY);
}
