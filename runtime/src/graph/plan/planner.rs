//! From the nodes of a graph to stages.

use std::collections::{HashMap, HashSet};

use super::{
    AttentionStage, ExpertPart, ExpertStage, HeadOp, LinearPart, LinearStage, PoolStage, RowInstr, RowOp, RowProgram,
    SelectStage, Src, StageKind,
};
use crate::graph::{
    attention::HeadLinearOp,
    builder::{Graph, Node},
    experts::ExpertLinearOp,
    op::{NormKind, Op, ValueId},
    recurrent::{GatedDeltaStage, ShortConvStage},
};

pub(super) struct Planner<'g> {
    graph: &'g Graph,
    output: ValueId,
    /// A second result, of a stage of its own.
    hidden: Option<ValueId>,
    /// Nodes that read each value.
    users: Vec<Vec<usize>>,
    /// Nodes folded into an attention stage.
    folded: HashSet<usize>,
    /// Stages, each with the node that gives it its kind.
    stages: Vec<(usize, StageKind)>,
    /// Row-wise nodes not yet put into a stage.
    pending: Vec<usize>,
}

impl<'g> Planner<'g> {
    pub fn new(graph: &'g Graph, output: ValueId, hidden: Option<ValueId>) -> Self {
        let mut users = vec![Vec::new(); graph.values.len()];
        for (i, node) in graph.nodes.iter().enumerate() {
            node.inputs.iter().for_each(|v| users[v.0 as usize].push(i));
        }
        Self { graph, output, hidden, users, folded: HashSet::new(), stages: Vec::new(), pending: Vec::new() }
    }

