//! Ops that sum up a sequence's past in a state instead of attending to its keys.

use super::{
    error::GraphError,
    op::{Rows, StateId, Value, ValueId, WeightId},
};

/// Depthwise causal convolution over the tokens of a sequence, then SiLU:
/// `out[t][c] = silu(Σ_j weight[c][j] · x[t - (taps - 1) + j][c])`, zero before the sequence's first token.
///
/// The state holds the last `taps - 1` inputs.
#[derive(Clone, Debug)]
pub struct ShortConvOp {
    /// The last `taps - 1` rows of the input: `(taps - 1) · width` elements, rewritten.
    pub state: StateId,
    /// `[width · taps]`: the taps of the first channel, the oldest token's first, then those of the next.
    pub weight: WeightId,
    /// Tokens that a result depends on.
    pub taps: usize,
}

impl ShortConvOp {
    /// Taps that kernels have room for.
    pub const MAX_TAPS: usize = 16;

    /// Elements of the state for rows of `width`.
    pub fn state_elements(&self, width: usize) -> Option<usize> {
        width.checked_mul(self.taps.saturating_sub(1))
    }
}

/// The gated delta rule (Yang et al. 2024), the recurrence of Gated DeltaNet layers. For each value head `h` with its key
/// head's `q`, `k` and a state `S` `[k_dim, v_dim]`, in f32:
///
/// ```text
/// q, k ← x / sqrt(Σx² + 1e-6);  q ← q / sqrt(k_dim)
/// β = sigmoid(b[h]);  g = decay(h) · softplus(a[h] + dt_bias[h])
/// S ← S · exp(g);  S ← S + k ⊗ β (v − Sᵀk);  out = Sᵀq
/// ```
///
/// Inputs: `q‖k‖v` (`[2 · n_k_heads · k_dim + n_v_heads · v_dim]`), `b` and `a` (`[n_v_heads]`). Output:
/// `[n_v_heads · v_dim]`. The state's layout is the backend's own.
#[derive(Clone, Debug)]
pub struct GatedDeltaOp {
    /// `n_v_heads · k_dim · v_dim` elements, rewritten.
    pub state: StateId,
    /// Heads of q and k.
    pub n_k_heads: usize,
    /// Heads of v.
    pub n_v_heads: usize,
    /// Elements of a q or k.
    pub k_dim: usize,
    /// Elements of a v.
    pub v_dim: usize,
    /// `[n_v_heads]`.
    pub decay: WeightId,
    /// Whether `decay(h)` is `-exp(decay[h])`, as safetensors store it, or `decay[h]` itself.
    pub decay_log: bool,
    /// `[n_v_heads]`.
    pub dt_bias: WeightId,
    /// Whether value head `h` belongs to key head `h % n_k_heads`, as converters to GGUF may reorder them, or to
    /// `h / (n_v_heads / n_k_heads)`.
    pub tiled: bool,
}

impl GatedDeltaOp {
    /// Added to the sums of squares; q and k are divided by the roots of the results.
    pub const EPS: f32 = 1e-6;

    /// The key head of value head `h`.
    pub fn key_head(&self, h: usize) -> usize {
        if self.tiled { h % self.n_k_heads } else { h / (self.n_v_heads / self.n_k_heads) }
    }

    /// Elements of the state.
    pub fn state_elements(&self) -> Option<usize> {
        self.n_v_heads.checked_mul(self.k_dim)?.checked_mul(self.v_dim)
    }
}

/// A convolution of a plan.
#[derive(Clone, Debug)]
pub struct ShortConvStage {
    /// The convolution.
    pub op: ShortConvOp,
    /// `[rows, width]`.
    pub input: ValueId,
    /// `[rows, width]`.
    pub output: ValueId,
}

/// A gated delta rule of a plan.
#[derive(Clone, Debug)]
pub struct GatedDeltaStage {
    /// The rule.
    pub op: GatedDeltaOp,
    /// `q‖k‖v`, `b`, `a`.
    pub inputs: [ValueId; 3],
    /// `[rows, n_v_heads · v_dim]`.
    pub output: ValueId,
}

type Shape = Result<(Rows, usize), GraphError>;

/// Rows and width of a convolution's output.
pub(super) fn short_conv_shape(
    op: &ShortConvOp,
    x: &Value,
    state: Option<usize>,
    weight: &[usize],
    fail: impl Fn(String) -> Shape,
) -> Shape {
    if !(2..=ShortConvOp::MAX_TAPS).contains(&op.taps) {
        return fail(format!("{} taps; from 2 to {} are possible", op.taps, ShortConvOp::MAX_TAPS));
    }
    if x.rows != Rows::Token {
        return fail(format!("`{}` has a row per output, expected one per token", x.name));
    }
    if x.width.checked_mul(op.taps).is_none_or(|n| weight != [n]) {
        return fail(format!("weight has shape {weight:?}, expected [{} · {}]", x.width, op.taps));
    }
    if state.is_none() || state != op.state_elements(x.width) {
        return fail(format!("{state:?} elements of state for {} rows of {}", op.taps - 1, x.width));
    }
    Ok((Rows::Token, x.width))
}

/// Rows and width of a gated delta rule's output. `vectors` are the shapes of `decay` and `dt_bias`.
pub(super) fn gated_delta_shape(
    op: &GatedDeltaOp,
    inputs: &[&Value],
    state: Option<usize>,
    vectors: [&[usize]; 2],
    fail: impl Fn(String) -> Shape,
) -> Shape {
    let (hk, hv) = (op.n_k_heads, op.n_v_heads);
    if hk == 0 || op.k_dim == 0 || op.v_dim == 0 || hv == 0 || !hv.is_multiple_of(hk) {
        let dims = format!("{} and {}", op.k_dim, op.v_dim);
        return fail(format!("{hk} key heads for {hv} value heads, of {dims} elements"));
    }
    let product = |a: usize, b: usize| a.checked_mul(b);
    let width = product(hv, op.v_dim);
    let all = product(2, hk).and_then(|n| product(n, op.k_dim)).zip(width).and_then(|(a, b)| a.checked_add(b));
    let (Some(all), Some(width)) = (all, width) else {
        return fail("the heads have more elements than there are numbers".to_owned());
    };
    for (x, want) in inputs.iter().zip([all, hv, hv]) {
        if x.width != want || x.rows != Rows::Token {
            return fail(format!("`{}` is {} wide, expected {want} for each token", x.name, x.width));
        }
    }
    for (what, shape) in ["decay", "dt_bias"].iter().zip(vectors) {
        if shape != [hv] {
            return fail(format!("{what} has shape {shape:?}, expected [{hv}]"));
        }
    }
    if state.is_none() || state != op.state_elements() {
        return fail(format!("{state:?} elements of state for {hv} heads of {} by {}", op.k_dim, op.v_dim));
    }
    Ok((Rows::Token, width))
}
