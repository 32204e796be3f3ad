//! Plans: what a backend executes.
//!
//! The planner turns the ops of a [`Graph`] into four kinds of step:
//!
//! - **linear**: all linears of one input, behind a *row program* that makes that input (norms, residual adds,
//!   gated activations, the embedding look-up: everything that works row by row). The program's values that are
//!   needed later are stored; the rest lives in a worker's scratch.
//! - **experts**: all linears by experts of one input and route, likewise behind a row program.
//! - **attention**, with the per-head norms and rotations of q, k and v folded in.
//! - **rows**: a row program that no linear follows.
//!
//! A llama layer is five steps: q/k/v, attention, output, gate/up, down. Values that cross steps get a place in one
//! arena by liveness. Places are in elements a row, so that one plan serves steps with any number of rows: a value
//! lies at `offset * rows`.

mod layout;
mod planner;
mod row_program;
mod steps;

use super::{
    builder::Graph,
    error::GraphError,
    op::{Rows, ValueId},
};
use crate::{format::Tensor, quant::RowError};
use planner::Planner;
pub use row_program::{RowInstr, RowOp, RowProgram, Src};
pub use steps::{AttentionStep, ExpertPart, ExpertStep, HeadOp, LinearPart, LinearStep, SelectStep, StepKind};

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
