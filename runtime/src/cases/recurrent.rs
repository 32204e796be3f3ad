//! Cases of ops with a state: convolutions over a few tokens, and the gated delta rule.

use super::{random, scaled, sigmoid};
use crate::{
    cpu::ops::{
        OpKernels,
        gated_delta::{BLOCK, GatedDeltaItem},
        short_conv::ShortConvItem,
    },
    graph::{GatedDeltaOp, ShortConvOp, StateId, WeightId},
};

/// A convolution.
#[derive(Clone, Copy, Debug)]
pub struct ShortConvCase {
    /// Channels.
    pub width: usize,
    /// Tokens that a result depends on.
    pub taps: usize,
    /// Whether benches time it.
    pub speed: bool,
}

/// All convolutions.
pub fn short_convs() -> Vec<ShortConvCase> {
    let case = |speed| move |(width, taps)| ShortConvCase { width, taps, speed };
    let odd = [(1, 2), (5, 2), (7, 4), (16, 4), (37, 3), (37, 4), (64, 16), (130, 16)].map(case(false));
    // LFM2-1.2B, Qwen3-Next-80B-A3B.
    odd.into_iter().chain([(2048, 3), (8192, 4)].map(case(true))).collect()
}

impl ShortConvCase {
    /// Width and taps.
    pub fn name(&self) -> String {
        format!("{} channels, {} taps", self.width, self.taps)
    }

    /// The op; its weight is number 0.
    pub fn op(&self) -> ShortConvOp {
        ShortConvOp { state: StateId(0), weight: WeightId(0), taps: self.taps }
    }

    /// Elements of the state.
    pub fn state_len(&self) -> usize {
        (self.taps - 1) * self.width
    }

    /// `[width][taps]`, as the op has them.
    pub fn weight(&self) -> Vec<f32> {
        random(2, self.width * self.taps)
    }

    /// `[taps][width]`, as the CPU's kernels want them.
    pub fn turned_weight(&self) -> Vec<f32> {
        let weight = self.weight();
        (0..weight.len()).map(|i| weight[i % self.width * self.taps + i / self.width]).collect()
    }

    /// `[n_tokens][width]`.
    pub fn inputs(&self, n_tokens: usize) -> Vec<f32> {
        scaled(1, n_tokens * self.width, 2.0)
    }

    /// Runs `x` through the kernel, from one state to another. `weight` is turned.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn run(&self, ops: &OpKernels, weight: &[f32], x: &[f32], from: Before<'_>, to: &mut [f32], out: &mut [f32]) {
        let Self { width, taps, .. } = *self;
        let n_tokens = x.len() / width;
        assert!(weight.len() >= taps * width && out.len() >= n_tokens * width && to.len() >= self.state_len());
        let to = to.as_mut_ptr();
        let from = from.pointer(to, self.state_len());
        let (weight, x, out) = (weight.as_ptr(), x.as_ptr(), out.as_mut_ptr());
        let (x_stride, out_stride, stride) = (width, width, width);
        let n_channels = width;
        let item = ShortConvItem { n_channels, taps, n_tokens, weight, x, x_stride, out, out_stride, from, to, stride };
        // SAFETY: all rows are as long as the item says, and only this call uses what is written.
        unsafe { (ops.short_conv)(&item) };
    }

    /// Results of `x` (`[tokens][width]`) behind the state `past`, and the state behind them, in f64.
    pub fn reference(&self, past: &[f64], x: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let (weight, all) = (self.weight(), [past, x].concat());
        let out = (0..x.len()).map(|i| {
            let (t, c) = (i / self.width, i % self.width);
            let tap = |j: usize| f64::from(weight[c * self.taps + j]) * all[(t + j) * self.width + c];
            let sum: f64 = (0..self.taps).map(tap).sum();
            sum * sigmoid(sum)
        });
        (out.collect(), all[all.len() - self.state_len()..].to_vec())
    }
}

/// Where a kernel's state comes from.
#[derive(Clone, Copy, Debug)]
pub enum Before<'a> {
    /// It is zero.
    Zero,
    /// Another place than where it goes.
    State(&'a [f32]),
    /// The place where it goes.
    InPlace,
}

impl Before<'_> {
    fn pointer(self, to: *const f32, len: usize) -> *const f32 {
        match self {
            Before::Zero => std::ptr::null(),
            Before::State(state) => state[..len].as_ptr(),
            Before::InPlace => to,
        }
    }
}

