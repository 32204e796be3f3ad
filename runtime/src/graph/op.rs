//! The op set with its shape rules.

use super::{
    attention::{AttentionOp, HeadLinearOp, PoolOp, SelectOp},
    error::GraphError,
    experts::{ExpertLinearOp, RouteOp},
    recurrent::{self, GatedDeltaOp, ShortConvOp},
    streams::{HyperOp, StreamOp},
};

/// Index of a value in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub u32);

/// Index of a weight tensor in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WeightId(pub u32);

/// Index of a rotation in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RopeId(pub u32);

/// Index of a key/value cache in its graph: each attention layer that writes has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CacheId(pub u32);

/// The rows that a value has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rows {
    /// One row per token of the step, over all sequences of the batch.
    Token,
    /// One row per token whose output was asked for.
    Output,
}

/// A value: `[rows, width]` f32.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Value {
    /// For messages and dumps.
    pub name: String,
    /// Whether it has a row per token or per output.
    pub rows: Rows,
    /// Elements of a row.
    pub width: usize,
}

/// The statistics of a normalisation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NormKind {
    /// `x / sqrt(mean(x²) + eps)`.
    Rms,
    /// `(x - mean) / sqrt(var + eps)`.
    Layer,
    /// `x` as it is: only scale and shift.
    None,
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

/// An activation `act(x)`, or a gated one `act(gate, up)`, which is `act(gate) * up` unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Act {
    /// `x * sigmoid(x)`.
    Silu,
    /// GELU in its tanh approximation.
    GeluTanh,
    /// `max(x, 0)`.
    Relu,
    /// `1 / (1 + e^-x)`.
    Sigmoid,
    /// `tanh(x)`.
    Tanh,
    /// Gated only: `(clamp(up, ±limit) + 1) * g * sigmoid(alpha * g)` with `g = min(gate, limit)` (gpt-oss).
    SwigluOss {
        /// Factor on the gate within the sigmoid.
        alpha: f32,
        /// Bound of the gate from above and of `up` from both sides.
        limit: f32,
    },
    /// Gated only: `silu(min(gate, limit)) * clamp(up, ±limit)` (DeepSeek-V4).
    SiluClamped {
        /// Bound of the gate from above and of `up` from both sides.
        limit: f32,
    },
}

impl Act {
    /// Name in dumps and in shaders.
    pub fn name(self) -> &'static str {
        match self {
            Act::Silu => "silu",
            Act::GeluTanh => "gelu_tanh",
            Act::Relu => "relu",
            Act::Sigmoid => "sigmoid",
            Act::Tanh => "tanh",
            Act::SwigluOss { .. } => "swiglu_oss",
            Act::SiluClamped { .. } => "silu_clamped",
        }
    }

    /// `(alpha, limit)` of the activations that have them; else 1 and infinity.
    pub fn parameters(self) -> (f32, f32) {
        match self {
            Act::SwigluOss { alpha, limit } => (alpha, limit),
            Act::SiluClamped { limit } => (1.0, limit),
            _ => (1.0, f32::INFINITY),
        }
    }

    /// Whether it needs a second input.
    pub fn gated_only(self) -> bool {
        matches!(self, Act::SwigluOss { .. } | Act::SiluClamped { .. })
    }
}

/// A factor that grows with the token's position: `1 + beta * ln(1 + floor((position + offset) / length))`, the
/// "temperature" of Llama 4's, Ministral 3's and Mistral 4's queries.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PositionScale {
    /// Factor on the logarithm.
    pub beta: f32,
    /// Positions over which the factor stays the same; not 0.
    pub length: usize,
    /// Added to positions, which count from 0.
    pub offset: usize,
}

impl PositionScale {
    /// The factor at `position`.
    pub fn factor(&self, position: usize) -> f32 {
        let steps = (position + self.offset) / self.length.max(1);
        (1.0 + f64::from(self.beta) * (steps as f64).ln_1p()) as f32
    }
}

/// Index of a per-sequence state in its graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StateId(pub u32);

/// A layer's memory of a sequence beside keys and values, of the same size at every length: f32 elements that are zero
/// before the sequence's first token. It cannot be rolled back as keys can; the documentation of `step` says what is
/// done instead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StateSpec {
    /// Elements.
    pub elements: usize,
    /// Whether every step with tokens of the sequence writes all elements. Kernels then read the state in one slot and
    /// write it to another. Otherwise the backend first copies it where the slots differ, and kernels work in place.
    pub rewritten: bool,
}

