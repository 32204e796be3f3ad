//! The shape of a step.

use super::kinds::RowParts;
use crate::{gpu::ops::Dim, graph::Rows};

/// Facts of a step on which the choice of calls depends.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub tokens: usize,
    pub outputs: usize,
    pub sequences: usize,
    /// Tokens chosen on the device.
    pub choices: usize,
    /// Whether all rows were chosen by the model; else they are all of prompts.
    pub generated: bool,
    /// By kind of attention: the parts that rows' keys are divided into.
    pub parts: Vec<RowParts>,
    /// Cached tokens of the longest sequence.
    pub longest: usize,
}

impl Shape {
    pub fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.tokens,
            Rows::Output => self.outputs,
        }
    }

    /// Workgroups in a dimension of a dispatch over `rows`.
    pub fn workgroups(&self, dim: Dim, rows: Rows) -> u32 {
        match dim {
            Dim::Fixed(n) => n,
            Dim::RowsOver(n) => (self.count(rows) as u32).div_ceil(n),
            Dim::Sequences => self.sequences as u32,
            Dim::Choices => self.choices as u32,
            Dim::Parts(kind) => self.parts[kind as usize].len(),
            Dim::Entries { every, over } => (self.longest as u32 / every).div_ceil(over),
        }
    }
}
