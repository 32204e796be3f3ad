//! Plans: what a backend executes.
//!
//! The planner turns the ops of a [`Graph`] into three kinds of step:
//!
//! - **linear**: all linears of one input, behind a *row program* that makes that input (norms, residual adds,
//!   gated activations, the embedding look-up: everything that works row by row). The program's values that are
//!   needed later are stored; the rest lives in a worker's scratch.
//! - **attention**, with the per-head norms and rotations of q, k and v folded in.
//! - **rows**: a row program that no linear follows.
//!
//! A llama layer is five steps: q/k/v, attention, output, gate/up, down. Values that cross steps get a place in one
//! arena by liveness. Places are in elements a row, so that one plan serves steps with any number of rows: a value
//! lies at `offset * rows`.

use std::collections::{HashMap, HashSet};

use super::{
    builder::{Graph, Node},
    error::GraphError,
    op::{Act, AttentionOp, HeadLinearOp, NormKind, NormOp, Op, PositionScale, RopeId, Rows, ValueId, WeightId},
};

/// Where a row program's instruction reads a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Src {
    /// A value in the arena. In a program over outputs, a value with a row per token is read at the output's token.
    Value(ValueId),
    /// The result of an earlier instruction of the same program.
    Temp(u16),
}

/// One row-wise computation.
#[derive(Clone, Debug)]
pub enum RowOp {
    /// The row's token's embedding, times `scale`.
    Embed {
        /// `[vocab, width]`.
        table: WeightId,
        /// Factor.
        scale: f32,
    },
    /// Normalisation by groups.
    Norm {
        /// Input row.
        src: Src,
        /// What to do.
        norm: NormOp,
    },
    /// Sum of two rows.
    Add {
        /// One row.
        a: Src,
        /// The other.
        b: Src,
    },
    /// `act(gate) * up`.
    GatedAct {
        /// The activation.
        act: Act,
        /// Its input.
        gate: Src,
        /// The other factor.
        up: Src,
    },
    /// `act(x)`.
    Act {
        /// The activation.
        act: Act,
        /// Input row.
        src: Src,
    },
    /// Product of two rows.
    Mul {
        /// One row.
        a: Src,
        /// The other, `group` times as narrow.
        b: Src,
        /// Elements of `a` that each of `b`'s multiplies.
        group: usize,
    },
    /// Of every `period` elements, those from `offset` to `offset + len`.
    Columns {
        /// Input row.
        src: Src,
        /// Elements from one group to the next.
        period: usize,
        /// First element kept of a group.
        offset: usize,
        /// Elements kept of a group.
        len: usize,
    },
    /// Groups of two rows in turn.
    Join {
        /// One row.
        a: Src,
        /// The other.
        b: Src,
        /// Elements of a group of each.
        lens: [usize; 2],
    },
    /// Times a factor that depends on the token's position.
    PositionScale {
        /// Input row.
        src: Src,
        /// The factor.
        scale: PositionScale,
    },
    /// Times a constant.
    Scale {
        /// Input row.
        src: Src,
        /// The constant.
        factor: f32,
    },
    /// `cap * tanh(x / cap)`.
    Softcap {
        /// Input row.
        src: Src,
        /// The bound.
        cap: f32,
    },
    /// Rotation by position of each head.
    Rope {
        /// Input row.
        src: Src,
        /// How.
        rope: RopeId,
        /// Elements of a head.
        head_dim: usize,
    },
    /// The row as it is.
    Copy {
        /// Input row.
        src: Src,
    },
}

/// One instruction of a row program; its result is temp number `index of the instruction`.
#[derive(Clone, Debug)]
pub struct RowInstr {
    /// What to compute.
    pub op: RowOp,
    /// Elements of the result.
    pub width: usize,
    /// The value that the result is also stored to, where something outside the program reads it.
    pub store: Option<ValueId>,
}

/// Row-wise computations that run one row after the other, in registers and scratch.
#[derive(Clone, Debug)]
pub struct RowProgram {
    /// Which rows it runs over.
    pub rows: Rows,
    /// Instructions in order.
    pub instrs: Vec<RowInstr>,
}

impl RowProgram {
    /// Elements of scratch that the results of all instructions need, each padded to 16.
    pub fn scratch_len(&self) -> usize {
        self.instrs.iter().map(|i| i.width.next_multiple_of(16)).sum()
    }
}

