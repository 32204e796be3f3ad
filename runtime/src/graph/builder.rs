//! A graph, and the builder that checks every op's shapes as it is added.

use crate::graph::experts::{ExpertLinearOp, RouteOp};
use std::collections::HashMap;

use super::{
    attention::{AttentionOp, CacheSpec, HeadLinearOp, PoolOp},
    error::GraphError,
    op::{Act, CacheId, NormOp, Op, RopeId, StateId, StateSpec, Value, ValueId, WeightId},
    recurrent::{GatedDeltaOp, ShortConvOp},
    rope::{RopeFreqs, RopeSpec},
    streams::StreamOp,
};
use crate::format::Tensor;

/// One op with its inputs and its output.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Node {
    /// Name for messages, dumps and profiles, as `layer.3.attention.q`.
    pub name: String,
    /// The op.
    pub op: Op,
    /// Values read, in the order that the op documents.
    pub inputs: Vec<ValueId>,
    /// Value written.
    pub output: ValueId,
    /// The layer that it was added in ([`GraphBuilder::layer`]), if any.
    pub layer: Option<usize>,
}

/// A named weight.
#[derive(Clone, Debug)]
pub(crate) struct Weight {
    pub name: String,
    pub tensor: Tensor,
}

/// Ops over values, weights and caches; [`GraphBuilder`] makes it.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    pub(crate) values: Vec<Value>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) weights: Vec<Weight>,
    pub(crate) ropes: Vec<RopeSpec>,
    pub(crate) caches: Vec<CacheSpec>,
    pub(crate) states: Vec<StateSpec>,
    pub(crate) output: Option<ValueId>,
    pub(crate) head: Option<WeightId>,
    pub(crate) hidden: Option<ValueId>,
}

