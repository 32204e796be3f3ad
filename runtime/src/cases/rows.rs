//! A case of an op that works row by row (a [`RowOp`]): its inputs, what comes out in f64, and how a CPU kernel is called
//! with it. The table is in [`row_tables`](super::row_tables).

use super::{random, route::route_f64, sigmoid, wide};
use crate::{
    cpu::ops::{
        OpKernels,
        columns::{columns, join},
        rope_cos_sin,
        route::{self, RouteVectors},
        streams,
    },
    graph::{Act, HyperOp, NormKind, NormOp, RopeLayout, RopeSpec, RowOp, Src, StreamOp, ValueId, WeightId},
};

/// The first input of every case's op.
pub const A: Src = Src::Value(ValueId(0));
/// The second one.
pub const B: Src = Src::Value(ValueId(1));

/// An op with its dimensions. It reads [`A`] and [`B`]; its weights are numbered as `vectors`, its one rotation is number 0.
#[derive(Clone, Debug)]
pub struct RowCase {
    /// The op with its parameters.
    pub op: RowOp,
    /// Elements of a row of the result.
    pub width: usize,
    /// The elements of its weights, by [`WeightId`].
    pub vectors: Vec<Vec<f32>>,
    /// The rotation, of an op that rotates.
    pub rope: Option<RopeSpec>,
    /// Elements of inputs are between ± this.
    pub size: f32,
    /// Whether benches time it.
    pub speed: bool,
}

/// Where a row stands.
#[derive(Clone, Copy, Debug)]
pub struct RowAt {
    /// Its token's place in the sequence.
    pub position: usize,
    /// Its token's id, below [`RowCase::VOCABULARY`].
    pub token: usize,
}

/// A row made ready for the CPU's kernels.
#[derive(Clone, Debug)]
pub struct CpuRow {
    /// The inputs: the second is empty where there is one.
    pub inputs: [Vec<f32>; 2],
    /// Where the row stands.
    pub at: RowAt,
    /// Where the result goes: NaN before.
    pub out: Vec<f32>,
    cos: Vec<f32>,
    sin: Vec<f32>,
    scratch: Vec<f32>,
}

impl RowCase {
    /// Ids that tables by token have entries for.
    pub const VOCABULARY: usize = 300;

    /// A case without weights.
    pub fn new(op: RowOp, width: usize) -> Self {
        Self { op, width, vectors: Vec::new(), rope: None, size: 5.0, speed: false }
    }