    /// The stages in execution order, each with the number of the node that gives it its kind.
    pub fn run(mut self) -> Vec<(usize, StageKind)> {
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
                Op::ExpertLinear(_) => {
                    let mut group = vec![at];
                    while i < nodes.len() {
                        let same = nodes[i].inputs == node.inputs && self.same_experts(&nodes[i].op, &node.op);
                        if !same && !self.folded.contains(&i) {
                            break;
                        }
                        if same {
                            group.push(i);
                        }
                        i += 1;
                    }
                    self.experts([node.inputs[0], node.inputs[1]], &group);
                }
                Op::SelectKeys(op) => {
                    self.flush();
                    let inputs = [node.inputs[0], node.inputs[1], node.inputs[2]];
                    let stage = SelectStage { op: *op, inputs, output: node.output };
                    self.stages.push((at, StageKind::Select(stage)));
                }
                Op::Pool(op) => {
                    self.flush();
                    let stage = PoolStage { op: *op, inputs: [node.inputs[0], node.inputs[1]], output: node.output };
                    self.stages.push((at, StageKind::Pool(stage)));
                }
                Op::Attention(_) => {
                    self.flush();
                    self.stages.push((at, StageKind::Attention(attention[&at].clone())));
                }
                Op::ShortConv(op) => {
                    self.flush();
                    let stage = ShortConvStage { op: op.clone(), input: node.inputs[0], output: node.output };
                    self.stages.push((at, StageKind::ShortConv(stage)));
                }
                Op::GatedDelta(op) => {
                    self.flush();
                    let inputs = [node.inputs[0], node.inputs[1], node.inputs[2]];
                    let stage = GatedDeltaStage { op: op.clone(), inputs, output: node.output };
                    self.stages.push((at, StageKind::GatedDelta(stage)));
                }
                _ => {
                    let rows = self.graph.value(node.output).rows;
                    if self.pending.first().is_some_and(|p| self.graph.value(nodes[*p].output).rows != rows) {
                        self.flush();
                    }
                    self.pending.push(at);
                    if Some(node.output) == self.hidden {
                        self.flush();
                    }
                }
            }
        }
        self.flush();
        self.stages
    }

    /// Attention stages by node, with the norms and rotations before them folded in wherever nothing else reads the
    /// values between.
    fn fold_heads(&mut self) -> HashMap<usize, AttentionStage> {
        let producer: HashMap<ValueId, usize> =
            self.graph.nodes.iter().enumerate().map(|(i, n)| (n.output, i)).collect();
        let mut stages = HashMap::new();
        for (i, node) in self.graph.nodes.iter().enumerate() {
            let Op::Attention(op) = &node.op else { continue };
            // Where values are parts of keys there is no input v.
            let k = node.inputs.get(1).copied().filter(|_| !op.shared);
            let v = node.inputs.get(2).copied().filter(|_| !op.shared && !op.v_in_k);
            let mut inputs = [Some(node.inputs[0]), k, v].map(|x| x.unwrap_or(node.inputs[0]));
            let mut head_ops = [const { Vec::new() }; 3];
            let dims = [op.head_dim, op.head_dim, op.v_dim]
                .into_iter()
                .take(1 + usize::from(k.is_some()) + usize::from(v.is_some()));
            for (x, (ops, dim)) in inputs.iter_mut().zip(head_ops.iter_mut().zip(dims)) {
                while self.users[x.0 as usize].len() == 1 {
                    let Some(&p) = producer.get(x) else { break };
                    let before = &self.graph.nodes[p];
                    // Kernels overwrite the value in place, so nothing else may read it.
                    if before.inputs.iter().any(|v| self.users[v.0 as usize].len() != 1) {
                        break;
                    }
                    match &before.op {
                        Op::Norm(n) if n.group == dim && n.kind == NormKind::Rms => ops.push(HeadOp::Norm(n.clone())),
                        Op::Rope { rope, head_dim, .. } if *head_dim == dim => ops.push(HeadOp::Rope(*rope)),
                        // The walk goes backwards: the last op is found first.
                        Op::PositionScale(scale) if ops.is_empty() => ops.push(HeadOp::PositionScale(*scale)),
                        _ => break,
                    }
                    self.folded.insert(p);
                    *x = before.inputs[0];
                }
                ops.reverse();
            }
            // Kernels never read the entry of a missing input, so the one before it fills the place.
            if k.is_none() {
                inputs[1] = inputs[0];
            }
            if v.is_none() {
                inputs[2] = inputs[1];
            }
            let selected = node.inputs.last().copied().filter(|_| op.selected.is_some());
            // With blocks the third input is their keys.
            let blocks = node.inputs.get(2).copied().filter(|_| op.blocks.is_some());
            stages
                .insert(i, AttentionStage { op: op.clone(), inputs, blocks, selected, head_ops, output: node.output });
        }
        stages
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
        self.stages.push((group[0], StageKind::Linear(LinearStage { prologue, input, k, parts, heads: None })));
    }

    fn head_linear(&mut self, at: usize, op: HeadLinearOp) {
        let Node { inputs, output, .. } = &self.graph.nodes[at];
        let (x, rows) = (inputs[0], self.graph.value(inputs[0]).rows);
        let (prologue, temps) = self.program(&[at]);
        let input = temps.get(&x).map_or(Src::Value(x), |t| Src::Temp(*t));
        let prologue = prologue.unwrap_or(RowProgram { rows, instrs: Vec::new() });
        let parts = vec![LinearPart { weight: op.weight, bias: None, output: *output }];
        let stage = LinearStage { prologue, input, k: op.input, parts, heads: Some(op) };
        self.stages.push((at, StageKind::Linear(stage)));
    }

    /// Whether two ops are linears by the same number of experts over inputs of the same length.
    fn same_experts(&self, a: &Op, b: &Op) -> bool {
        let (Op::ExpertLinear(a), Op::ExpertLinear(b)) = (a, b) else { return false };
        let inner = |op: &ExpertLinearOp| self.graph.weight(op.experts[0]).shape()[usize::from(!op.input_major)];
        a.experts.len() == b.experts.len() && inner(a) == inner(b)
    }

    fn experts(&mut self, [x, route]: [ValueId; 2], group: &[usize]) {
        let (prologue, temps) = self.program(group);
        let src = |v: ValueId| temps.get(&v).map_or(Src::Value(v), |t| Src::Temp(*t));
        let rows = self.graph.value(x).rows;
        let slots = self.graph.value(route).width / 2;
        let parts: Vec<ExpertPart> = group
            .iter()
            .filter_map(|i| match &self.graph.nodes[*i] {
                Node { op: Op::ExpertLinear(op), output, .. } => {
                    let out = self.graph.value(*output).width / slots;
                    Some(ExpertPart { op: op.clone(), out, output: *output })
                }
                _ => None,
            })
            .collect();
        // The shape rule has checked that there are experts and that their weights are matrices.
        let first = &parts[0].op;
        let k = self.graph.weight(first.experts[0]).shape()[usize::from(!first.input_major)];
        let stage = ExpertStage {
            input: src(x),
            route: src(route),
            prologue: prologue.unwrap_or(RowProgram { rows, instrs: Vec::new() }),
            k,
            slots,
            per_slot: self.graph.value(x).width != k,
            n_experts: first.experts.len(),
            parts,
        };
        self.stages.push((group[0], StageKind::Experts(stage)));
    }

    fn flush(&mut self) {
        let last = self.pending.last().copied();
        if let (Some(program), Some(last)) = (self.program(&[]).0, last) {
            self.stages.push((last, StageKind::Rows(program)));
        }
    }

    /// The pending nodes as a row program, and the temp of each value that they make. `consumers` are the nodes of the
    /// stage that the program belongs to: a value that only they read is not stored.
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
                Op::Embed { table, scale, or_first } => {
                    RowOp::Embed { table: *table, scale: *scale, or_first: *or_first }
                }
                Op::Norm(norm) => RowOp::Norm { src: src(0), norm: norm.clone() },
                Op::Add => RowOp::Add { a: src(0), b: src(1) },
                Op::GatedAct { act } => RowOp::GatedAct { act: *act, gate: src(0), up: src(1) },
                Op::Act { act } => RowOp::Act { act: *act, src: src(0) },
                Op::Streams(op) => {
                    let widths = [0, 1].map(|n| self.graph.value(node.inputs[n]).width);
                    RowOp::Streams { a: src(0), b: src(1), op: *op, widths }
                }
                Op::Hyper(op) => RowOp::Hyper { src: src(0), op: op.clone() },
                Op::Sparsify { deviations } => RowOp::Sparsify { src: src(0), deviations: *deviations },
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
                Op::Route(route) => RowOp::Route { src: src(0), route: route.clone() },
                Op::ExpertSum { weighted } => {
                    let k = self.graph.value(node.inputs[1]).width / 2;
                    RowOp::ExpertSum { src: src(0), route: src(1), k, weighted: *weighted }
                }
                Op::SelectOutputs => RowOp::Copy { src: src(0) },
                // These nodes are never pending.
                Op::Linear { .. } | Op::HeadLinear(_) | Op::ExpertLinear(_) | Op::SelectKeys(_) => continue,
                Op::Pool(_) | Op::Attention(_) | Op::ShortConv(_) | Op::GatedDelta(_) => continue,
            };
            let outside = |u: &usize| !pending.contains(u) && !consumers.contains(u);
            let needed = self.users[node.output.0 as usize].iter().any(outside)
                || [Some(self.output), self.hidden].contains(&Some(node.output));
            // Devices group the rows of a stage by expert, so a row's route is read by more than that row.
            let stored = needed || matches!(node.op, Op::Route(_));
            let width = self.graph.value(node.output).width;
            temps.insert(node.output, instrs.len() as u16);
            instrs.push(RowInstr { op, width, store: stored.then_some(node.output) });
        }
        (Some(RowProgram { rows, instrs }), temps)
    }
}
