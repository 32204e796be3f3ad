//! What all backends have in common.

use crate::{
    cpu::{CpuBackend, CpuError},
    graph::{Act, Plan, ValueId},
    profile::Trace,
    step::{GpuStats, PageBook, SequenceStep},
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

/// What a step of the plan has computed, for [`Backend::forward_observed`].
#[derive(Clone, Debug)]
pub struct Observed {
    /// The step of the plan.
    pub step: usize,
    /// The value.
    pub value: ValueId,
    /// Its rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Set where the backend has put the gated activation of `value` and this other one here at once.
    pub gated: Option<(Act, ValueId)>,
    /// Set where `value` is a residual sum, which the next step begins with, that the backend has made at once of what
    /// the step adds to it, this value. That one is nowhere then.
    pub addend: Option<ValueId>,
    /// `[rows, width]`.
    pub data: Vec<f32>,
}

impl Observed {
    /// The values that a step writes.
    pub(crate) fn of_step(plan: &Plan, step: usize) -> Vec<ValueId> {
        let mut values = plan.steps[step].kind.reads_and_writes().1;
        values.sort_unstable();
        values.dedup();
        values
    }
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

    /// Tokens that a step should have at most for a sequence that already has `cached`: fewer than it may have where a
    /// driver could take the step for one that hangs.
    fn step_tokens(&self, cached: usize) -> usize {
        let _ = cached;
        self.max_step_tokens()
    }

    /// Output rows that one step may have.
    fn max_outputs(&self) -> usize;

    /// Where it runs, for people: the instruction set and threads, or the adapter.
    fn describe(&self) -> String;

    /// The plan that runs.
    fn plan(&self) -> &Plan;

    /// Starts anew (or stops) measuring where time goes. Steps are slower meanwhile.
    ///
    /// # Errors
    /// Whatever a device reports.
    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError>;

    /// What was measured since tracing began; none where it is off.
    fn trace(&self) -> Option<&Trace>;

    /// As [`Backend::forward`], but one step of the plan after the other. `look` sees each value that a step has
    /// computed; on a GPU the steps behind go on with whatever it leaves in [`Observed::data`].
    ///
    /// # Errors
    /// As [`Backend::forward`].
    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError>;

    /// What steps have cost on the host's side of a GPU so far; none on the CPU.
    fn gpu_stats(&self) -> Option<GpuStats> {
        None
    }

    /// Bytes of weights copied to a GPU, and bytes that it reads where they lie in host memory; none on the CPU.
    fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        None
    }

    /// The GPU behind it, where all steps run there.
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

    fn plan(&self) -> &Plan {
        CpuBackend::plan(self)
    }

    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError> {
        CpuBackend::set_tracing(self, on);
        Ok(())
    }

    fn trace(&self) -> Option<&Trace> {
        CpuBackend::trace(self)
    }

    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError> {
        Ok(CpuBackend::forward_observed(self, steps, look)?)
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

    fn step_tokens(&self, cached: usize) -> usize {
        crate::gpu::GpuBackend::step_tokens(self, cached)
    }

    fn max_outputs(&self) -> usize {
        crate::gpu::GpuBackend::max_outputs(self)
    }

    fn plan(&self) -> &Plan {
        crate::gpu::GpuBackend::plan(self)
    }

    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError> {
        Ok(crate::gpu::GpuBackend::set_tracing(self, on)?)
    }

    fn trace(&self) -> Option<&Trace> {
        crate::gpu::GpuBackend::trace(self)
    }

    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError> {
        Ok(crate::gpu::GpuBackend::forward_observed(self, steps, look)?)
    }

    fn describe(&self) -> String {
        let s = self.gpu().summary();
        format!("gpu {} ({}, {})", s.name, s.kind, s.api)
    }

    fn gpu_stats(&self) -> Option<GpuStats> {
        Some(self.stats())
    }

    fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        Some(self.weight_bytes())
    }

    fn as_gpu(&mut self) -> Option<&mut crate::gpu::GpuBackend> {
        Some(self)
    }
}