/// One weight of a linear step.
#[derive(Clone, Debug)]
pub struct LinearPart {
    /// `[out, k]`.
    pub weight: WeightId,
    /// `[out]`.
    pub bias: Option<WeightId>,
    /// Where the result goes.
    pub output: ValueId,
}

/// Linears over one input.
#[derive(Clone, Debug)]
pub struct LinearStep {
    /// Runs before; makes the input unless that lies in the arena.
    pub prologue: RowProgram,
    /// The input.
    pub input: Src,
    /// Its width; of a head where there are heads.
    pub k: usize,
    /// The weights that multiply it.
    pub parts: Vec<LinearPart>,
    /// Set where the only part is one matrix for each head of the input.
    pub heads: Option<HeadLinearOp>,
}

/// What happens to a head of q, k or v before attention.
#[derive(Clone, Debug)]
pub enum HeadOp {
    /// Normalisation over the head.
    Norm(NormOp),
    /// Rotation by position.
    Rope(RopeId),
    /// A factor that depends on the position; the last of a list.
    PositionScale(PositionScale),
}

/// Attention with what precedes it head by head.
#[derive(Clone, Debug)]
pub struct AttentionStep {
    /// Geometry and mask.
    pub op: AttentionOp,
    /// Query, key and value rows as the linears made them; the key twice where values are parts of keys.
    pub inputs: [ValueId; 3],
    /// Applied in order to each head of q, k, v. A non-empty list for q says that q may be overwritten.
    pub head_ops: [Vec<HeadOp>; 3],
    /// `[rows, n_heads * v_dim]`.
    pub output: ValueId,
}

/// What a step computes.
#[derive(Clone, Debug)]
pub enum StepKind {
    /// A row program on its own.
    Rows(RowProgram),
    /// Linears with their row program.
    Linear(LinearStep),
    /// Attention.
    Attention(AttentionStep),
}

/// Where a step runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The CPU backend.
    Cpu,
    /// The GPU backend.
    Gpu,
}

impl Device {
    /// Name in dumps and messages.
    pub fn name(self) -> &'static str {
        match self {
            Device::Cpu => "cpu",
            Device::Gpu => "gpu",
        }
    }
}

/// One step of a plan.
#[derive(Clone, Debug)]
pub struct Step {
    /// Name of the op that gives the step its kind.
    pub name: String,
    /// Where it runs.
    pub device: Device,
    /// What it computes.
    pub kind: StepKind,
}

/// A value's place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Which rows it has, and so which region of the arena it lies in.
    pub rows: Rows,
    /// Elements a row before it; the value starts at `offset * rows` elements.
    pub offset: usize,
    /// Elements from one row to the next (the width, padded to 16).
    pub stride: usize,
    /// Elements of a row.
    pub width: usize,
}

/// Steps and the places of their values.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph that was planned.
    pub graph: Graph,
    /// In execution order.
    pub steps: Vec<Step>,
    slots: Vec<Option<Slot>>,
    /// Elements a token row in the arena.
    pub token_elements: usize,
    /// Elements an output row in the arena.
    pub output_elements: usize,
    /// The result.
    pub output: ValueId,
}

impl Plan {
    /// Plans `graph` with every step on `place`'s device.
    ///
    /// # Errors
    /// A graph without an output, and whatever `place` refuses.
    pub fn new(
        graph: Graph,
        place: impl Fn(&Graph, &str, &StepKind) -> Result<Device, GraphError>,
    ) -> Result<Self, GraphError> {
        let output = graph.output.ok_or_else(|| GraphError::Shape {
            op: "graph",
            name: String::new(),
            what: "has no output".to_owned(),
        })?;
        let mut steps = Vec::new();
        for (name, kind) in Planner::new(&graph, output).run() {
            steps.push(Step { device: place(&graph, &name, &kind)?, name, kind });
        }
        let mut plan =
            Self { slots: vec![None; graph.values.len()], graph, steps, token_elements: 0, output_elements: 0, output };
        plan.lay_out();
        Ok(plan)
    }

    /// A value's place. Only values that cross steps have one.
    ///
    /// # Panics
    /// On a value that lives inside a step; the planner never hands one to a backend.
    pub fn slot(&self, id: ValueId) -> Slot {
        self.slots[id.0 as usize].expect("a value that crosses steps")
    }

