//! Experts steps against f64: every instruction set, few and many rows, one and several threads, all formats. Weights of
//! experts that no row chooses lie on pages that cannot be read.

use super::{CpuBackend, CpuOptions};
use crate::{
    cpu::{arch::Isa, ops::testing::random},
    format::{Bytes, Mapping, Tensor},
    graph::{Device, ExpertLinearOp, GraphBuilder, Op, Plan, RouteOp, RouteScore, RouteWeight, ValueId, WeightId},
    quant::DType,
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

const PAGE: usize = 65536;
pub(crate) const VOCAB: usize = 11;

/// What a mixture of experts is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub dtype: DType,
    pub n_experts: usize,
    /// Experts from here on have a logit of −100.
    pub never_from: usize,
    pub k: usize,
    pub width: usize,
    pub inner: usize,
    pub input_major: bool,
    pub scaled: bool,
    pub bias: bool,
}

impl Case {
    pub const fn new(dtype: DType, n_experts: usize, k: usize, width: usize, inner: usize) -> Self {
        let never_from = n_experts;
        Self { dtype, n_experts, never_from, k, width, inner, input_major: false, scaled: false, bias: false }
    }
}

/// Experts of `[rows, len]`, each on pages of its own; those that are never chosen cannot be read.
struct Stack {
    experts: Vec<Tensor>,
    values: Vec<Vec<f64>>,
    _file: tempfile::NamedTempFile,
}

fn stack(case: &Case, seed: u64, [rows, len]: [usize; 2]) -> Stack {
    let mut file = Vec::new();
    let mut values = Vec::new();
    for e in 0..case.n_experts {
        let mut bytes = Vec::new();
        for r in 0..rows {
            let row: Vec<f32> = random(seed + (e * rows + r) as u64, len).iter().map(|v| v * 0.3).collect();
            case.dtype.encode_row(&row, &mut bytes).unwrap();
        }
        let mut decoded = vec![0.0; rows * len];
        case.dtype.decode_row(&bytes, &mut decoded).unwrap();
        values.push(decoded.iter().map(|v| f64::from(*v)).collect());
        bytes.resize(bytes.len().next_multiple_of(PAGE), 0);
        file.extend(bytes);
    }
    let temp = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(temp.path(), &file).unwrap();
    let map = Mapping::open(temp.path()).unwrap();
    let each = file.len() / case.n_experts;
    let n = Tensor::byte_len(case.dtype, &[rows, len]).unwrap();
    let experts = (0..case.n_experts)
        .map(|e| {
            let bytes = Bytes::mapped(&map, e * each..e * each + n).unwrap();
            Tensor::new(case.dtype, vec![rows, len], bytes).unwrap()
        })
        .collect();
    #[cfg(unix)]
    {
        unsafe extern "C" {
            fn mprotect(p: *mut std::ffi::c_void, len: usize, protection: i32) -> i32;
        }
        for e in case.never_from..case.n_experts {
            let start = map[e * each..].as_ptr().cast_mut();
            // SAFETY: whole pages of a mapping of our own, which nobody may read from now on.
            assert_eq!(unsafe { mprotect(start.cast(), each, 0) }, 0);
        }
    }
    Stack { experts, values, _file: temp }
}

/// A graph of one mixture of experts over embeddings, and everything that the reference needs.
pub(crate) struct Model {
    pub plan: Plan,
    case: Case,
    table: Vec<f32>,
    router: Vec<f32>,
    router_bias: Vec<f32>,
    up: Stack,
    down: Stack,
    biases: [Vec<f32>; 2],
}

