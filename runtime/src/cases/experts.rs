//! Cases of mixtures of experts: a graph with a router, two linears by experts and their sum, over embeddings. It runs
//! whole on a backend, since an expert linear is several kernels.

use super::{random, scaled, sigmoid, wide};
use crate::{
    format::{Bytes, Tensor},
    graph::{
        Act, Device, ExpertLinearOp, GraphBuilder, GraphError, Op, Plan, RouteOp, RouteScore, RouteWeight, WeightId,
    },
    quant::DType,
};

/// A mixture of experts.
#[derive(Clone, Copy, Debug)]
pub struct ExpertsCase {
    /// The experts' format.
    pub dtype: DType,
    /// Experts.
    pub n_experts: usize,
    /// Experts from here on have a logit of −100.
    pub never_from: usize,
    /// Experts of a row.
    pub k: usize,
    /// Elements of a row.
    pub width: usize,
    /// Elements between an expert's two linears.
    pub inner: usize,
    /// Whether weights have a row per input.
    pub input_major: bool,
    /// Whether the route's weights multiply inside of the first linear.
    pub scaled: bool,
    /// Whether linears have biases.
    pub bias: bool,
    /// Whether benches time it.
    pub speed: bool,
}

/// All mixtures.
pub fn experts() -> Vec<ExpertsCase> {
    let new = ExpertsCase::new;
    let f32 = new(DType::F32, 7, 3, 45, 30);
    vec![
        f32,
        ExpertsCase { bias: true, ..f32 },
        ExpertsCase { scaled: true, bias: true, ..f32 },
        new(DType::BF16, 5, 5, 33, 17),
        ExpertsCase { scaled: true, ..new(DType::BF16, 5, 5, 64, 70) },
        new(DType::F32, 1, 1, 16, 8),
        ExpertsCase { input_major: true, ..f32 },
        ExpertsCase { input_major: true, bias: true, ..f32 },
        ExpertsCase { input_major: true, bias: true, scaled: true, ..new(DType::BF16, 5, 2, 70, 83) },
        ExpertsCase { never_from: 4, bias: true, ..new(DType::Q8_0, 9, 2, 96, 64) },
        ExpertsCase { never_from: 3, ..new(DType::Q4_0, 6, 2, 64, 160) },
        ExpertsCase { never_from: 3, ..new(DType::Q6_K, 4, 2, 256, 256) },
        ExpertsCase { never_from: 4, ..new(DType::MXFP4, 6, 3, 64, 96) },
        new(DType::MXFP4, 6, 4, 96, 160),
        ExpertsCase { speed: true, ..new(DType::Q8_0, 16, 4, 1024, 512) },
        ExpertsCase { speed: true, ..new(DType::MXFP4, 16, 4, 1024, 512) },
    ]
}

/// The graph of a case, and everything that its reference needs.
#[derive(Clone, Debug)]
pub struct ExpertsModel {
    /// The graph as a plan for the CPU.
    pub plan: Plan,
    case: ExpertsCase,
    table: Vec<f32>,
    router: Vec<f32>,
    router_bias: Vec<f32>,
    up: Vec<Tensor>,
    down: Vec<Tensor>,
    biases: [Vec<f32>; 2],
}

impl ExpertsCase {
    /// Token ids.
    pub const VOCABULARY: usize = 11;

    /// Experts with neither biases nor anything else special.
    pub const fn new(dtype: DType, n_experts: usize, k: usize, width: usize, inner: usize) -> Self {
        let never_from = n_experts;
        let (input_major, scaled, bias, speed) = (false, false, false, false);
        Self { dtype, n_experts, never_from, k, width, inner, input_major, scaled, bias, speed }
    }

    /// Format, experts and sizes.
    pub fn name(&self) -> String {
        let Self { dtype, n_experts, k, width, inner, .. } = self;
        format!("{} {k} of {n_experts} experts of {width}, {inner}", dtype.name())
    }

    /// The error that activations rounded to bytes may have.
    pub fn rounded_tolerance(&self) -> f64 {
        match self.dtype {
            DType::F32 | DType::F16 | DType::BF16 => 1e-5,
            DType::Q8_0 => 3e-2,
            _ => 5e-2,
        }
    }

    /// Tokens of a step.
    pub fn tokens(n: usize) -> Vec<u32> {
        (0..n).map(|i| (i * 7 % Self::VOCABULARY) as u32).collect()
    }