    /// First-fit layout of all values that cross steps, by the range of steps in which each is alive. A step's
    /// outputs never overlap its inputs, because workers read and write both between two barriers.
    fn lay_out(&mut self) {
        let mut first = HashMap::new();
        let mut last = HashMap::new();
        for (i, step) in self.steps.iter().enumerate() {
            let (reads, writes) = step.kind.reads_and_writes();
            for v in writes {
                first.entry(v).or_insert(i);
                last.insert(v, i);
            }
            for v in reads {
                last.insert(v, i);
            }
        }
        last.insert(self.output, usize::MAX);
        let mut order: Vec<(ValueId, usize)> = first.into_iter().collect();
        order.sort_by_key(|(v, i)| (*i, *v));
        let mut placed: Vec<(Slot, usize, usize)> = Vec::new(); // slot, first step, last step
        for (v, from) in order {
            let value = self.graph.value(v);
            let to = last[&v];
            let stride = value.width.next_multiple_of(16);
            let mut busy: Vec<(usize, usize)> = placed
                .iter()
                .filter(|(s, f, t)| s.rows == value.rows && *f <= to && from <= *t)
                .map(|(s, ..)| (s.offset, s.offset + s.stride))
                .collect();
            busy.sort_unstable();
            let offset = busy.into_iter().fold(0, |at, (b, e)| if at + stride <= b { at } else { at.max(e) });
            let slot = Slot { rows: value.rows, offset, stride, width: value.width };
            let size = match value.rows {
                Rows::Token => &mut self.token_elements,
                Rows::Output => &mut self.output_elements,
            };
            *size = (*size).max(offset + stride);
            placed.push((slot, from, to));
            self.slots[v.0 as usize] = Some(slot);
        }
    }
}

impl StepKind {
    /// Values of the arena that the step reads and writes.
    pub fn reads_and_writes(&self) -> (Vec<ValueId>, Vec<ValueId>) {
        let (mut reads, mut writes) = (Vec::new(), Vec::new());
        let mut program = |p: &RowProgram| {
            for instr in &p.instrs {
                let srcs = instr.op.srcs();
                reads.extend(srcs.into_iter().flatten().filter_map(|s| match s {
                    Src::Value(v) => Some(v),
                    Src::Temp(_) => None,
                }));
                writes.extend(instr.store);
            }
        };
        match self {
            StepKind::Rows(p) => program(p),
            StepKind::Linear(l) => {
                program(&l.prologue);
                if let Src::Value(v) = l.input {
                    reads.push(v);
                }
                writes.extend(l.parts.iter().map(|p| p.output));
            }
            StepKind::Attention(a) => {
                reads.extend(a.inputs);
                writes.push(a.output);
            }
        }
        (reads, writes)
    }

    /// Kind in dumps and profiles.
    pub fn name(&self) -> &'static str {
        match self {
            StepKind::Rows(_) => "rows",
            StepKind::Linear(_) => "linear",
            StepKind::Attention(_) => "attention",
        }
    }
}

impl RowOp {
    /// The embedding table that it looks rows up in.
    pub fn table(&self) -> Option<WeightId> {
        match self {
            RowOp::Embed { table, .. } => Some(*table),
            _ => None,
        }
    }

    /// The rows read.
    pub fn srcs(&self) -> [Option<Src>; 2] {
        match *self {
            RowOp::Embed { .. } => [None, None],
            RowOp::Add { a, b } | RowOp::Mul { a, b, .. } | RowOp::Join { a, b, .. } => [Some(a), Some(b)],
            RowOp::GatedAct { gate, up, .. } => [Some(gate), Some(up)],
            RowOp::Norm { src, .. }
            | RowOp::Act { src, .. }
            | RowOp::Columns { src, .. }
            | RowOp::PositionScale { src, .. }
            | RowOp::Scale { src, .. }
            | RowOp::Softcap { src, .. }
            | RowOp::Rope { src, .. }
            | RowOp::Copy { src } => [Some(src), None],
        }
    }
}

#[cfg(feature = "gpu")]
impl RowOp {
    /// As [`RowOp::srcs`], to be changed.
    pub(crate) fn srcs_mut(&mut self) -> impl Iterator<Item = &mut Src> {
        let both = match self {
            RowOp::Embed { .. } => [None, None],
            RowOp::Add { a, b } | RowOp::Mul { a, b, .. } | RowOp::Join { a, b, .. } => [Some(a), Some(b)],
            RowOp::GatedAct { gate, up, .. } => [Some(gate), Some(up)],
            RowOp::Norm { src, .. }
            | RowOp::Act { src, .. }
            | RowOp::Columns { src, .. }
            | RowOp::PositionScale { src, .. }
            | RowOp::Scale { src, .. }
            | RowOp::Softcap { src, .. }
            | RowOp::Rope { src, .. }
            | RowOp::Copy { src } => [Some(src), None],
        };
        both.into_iter().flatten()
    }
}

