//! Ops on residuals of several streams: AltUp's (Baykal et al. 2023) and hyper-connections.

use super::op::WeightId;

/// An op on rows that are made of several streams side by side, `[rows, streams * n]` (as AltUp's residual is), with a
/// second value.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum StreamOp {
    /// Each stream of the result is a mixture of the first value's `inputs` streams:
    /// `out[s] = Σ_u (second[s * inputs + u] + offset) * first[u]`. The second value has `inputs` elements for each
    /// `s`.
    Mix {
        /// Streams of the first value.
        inputs: usize,
        /// Added to each factor.
        offset: f32,
    },
    /// Each stream of the first value, scaled to the magnitude of the second value, which is as long as one stream:
    /// `first[s] * rms(second) / sqrt(max(mean(first[s]²), floor))`.
    MatchRms {
        /// Bound of the mean square from below.
        floor: f32,
    },
    /// Adds the second value, which is as long as one stream, to each stream of the first.
    Add,
}

impl StreamOp {
    /// Width of the result for inputs of these widths.
    pub(super) fn width(self, [a, b]: [usize; 2]) -> Option<usize> {
        match self {
            StreamOp::Mix { inputs, .. } if inputs > 0 && a.is_multiple_of(inputs) && b.is_multiple_of(inputs) => {
                (a / inputs).checked_mul(b / inputs)
            }
            StreamOp::MatchRms { .. } | StreamOp::Add if b > 0 && a.is_multiple_of(b) => Some(a),
            _ => None,
        }
    }

    /// Name in dumps.
    pub fn name(self) -> &'static str {
        match self {
            StreamOp::Mix { .. } => "mix",
            StreamOp::MatchRms { .. } => "match_rms",
            StreamOp::Add => "add",
        }
    }
}

/// The coefficients of hyper-connections (Zhu et al. 2024) with a mixing matrix that is all but doubly stochastic
/// (DeepSeek-AI 2025), for a residual of `n` streams: how much of each stream a block reads, how much of what it makes each
/// stream gets, and how streams mix meanwhile. From projections `x` of the streams, with `s = scale` and `b = base`:
///
/// ```text
/// read [n]      sigmoid(s₀ x + b) + eps
/// write [n]     2 sigmoid(s₁ x + b)
/// mix [n][n]    softmax over each row of (s₂ x + b), + eps; columns divided by their sums + eps,
///               then (iterations - 1) times rows, then columns
/// ```
///
/// The output is as long as the input: read, write, and mix transposed, so that row u holds the shares of all streams
/// in stream u of the result. After the last layer only the `n` elements of read are needed: the input then has `n`.
#[derive(Clone, Debug)]
pub struct HyperOp {
    /// Streams.
    pub streams: usize,
    /// Turns of dividing by columns' sums.
    pub iterations: usize,
    /// Added to coefficients and sums.
    pub eps: f32,
    /// `[3]`; `[1]` where the input has the projections of read alone.
    pub scale: WeightId,
    /// As many elements as the input has.
    pub base: WeightId,
}

impl HyperOp {
    /// Streams that kernels have room for.
    pub const MAX_STREAMS: usize = 8;

    /// Kinds of coefficients in a row of `width` projections: 3, or 1 where the row has those of read alone.
    pub(super) fn parts(&self, width: usize) -> Option<usize> {
        let n = self.streams;
        let fits = (1..=Self::MAX_STREAMS).contains(&n) && self.iterations > 0;
        match width {
            _ if !fits => None,
            w if w == n => Some(1),
            w if w == n * (n + 2) => Some(3),
            _ => None,
        }
    }
}