    /// The graph. `place` finds a place for the bytes of each expert of one linear.
    ///
    /// # Errors
    /// None for the cases of the table.
    ///
    /// # Panics
    /// If a format has no encoder, or the bytes are no longer those that `place` got.
    pub fn model(&self, place: &mut dyn FnMut(Vec<Vec<u8>>) -> Vec<Bytes>) -> Result<ExpertsModel, GraphError> {
        let Self { n_experts, k, width, inner, .. } = *self;
        let mut b = GraphBuilder::new();
        let table = random(1, Self::VOCABULARY * width);
        let router = random(2, n_experts * width);
        let mut router_bias = random(3, n_experts);
        router_bias[self.never_from..].fill(-100.0);
        let shape = |out: usize, k: usize| if self.input_major { [k, out] } else { [out, k] };
        let up = self.stack(1000, shape(inner, width), place);
        let down = self.stack(900_000, shape(width, inner), place);
        let biases = [random(5, n_experts * inner), random(6, n_experts * width)];
        let f32s = |b: &mut GraphBuilder, name: &str, shape: Vec<usize>, v: &[f32]| {
            b.weight(name, Tensor::from_f32(shape, v).expect("as many elements as the shape says"))
        };
        let experts = |b: &mut GraphBuilder, name: &str, stack: &[Tensor], bias: &[f32], out: usize, scaled| {
            let add = |(e, t): (usize, &Tensor)| b.weight(&format!("{name}[{e}]"), t.clone());
            let experts: Vec<WeightId> = stack.iter().enumerate().map(add).collect();
            let bias = self.bias.then(|| f32s(b, &format!("{name}.bias"), vec![n_experts, out], bias));
            ExpertLinearOp { experts, bias, input_major: self.input_major, scaled }
        };
        let table_id = f32s(&mut b, "table", vec![Self::VOCABULARY, width], &table);
        let router_id = f32s(&mut b, "router", vec![n_experts, width], &router);
        let router_bias_id = f32s(&mut b, "router.bias", vec![n_experts], &router_bias);
        let up_op = experts(&mut b, "up", &up, &biases[0], inner, self.scaled);
        let down_op = experts(&mut b, "down", &down, &biases[1], width, false);
        let x = b.embed("x", table_id, 1.0)?;
        let logits = b.linear("router", x, router_id, Some(router_bias_id))?;
        let op = RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..RouteOp::softmax(n_experts, k) };
        let route = b.route("route", logits, op)?;
        let y = b.expert_linear("up", x, route, up_op)?;
        let gated = b.op("gated", Op::GatedAct { act: Act::Silu }, &[y, y])?;
        let y = b.expert_linear("down", gated, route, down_op)?;
        let y = b.op("sum", Op::ExpertSum { weighted: !self.scaled }, &[y, route])?;
        let y = b.op("select", Op::SelectOutputs, &[y])?;
        let plan = Plan::new(b.finish(y), |_, _, _| Ok(Device::Cpu))?;
        Ok(ExpertsModel { plan, case: *self, table, router, router_bias, up, down, biases })
    }

    fn stack(
        &self,
        seed: u64,
        [rows, len]: [usize; 2],
        place: &mut dyn FnMut(Vec<Vec<u8>>) -> Vec<Bytes>,
    ) -> Vec<Tensor> {
        let encoded = (0..self.n_experts).map(|e| {
            let mut bytes = Vec::new();
            for r in 0..rows {
                let row = scaled(seed + (e * rows + r) as u64, len, 0.3);
                self.dtype.encode_row(&row, &mut bytes).expect("the table's formats have encoders");
            }
            bytes
        });
        let tensor = |bytes| Tensor::new(self.dtype, vec![rows, len], bytes).expect("whole rows");
        place(encoded.collect()).into_iter().map(tensor).collect()
    }
}

impl ExpertsModel {
    /// The row of one token, in f64.
    pub fn reference(&self, token: u32) -> Vec<f64> {
        let ExpertsCase { n_experts, k, width, inner, input_major, .. } = self.case;
        let x = wide(&self.table[token as usize * width..][..width]);
        let logit = |e: usize| {
            let row = &self.router[e * width..][..width];
            row.iter().zip(&x).map(|(w, x)| f64::from(*w) * x).sum::<f64>() + f64::from(self.router_bias[e])
        };
        let logits: Vec<f64> = (0..n_experts).map(logit).collect();
        let mut order: Vec<usize> = (0..n_experts).collect();
        order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
        let sum: f64 = order[..k].iter().map(|e| logits[*e].exp()).sum();
        let product = |w: &Tensor, x: &[f64], out: usize| -> Vec<f64> {
            let (mut row, mut all) = (vec![0.0; w.row_len()], Vec::new());
            for r in 0..w.rows() {
                w.decode_row(r, &mut row);
                all.extend(wide(&row));
            }
            let at = |o: usize, i: usize| if input_major { i * out + o } else { o * x.len() + i };
            (0..out).map(|o| (0..x.len()).map(|i| all[at(o, i)] * x[i]).sum()).collect()
        };
        let mut y = vec![0.0; width];
        for &e in &order[..k] {
            let weight = logits[e].exp() / sum;
            let mut h = product(&self.up[e], &x, inner);
            for (i, h) in h.iter_mut().enumerate() {
                *h *= if self.case.scaled { weight } else { 1.0 };
                *h += if self.case.bias { f64::from(self.biases[0][e * inner + i]) } else { 0.0 };
                *h = *h * *h * sigmoid(*h);
            }
            for (i, d) in product(&self.down[e], &h, width).into_iter().enumerate() {
                let bias = if self.case.bias { f64::from(self.biases[1][e * width + i]) } else { 0.0 };
                y[i] += (d + bias) * if self.case.scaled { 1.0 } else { weight };
            }
        }
        y
    }

    /// Asserts that each row of `out` is within `tolerance` of the reference, by norm.
    ///
    /// # Panics
    /// If one is not, naming the case and `device`.
    pub fn compare(&self, out: &[f32], tokens: &[u32], tolerance: f64, device: &str) {
        assert_eq!(out.len(), tokens.len() * self.case.width);
        for (row, token) in out.chunks_exact(self.case.width).zip(tokens) {
            let relative = super::relative_error(row, &self.reference(*token));
            let (case, n) = (&self.case, tokens.len());
            assert!(relative <= tolerance, "{case:?} on {device}, {n} rows: {relative:.1e}");
        }
    }
}