impl Graph {
    /// The ops in execution order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// A value's name and shape.
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0 as usize]
    }

    /// A weight's tensor.
    pub fn weight(&self, id: WeightId) -> &Tensor {
        &self.weights[id.0 as usize].tensor
    }

    /// A weight's name in its file.
    pub fn weight_name(&self, id: WeightId) -> &str {
        &self.weights[id.0 as usize].name
    }

    /// All weights with their names.
    pub fn weights(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.weights.iter().map(|w| (w.name.as_str(), &w.tensor))
    }

    /// Layers: one more than the highest number of a node's.
    pub fn n_layers(&self) -> usize {
        self.nodes.iter().filter_map(|n| n.layer).max().map_or(0, |last| last + 1)
    }

    /// The matrix `[scores, width]` of the head ([`GraphBuilder::head`]); none where the graph has no head.
    pub fn head(&self) -> Option<WeightId> {
        self.head
    }

    /// What the head reads: the hidden state behind the last norm; none where the graph has no head.
    pub fn hidden(&self) -> Option<ValueId> {
        self.hidden
    }

    /// For each weight whether kernels want it as a vector of f32: all weights but matrices of a linear or an
    /// embedding.
    pub(crate) fn vectors(&self) -> Vec<bool> {
        let mut vectors: Vec<bool> = self.weights.iter().map(|w| w.tensor.shape().len() == 1).collect();
        for node in &self.nodes {
            match &node.op {
                Op::ExpertLinear(ExpertLinearOp { bias: Some(bias), .. }) | Op::Pool(PoolOp { bias, .. }) => {
                    vectors[bias.0 as usize] = true;
                }
                _ => {}
            }
        }
        vectors
    }

    /// The rotations, in the order of their [`RopeId`]s.
    pub fn ropes(&self) -> &[RopeSpec] {
        &self.ropes
    }

    /// The caches, in the order of their [`CacheId`]s.
    pub fn caches(&self) -> &[CacheSpec] {
        &self.caches
    }

    /// The states of a sequence, in the order of their [`StateId`]s.
    pub fn states(&self) -> &[StateSpec] {
        &self.states
    }

    /// Bytes of weights that one decoded token reads: every weight of a linear, norm or attention once, the experts chosen,
    /// and one row of each embedding table.
    pub fn bytes_per_token(&self) -> u64 {
        let mut read = vec![false; self.weights.len()];
        let mut rows = 0u64;
        for node in &self.nodes {
            let mut mark = |id: &Option<WeightId>| {
                if let Some(id) = id {
                    read[id.0 as usize] = true;
                }
            };
            match &node.op {
                Op::Embed { table, .. } => rows += self.weight(*table).row_bytes() as u64,
                Op::Norm(n) => [n.weight, n.bias].iter().for_each(mark),
                Op::Linear { weight, bias } => [Some(*weight), *bias].iter().for_each(mark),
                Op::HeadLinear(h) => rows += self.head_linear_bytes(h),
                Op::SelectKeys(_) => {}
                Op::Pool(p) => mark(&Some(p.bias)),
                Op::Hyper(h) => [Some(h.scale), Some(h.base)].iter().for_each(mark),
                Op::Attention(a) => mark(&a.sinks),
                Op::ShortConv(c) => mark(&Some(c.weight)),
                Op::GatedDelta(d) => [Some(d.decay), Some(d.dt_bias)].iter().for_each(mark),
                Op::Route(r) => [r.bias, r.expert_scale].iter().for_each(mark),
                Op::ExpertLinear(e) => {
                    // All experts are of one size, so the count of the chosen ones is enough.
                    let k = self.value(node.inputs[1]).width / 2;
                    let bytes = e.experts.first().map_or(0, |w| self.weight(*w).stored_bytes());
                    rows += (bytes * k.min(e.experts.len())) as u64;
                }
                Op::Rope { .. } | Op::GatedAct { .. } | Op::Act { .. } | Op::Add | Op::Mul => {}
                Op::Streams(_) | Op::Sparsify { .. } => {}
                Op::Columns { .. } | Op::Join { .. } | Op::PositionScale(_) | Op::ExpertSum { .. } => {}
                Op::Scale { .. } | Op::Softcap { .. } | Op::SelectOutputs => {}
            }
        }
        let whole = self.weights.iter().zip(read).filter(|(_, r)| *r).map(|(w, _)| w.tensor.stored_bytes() as u64);
        whole.sum::<u64>() + rows
    }

    /// Bytes of the matrices of a head linear.
    fn head_linear_bytes(&self, h: &HeadLinearOp) -> u64 {
        (h.heads * h.rows()) as u64 * self.weight(h.weight).row_bytes() as u64
    }

    /// Floating-point operations of the linears for one token (2 for each weight).
    pub fn linear_flops_per_token(&self) -> u64 {
        let size = |w: WeightId| self.weight(w).shape().iter().product::<usize>() as u64 * 2;
        let weight = |n: &Node| match &n.op {
            Op::Linear { weight, .. } => size(*weight),
            Op::HeadLinear(h) => (h.heads * h.input * h.output) as u64 * 2,
            Op::ExpertLinear(e) => {
                let k = self.value(n.inputs[1]).width / 2;
                e.experts.first().map_or(0, |w| size(*w)) * k as u64
            }
            _ => 0,
        };
        self.nodes.iter().map(weight).sum()
    }
}

/// Builds a [`Graph`] op by op. Methods return the value that the op makes.
#[derive(Debug, Default)]
pub struct GraphBuilder {
    graph: Graph,
    scope: Vec<String>,
    layer: Option<usize>,
    /// Weights by name: models with many experts have tens of thousands.
    by_name: HashMap<String, WeightId>,
}

impl GraphBuilder {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    /// The graph so far.
    pub fn graph(&self) -> &Graph {
        &self.graph
    }

    /// Adds `name.` before the names of all that `body` adds.
    pub fn scoped<T>(&mut self, name: impl Into<String>, body: impl FnOnce(&mut Self) -> T) -> T {
        self.scope.push(name.into());
        let result = body(self);
        self.scope.pop();
        result
    }