pub(crate) fn model(case: Case) -> Model {
    let Case { n_experts, k, width, inner, .. } = case;
    let mut b = GraphBuilder::new();
    let table = random(1, VOCAB * width);
    let router = random(2, n_experts * width);
    let mut router_bias = random(3, n_experts);
    router_bias[case.never_from..].fill(-100.0);
    let shape = |out: usize, k: usize| if case.input_major { [k, out] } else { [out, k] };
    let (up, down) = (stack(&case, 1000, shape(inner, width)), stack(&case, 900_000, shape(width, inner)));
    let biases = [random(5, n_experts * inner), random(6, n_experts * width)];
    let f32s = |b: &mut GraphBuilder, name: &str, shape: Vec<usize>, v: &[f32]| {
        b.weight(name, Tensor::from_f32(shape, v).unwrap())
    };
    let experts = |b: &mut GraphBuilder, name: &str, s: &Stack, bias: &[f32], out: usize, scaled| {
        let add = |(e, t): (usize, &Tensor)| b.weight(&format!("{name}[{e}]"), t.clone());
        let experts: Vec<WeightId> = s.experts.iter().enumerate().map(add).collect();
        let bias = case.bias.then(|| f32s(b, &format!("{name}.bias"), vec![n_experts, out], bias));
        ExpertLinearOp { experts, bias, input_major: case.input_major, scaled }
    };
    let table_id = f32s(&mut b, "table", vec![VOCAB, width], &table);
    let router_id = f32s(&mut b, "router", vec![n_experts, width], &router);
    let router_bias_id = f32s(&mut b, "router.bias", vec![n_experts], &router_bias);
    let up_op = experts(&mut b, "up", &up, &biases[0], inner, case.scaled);
    let down_op = experts(&mut b, "down", &down, &biases[1], width, false);
    let x = b.embed("x", table_id, 1.0).unwrap();
    let logits = b.linear("router", x, router_id, Some(router_bias_id)).unwrap();
    let op = RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..RouteOp::softmax(n_experts, k) };
    let route = b.route("route", logits, op).unwrap();
    let y = b.expert_linear("up", x, route, up_op.clone()).unwrap();
    let gated = b.op("gated", Op::GatedAct { act: crate::graph::Act::Silu }, &[y, y]).unwrap();
    let y = b.expert_linear("down", gated, route, down_op).unwrap();
    let y = b.op("sum", Op::ExpertSum { weighted: !case.scaled }, &[y, route]).unwrap();
    let y: ValueId = b.op("select", Op::SelectOutputs, &[y]).unwrap();
    let plan = Plan::new(b.finish(y), |_, _, _| Ok(Device::Cpu)).unwrap();
    Model { plan, case, table, router, router_bias, up, down, biases }
}

impl Model {
    /// The row of one token, in f64.
    fn reference(&self, token: usize) -> Vec<f64> {
        let Case { n_experts, k, width, inner, input_major, .. } = self.case;
        let x: Vec<f64> = self.table[token * width..][..width].iter().map(|v| f64::from(*v)).collect();
        let logit = |e: usize| {
            let row = &self.router[e * width..][..width];
            row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(self.router_bias[e])
        };
        let logits: Vec<f64> = (0..n_experts).map(logit).collect();
        let mut order: Vec<usize> = (0..n_experts).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let sum: f64 = order[..k].iter().map(|e| logits[*e].exp()).sum();
        let product = |w: &[f64], x: &[f64], out: usize| -> Vec<f64> {
            let at = |o: usize, i: usize| if input_major { i * out + o } else { o * x.len() + i };
            (0..out).map(|o| (0..x.len()).map(|i| w[at(o, i)] * x[i]).sum()).collect()
        };
        let mut y = vec![0.0; width];
        for &e in &order[..k] {
            let weight = logits[e].exp() / sum;
            let mut h = product(&self.up.values[e], &x, inner);
            for (i, h) in h.iter_mut().enumerate() {
                *h *= if self.case.scaled { weight } else { 1.0 };
                *h += if self.case.bias { f64::from(self.biases[0][e * inner + i]) } else { 0.0 };
                *h *= *h / (1.0 + (-*h).exp());
            }
            for (i, d) in product(&self.down.values[e], &h, width).into_iter().enumerate() {
                let bias = if self.case.bias { f64::from(self.biases[1][e * width + i]) } else { 0.0 };
                y[i] += (d + bias) * if self.case.scaled { 1.0 } else { weight };
            }
        }
        y
    }