    /// The kind of op, as tests and benches are filtered by.
    pub fn kind(&self) -> &'static str {
        match self.op {
            RowOp::Embed { .. } => "embed",
            RowOp::Norm { .. } => "norm",
            RowOp::Add { .. } => "add",
            RowOp::GatedAct { .. } => "gated_act",
            RowOp::Act { .. } => "act",
            RowOp::Mul { .. } => "mul",
            RowOp::Streams { .. } => "streams",
            RowOp::Hyper { .. } => "hyper",
            RowOp::Sparsify { .. } => "sparsify",
            RowOp::Columns { .. } => "columns",
            RowOp::Join { .. } => "join",
            RowOp::PositionScale { .. } => "position_scale",
            RowOp::Scale { .. } => "scale",
            RowOp::Softcap { .. } => "softcap",
            RowOp::Rope { .. } => "rope",
            RowOp::Route { .. } => "route",
            RowOp::ExpertSum { .. } => "expert_sum",
            RowOp::Copy { .. } => "copy",
        }
    }

    /// Kind, parameters that tell cases apart, and width.
    pub fn name(&self) -> String {
        let detail = match &self.op {
            RowOp::Norm { norm, .. } => format!(
                " {:?}{}{} in {}",
                norm.kind,
                if norm.weight.is_some() { ", weight" } else { "" },
                if norm.bias.is_some() { ", bias" } else { "" },
                self.width / norm.group
            ),
            RowOp::GatedAct { act, .. } | RowOp::Act { act, .. } => format!(" {}", act.name()),
            RowOp::Mul { group, .. } => format!(" by {group}"),
            RowOp::Streams { op, widths, .. } => format!(" {op:?} of {widths:?}"),
            RowOp::Scale { factor, .. } => format!(" by {factor}"),
            RowOp::Softcap { cap, .. } => format!(" at {cap}"),
            RowOp::Sparsify { deviations, .. } => format!(" by {deviations}"),
            RowOp::Hyper { op, .. } => format!(" of {}, {} turns", op.streams, op.iterations),
            RowOp::Columns { period, offset, len, .. } => format!(" {len} from {offset} of {period}"),
            RowOp::Join { lens, .. } => format!(" {lens:?}"),
            RowOp::Rope { head_dim, .. } => {
                let spec = self.rope.as_ref();
                spec.map_or(String::new(), |s| format!(" {:?} {} of {head_dim}", s.layout, s.rotary_dims))
            }
            RowOp::Route { route, .. } => {
                format!(" {} of {} by {:?}, {:?}", route.k, route.n_experts, route.score, route.weight)
            }
            RowOp::ExpertSum { k, weighted, .. } => format!(" of {k}{}", if *weighted { ", weighted" } else { "" }),
            _ => String::new(),
        };
        format!("{}{detail}, {} wide", self.kind(), self.width)
    }

    /// Elements of the rows of [`A`] and [`B`] that it reads.
    pub fn input_widths(&self) -> [usize; 2] {
        input_widths(&self.op, self.width)
    }

    /// The inputs of a row.
    pub fn inputs(&self, row: usize) -> [Vec<f32>; 2] {
        let widths = self.input_widths();
        [0, 1].map(|i| super::scaled((100 * i + row + 1) as u64, widths[i], self.size))
    }

    /// Makes a row ready for [`RowCase::run`].
    pub fn cpu_row(&self, row: usize) -> CpuRow {
        let at = RowAt { position: 777 + 31 * row, token: row * 41 % Self::VOCABULARY };
        let (mut cos, mut sin) = (Vec::new(), Vec::new());
        if let Some(spec) = &self.rope {
            let freqs = spec.inv_freq(0);
            (cos, sin) = (vec![f32::NAN; freqs.len()], vec![f32::NAN; freqs.len()]);
            rope_cos_sin(&freqs, spec.factor(0), at.position.saturating_sub(spec.back), &mut cos, &mut sin);
        }
        let scratch = match &self.op {
            RowOp::Route { route, .. } => vec![f32::NAN; route::scratch_len(route)],
            _ => Vec::new(),
        };
        CpuRow { inputs: self.inputs(row), at, out: vec![f32::NAN; self.width], cos, sin, scratch }
    }

    /// Computes `row.out` by the kernels of `ops`. Embeddings and weights without a norm have none, and no cases.
    pub fn run(&self, ops: &OpKernels, row: &mut CpuRow) {
        let CpuRow { inputs: [a, b], at, out, cos, sin, scratch } = row;
        let vector = |id: Option<WeightId>| id.map(|id| &self.vectors[id.0 as usize][..]);
        let scaled = |out: &mut [f32], factor: f32| {
            out.copy_from_slice(a);
            (ops.scale)(out, factor);
        };
        match &self.op {
            RowOp::Embed { .. } => {}
            RowOp::Norm { norm, .. } => {
                let (weight, bias) = (vector(norm.weight), vector(norm.bias));
                for (x, out) in a.chunks_exact(norm.group).zip(out.chunks_exact_mut(norm.group)) {
                    match norm.kind {
                        NormKind::Rms => (ops.rms_norm)(x, weight, norm.weight_offset, norm.eps, out),
                        NormKind::Layer => (ops.layer_norm)(x, weight, norm.weight_offset, bias, norm.eps, out),
                        NormKind::None => {}
                    }
                }
            }
            RowOp::Add { .. } => {
                out.copy_from_slice(a);
                (ops.add_assign)(out, b);
            }
            RowOp::GatedAct { act, .. } => (ops.gated_act)(*act, a, b, out),
            RowOp::Act { act, .. } => (ops.act)(*act, a, out),
            RowOp::Mul { group, .. } => {
                out.copy_from_slice(a);
                match group {
                    1 => (ops.mul_assign)(out, b),
                    _ => out.chunks_exact_mut(*group).zip(b).for_each(|(out, b)| (ops.scale)(out, *b)),
                }
            }
            RowOp::Streams { op, .. } => match *op {
                StreamOp::Mix { inputs, offset } => streams::mix(ops, a, b, inputs, offset, out),
                StreamOp::MatchRms { floor } => streams::match_rms(ops, a, b, floor, out),
                StreamOp::Add => streams::add_repeated(ops, a, b, out),
            },
            RowOp::Hyper { op, .. } => {
                let [scale, base] = [op.scale, op.base].map(|id| &self.vectors[id.0 as usize][..]);
                streams::hyper(op, a, scale, base, out);
            }
            RowOp::Sparsify { deviations, .. } => streams::sparsify(a, *deviations, out),
            RowOp::Columns { period, offset, len, .. } => columns(a, [*period, *offset, *len], out),
            RowOp::Join { lens, .. } => join(a, b, *lens, out),
            RowOp::PositionScale { scale, .. } => scaled(out, scale.factor(at.position)),
            RowOp::Scale { factor, .. } => scaled(out, *factor),
            RowOp::Softcap { cap, .. } => {
                out.copy_from_slice(a);
                (ops.softcap)(out, *cap);
            }
            RowOp::Rope { head_dim, .. } => {
                out.copy_from_slice(a);
                if let Some(spec) = &self.rope {
                    (ops.rope_heads)(out, *head_dim, spec.first_dim, cos, sin, spec.layout);
                }
            }
            RowOp::Route { route, .. } => {
                let fixed = vector(route.table).map(|table| &table[at.token * route.k..][..route.k]);
                let (bias, expert_scale) = (vector(route.bias), vector(route.expert_scale));
                route::route(route, RouteVectors { bias, expert_scale, fixed }, a, scratch, out);
            }
            RowOp::ExpertSum { k, weighted, .. } => {
                out.fill(0.0);
                for (y, weight) in a.chunks_exact(self.width).zip(&b[*k..]) {
                    (ops.add_scaled)(out, y, if *weighted { *weight } else { 1.0 });
                }
            }
            RowOp::Copy { .. } => out.copy_from_slice(a),
        }
    }

    /// The row in f64, of rows at [`A`] and [`B`] that may be longer than [`RowCase::input_widths`].
    pub fn reference(&self, a: &[f32], b: &[f32], at: RowAt) -> Vec<f64> {
        let ropes = self.rope.as_slice();
        let vector = |id: WeightId| self.vectors[id.0 as usize].clone();
        row_f64(&self.op, self.width, [&wide(a), &wide(b)], &RowContext { vector: &vector, ropes, at })
    }
}