    /// Adds the nodes of `body` as layer `index`, with `layer.index.` before their names. Plans are placed by layers.
    pub fn layer<T>(&mut self, index: usize, body: impl FnOnce(&mut Self) -> T) -> T {
        let outer = self.layer.replace(index);
        let result = self.scoped(format!("layer.{index}"), body);
        self.layer = outer;
        result
    }

    /// Adds a weight, or finds the one of that name.
    pub fn weight(&mut self, name: &str, tensor: Tensor) -> WeightId {
        if let Some(id) = self.by_name.get(name) {
            return *id;
        }
        let id = WeightId(self.graph.weights.len() as u32);
        self.graph.weights.push(Weight { name: name.to_owned(), tensor });
        self.by_name.insert(name.to_owned(), id);
        id
    }

    /// Adds a rotation; equal ones are shared.
    pub fn rope_spec(&mut self, spec: RopeSpec) -> RopeId {
        if let Some(i) = self.graph.ropes.iter().position(|r| *r == spec) {
            return RopeId(i as u32);
        }
        self.graph.ropes.push(spec);
        RopeId(self.graph.ropes.len() as u32 - 1)
    }

    /// Adds a key/value cache.
    pub fn cache(&mut self, spec: CacheSpec) -> CacheId {
        self.graph.caches.push(spec);
        CacheId(self.graph.caches.len() as u32 - 1)
    }

    /// Adds a per-sequence state.
    pub fn state(&mut self, spec: StateSpec) -> StateId {
        self.graph.states.push(spec);
        StateId(self.graph.states.len() as u32 - 1)
    }