/// A gated delta rule.
#[derive(Clone, Debug)]
pub struct GatedDeltaCase {
    /// The op; its weights are number 0, the decays, and 1, `dt_bias`.
    pub op: GatedDeltaOp,
    /// Whether benches time it.
    pub speed: bool,
}

/// All gated delta rules.
pub fn gated_deltas() -> Vec<GatedDeltaCase> {
    let case = |n_k_heads, n_v_heads, [k_dim, v_dim]: [usize; 2], tiled, decay_log, speed| {
        let [decay, dt_bias] = [0, 1].map(WeightId);
        let state = StateId(0);
        let op = GatedDeltaOp { state, n_k_heads, n_v_heads, k_dim, v_dim, decay, decay_log, dt_bias, tiled };
        GatedDeltaCase { op, speed }
    };
    vec![
        case(1, 1, [1, 1], false, false, false),
        case(1, 1, [5, 3], false, false, false),
        case(1, 1, [3, 5], false, true, false),
        case(1, 1, [16, 16], false, false, false),
        case(1, 1, [33, 31], false, false, false),
        case(2, 4, [16, 16], true, true, false),
        case(2, 6, [65, 40], false, false, false),
        case(1, 2, [128, 33], true, true, false),
        case(1, 1, [128, 32], false, false, false),
        // Two key heads' part of Qwen3-Next-80B-A3B's sixteen.
        case(2, 4, [128, 128], false, true, true),
    ]
}

/// Inputs of a gated delta rule: `[tokens]` rows.
#[derive(Clone, Debug)]
pub struct GatedDeltaInputs {
    /// q‖k‖v.
    pub qkv: Vec<f32>,
    /// `[n_v_heads]` a token.
    pub b: Vec<f32>,
    /// `[n_v_heads]` a token.
    pub a: Vec<f32>,
}

impl GatedDeltaCase {
    /// Heads and their sizes.
    pub fn name(&self) -> String {
        let GatedDeltaOp { n_k_heads, n_v_heads, k_dim, v_dim, tiled, .. } = self.op;
        format!("{n_v_heads} heads of {k_dim} by {v_dim}, {n_k_heads} of keys{}", if tiled { ", tiled" } else { "" })
    }

    /// Elements of a row of q‖k‖v, of b or a, and of the result.
    pub fn widths(&self) -> [usize; 3] {
        let op = &self.op;
        [2 * op.n_k_heads * op.k_dim + op.n_v_heads * op.v_dim, op.n_v_heads, op.n_v_heads * op.v_dim]
    }

    /// Elements of the state.
    pub fn state_len(&self) -> usize {
        self.op.n_v_heads * self.op.k_dim * self.op.v_dim
    }

    /// The decays, and `dt_bias`.
    pub fn vectors(&self) -> [Vec<f32>; 2] {
        let mut decay = random(9, self.op.n_v_heads);
        if !self.op.decay_log {
            decay.iter_mut().for_each(|d| *d = -d.abs() - 0.1);
        }
        [decay, random(10, self.op.n_v_heads)]
    }

    /// Inputs within [`GatedDeltaCase::SIZES`].
    pub fn inputs(&self, n_tokens: usize) -> GatedDeltaInputs {
        let ([qkv, heads, _], [large, b, a]) = (self.widths(), Self::SIZES);
        GatedDeltaInputs {
            qkv: scaled(1, n_tokens * qkv, large),
            b: scaled(4, n_tokens * heads, b),
            a: scaled(5, n_tokens * heads, a),
        }
    }

    /// Bounds of the elements of q‖k‖v, b and a.
    pub const SIZES: [f32; 3] = [1.5, 3.0, 4.0];

