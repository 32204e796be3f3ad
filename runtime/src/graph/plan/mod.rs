//! Plans: what a backend executes.
//!
//! The planner turns the ops of a [`Graph`] into a few kinds of stage:
//!
//! - **linear**: all linears of one input, behind a *row program* that makes that input (norms, residual adds,
//!   gated activations, the embedding look-up: everything that works row by row). The program's values that are
//!   needed later are stored; the rest lives in a worker's scratch.
//! - **experts**: all linears by experts of one input and route, likewise behind a row program.
//! - **attention**, with the per-head norms and rotations of q, k and v folded in.
//! - **short_conv**, **gated_delta**: ops with a state a sequence;
//! - **rows**: a row program that no linear follows.
//!
//! A llama layer is five stages: q/k/v, attention, output, gate/up, down. Values that cross stages get a place in one
//! arena by liveness. Places are in elements a row, so that one plan serves steps with any number of rows: a value
//! lies at `offset * rows`.

mod key_centres;
mod layout;
mod planner;
mod row_program;
mod stages;

use std::collections::HashMap;

use super::{
    builder::{Graph, Node},
    error::GraphError,
    op::{CacheId, Rows, StateId, ValueId},
};
use crate::{format::Tensor, quant::RowError};
use planner::Planner;
pub use row_program::{RowInstr, RowOp, RowProgram, Src};
pub use stages::{
    AttentionStage, ExpertPart, ExpertStage, HeadOp, LinearPart, LinearStage, PoolStage, SelectStage, StageKind,
};

/// Where a stage runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

/// One stage of a plan.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Stage {
    /// Name of the node that gives the stage its kind.
    pub name: String,
    /// That node's layer, if any.
    pub layer: Option<usize>,
    /// Where it runs.
    pub device: Device,
    /// The ops and their operands.
    pub kind: StageKind,
}

/// A value's place in the arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Slot {
    /// Rows that the value has; each kind of rows has its own region of the arena.
    pub rows: Rows,
    /// Elements a row before it; the value starts at `offset * rows` elements.
    pub offset: usize,
    /// Elements from one row to the next (the width, padded to 16).
    pub stride: usize,
    /// Elements of a row.
    pub width: usize,
}

/// The sum of a linear's result and another value, which the linear's own kernel can make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ResidualSum {
    /// The other value.
    #[cfg_attr(not(feature = "gpu"), allow(dead_code))]
    pub added: ValueId,
    /// The sum.
    pub sum: ValueId,
}

/// Stages and the places of their values.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The graph that was planned.
    pub graph: Graph,
    /// In execution order.
    pub stages: Vec<Stage>,
    slots: Vec<Option<Slot>>,
    /// Elements a token row in the arena.
    pub token_elements: usize,
    /// Elements an output row in the arena.
    pub output_elements: usize,
    /// The result.
    pub output: ValueId,
    /// The hidden state behind the last norm, where it is a result, too ([`Plan::with_hidden`]).
    pub hidden: Option<ValueId>,
}

impl Plan {
    /// Plans `graph` with every stage on `place`'s device; `place` sees the stages in order, each with the node that
    /// gives it its kind. Keys and values lie where
    /// the first attention over them runs, and all other attention over them runs there, too.
    ///
    /// # Errors
    /// A graph without an output, and the errors of `place`.
    pub fn new(
        graph: Graph,
        place: impl FnMut(&Graph, &Node, &StageKind) -> Result<Device, GraphError>,
    ) -> Result<Self, GraphError> {
        Self::with_results(graph, None, place)
    }

    /// As [`Plan::new`], with the hidden state behind the last norm as a second result ([`Graph::hidden`]). The norm is a
    /// stage of its own then, and the stages behind it do not run in a step that wants the hidden state alone.
    ///
    /// # Errors
    /// As [`Plan::new`], and a graph without a head.
    pub fn with_hidden(
        graph: Graph,
        place: impl FnMut(&Graph, &Node, &StageKind) -> Result<Device, GraphError>,
    ) -> Result<Self, GraphError> {
        let hidden = graph.hidden.ok_or_else(|| GraphError::Shape {
            op: "graph",
            name: String::new(),
            what: "has no head, and so no hidden state before it".to_owned(),
        })?;
        Self::with_results(graph, Some(hidden), place)
    }

