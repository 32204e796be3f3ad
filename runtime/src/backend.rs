//! What all backends have in common.

use crate::{
    cpu::{CpuBackend, CpuError},
    step::{PageBook, SequenceStep},
};

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The CPU.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// A GPU.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(#[from] crate::gpu::GpuError),
}

/// Runs the steps of one model.
pub trait Backend: Send {
    /// Runs the model over new tokens of one or more sequences and returns the output rows `[outputs, width]`, in the
    /// order of the sequences.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than fit a step or the cache: the sequences are then unchanged.
    /// Whatever a device reports.
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError>;

    /// The users of the pages of keys and values.
    fn pages(&mut self) -> &mut PageBook;

    /// Tokens that one step may have.
    fn max_step_tokens(&self) -> usize;

    /// Output rows that one step may have.
    fn max_outputs(&self) -> usize;

    /// Where it runs, for people: the instruction set and threads, or the adapter.
    fn describe(&self) -> String;

    /// The GPU behind it, where there is one.
    #[cfg(feature = "gpu")]
    fn as_gpu(&mut self) -> Option<&mut crate::gpu::GpuBackend> {
        None
    }
}

impl Backend for CpuBackend {
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError> {
        Ok(CpuBackend::forward(self, steps)?)
    }

    fn pages(&mut self) -> &mut PageBook {
        CpuBackend::pages(self)
    }

    fn max_step_tokens(&self) -> usize {
        CpuBackend::max_step_tokens(self)
    }

    fn max_outputs(&self) -> usize {
        self.max_step_tokens()
    }

    fn describe(&self) -> String {
        format!("cpu ({}, {} threads)", self.isa().name(), self.threads())
    }
}

#[cfg(feature = "gpu")]
impl Backend for crate::gpu::GpuBackend {
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError> {
        Ok(crate::gpu::GpuBackend::forward(self, steps)?)
    }

    fn pages(&mut self) -> &mut PageBook {
        crate::gpu::GpuBackend::pages(self)
    }

    fn max_step_tokens(&self) -> usize {
        crate::gpu::GpuBackend::max_step_tokens(self)
    }

    fn max_outputs(&self) -> usize {
        crate::gpu::GpuBackend::max_outputs(self)
    }

    fn describe(&self) -> String {
        let s = self.gpu().summary();
        format!("gpu {} ({}, {})", s.name, s.kind, s.api)
    }

    fn as_gpu(&mut self) -> Option<&mut crate::gpu::GpuBackend> {
        Some(self)
    }
}