    /// Runs tokens `tokens` of `x` through the kernel, head by head and block by block as the executor does. A block of
    /// columns of the state lies `[k_dim][columns]`, one after the other.
    ///
    /// # Panics
    /// If a slice is too short.
    pub fn run(
        &self,
        ops: &OpKernels,
        x: &GatedDeltaInputs,
        tokens: std::ops::Range<usize>,
        from: Before<'_>,
        to: &mut [f32],
        out: &mut [f32],
    ) {
        let (op, [stride, heads, out_stride], [decays, dt_bias]) = (&self.op, self.widths(), self.vectors());
        let n_tokens = tokens.len();
        let (qkv, b, a) = (&x.qkv[tokens.start * stride..], &x.b[tokens.start * heads..], &x.a[tokens.start * heads..]);
        assert!(qkv.len() >= n_tokens * stride && b.len() >= n_tokens * heads && a.len() >= n_tokens * heads);
        let out = &mut out[tokens.start * out_stride..tokens.end * out_stride];
        let to = to[..self.state_len()].as_mut_ptr();
        let from = from.pointer(to, self.state_len());
        for head in 0..op.n_v_heads {
            let key = op.key_head(head) * op.k_dim;
            let keys = op.n_k_heads * op.k_dim;
            for column in (0..op.v_dim).step_by(BLOCK) {
                let place = (head * op.v_dim + column) * op.k_dim;
                let value = head * op.v_dim + column;
                let item = GatedDeltaItem {
                    k_dim: op.k_dim,
                    n_columns: BLOCK.min(op.v_dim - column),
                    n_tokens,
                    q: qkv[key..].as_ptr(),
                    k: qkv[keys + key..].as_ptr(),
                    v: qkv[2 * keys + value..].as_ptr(),
                    stride,
                    b: b[head..].as_ptr(),
                    a: a[head..].as_ptr(),
                    b_stride: heads,
                    a_stride: heads,
                    decay: if op.decay_log { -decays[head].exp() } else { decays[head] },
                    dt_bias: dt_bias[head],
                    from: if from.is_null() { from } else { from.wrapping_add(place) },
                    to: to.wrapping_add(place),
                    out: out[value..].as_mut_ptr(),
                    out_stride,
                };
                // SAFETY: all rows are as long as the item says, and only this call uses what is written.
                unsafe { (ops.gated_delta)(&item) };
            }
        }
    }

    /// A state of the CPU's as the reference has it: by head, row, column.
    pub fn plain_state(&self, state: &[f32]) -> Vec<f32> {
        let GatedDeltaOp { n_v_heads, k_dim, v_dim, .. } = self.op;
        let element = |i: usize| {
            let (head, row, column) = (i / (k_dim * v_dim), i / v_dim % k_dim, i % v_dim);
            let first = column / BLOCK * BLOCK;
            let columns = BLOCK.min(v_dim - first);
            state[(head * v_dim + first) * k_dim + row * columns + column - first]
        };
        (0..n_v_heads * k_dim * v_dim).map(element).collect()
    }

    /// The result of one token, in f64; `state`, by head, row, column, is brought up to date.
    pub fn reference(&self, state: &mut [f64], qkv: &[f64], b: &[f64], a: &[f64]) -> Vec<f64> {
        let (op, [decays, dt_bias]) = (&self.op, self.vectors());
        let (k_dim, v_dim) = (op.k_dim, op.v_dim);
        let unit = |x: &[f64]| -> Vec<f64> {
            let norm = (x.iter().map(|x| x * x).sum::<f64>() + 1e-6).sqrt();
            x.iter().map(|x| x / norm).collect()
        };
        let mut out = Vec::new();
        for h in 0..op.n_v_heads {
            let (key, keys) = (op.key_head(h) * k_dim, op.n_k_heads * k_dim);
            let (q, k) = (unit(&qkv[key..][..k_dim]), unit(&qkv[keys + key..][..k_dim]));
            let v = &qkv[2 * keys + h * v_dim..][..v_dim];
            let decay = f64::from(decays[h]);
            let decay = if op.decay_log { -decay.exp() } else { decay };
            let softplus = (a[h] + f64::from(dt_bias[h])).exp().ln_1p();
            let (beta, keep) = (sigmoid(b[h]), (decay * softplus).exp());
            let s = &mut state[h * k_dim * v_dim..][..k_dim * v_dim];
            s.iter_mut().for_each(|s| *s *= keep);
            for c in 0..v_dim {
                let seen: f64 = (0..k_dim).map(|i| s[i * v_dim + c] * k[i]).sum();
                (0..k_dim).for_each(|i| s[i * v_dim + c] += k[i] * beta * (v[c] - seen));
                let dot: f64 = (0..k_dim).map(|i| s[i * v_dim + c] * q[i]).sum();
                out.push(dot / (k_dim as f64).sqrt());
            }
        }
        out
    }
}
