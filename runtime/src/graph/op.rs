//! The op set with its shape rules.

use super::error::GraphError;

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index of a weight tensor in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Index of a way of rotating in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub u32);

/// Index of a key/value cache (one an attention layer that writes) in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub u32);

/// What the rows of a value stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row per token of the step, over all sequences of the batch.
    Token,
    /// One row per token whose output was asked for.
    Output,
}

/// A value: `[rows, width]` f32.
#[derive(Clone, Debug)]
pub struct Value {
    /// For messages and dumps.
    pub name: String,
    /// What a row stands for.
    pub rows: Rows,
    /// Elements of a row.
    pub width: usize,
}

/// Which normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)`.
    Rms,
    /// `(x - mean) / sqrt(var + eps)`.
    Layer,
}

/// Normalisation of each group of `group` consecutive elements, times `weight + weight_offset`, plus `bias`.
#[derive(Clone, Debug)]
pub struct NormOp {
    /// Which statistics.
    pub kind: NormKind,
    /// `[group]` scale; none means 1.
    pub weight: Option<WeightId>,
    /// Added to the scale: 1 for Gemma's and Qwen3-Next's safetensors, else 0.
    pub weight_offset: f32,
    /// `[group]` shift.
    pub bias: Option<WeightId>,
    /// Added to the mean square (or variance).
    pub eps: f32,
    /// Elements over which the statistics run: the row's width, or a head's.
    pub group: usize,
}

/// Activation of a gated feed-forward: `act(gate) * up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh approximation.
    GeluTanh,
}

/// Geometry of the keys and values that a layer caches, and how long it needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CacheSpec {
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a key.
    pub head_dim: usize,
    /// Elements of a value.
    pub v_dim: usize,
    /// Keys at or below `position - window` are never read again.
    pub window: Option<usize>,
}

/// Causal attention of `q` over the cached keys and values, after appending this step's `k` and `v`.
#[derive(Clone, Debug)]
pub struct AttentionOp {
    /// The cache that `k` and `v` are appended to and read from.
    pub cache: CacheId,
    /// Query heads; each group of `n_heads / n_kv_heads` shares a key/value head.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a query or key.
    pub head_dim: usize,
    /// Elements of a value.
    pub v_dim: usize,
    /// Factor on `q · k`.
    pub scale: f32,
    /// `cap * tanh(score / cap)` before the mask.
    pub softcap: Option<f32>,
    /// Sliding window: key `k` is visible to query `q` iff `k > q - window`.
    pub window: Option<usize>,
    /// Chunked attention: key `k` is visible to query `q` iff `k / chunk == q / chunk`.
    pub chunk: Option<usize>,
    /// `[n_heads]` logits that join the softmax's denominator.
    pub sinks: Option<WeightId>,
    /// Set where cached keys are un-rotated and turn when they are read.
    pub rotate_on_read: Option<RopeId>,
}

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
    /// The best `k` of `n_experts` by softmax, which weigh what their probabilities are.
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
    /// What a group is judged by.
    pub score: GroupScore,
}

/// What a group of experts is judged by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GroupScore {
    /// Its best expert.
    Best,
    /// The sum of its best two.
    BestTwo,
}

/// Linears of a mixture of experts: of each row, by those that were chosen for it.
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

/// An op. Inputs and outputs are `[rows, width]` values.
#[derive(Clone, Debug)]
pub enum Op {
    /// Rows of `table` (`[vocab, width]`) by token id, times `scale`.
    Embed {
        /// The embedding table.
        table: WeightId,
        /// Factor on every element.
        scale: f32,
    },
    /// Normalisation by groups.
    Norm(NormOp),
    /// `x Wᵀ + b` with `weight` `[out, in]`, in any block format.
    Linear {
        /// `[out, in]`.
        weight: WeightId,
        /// `[out]`.
        bias: Option<WeightId>,
    },
    /// Rotates each of `n_heads` heads of `head_dim` elements by the token's position.
    Rope {
        /// How.
        rope: RopeId,
        /// Heads in a row.
        n_heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// Attention; inputs q, k, v.
    Attention(AttentionOp),
    /// `act(gate) * up`; inputs gate, up.
    GatedAct {
        /// The activation.
        act: Act,
    },
    /// Sum of two values.
    Add,
    /// Times a constant.
    Scale {
        /// The constant.
        factor: f32,
    },
    /// `cap * tanh(x / cap)`.
    Softcap {
        /// The bound.
        cap: f32,
    },
    /// Chooses experts by their logits; see [`RouteOp`]. A row of the output is the `k` experts' numbers, best first, then
    /// their `k` weights.
    Route(RouteOp),
    /// Linears by experts; inputs x and a route of k experts. x has one row of `in` elements for all of them, or one after
    /// the other for each; the output has a row of `out` elements for each.
    ExpertLinear(ExpertLinearOp),
    /// Sum over the experts of a route; inputs y, one row after the other for each of k experts, and the route.
    ExpertSum {
        /// Whether rows are multiplied by the weights of the route.
        weighted: bool,
    },
    /// Keeps the rows whose output was asked for.
    SelectOutputs,
}

impl Op {
    /// The op's kind in dumps, errors and profiles.
    pub fn kind(&self) -> &'static str {
        match self {
            Op::Embed { .. } => "embed",
            Op::Norm(_) => "norm",
            Op::Linear { .. } => "linear",
            Op::Rope { .. } => "rope",
            Op::Attention(_) => "attention",
            Op::GatedAct { .. } => "gated_act",
            Op::Add => "add",
            Op::Scale { .. } => "scale",
            Op::Softcap { .. } => "softcap",
            Op::Route(_) => "route",
            Op::ExpertLinear(_) => "expert_linear",
            Op::ExpertSum { .. } => "expert_sum",
            Op::SelectOutputs => "select_outputs",
        }
    }