    fn run(&self, isa: Isa, threads: usize, kv_type: KvType, tokens: &[u32]) -> Vec<f32> {
        let options = CpuOptions { isa, threads, kv_type, max_cached_tokens: 256, max_step_tokens: tokens.len() };
        let mut backend = CpuBackend::new(self.plan.clone(), &options).unwrap();
        let mut kv = SequenceKv::default();
        let step = SequenceStep { kv: &mut kv, tokens, outputs: Outputs::All };
        backend.forward(&mut [step]).unwrap().to_vec()
    }

    /// Every row within `tolerance` of the reference, by norm; rounding to bytes where keys and values are f16.
    fn check(&self, isa: Isa, threads: usize, kv_type: KvType, n: usize, tolerance: f64) {
        let tokens: Vec<u32> = (0..n).map(|i| (i * 7 % VOCAB) as u32).collect();
        let out = self.run(isa, threads, kv_type, &tokens);
        self.compare(&out, &tokens, tolerance, &format!("{isa:?}, {threads} threads, {kv_type:?}"));
    }

    /// As [`Model::check`], for rows computed on `device`.
    pub fn compare(&self, out: &[f32], tokens: &[u32], tolerance: f64, device: &str) {
        assert_eq!(out.len(), tokens.len() * self.case.width);
        for (row, token) in out.chunks_exact(self.case.width).zip(tokens) {
            let want = self.reference(*token as usize);
            let error: f64 = row.iter().zip(&want).map(|(a, b)| (f64::from(*a) - b).powi(2)).sum();
            let norm: f64 = want.iter().map(|v| v * v).sum();
            let relative = (error / norm).sqrt();
            let case = &self.case;
            let n = tokens.len();
            assert!(relative <= tolerance, "{case:?} on {device}, {n} rows: {relative:.1e}");
        }
    }
}

#[test]
fn rows_go_through_their_experts() {
    let f32 = Case::new(DType::F32, 7, 3, 45, 30);
    let cases = [
        (f32, 1e-5),
        (Case { bias: true, ..f32 }, 1e-5),
        (Case { scaled: true, bias: true, ..f32 }, 1e-5),
        (Case::new(DType::BF16, 5, 5, 33, 17), 1e-5),
        (Case::new(DType::F32, 1, 1, 16, 8), 1e-5),
        (Case { input_major: true, ..f32 }, 1e-5),
        (Case { input_major: true, bias: true, scaled: true, ..Case::new(DType::BF16, 5, 2, 70, 83) }, 1e-5),
        (Case { never_from: 4, ..Case::new(DType::Q8_0, 9, 2, 96, 64) }, 3e-2),
        (Case { never_from: 3, ..Case::new(DType::Q4_0, 6, 2, 64, 160) }, 5e-2),
        (Case { never_from: 3, ..Case::new(DType::Q6_K, 4, 2, 256, 256) }, 5e-2),
        (Case { never_from: 4, ..Case::new(DType::MXFP4, 6, 3, 64, 96) }, 5e-2),
    ];
    for (case, tolerance) in cases {
        let model = model(case);
        for isa in Isa::available() {
            for n in [1, 2, 4, 5, 40] {
                model.check(isa, 1 + n % 3, KvType::F16, n, tolerance);
                model.check(isa, 1 + n % 3, KvType::F32, n, 1e-5);
            }
        }
    }
}

/// One answer on any number of threads.
#[test]
fn threads_do_not_show() {
    let model = model(Case { never_from: 5, ..Case::new(DType::Q8_0, 8, 2, 64, 96) });
    for n in [1, 3, 17] {
        let tokens: Vec<u32> = (0..n).map(|i| i % VOCAB as u32).collect();
        let one = model.run(Isa::detect(), 1, KvType::F16, &tokens);
        for threads in [2, 3, 5] {
            assert_eq!(model.run(Isa::detect(), threads, KvType::F16, &tokens), one, "{threads} threads, {n} rows");
        }
    }
}

/// Experts that no row chooses are not read, not even asked for ahead: their pages would end the process.
#[cfg(unix)]
#[test]
fn experts_that_are_not_chosen_are_never_read() {
    let model = model(Case { never_from: 2, ..Case::new(DType::F16, 12, 2, 80, 48) });
    for n in [1, 4, 33] {
        model.check(Isa::detect(), 2, KvType::F16, n, 2e-3);
    }
}