    /// Adds an op.
    pub fn op(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<ValueId, GraphError> {
        let name = self.scope.iter().map(String::as_str).chain([name]).collect::<Vec<_>>().join(".");
        let shapes: Vec<&Value> = inputs.iter().map(|i| &self.graph.values[i.0 as usize]).collect();
        let (rows, width) =
            op.output_shape(&name, &shapes, |w| self.graph.weight(w).shape().to_vec(), &self.graph.states)?;
        if let Op::Embed { table, .. } = op
            && self.graph.weight(table).scales().is_some()
        {
            let what = format!(
                "the scales of `{}` lie apart from it, and look-ups do not know them",
                self.graph.weight_name(table)
            );
            return Err(GraphError::Shape { op: op.kind(), name, what });
        }
        self.check_rope(&name, &op)?;
        self.check_cache(&name, &op)?;
        let output = ValueId(self.graph.values.len() as u32);
        self.graph.values.push(Value { name: name.clone(), rows, width });
        self.graph.nodes.push(Node { name, op, inputs: inputs.to_vec(), output, layer: self.layer });
        Ok(output)
    }

    /// The op's cache must exist and hold keys and values of the op's length.
    fn check_cache(&self, name: &str, op: &Op) -> Result<(), GraphError> {
        let cached = |c: &CacheSpec| [c.n_kv_heads, c.head_dim, c.stored_v_dim()];
        let found = |id: CacheId| self.graph.caches.get(id.0 as usize);
        let (wanted, caches) = match op {
            Op::Attention(a) => {
                let v_dim = if a.v_in_k { 0 } else { a.v_dim };
                ([a.n_kv_heads, a.head_dim, v_dim], [Some(a.cache), a.blocks])
            }
            Op::SelectKeys(s) => ([1, s.head_dim, 0], [Some(s.cache), None]),
            Op::Pool(p) => (cached(&p.cache_spec()), [Some(p.cache), None]),
            _ => return Ok(()),
        };
        for (i, id) in caches.into_iter().enumerate() {
            let Some(id) = id else { continue };
            let every = |c: &CacheSpec| c.every == 1 || (c.every > 1 && (i == 1 || matches!(op, Op::SelectKeys(_))));
            if !found(id).is_some_and(|c| cached(c) == wanted && every(c)) {
                let what = format!("has the cache {:?}, not one of {wanted:?}", found(id));
                return Err(GraphError::Shape { op: op.kind(), name: name.to_owned(), what });
            }
        }
        Ok(())
    }

    /// A rotation must fit the heads that it turns and have a speed for each pair.
    fn check_rope(&self, name: &str, op: &Op) -> Result<(), GraphError> {
        let (rope, head_dim) = match op {
            Op::Rope { rope, head_dim, .. } => (*rope, *head_dim),
            Op::Attention(AttentionOp { rotate_on_read: Some(rope), head_dim, .. }) => (*rope, *head_dim),
            _ => return Ok(()),
        };
        let spec = &self.graph.ropes[rope.0 as usize];
        let pairs = match &spec.freqs {
            RopeFreqs::Fixed(speeds) => speeds.len(),
            RopeFreqs::Dynamic { .. } => spec.rotary_dims / 2,
            RopeFreqs::ByLength { short, long, .. } if short.len() == long.len() => short.len(),
            RopeFreqs::ByLength { .. } => 0,
        };
        let end = spec.first_dim.checked_add(spec.rotary_dims);
        if end.is_none_or(|end| end > head_dim) || pairs * 2 != spec.rotary_dims {
            let dims = spec.rotary_dims;
            let what = format!("{pairs} pairs of {dims} dimensions from {} on in a head of {head_dim}", spec.first_dim);
            return Err(GraphError::Shape { op: op.kind(), name: name.to_owned(), what });
        }
        if matches!(op, Op::Attention(_)) && spec.first_dim != 0 {
            let what = "keys turn from their first dimension on where they turn when they are read".to_owned();
            return Err(GraphError::Shape { op: op.kind(), name: name.to_owned(), what });
        }
        Ok(())
    }

    /// Embedding rows by token id, times `scale`.
    ///
    /// # Errors
    /// A table that is not a matrix, or whose scales are a tensor of their own: look-ups apply no scales.
    pub fn embed(&mut self, name: &str, table: WeightId, scale: f32) -> Result<ValueId, GraphError> {
        self.op(name, Op::Embed { table, scale, or_first: false }, &[])
    }

    /// Normalisation.
    pub fn norm(&mut self, name: &str, x: ValueId, norm: NormOp) -> Result<ValueId, GraphError> {
        self.op(name, Op::Norm(norm), &[x])
    }

    /// `x Wᵀ + b`.
    pub fn linear(
        &mut self,
        name: &str,
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
    ) -> Result<ValueId, GraphError> {
        self.op(name, Op::Linear { weight, bias }, &[x])
    }

    /// `x Wᵀ + b` as the graph's head: its rows are the scores of what the graph chooses among, as the tokens of a
    /// vocabulary.
    pub fn head(
        &mut self,
        name: &str,
        x: ValueId,
        weight: WeightId,
        bias: Option<WeightId>,
    ) -> Result<ValueId, GraphError> {
        let scores = self.linear(name, x, weight, bias)?;
        (self.graph.head, self.graph.hidden) = (Some(weight), Some(x));
        Ok(scores)
    }

    /// Each head of `x` times its own matrix.
    pub fn head_linear(&mut self, name: &str, x: ValueId, op: HeadLinearOp) -> Result<ValueId, GraphError> {
        self.op(name, Op::HeadLinear(op), &[x])
    }

    /// Rotation of all heads of `x` by position.
    pub fn rope(&mut self, name: &str, x: ValueId, rope: RopeId, head_dim: usize) -> Result<ValueId, GraphError> {
        let n_heads = self.graph.value(x).width / head_dim.max(1);
        self.op(name, Op::Rope { rope, n_heads, head_dim }, &[x])
    }

    /// The experts chosen for each row of `logits`, and their weights.
    pub fn route(&mut self, name: &str, logits: ValueId, route: RouteOp) -> Result<ValueId, GraphError> {
        self.op(name, Op::Route(route), &[logits])
    }

    /// Linears of `x` by the experts of `route`.
    pub fn expert_linear(
        &mut self,
        name: &str,
        x: ValueId,
        route: ValueId,
        experts: ExpertLinearOp,
    ) -> Result<ValueId, GraphError> {
        self.op(name, Op::ExpertLinear(experts), &[x, route])
    }

    /// Attention over the cache.
    pub fn attention(
        &mut self,
        name: &str,
        [q, k, v]: [ValueId; 3],
        attention: AttentionOp,
    ) -> Result<ValueId, GraphError> {
        self.op(name, Op::Attention(attention), &[q, k, v])
    }

    /// The convolution of `weight` `[width · taps]` over the tokens of a sequence, then SiLU.
    pub fn short_conv(&mut self, name: &str, x: ValueId, weight: WeightId, taps: usize) -> Result<ValueId, GraphError> {
        let mut op = ShortConvOp { state: StateId(0), weight, taps };
        // Where the number of elements overflows, `op` refuses the state.
        let elements = op.state_elements(self.graph.value(x).width).unwrap_or(0);
        op.state = self.state(StateSpec { elements, rewritten: true });
        self.op(name, Op::ShortConv(op), &[x])
    }

    /// Blocks of tokens, pooled by gates; makes the cache itself.
    pub fn pool(&mut self, name: &str, inputs: [ValueId; 2], mut op: PoolOp) -> Result<ValueId, GraphError> {
        op.cache = self.cache(op.cache_spec());
        self.op(name, Op::Pool(op), &inputs)
    }

    /// The gated delta rule over `q‖k‖v`, `b` and `a`; makes the state itself.
    pub fn gated_delta(
        &mut self,
        name: &str,
        inputs: [ValueId; 3],
        mut op: GatedDeltaOp,
    ) -> Result<ValueId, GraphError> {
        op.state = self.state(StateSpec { elements: op.state_elements().unwrap_or(0), rewritten: true });
        self.op(name, Op::GatedDelta(op), &inputs)
    }

    /// `a + b`.
    pub fn add(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.op(name, Op::Add, &[a, b])
    }

    /// `act(gate, up)`.
    pub fn gated(&mut self, name: &str, act: Act, gate: ValueId, up: ValueId) -> Result<ValueId, GraphError> {
        self.op(name, Op::GatedAct { act }, &[gate, up])
    }

    /// `act(x)`.
    pub fn act(&mut self, name: &str, act: Act, x: ValueId) -> Result<ValueId, GraphError> {
        self.op(name, Op::Act { act }, &[x])
    }

    /// `a * b`, where `b` may be narrower: see [`Op::Mul`].
    pub fn mul(&mut self, name: &str, a: ValueId, b: ValueId) -> Result<ValueId, GraphError> {
        self.op(name, Op::Mul, &[a, b])
    }

    /// `factor * x`; `x` itself where the factor is 1.
    pub fn scale(&mut self, name: &str, x: ValueId, factor: f32) -> Result<ValueId, GraphError> {
        if factor == 1.0 { Ok(x) } else { self.op(name, Op::Scale { factor }, &[x]) }
    }

    /// Of every `period` elements of `x`, `len` from `offset` on.
    pub fn columns(
        &mut self,
        name: &str,
        x: ValueId,
        [period, offset, len]: [usize; 3],
    ) -> Result<ValueId, GraphError> {
        self.op(name, Op::Columns { period, offset, len }, &[x])
    }

    /// Groups of `a` elements of `x` and `b` elements of `y` in turn.
    pub fn join(
        &mut self,
        name: &str,
        (x, a): (ValueId, usize),
        (y, b): (ValueId, usize),
    ) -> Result<ValueId, GraphError> {
        self.op(name, Op::Join { a, b }, &[x, y])
    }

    /// Rows of streams side by side, with a second value.
    pub fn streams(&mut self, name: &str, x: ValueId, other: ValueId, op: StreamOp) -> Result<ValueId, GraphError> {
        self.op(name, Op::Streams(op), &[x, other])
    }

    /// The finished graph, whose result is `output`.
    pub fn finish(mut self, output: ValueId) -> Graph {
        self.graph.output = Some(output);
        self.graph
    }
}