/// Inputs of ops beside rows.
pub struct RowContext<'a> {
    /// The elements of a weight, at least.
    pub vector: &'a dyn Fn(WeightId) -> Vec<f32>,
    /// The graph's rotations.
    pub ropes: &'a [RopeSpec],
    /// Where the row stands.
    pub at: RowAt,
}

/// Elements that `op` reads of its one or two rows, for a result of `width`.
pub fn input_widths(op: &RowOp, width: usize) -> [usize; 2] {
    match op {
        RowOp::Embed { .. } => [0, 0],
        RowOp::Add { .. } | RowOp::GatedAct { .. } => [width, width],
        RowOp::Mul { group, .. } => [width, width / group],
        RowOp::Streams { widths, .. } => *widths,
        RowOp::Columns { period, len, .. } => [width / len * period, 0],
        RowOp::Join { lens, .. } => lens.map(|len| width / (lens[0] + lens[1]) * len),
        RowOp::Route { route, .. } => [route.n_experts, 0],
        RowOp::ExpertSum { k, .. } => [width * k, 2 * k],
        _ => [width, 0],
    }
}

/// The result of `op` in f64. Its rows may be longer than the op reads.
///
/// # Panics
/// For embeddings, which read no rows.
pub fn row_f64(op: &RowOp, width: usize, [a, b]: [&[f64]; 2], context: &RowContext<'_>) -> Vec<f64> {
    let [la, lb] = input_widths(op, width);
    let (a, b) = (&a[..la], &b[..lb]);
    let vector = context.vector;
    match op {
        RowOp::Embed { .. } => panic!("embeddings are read from tables, not from rows"),
        RowOp::Norm { norm, .. } => {
            let (weight, bias) = (norm.weight.map(vector), norm.bias.map(vector));
            norm_f64(norm, a, weight.as_deref(), bias.as_deref())
        }
        RowOp::Add { .. } => a.iter().zip(b).map(|(a, b)| a + b).collect(),
        RowOp::GatedAct { act, .. } => a.iter().zip(b).map(|(g, u)| act_f64(*act, *g, *u)).collect(),
        RowOp::Act { act, .. } => a.iter().map(|g| act_f64(*act, *g, 1.0)).collect(),
        RowOp::Mul { group, .. } => a.iter().enumerate().map(|(i, a)| a * b[i / group]).collect(),
        RowOp::Streams { op, .. } => streams_f64(*op, a, b),
        RowOp::Hyper { op, .. } => hyper_f64(op, a, &vector(op.scale), &vector(op.base)),
        RowOp::Sparsify { deviations, .. } => sparsify_f64(a, f64::from(*deviations)),
        RowOp::Columns { period, offset, len, .. } => {
            a.chunks(*period).flat_map(|x| x[*offset..offset + len].to_vec()).collect()
        }
        RowOp::Join { lens, .. } => {
            a.chunks(lens[0]).zip(b.chunks(lens[1])).flat_map(|(a, b)| [a, b].concat()).collect()
        }
        RowOp::PositionScale { scale, .. } => {
            let factor = f64::from(scale.factor(context.at.position));
            a.iter().map(|x| x * factor).collect()
        }
        RowOp::Scale { factor, .. } => a.iter().map(|x| x * f64::from(*factor)).collect(),
        RowOp::Softcap { cap, .. } => a.iter().map(|x| f64::from(*cap) * (x / f64::from(*cap)).tanh()).collect(),
        RowOp::Rope { rope, head_dim, .. } => {
            let spec = &context.ropes[rope.0 as usize];
            let position = context.at.position.saturating_sub(spec.back);
            let mut x = a.to_vec();
            x.chunks_mut(*head_dim).for_each(|head| rotate_f64(head, spec, &spec.inv_freq(0), position));
            x
        }
        RowOp::Route { route, .. } => {
            let table = route.table.map(vector);
            let fixed = table.as_deref().map(|t| &t[context.at.token * route.k..][..route.k]);
            let (bias, scale) = (route.bias.map(vector), route.expert_scale.map(vector));
            route_f64(route, RouteVectors { bias: bias.as_deref(), expert_scale: scale.as_deref(), fixed }, a)
        }
        RowOp::ExpertSum { k, weighted, .. } => {
            let part = |e: usize, i: usize| a[e * width + i] * if *weighted { b[k + e] } else { 1.0 };
            (0..width).map(|i| (0..*k).map(|e| part(e, i)).sum()).collect()
        }
        RowOp::Copy { .. } => a.to_vec(),
    }
}

