//! Places of a call's operands.

use wgpu::BufferUsages as U;

use crate::graph::StateId;

/// Buffers that kernels read and write, and whose contents are copied when they grow.
pub(super) const DEVICE: U = U::STORAGE.union(U::COPY_DST).union(U::COPY_SRC);

/// The buffer that a binding of a call shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The call's own parameters: offset and length in the buffer of all parameters.
    Params { offset: u64, len: u64 },
    /// Rows of the step.
    Batch,
    /// All values.
    Arena,
    /// Norm scales, biases, sinks.
    Vectors,
    /// A window of a buffer of weights.
    Weights { buffer: usize, offset: u64, len: u64 },
    /// Token ids of the step.
    Tokens,
    /// Keys and values of one layer.
    Kv(usize),
    /// States of sequences of one layer.
    State(StateId),
    /// Cosines and sines.
    Rope,
    /// Partial results of attention over parts of long sequences.
    Partials,
    /// Pairs of row and slot, sorted by the expert that they chose.
    Pairs,
    /// Scores by which keys are chosen.
    Scores,
}

/// Elements of the arena and its two regions.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct ArenaLayout {
    /// Elements a token row, scratch included.
    pub token_elements: usize,
    /// Elements an output row, scratch included.
    pub output_elements: usize,
    /// Token rows that there is room for.
    pub max_tokens: usize,
    /// Words for pairs of row and slot, by expert.
    pub pair_words: usize,
}

impl ArenaLayout {
    /// First element of the output rows.
    pub fn output_base(&self) -> usize {
        self.token_elements * self.max_tokens
    }

    /// Bytes with room for `outputs` output rows.
    pub fn bytes(&self, outputs: usize) -> u64 {
        (self.output_base() + self.output_elements * outputs) as u64 * 4
    }
}
