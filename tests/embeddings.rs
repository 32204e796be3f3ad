//! Hidden states and the vectors made of them, against transformers: its float32 logits tell the hidden states behind the
//! last norm.

mod support;

use std::fs;

use handmill_models::{
    Engine, EngineOptions, Error, Model,
    engine::{KvChoice, Pooling, PrecisionChoice, Step},
};
use handmill_runtime::{
    BackendError,
    quant::{bf16_to_f32, f16_to_f32},
    sample::{Choice, SamplingParams},
    step::{Outputs, StepError},
};
use safetensors::{Dtype, SafeTensors};
use support::{Fixture, Matrix, assert_close};

/// Full attention, windows, recurrent states.
const NAMES: [&str; 3] = ["llama3", "gemma3", "qwen3-next"];

/// Of logits, as for families.
const TOLERANCE: f32 = 1e-3;

/// The CPU, and where there is a GPU that and both together.
fn engines(fixture: &Fixture, max_step_tokens: usize) -> Vec<Engine> {
    let model = Model::open(&fixture.dir).expect("the fixture");
    let (kv, precision) = (KvChoice::F32, PrecisionChoice::Exact);
    let options = EngineOptions { kv, precision, max_step_tokens, hidden: true, ..EngineOptions::default() };
    support::engines("embeddings", &model, &options)
}

/// The head's matrix `[vocab, width]`. Times it, hidden states are transformers' logits; it has more rows than columns, so
/// no other hidden states are.
fn head(fixture: &Fixture) -> Matrix {
    let bytes = fs::read(fixture.dir.join("model.safetensors")).expect("the weights");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let head = tensors.tensor("lm_head.weight").or_else(|_| tensors.tensor("model.embed_tokens.weight"));
    let head = head.expect("a head");
    let bits = |b: &[u8]| u16::from_le_bytes([b[0], b[1]]);
    let numbers: Vec<f32> = match head.dtype() {
        Dtype::F16 => head.data().chunks_exact(2).map(|b| f16_to_f32(bits(b))).collect(),
        Dtype::BF16 => head.data().chunks_exact(2).map(|b| bf16_to_f32(bits(b))).collect(),
        other => panic!("a head in {other:?}"),
    };
    assert!(head.shape()[0] > head.shape()[1]);
    Matrix::new(head.shape()[1], numbers)
}

/// Logits `[rows, vocab]` of hidden states.
fn logits_of(hidden: &[f32], head: &Matrix) -> Matrix {
    let rows = hidden.chunks_exact(head.cols);
    let vocab = head.data.len() / head.cols;
    let score =
        |x: &[f32], v: usize| x.iter().zip(head.row(v)).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    Matrix::new(vocab, rows.flat_map(|x| (0..vocab).map(move |v| score(x, v) as f32)).collect())
}

#[test]
fn vectors_are_made_of_transformers_hidden_states() {
    for name in NAMES {
        let fixture = Fixture::load(name);
        let (want, head) = (&fixture.logits, head(&fixture));
        let n = fixture.prompt_ids.len();
        let mean = |column: usize| (0..n).map(|row| want.row(row)[column]).sum::<f32>() / n as f32;
        let mean = Matrix::new(want.cols, (0..want.cols).map(mean).collect());
        let last = Matrix::new(want.cols, want.row(n - 1).to_vec());
        for part in [512, 7] {
            for mut engine in engines(&fixture, part) {
                let what = format!("{name} in parts of {part} on {}", engine.backend().describe());
                for (pooling, want) in [(Pooling::Mean, &mean), (Pooling::Last, &last)] {
                    let got = engine.embed(&fixture.prompt_ids, pooling).expect("a vector");
                    assert_eq!(got.len(), head.cols);
                    assert_close(&format!("{what}, {pooling:?}"), &logits_of(&got, &head), want, TOLERANCE);
                }
                assert!(matches!(engine.embed(&[], Pooling::Mean), Err(Error::EmptyPrompt)));
                assert_eq!(engine.backend().pages().bytes_in_use(), 0, "{what}");
            }
        }
    }
}

/// Sequences of one step want different things of different rows.
#[test]
fn each_sequence_gets_the_results_that_it_asks_for() {
    for name in NAMES {
        let fixture = Fixture::load(name);
        let (head, ids) = (head(&fixture), &fixture.prompt_ids);
        let greedy = SamplingParams::greedy();
        for mut engine in engines(&fixture, 512) {
            let what = format!("{name} on {}", engine.backend().describe());
            let [mut a, mut b, mut c, mut d] = [(); 4].map(|()| engine.sequence());
            let mut steps = [
                Step::new(&mut a, ids, Outputs::None).with_hidden(Outputs::All),
                Step::new(&mut b, ids, Outputs::Last).choosing(Choice::new(&greedy)),
                Step::new(&mut c, &ids[..30], Outputs::All).with_hidden(Outputs::Last),
                Step::new(&mut d, &ids[..20], Outputs::Last).with_hidden(Outputs::All),
            ];
            let ticket = engine.submit(&mut steps).expect("a step");
            let out = engine.collect(ticket).expect("results");
            let rows =
                |m: &Matrix, rows: std::ops::Range<usize>| rows.flat_map(|r| m.row(r).to_vec()).collect::<Vec<_>>();
            let n = ids.len();
            let logits = &fixture.logits;
            let hidden = [rows(logits, 0..n), rows(logits, 29..30), rows(logits, 0..20)].concat();
            let scores = [rows(logits, n - 1..n), rows(logits, 0..30), rows(logits, 19..20)].concat();
            let matrix = |m: &Matrix, rows: &[f32]| Matrix::new(m.cols, rows.to_vec());
            assert_close(&what, &logits_of(out.hidden, &head), &matrix(logits, &hidden), TOLERANCE);
            assert_close(&what, &matrix(logits, out.logits), &matrix(logits, &scores), TOLERANCE);
            assert_eq!(out.chosen.len(), 1);
            assert_eq!(out.chosen[0].token, Some(fixture.gen_ids[0]), "{what}");
        }
    }
}

#[test]
fn the_head_rests_where_no_logits_are_wanted() {
    let fixture = Fixture::load("llama3");
    for mut engine in engines(&fixture, 512) {
        let what = engine.backend().describe();
        engine.backend().set_tracing(true).expect("a trace");
        engine.embed(&fixture.prompt_ids, Pooling::Mean).expect("a vector");
        let n = engine.backend().plan().stages.len();
        let trace = engine.backend().trace().expect("a trace");
        let calls = trace.last.back().expect("a step").calls.iter();
        assert_eq!(calls.filter_map(|call| call.stage).max(), Some(n - 2), "{what}: the head is stage {}", n - 1);
    }
}

#[test]
fn a_model_loaded_without_hidden_states_says_so() {
    let fixture = Fixture::load("llama3");
    let model = Model::open(&fixture.dir).expect("the fixture");
    let mut engine = Engine::new(&model, &EngineOptions::default()).expect("an engine");
    let refused = engine.embed(&fixture.prompt_ids, Pooling::Mean).expect_err("no hidden states");
    assert!(matches!(refused, Error::Backend(BackendError::Step(StepError::NoHidden))), "{refused}");
    assert_eq!(engine.backend().pages().bytes_in_use(), 0);
}
