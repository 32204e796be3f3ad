//! One file per shader family: its parameters, the choice of a kernel by capabilities, and the size of a dispatch.
//!
//! All kernels share these buffers (see `shaders/wgsl/lib/batch.wgsl`): values lie in one `arena` of f32, small f32
//! vectors (norm scales, biases, sinks) in `vectors`, the rows of the current step in `batch`. Parameters that stay the
//! same from step to step are a uniform buffer of the dispatch's own. Everything that changes is read from `batch`, so
//! the stream of commands does not change from token to token.

pub mod attention;
pub mod experts;
pub mod linear;
mod params;
pub mod recurrent;
pub mod rows;
pub mod sample;
pub mod select;

use super::kernel::Kernel;
use crate::graph::Rows;

/// A value's place in the arena: row `r` starts at element `base + offset * rows + r * stride`, where `rows` is the
/// step's number of rows of the value's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// First element of the region of its kind of rows.
    pub base: u32,
    /// Elements a row before it.
    pub offset: u32,
    /// Elements from one row to the next.
    pub stride: u32,
    /// A row per token, or per output.
    pub rows: Rows,
}

impl Place {
    /// As `lib/batch.wgsl` reads it: a `vec4<u32>`.
    pub fn words(&self) -> [u32; 4] {
        [self.base, self.offset, self.stride, u32::from(self.rows == Rows::Output)]
    }
}

/// Workgroups in one dimension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dim {
    /// The same in every step.
    Fixed(u32),
    /// The step's rows (of the dispatch's kind) divided by this, rounded up.
    RowsOver(u32),
    /// One a sequence of the step.
    Sequences,
    /// One a token that the step chooses.
    Choices,
    /// The parts that attention of this kind divides all rows' keys into: the step's batch lists them.
    Parts(u32),
    /// The entries that the step's longest sequence has in a cache divided by `over`, rounded up.
    Entries {
        /// Tokens of an entry.
        every: u32,
        /// Entries of a workgroup.
        over: u32,
    },
}

/// One call of a kernel.
#[derive(Clone, Debug)]
pub struct Dispatch {
    /// The kernel.
    pub kernel: Kernel,
    /// Contents of the uniform binding 0.
    pub params: Vec<u8>,
    /// Workgroups.
    pub grid: [Dim; 3],
    /// The rows that [`Dim::RowsOver`] counts.
    pub rows: Rows,
}

#[cfg(test)]
mod attention_case_tests;
#[cfg(test)]
mod attention_tests;
#[cfg(test)]
mod formats_tests;
#[cfg(test)]
mod recurrent_tests;
#[cfg(test)]
mod rows_tests;
#[cfg(test)]
mod sample_tests;
#[cfg(test)]
mod select_tests;
#[cfg(test)]
mod step_tests;
#[cfg(all(test, not(all(target_arch = "aarch64", target_os = "linux"))))]
mod translate_tests;