/// Norms of each group of `x` in f64.
fn norm_f64(norm: &NormOp, x: &[f64], weight: Option<&[f32]>, bias: Option<&[f32]>) -> Vec<f64> {
    let one = |x: &[f64]| {
        let n = x.len() as f64;
        let mean = if norm.kind == NormKind::Layer { x.iter().sum::<f64>() / n } else { 0.0 };
        let variance = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n;
        let root = (variance + f64::from(norm.eps)).sqrt();
        let root = if norm.kind == NormKind::None { 1.0 } else { root };
        let each = |(i, x): (usize, &f64)| {
            let w = weight.map_or(1.0, |w| f64::from(w[i])) + f64::from(norm.weight_offset);
            (x - mean) / root * w + bias.map_or(0.0, |b| f64::from(b[i]))
        };
        x.iter().enumerate().map(each).collect::<Vec<_>>()
    };
    x.chunks(norm.group).flat_map(one).collect()
}

/// `act(g, u)` in f64.
pub fn act_f64(act: Act, g: f64, u: f64) -> f64 {
    let (alpha, limit) = act.parameters();
    let (alpha, limit) = (f64::from(alpha), f64::from(limit));
    match act {
        Act::Silu => g * sigmoid(g) * u,
        // ½ · (1 + tanh(y)) = sigmoid(2y), which keeps its digits where tanh nears −1.
        Act::GeluTanh => g * sigmoid((8.0 / std::f64::consts::PI).sqrt() * (g + 0.044715 * g.powi(3))) * u,
        Act::Relu => g.max(0.0) * u,
        Act::Sigmoid => sigmoid(g) * u,
        Act::Tanh => g.tanh() * u,
        Act::SwigluOss { .. } => {
            let (g, u) = (g.min(limit), u.clamp(-limit, limit));
            (u + 1.0) * g * sigmoid(alpha * g)
        }
        Act::SiluClamped { .. } => g.min(limit) * sigmoid(g.min(limit)) * u.clamp(-limit, limit),
    }
}

