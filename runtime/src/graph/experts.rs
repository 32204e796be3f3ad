//! The ops of mixtures of experts.

use super::op::WeightId;

/// How a mixture of experts chooses, and what the chosen ones weigh: for each row the `k` experts with the best scores.
#[derive(Clone, Debug)]
pub struct RouteOp {
    /// Experts: the width of the logits.
    pub n_experts: usize,
    /// Experts chosen.
    pub k: usize,
    /// From logits to scores.
    pub score: RouteScore,
    /// `[n_experts]`, added to the scores for the choice alone.
    pub bias: Option<WeightId>,
    /// Only experts of the best groups are chosen.
    pub groups: Option<RouteGroups>,
    /// `[vocabulary * k]` whole numbers: the experts of each token id, which are chosen instead of the best.
    pub table: Option<WeightId>,
    /// From scores to weights.
    pub weight: RouteWeight,
    /// Weights are divided by this plus their sum.
    pub renormalise: Option<f32>,
    /// Factor on every weight.
    pub scale: f32,
    /// `[n_experts]`, a factor on the weight of each expert.
    pub expert_scale: Option<WeightId>,
}

impl RouteOp {
    /// The best `k` of `n_experts` by softmax; each weighs its probability.
    pub fn softmax(n_experts: usize, k: usize) -> Self {
        Self {
            n_experts,
            k,
            score: RouteScore::Softmax,
            bias: None,
            groups: None,
            table: None,
            weight: RouteWeight::Score,
            renormalise: None,
            scale: 1.0,
            expert_scale: None,
        }
    }
}

/// Scores of experts.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum RouteScore {
    /// Softmax over all experts.
    Softmax,
    /// Logistic function of each logit.
    Sigmoid,
    /// `sqrt(ln(1 + e^logit))`.
    SqrtSoftplus,
    /// The logits.
    Raw,
    /// The logits; experts are chosen one after the other, and each weighs its softmax among those left whose logit s is
    /// within `(m - s) / max(|s|, m) <= 2 jitter` of the best one left, m (Phi-3.5-MoE).
    SparseMixer {
        /// Bound on the relative distance.
        jitter: f32,
    },
}

/// Weights of chosen experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RouteWeight {
    /// The score, without the bias of the choice.
    Score,
    /// Softmax of the scores of the chosen ones.
    Softmax,
    /// Logistic function of the score.
    Sigmoid,
}

/// Experts in groups of equal size, of which the best ones take part in the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteGroups {
    /// Groups.
    pub n: usize,
    /// Groups that take part.
    pub keep: usize,
    /// Score of a group.
    pub score: GroupScore,
}

/// Score by which groups of experts compete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum GroupScore {
    /// Its best expert.
    Best,
    /// The sum of its best two.
    BestTwo,
}

/// Linears of a mixture of experts: each row is multiplied by the experts chosen for it.
#[derive(Clone, Debug)]
pub struct ExpertLinearOp {
    /// By expert: `[out, in]` in any block format; `[in, out]` floats where `input_major`. All of one shape and format.
    pub experts: Vec<WeightId>,
    /// `[n_experts, out]`.
    pub bias: Option<WeightId>,
    /// Whether weights are stored with a row per input.
    pub input_major: bool,
    /// Whether `x W` is multiplied by the expert's weight in the route, before the bias.
    pub scaled: bool,
}

impl RouteOp {
    /// Checks the op against logits of `width`; the error says what does not fit.
    pub(super) fn check(&self, width: usize, weight_shape: impl Fn(WeightId) -> Vec<usize>) -> Result<(), String> {
        let (n, k) = (self.n_experts, self.k);
        if n != width {
            return Err(format!("{width} logits for {n} experts"));
        }
        // Experts' numbers are stored as f32 and must be exact.
        if k == 0 || k > n || n > 1 << 20 {
            return Err(format!("{k} of {n} experts"));
        }
        if let Some(g) = self.groups
            && (g.n == 0 || !n.is_multiple_of(g.n) || g.keep == 0 || g.keep > g.n || g.keep * (n / g.n) < k)
        {
            return Err(format!("{k} of {n} experts, in {} of {} groups", g.keep, g.n));
        }
        for (what, id) in [("bias", self.bias), ("scale", self.expert_scale)] {
            if let Some(shape) = id.map(&weight_shape)
                && shape != [n]
            {
                return Err(format!("{what} has shape {shape:?}, expected [{n}]"));
            }
        }
        match self.table.map(&weight_shape) {
            Some(shape) if shape.len() != 1 || shape[0] == 0 || !shape[0].is_multiple_of(k) => {
                Err(format!("table has shape {shape:?}, expected [vocabulary * {k}]"))
            }
            _ => Ok(()),
        }
    }
}

impl ExpertLinearOp {
    /// Elements that a chosen expert makes of rows of that width; the error says what does not fit.
    pub(super) fn check(
        &self,
        width: usize,
        k: usize,
        weight_shape: impl Fn(WeightId) -> Vec<usize>,
    ) -> Result<usize, String> {
        let shape = self.experts.first().map(|w| weight_shape(*w)).unwrap_or_default();
        let [mut out, mut inner] = shape[..] else {
            return Err(format!("{} experts of shape {shape:?}, expected [out, in]", self.experts.len()));
        };
        if let Some(other) = self.experts.iter().map(|w| weight_shape(*w)).find(|s| *s != shape) {
            return Err(format!("experts of shapes {shape:?} and {other:?}"));
        }
        if self.input_major {
            (out, inner) = (inner, out);
        }
        if inner != width && Some(width) != inner.checked_mul(k) {
            return Err(format!("experts of shape {shape:?} over a row of {width} for {k} of them"));
        }
        if let Some(bias) = self.bias.map(&weight_shape)
            && bias != [self.experts.len(), out]
        {
            return Err(format!("bias has shape {bias:?}, expected [{}, {out}]", self.experts.len()));
        }
        Ok(out)
    }
}