/// An op. Inputs and outputs are `[rows, width]` values.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Op {
    /// Rows of `table` (`[vocab, width]`) by token id, times `scale`.
    Embed {
        /// The embedding table.
        table: WeightId,
        /// Factor on every element.
        scale: f32,
        /// Whether ids that the table does not have look up its first row, instead of being refused.
        or_first: bool,
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
    /// Each head of the input times its own matrix.
    HeadLinear(HeadLinearOp),
    /// Rotates each of `n_heads` heads of `head_dim` elements by the token's position.
    Rope {
        /// The rotation.
        rope: RopeId,
        /// Heads in a row.
        n_heads: usize,
        /// Elements of a head.
        head_dim: usize,
    },
    /// Chooses keys to attend to; inputs index queries, index keys and the weights of the heads. The output has `k`
    /// positions a token, in ascending order, then -1 where it sees fewer.
    SelectKeys(SelectOp),
    /// Blocks of tokens, each pooled into one row; inputs x and gates.
    Pool(PoolOp),
    /// Attention. Inputs, in this order, where they exist: q; k, unless the cache is another layer's; v, unless values
    /// are parts of keys; the keys of blocks; the chosen keys.
    Attention(AttentionOp),
    /// Convolution over a few tokens, with a state.
    ShortConv(ShortConvOp),
    /// The gated delta rule, with a state; inputs q‖k‖v, b, a.
    GatedDelta(GatedDeltaOp),
    /// `act(gate, up)`; inputs gate, up.
    GatedAct {
        /// The activation.
        act: Act,
    },
    /// `act(x)`.
    Act {
        /// The activation, none of the gated-only ones.
        act: Act,
    },
    /// Sum of two values.
    Add,
    /// Streams side by side, with a second value.
    Streams(StreamOp),
    /// Coefficients of hyper-connections from projections of the streams.
    Hyper(HyperOp),
    /// `max(x - (mean(x) + deviations * std(x)), 0)` with the row's own statistics (Gemma 3n).
    Sparsify {
        /// Standard deviations above the mean that an element must exceed.
        deviations: f32,
    },
    /// Product of two values. The second may be narrower: each of its elements then multiplies as many consecutive
    /// elements of the first as fit, so that `[rows, heads]` gates `[rows, heads * n]` and `[rows, 1]` a whole row.
    Mul,
    /// Of every `period` consecutive elements, those from `offset` to `offset + len`.
    Columns {
        /// Elements from one group to the next; divides the width.
        period: usize,
        /// First element kept of a group.
        offset: usize,
        /// Elements kept of a group.
        len: usize,
    },
    /// Two values group by group: `a` elements of the first, then `b` of the second, and so on.
    Join {
        /// Elements of a group of the first input; divides its width.
        a: usize,
        /// Elements of a group of the second input; divides its width, as often.
        b: usize,
    },
    /// Times a factor that depends on the token's position.
    PositionScale(PositionScale),
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
    /// Linears by experts; inputs x and a route of k experts. A row of x has `in` elements for all of them, or `k * in`
    /// elements, `in` for each in turn; a row of the output has `k * out` elements.
    ExpertLinear(ExpertLinearOp),
    /// Sum over the experts of a route; inputs y, whose rows have k parts of equal length, one for each expert, and the
    /// route.
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
            Op::HeadLinear(_) => "head_linear",
            Op::SelectKeys(_) => "select_keys",
            Op::Pool(_) => "pool",
            Op::Rope { .. } => "rope",
            Op::Attention(_) => "attention",
            Op::ShortConv(_) => "short_conv",
            Op::GatedDelta(_) => "gated_delta",
            Op::GatedAct { .. } => "gated_act",
            Op::Act { .. } => "act",
            Op::Add => "add",
            Op::Mul => "mul",
            Op::Streams(_) => "streams",
            Op::Hyper(_) => "hyper",
            Op::Sparsify { .. } => "sparsify",
            Op::Columns { .. } => "columns",
            Op::Join { .. } => "join",
            Op::PositionScale(_) => "position_scale",
            Op::Scale { .. } => "scale",
            Op::Softcap { .. } => "softcap",
            Op::Route(_) => "route",
            Op::ExpertLinear(_) => "expert_linear",
            Op::ExpertSum { .. } => "expert_sum",
            Op::SelectOutputs => "select_outputs",
        }
    }

    /// Rows and width of the output; the error says what is wrong with the inputs. `weight_shape` gives the shape of a
    /// weight, `states` the specs of the graph's states.
    pub(super) fn output_shape(
        &self,
        name: &str,
        inputs: &[&Value],
        weight_shape: impl Fn(WeightId) -> Vec<usize>,
        states: &[StateSpec],
    ) -> Result<(Rows, usize), GraphError> {
        let err = |what: String| GraphError::Shape { op: self.kind(), name: name.to_owned(), what };
        let fail = |what: String| Err(err(what));
        let arity = match self {
            Op::Embed { .. } => 0,
            Op::Attention(a) if a.shared => 1,
            Op::Attention(a) => {
                3 - usize::from(a.v_in_k) + usize::from(a.blocks.is_some()) + usize::from(a.selected.is_some())
            }
            Op::SelectKeys(_) | Op::GatedDelta(_) => 3,
            Op::Streams(_) | Op::Pool(_) => 2,
            Op::GatedAct { .. } | Op::Add | Op::Mul | Op::Join { .. } | Op::ExpertLinear(_) | Op::ExpertSum { .. } => 2,
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
        let rewritten = |id: StateId| states.get(id.0 as usize).filter(|s| s.rewritten).map(|s| s.elements);
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
            Op::SelectKeys(s) => {
                let widths = [s.n_heads.checked_mul(s.head_dim), Some(s.head_dim), Some(s.n_heads)];
                if let Some((x, want)) = inputs.iter().zip(widths).find(|(x, want)| Some(x.width) != *want) {
                    return fail(format!("`{}` is {} wide, expected {want:?}", x.name, x.width));
                }
                if s.k == 0 || s.head_dim == 0 || inputs[0].rows != Rows::Token {
                    return fail(format!("{} keys by heads of {}", s.k, s.head_dim));
                }
                Ok((Rows::Token, s.k))
            }
            Op::HeadLinear(h) => {
                let shape = weight_shape(h.weight);
                let rows = shape.split_last().map_or(0, |(_, outer)| outer.iter().product());
                let fits = h.heads.checked_mul(h.period) == Some(rows)
                    && h.first.checked_add(h.rows()).is_some_and(|end| end <= h.period)
                    && shape.last() == Some(&h.row_len());
                if !fits || shape.len() < 2 {
                    return fail(format!(
                        "weight has shape {shape:?}, expected {} matrices of {} rows of {}",
                        h.heads,
                        h.rows(),
                        h.row_len()
                    ));
                }
                if h.heads.checked_mul(h.input) != Some(inputs[0].width) {
                    return fail(format!("{} heads of {} are not a row of {}", h.heads, h.input, inputs[0].width));
                }
                Ok((inputs[0].rows, h.heads * h.output))
            }
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
                if a.v_in_k && (a.v_dim > a.head_dim || a.rotate_on_read.is_some()) {
                    return fail(format!("values of {} elements in keys of {} that turn", a.v_dim, a.head_dim));
                }
                let key = a.n_kv_heads * a.head_dim;
                // The keys of blocks are the third input in place of values.
                let third = if a.blocks.is_some() { key } else { a.n_kv_heads * a.v_dim };
                let widths = [a.n_heads * a.head_dim, key, third];
                let listed = a.blocks.is_some() || a.selected.is_some();
                if listed && (a.rotate_on_read.is_some() || a.chunk.is_some() || a.shared) {
                    return fail("keys of blocks, or chosen ones, in chunks, shared or turned late".to_owned());
                }
                if a.blocks.is_some() && !a.v_in_k {
                    return fail("keys of blocks without values in them".to_owned());
                }
                if let (Some(k), Some(x)) = (a.selected, inputs.last())
                    && (x.width != k || (a.window.is_some() && a.blocks.is_none()))
                {
                    return fail(format!("`{}` is {} wide, and {k} keys are chosen of all", x.name, x.width));
                }
                let rows = 3 - usize::from(a.v_in_k && a.blocks.is_none());
                for (x, want) in inputs.iter().zip(widths).take(rows) {
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
            Op::Pool(pool) => {
                let channels = pool.channels();
                if let Some(x) = inputs.iter().find(|x| x.width != channels || x.rows != Rows::Token) {
                    return fail(format!("`{}` is {} wide, expected {channels} for each token", x.name, x.width));
                }
                if pool.block == 0 || channels == 0 {
                    return fail(format!("blocks of {} tokens of {channels} channels", pool.block));
                }
                let expected = pool.block.saturating_mul(channels);
                vector(Some(pool.bias), expected, "bias")?;
                Ok((Rows::Token, pool.width))
            }
            Op::ShortConv(op) => {
                recurrent::short_conv_shape(op, inputs[0], rewritten(op.state), &weight_shape(op.weight), fail)
            }
            Op::GatedDelta(op) => {
                let vectors = [op.decay, op.dt_bias].map(&weight_shape);
                recurrent::gated_delta_shape(op, inputs, rewritten(op.state), [&vectors[0], &vectors[1]], fail)
            }
            Op::Streams(op) => {
                let widths = [inputs[0].width, inputs[1].width];
                match op.width(widths) {
                    Some(width) => Ok((inputs[0].rows, width)),
                    None => fail(format!("{} of widths {} and {}", op.name(), widths[0], widths[1])),
                }
            }
            Op::Hyper(op) => {
                let width = inputs[0].width;
                let Some(parts) = op.parts(width) else {
                    return fail(format!("{width} projections of {} streams, {} turns", op.streams, op.iterations));
                };
                vector(Some(op.scale), parts, "scale")?;
                vector(Some(op.base), width, "base")?;
                Ok((inputs[0].rows, width))
            }
            Op::GatedAct { .. } | Op::Add => {
                if inputs[0].width != inputs[1].width {
                    return fail(format!("widths {} and {}", inputs[0].width, inputs[1].width));
                }
                if let Op::GatedAct { act } = self
                    && act.gated_only()
                    && !(act.parameters().0.is_finite() && act.parameters().1.is_finite() && act.parameters().1 > 0.0)
                {
                    return fail(format!("{act:?} is no activation"));
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Act { act } => {
                if act.gated_only() {
                    return fail(format!("{} needs a second input", act.name()));
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Mul => {
                if inputs[1].width == 0 || !inputs[0].width.is_multiple_of(inputs[1].width) {
                    return fail(format!("{} elements do not gate {} alike", inputs[1].width, inputs[0].width));
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Columns { period, offset, len } => {
                let width = inputs[0].width;
                let fits = offset.checked_add(*len).is_some_and(|end| end <= *period);
                if *len == 0 || !fits || !width.is_multiple_of(*period) {
                    return fail(format!("{len} elements from {offset} on of every {period} of a row of {width}"));
                }
                Ok((inputs[0].rows, width / period * len))
            }
            Op::Join { a, b } => {
                let [x, y] = [inputs[0].width, inputs[1].width];
                if *a == 0 || *b == 0 || !x.is_multiple_of(*a) || !y.is_multiple_of(*b) || x / a != y / b {
                    return fail(format!("groups of {a} and {b} out of rows of {x} and {y}"));
                }
                Ok((inputs[0].rows, x + y))
            }
            Op::PositionScale(scale) => {
                if scale.length == 0 {
                    return fail("a length of 0".to_owned());
                }
                Ok((inputs[0].rows, inputs[0].width))
            }
            Op::Scale { .. } | Op::Softcap { .. } | Op::Sparsify { .. } => Ok((inputs[0].rows, inputs[0].width)),
            Op::Route(route) => {
                route.check(inputs[0].width, &weight_shape).map_err(&err)?;
                Ok((inputs[0].rows, 2 * route.k))
            }
            Op::ExpertLinear(experts) => {
                let (x, k) = (inputs[0], inputs[1].width / 2);
                let out = experts.check(x.width, k, &weight_shape).map_err(&err)?;
                if !inputs[1].width.is_multiple_of(2) || k == 0 {
                    return fail(format!("`{}` of {} elements is no route", inputs[1].name, inputs[1].width));
                }
                Ok((x.rows, k * out))
            }
            Op::ExpertSum { .. } => {
                let (y, k) = (inputs[0], inputs[1].width / 2);
                if !inputs[1].width.is_multiple_of(2) || k == 0 || !y.width.is_multiple_of(k) {
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