    fn with_results(
        graph: Graph,
        hidden: Option<ValueId>,
        mut place: impl FnMut(&Graph, &Node, &StageKind) -> Result<Device, GraphError>,
    ) -> Result<Self, GraphError> {
        let output = graph.output.ok_or_else(|| GraphError::Shape {
            op: "graph",
            name: String::new(),
            what: "has no output".to_owned(),
        })?;
        let mut stages = Vec::new();
        let mut homes = HashMap::new();
        for (node, kind) in Planner::new(&graph, output, hidden).run() {
            let node = &graph.nodes[node];
            let placed = place(&graph, node, &kind)?;
            let caches = || kind.caches().into_iter().flatten();
            let device = caches().find_map(|cache| homes.get(&cache).copied()).unwrap_or(placed);
            for cache in caches() {
                homes.entry(cache).or_insert(device);
            }
            stages.push(Stage { device, name: node.name.clone(), layer: node.layer, kind });
        }
        one_device_a_cache(&stages)?;
        let mut plan = Self {
            slots: vec![None; graph.values.len()],
            graph,
            stages,
            token_elements: 0,
            output_elements: 0,
            output,
            hidden,
        };
        plan.lay_out();
        Ok(plan)
    }

    /// The stages up to the hidden state; all where it is no result.
    pub(crate) fn stages_before_head(&self) -> usize {
        let writes = |s: &Stage| s.kind.reads_and_writes().1.iter().any(|v| Some(*v) == self.hidden);
        self.stages.iter().position(writes).map_or(self.stages.len(), |at| at + 1)
    }

    /// Where the keys and values of `cache` lie; none where nothing reads them.
    pub fn cache_device(&self, cache: CacheId) -> Option<Device> {
        self.stages.iter().find(|s| s.kind.caches().contains(&Some(cache))).map(|s| s.device)
    }

    /// Where the states `state` of sequences lie; none where nothing uses them.
    pub fn state_device(&self, state: StateId) -> Option<Device> {
        self.stages.iter().find(|s| s.kind.state() == Some(state)).map(|s| s.device)
    }

    /// A value's place. Only values that cross stages have one.
    ///
    /// # Panics
    /// On a value that lives inside a stage; the planner never hands one to a backend.
    pub fn slot(&self, id: ValueId) -> Slot {
        self.slots[id.0 as usize].expect("a value that crosses stages")
    }

    /// By stage: the sum that the next stage's program begins with, where one addend is this stage's only result, which
    /// nothing else reads. The arena has room for the sum as soon as this stage runs.
    pub(crate) fn residual_sums(&self) -> Vec<Option<ResidualSum>> {
        let mut readers = vec![0u32; self.graph.values.len()];
        for stage in &self.stages {
            stage.kind.reads_and_writes().0.iter().for_each(|v| readers[v.0 as usize] += 1);
        }
        let sum_behind = |i: usize| {
            let StageKind::Linear(LinearStage { parts, heads: None, prologue, .. }) = &self.stages[i].kind else {
                return None;
            };
            let [part] = &parts[..] else { return None };
            let instr = self.stages.get(i + 1)?.kind.program()?.instrs.first()?;
            let RowInstr { op: RowOp::Add { a, b }, store: Some(sum), .. } = instr else { return None };
            let added = match (*a, *b) {
                (Src::Value(y), Src::Value(x)) | (Src::Value(x), Src::Value(y)) if y == part.output && x != y => x,
                _ => return None,
            };
            let rows = |v: ValueId| self.graph.value(v).rows;
            let same = [part.output, added, *sum].into_iter().all(|v| rows(v) == prologue.rows);
            let alone = readers[part.output.0 as usize] == 1 && part.output != self.output;
            (same && alone).then_some(ResidualSum { added, sum: *sum })
        };
        (0..self.stages.len()).map(sum_behind).collect()
    }

    /// The weights that kernels want as f32 vectors (norm scales, biases, sinks: all that have one dimension), decoded,
    /// by weight; empty for all others.
    ///
    /// # Errors
    /// A weight whose bytes are not whole rows.
    pub(crate) fn decode_vectors(&self) -> Result<Vec<Vec<f32>>, RowError> {
        let wanted = self.graph.vectors();
        let decode = |(i, (_, tensor)): (usize, (_, &Tensor))| {
            let mut vector = Vec::new();
            if wanted[i] {
                vector.resize(tensor.rows() * tensor.row_len(), 0.0);
                tensor.dtype().decode_row(tensor.bytes(), &mut vector)?;
            }
            Ok(vector)
        };
        self.graph.weights().enumerate().map(decode).collect()
    }
}

/// Refuses a cache of keys and values that stages on different devices use: it lies in the memory of one.
fn one_device_a_cache(stages: &[Stage]) -> Result<(), GraphError> {
    let mut devices = HashMap::new();
    for stage in stages {
        for cache in stage.kind.caches().into_iter().flatten() {
            if *devices.entry(cache).or_insert(stage.device) != stage.device {
                let what =
                    "it reads keys and values that another device has; both layers must be on the same".to_owned();
                return Err(GraphError::Shape { op: "attention", name: stage.name.clone(), what });
            }
        }
    }
    Ok(())
}
