//! The interface that all backends share.

use std::any::Any;

use crate::{
    BackendError,
    graph::{Act, Plan, ValueId},
    profile::Trace,
    step::{GpuStats, Pages, SequenceStep},
};

/// A value that a stage of the plan has computed, for [`Backend::forward_observed`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Observed {
    /// The stage of the plan.
    pub stage: usize,
    /// The value.
    pub value: ValueId,
    /// Its rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Set where the backend stores only the gated activation of `value` and this other value, in place of the two.
    pub gated: Option<(Act, ValueId)>,
    /// Set where `value` is the residual sum that the next stage begins with, made by this stage's own kernel: the
    /// stage's result, which the sum includes. That result has no place of its own then.
    pub addend: Option<ValueId>,
    /// `[rows, width]`.
    pub data: Vec<f32>,
}

impl Observed {
    /// The values that a stage writes.
    pub(crate) fn of_stage(plan: &Plan, stage: usize) -> Vec<ValueId> {
        let mut values = plan.stages[stage].kind.reads_and_writes().1;
        values.sort_unstable();
        values.dedup();
        values
    }
}

/// Runs the steps of one model.
pub trait Backend: Send + 'static {
    /// Runs the model over new tokens of one or more sequences and returns the output rows `[outputs, width]`, in the
    /// order of the sequences.
    ///
    /// Token ids outside the vocabulary, more tokens than a step or the cache holds, sequences of another backend, and
    /// errors of the device. The sequences are then unchanged, with one exception: a device that fails in the middle of
    /// a step may have overwritten a state, and a sequence with states is then empty.
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError>;

    /// The pages of keys and values.
    fn pages(&mut self) -> Pages<'_>;

    /// Tokens that one step may have.
    fn max_step_tokens(&self) -> usize;

    /// Tokens that a step should have at most for a sequence that already has `cached`. It is below
    /// [`Backend::max_step_tokens`] where a driver could take a longer step for one that hangs.
    fn step_tokens(&self, cached: usize) -> usize {
        let _ = cached;
        self.max_step_tokens()
    }

    /// Output rows that one step may have.
    fn max_outputs(&self) -> usize;

    /// The device for people: the instruction set and threads, or the adapter.
    fn describe(&self) -> String;

    /// The plan that runs.
    fn plan(&self) -> &Plan;

    /// Starts measuring where time goes, from zero, or stops it. Steps are slower meanwhile.
    ///
    /// # Errors
    /// Errors of the device.
    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError>;

    /// The measurements since tracing began; none where it is off.
    fn trace(&self) -> Option<&Trace>;

    /// As [`Backend::forward`], but one stage of the plan after the other. `look` sees each value that a stage has
    /// computed, and may change [`Observed::data`]: later stages read the changed rows.
    ///
    /// # Errors
    /// As [`Backend::forward`].
    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError>;

    /// Costs of all steps so far on the host's side of a GPU; none on the CPU.
    fn gpu_stats(&self) -> Option<GpuStats> {
        None
    }

    /// Bytes of weights copied to a GPU, and bytes that it reads where they lie in host memory; none on the CPU.
    fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        None
    }

    /// The backend itself, for callers that know its type.
    fn as_any(&mut self) -> &mut dyn Any;
}