/// The result of a stream op, in f64.
fn streams_f64(op: StreamOp, a: &[f64], b: &[f64]) -> Vec<f64> {
    let mean = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / x.len() as f64;
    match op {
        StreamOp::Mix { inputs, offset } => {
            let width = a.len() / inputs;
            let mixed = |coefs: &[f64], i: usize| -> f64 {
                let part = |(u, c): (usize, &f64)| (c + f64::from(offset)) * a[u * width + i];
                coefs.iter().enumerate().map(part).sum()
            };
            b.chunks(inputs).flat_map(|coefs| (0..width).map(|i| mixed(coefs, i)).collect::<Vec<_>>()).collect()
        }
        StreamOp::MatchRms { floor } => {
            let factor = |x: &[f64]| (mean(b) / mean(x).max(f64::from(floor))).sqrt();
            a.chunks(b.len()).flat_map(|x| x.iter().map(|v| v * factor(x)).collect::<Vec<_>>()).collect()
        }
        StreamOp::Add => a.iter().enumerate().map(|(i, x)| x + b[i % b.len()]).collect(),
    }
}

fn sparsify_f64(x: &[f64], deviations: f64) -> Vec<f64> {
    let n = x.len() as f64;
    let mean = x.iter().sum::<f64>() / n;
    let deviation = (x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n).sqrt();
    x.iter().map(|x| (x - mean - deviations * deviation).max(0.0)).collect()
}

/// Coefficients of hyper-connections in f64, for reading alone where there are no more projections.
fn hyper_f64(op: &HyperOp, x: &[f64], scale: &[f32], base: &[f32]) -> Vec<f64> {
    let (n, eps) = (op.streams, f64::from(op.eps));
    let at = |i: usize, part: usize| f64::from(scale[part]) * x[i] + f64::from(base[i]);
    let mut out: Vec<f64> = (0..n).map(|i| sigmoid(at(i, 0)) + eps).collect();
    if x.len() == n {
        return out;
    }
    out.extend((n..2 * n).map(|i| 2.0 * sigmoid(at(i, 1))));
    let mut mix: Vec<f64> = (2 * n..x.len()).map(|i| at(i, 2).exp()).collect();
    for row in mix.chunks_mut(n) {
        let sum: f64 = row.iter().sum();
        row.iter_mut().for_each(|x| *x = *x / sum + eps);
    }
    for turn in 0..op.iterations {
        if turn > 0 {
            for row in mix.chunks_mut(n) {
                let sum: f64 = row.iter().sum::<f64>() + eps;
                row.iter_mut().for_each(|x| *x /= sum);
            }
        }
        for column in 0..n {
            let sum: f64 = (0..n).map(|row| mix[row * n + column]).sum::<f64>() + eps;
            (0..n).for_each(|row| mix[row * n + column] /= sum);
        }
    }
    out.extend((0..n * n).map(|i| mix[i % n * n + i / n]));
    out
}

/// Turns a head in f64. Angles are products of floats, as in the models' own code.
pub fn rotate_f64(head: &mut [f64], spec: &RopeSpec, inv_freq: &[f32], position: usize) {
    let half = spec.rotary_dims / 2;
    for (j, freq) in inv_freq.iter().enumerate() {
        let (a, b) = match spec.layout {
            RopeLayout::Half => (j, j + half),
            RopeLayout::Interleaved => (2 * j, 2 * j + 1),
        };
        let (a, b) = (spec.first_dim + a, spec.first_dim + b);
        let (s, c) = f64::from(position as f32 * freq).sin_cos();
        let f = f64::from(spec.attention_factor);
        let (x, y) = (head[a], head[b]);
        (head[a], head[b]) = ((x * c - y * s) * f, (x * s + y * c) * f);
    }
}

/// The elements of the weights that `sizes` says.
pub(super) fn vectors(sizes: &[usize]) -> Vec<Vec<f32>> {
    sizes.iter().enumerate().map(|(i, n)| random(10 + i as u64, *n)).collect()
}