    /// Rows and width of the output, or what is wrong with the inputs. `weight_shape` gives the shape of a weight.
    pub(super) fn output_shape(
        &self,
        name: &str,
        inputs: &[&Value],
        weight_shape: impl Fn(WeightId) -> Vec<usize>,
    ) -> Result<(Rows, usize), GraphError> {
        let err = |what: String| GraphError::Shape { op: self.kind(), name: name.to_owned(), what };
        let fail = |what: String| Err(err(what));
        let arity = match self {
            Op::Embed { .. } => 0,
            Op::Attention(_) => 3,
            Op::GatedAct { .. } | Op::Add | Op::ExpertLinear(_) | Op::ExpertSum { .. } => 2,
            _ => 1,
        };
        if inputs.len() != arity {
            return fail(format!("needs {arity} inputs, got {}", inputs.len()));
        }
        if let [a, rest @ ..] = inputs
            && let Some(b) = rest.iter().find(|b| b.rows != a.rows)
        {
            return fail(format!("inputs `{}` and `{}` have rows of different kinds", a.name, b.name));
        }
        let vector = |id: Option<WeightId>, n: usize, what: &str| match id.map(&weight_shape) {
            Some(s) if s.iter().product::<usize>() != n => Err(GraphError::Shape {
                op: self.kind(),
                name: name.to_owned(),
                what: format!("{what} has shape {s:?}, expected [{n}]"),
            }),
            _ => Ok(()),
        };
        match self {
            Op::Embed { table, .. } => match weight_shape(*table)[..] {
                [_, width] => Ok((Rows::Token, width)),
                ref s => fail(format!("table has shape {s:?}, expected [vocab, width]")),
            },
            Op::Norm(norm) => {
                let x = inputs[0];
                if norm.group == 0 || !x.width.is_multiple_of(norm.group) {
                    return fail(format!("groups of {} do not divide a row of {}", norm.group, x.width));
                }
                vector(norm.weight, norm.group, "weight")?;
                vector(norm.bias, norm.group, "bias")?;
                Ok((x.rows, x.width))
            }
            Op::Linear { weight, bias } => match weight_shape(*weight)[..] {
                [out, k] if k == inputs[0].width => {
                    vector(*bias, out, "bias")?;
                    Ok((inputs[0].rows, out))
                }
                ref s => fail(format!("weight has shape {s:?}, expected [out, {}]", inputs[0].width)),
            },
            Op::Rope { n_heads, head_dim, .. } => {
                if n_heads * head_dim != inputs[0].width {
                    return fail(format!("{n_heads} heads of {head_dim} are not a row of {}", inputs[0].width));
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Attention(a) => {
                if a.n_kv_heads == 0 || !a.n_heads.is_multiple_of(a.n_kv_heads) {
                    return fail(format!("{} query heads over {} key/value heads", a.n_heads, a.n_kv_heads));
                }
                let widths = [a.n_heads * a.head_dim, a.n_kv_heads * a.head_dim, a.n_kv_heads * a.v_dim];
                for (x, want) in inputs.iter().zip(widths) {
                    if x.width != want {
                        return fail(format!("`{}` is {} wide, expected {want}", x.name, x.width));
                    }
                    if x.rows != Rows::Token {
                        return fail(format!("`{}` has a row per output, expected one per token", x.name));
                    }
                }
                vector(a.sinks, a.n_heads, "sinks")?;
                Ok((Rows::Token, a.n_heads * a.v_dim))
            }
            Op::GatedAct { .. } | Op::Add => {
                if inputs[0].width != inputs[1].width {
                    return fail(format!("widths {} and {}", inputs[0].width, inputs[1].width));
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Scale { .. } | Op::Softcap { .. } => Ok((inputs[0].rows, inputs[0].width)),
            Op::Route(route) => {
                route.check(inputs[0].width, &weight_shape).map_err(&err)?;
                Ok((inputs[0].rows, 2 * route.k))
            }
            Op::ExpertLinear(experts) => {
                let (x, k) = (inputs[0], inputs[1].width / 2);
                let out = experts.check(x.width, k, &weight_shape).map_err(&err)?;
                if inputs[1].width % 2 != 0 || k == 0 {
                    return fail(format!("`{}` of {} elements is no route", inputs[1].name, inputs[1].width));
                }
                Ok((x.rows, k * out))
            }
            Op::ExpertSum { .. } => {
                let (y, k) = (inputs[0], inputs[1].width / 2);
                if inputs[1].width % 2 != 0 || k == 0 || !y.width.is_multiple_of(k) {
                    return fail(format!("a row of {} over a route of {}", y.width, inputs[1].width));
                }
                Ok((y.rows, y.width / k))
            }
            Op::SelectOutputs => {
                if inputs[0].rows != Rows::Token {
                    return fail("the input already has a row per output".to_owned());
                }
                Ok((Rows::Output, inputs[0].width))
            }
        }
    }
}

impl RouteOp {
    /// What does not fit logits of that width.
    fn check(&self, width: usize, weight_shape: impl Fn(WeightId) -> Vec<usize>) -> Result<(), String> {
        let (n, k) = (self.n_experts, self.k);
        if n != width {
            return Err(format!("{width} logits for {n} experts"));
        }
        // Experts' numbers must be exact as f32.
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
    /// Elements that a chosen expert makes of rows of that width, or what does not fit.
    fn check(&self, width: usize, k: usize, weight_shape: impl Fn(WeightId) -> Vec<usize>) -> Result<usize, String> {
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