struct Planner<'g> {
    graph: &'g Graph,
    output: ValueId,
    /// Nodes that read each value.
    users: Vec<Vec<usize>>,
    /// Nodes folded into an attention step.
    folded: HashSet<usize>,
    steps: Vec<(String, StepKind)>,
    /// Row-wise nodes not yet put into a step.
    pending: Vec<usize>,
}

impl<'g> Planner<'g> {
    fn new(graph: &'g Graph, output: ValueId) -> Self {
        let mut users = vec![Vec::new(); graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| users[v.0 as usize].push(i));
        }
        Self { graph, output, users, folded: HashSet::new(), steps: Vec::new(), pending: Vec::new() }
    }

    fn run(mut self) -> Vec<(String, StepKind)> {
        let attention = self.fold_heads();
        let nodes = &self.graph.nodes;
        let mut i = 0;
        while i < nodes.len() {
            let node = &nodes[i];
            let at = i;
            i += 1;
            if self.folded.contains(&at) {
                continue;
            }
            match &node.op {
                Op::Linear { .. } => {
                    let x = node.inputs[0];
                    let mut group = vec![at];
                    while i < nodes.len() {
                        let same = matches!(nodes[i].op, Op::Linear { .. }) && nodes[i].inputs[0] == x;
                        if !same && !self.folded.contains(&i) {
                            break;
                        }
                        if same {
                            group.push(i);
                        }
                        i += 1;
                    }
                    self.linear(x, &group);
                }
                Op::HeadLinear(op) => self.head_linear(at, *op),
                Op::Attention(_) => {
                    self.flush();
                    self.steps.push((node.name.clone(), StepKind::Attention(attention[&at].clone())));
                }
                _ => {
                    let rows = self.graph.value(node.output).rows;
                    if self.pending.first().is_some_and(|p| self.graph.value(nodes[*p].output).rows != rows) {
                        self.flush();
                    }
                    self.pending.push(at);
                }
            }
        }
        self.flush();
        self.steps
    }

    /// Attention steps by node, with the norms and rotations before them folded in wherever nothing else reads the
    /// values between.
    fn fold_heads(&mut self) -> HashMap<usize, AttentionStep> {
        let producer: HashMap<ValueId, usize> =
            self.graph.nodes.iter().enumerate().map(|(i, n)| (n.output, i)).collect();
        let mut steps = HashMap::new();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let Op::Attention(op) = &node.op else { continue };
            // Values within keys have no input of their own.
            let v = node.inputs.get(2).copied();
            let mut inputs = [node.inputs[0], node.inputs[1], v.unwrap_or(node.inputs[1])];
            let mut head_ops = [const { Vec::new() }; 3];
            let dims = [op.head_dim, op.head_dim, op.v_dim].into_iter().take(node.inputs.len());
            for (x, (ops, dim)) in inputs.iter_mut().zip(head_ops.iter_mut().zip(dims)) {
                while self.users[x.0 as usize].len() == 1 {
                    let Some(&p) = producer.get(x) else { break };
                    let before = &self.graph.nodes[p];
                    // The value that would be overwritten in place must be ours alone.
                    if before.inputs.iter().any(|v| self.users[v.0 as usize].len() != 1) {
                        break;
                    }
                    match &before.op {
                        Op::Norm(n) if n.group == dim && n.kind == NormKind::Rms => ops.push(HeadOp::Norm(n.clone())),
                        Op::Rope { rope, head_dim, .. } if *head_dim == dim => ops.push(HeadOp::Rope(*rope)),
                        // The last op is the first that is found.
                        Op::PositionScale(scale) if ops.is_empty() => ops.push(HeadOp::PositionScale(*scale)),
                        _ => break,
                    }
                    self.folded.insert(p);
                    *x = before.inputs[0];
                }
                ops.reverse();
            }
            if v.is_none() {
                inputs[2] = inputs[1];
            }
            steps.insert(i, AttentionStep { op: op.clone(), inputs, head_ops, output: node.output });
        }
        steps
    }

    fn linear(&mut self, x: ValueId, group: &[usize]) {
        let (prologue, temps) = self.program(group);
        let input = temps.get(&x).map_or(Src::Value(x), |t| Src::Temp(*t));
        let rows = self.graph.value(x).rows;
        let prologue = prologue.unwrap_or(RowProgram { rows, instrs: Vec::new() });
        let parts = group
            .iter()
            .filter_map(|i| match self.graph.nodes[*i] {
                Node { op: Op::Linear { weight, bias }, output, .. } => Some(LinearPart { weight, bias, output }),
                _ => None,
            })
            .collect();
        let k = self.graph.value(x).width;
        let name = self.graph.nodes[group[0]].name.clone();
        self.steps.push((name, StepKind::Linear(LinearStep { prologue, input, k, parts, heads: None })));
    }

    fn head_linear(&mut self, at: usize, op: HeadLinearOp) {
        let Node { name, inputs, output, .. } = &self.graph.nodes[at];
        let (x, rows) = (inputs[0], self.graph.value(inputs[0]).rows);
        let (prologue, temps) = self.program(&[at]);
        let input = temps.get(&x).map_or(Src::Value(x), |t| Src::Temp(*t));
        let prologue = prologue.unwrap_or(RowProgram { rows, instrs: Vec::new() });
        let parts = vec![LinearPart { weight: op.weight, bias: None, output: *output }];
        let step = LinearStep { prologue, input, k: op.input, parts, heads: Some(op) };
        self.steps.push((name.clone(), StepKind::Linear(step)));
    }

    fn flush(&mut self) {
        let name = self.pending.last().map(|i| self.graph.nodes[*i].name.clone());
        if let (Some(program), Some(name)) = (self.program(&[]).0, name) {
            self.steps.push((name, StepKind::Rows(program)));
        }
    }

    /// The pending nodes as a row program, and the temp of each value that they make. `consumers` are the nodes of
    /// the step that the program belongs to: what only they read is not stored.
    fn program(&mut self, consumers: &[usize]) -> (Option<RowProgram>, HashMap<ValueId, u16>) {
        let pending = std::mem::take(&mut self.pending);
        let mut temps = HashMap::new();
        let Some(first) = pending.first() else { return (None, temps) };
        let rows = self.graph.value(self.graph.nodes[*first].output).rows;
        let mut instrs = Vec::new();
        for &i in &pending {
            let node = &self.graph.nodes[i];
            let src = |n: usize| {
                let v = node.inputs[n];
                temps.get(&v).map_or(Src::Value(v), |t| Src::Temp(*t))
            };
            let op = match &node.op {
                Op::Embed { table, scale } => RowOp::Embed { table: *table, scale: *scale },
                Op::Norm(norm) => RowOp::Norm { src: src(0), norm: norm.clone() },
                Op::Add => RowOp::Add { a: src(0), b: src(1) },
                Op::GatedAct { act } => RowOp::GatedAct { act: *act, gate: src(0), up: src(1) },
                Op::Act { act } => RowOp::Act { act: *act, src: src(0) },
                Op::Mul => {
                    let [a, b] = [0, 1].map(|n| self.graph.value(node.inputs[n]).width);
                    RowOp::Mul { a: src(0), b: src(1), group: a / b.max(1) }
                }
                Op::Columns { period, offset, len } => {
                    RowOp::Columns { src: src(0), period: *period, offset: *offset, len: *len }
                }
                Op::Join { a, b } => RowOp::Join { a: src(0), b: src(1), lens: [*a, *b] },
                Op::PositionScale(scale) => RowOp::PositionScale { src: src(0), scale: *scale },
                Op::Scale { factor } => RowOp::Scale { src: src(0), factor: *factor },
                Op::Softcap { cap } => RowOp::Softcap { src: src(0), cap: *cap },
                Op::Rope { rope, head_dim, .. } => RowOp::Rope { src: src(0), rope: *rope, head_dim: *head_dim },
                Op::SelectOutputs => RowOp::Copy { src: src(0) },
                Op::Linear { .. } | Op::HeadLinear(_) | Op::Attention(_) => continue, // never pending
            };
            let outside = |u: &usize| !pending.contains(u) && !consumers.contains(u);
            let stored = self.users[node.output.0 as usize].iter().any(outside) || node.output == self.output;
            let width = self.graph.value(node.output).width;
            temps.insert(node.output, instrs.len() as u16);
            instrs.push(RowInstr { op, width, store: stored.then_some(node.output) });
        }
        (Some(RowProgram { rows, instrs }), temps)
    }
}
