//! What all backends have in common.

use std::any::Any;

use crate::{
    BackendError,
    graph::{Act, Plan, ValueId},
    profile::Trace,
    step::{GpuStats, Pages, SequenceStep},
};

/// What a stage of the plan has computed, for [`Backend::forward_observed`].
#[derive(Clone, Debug)]
pub struct Observed {
    /// The stage of the plan.
    pub stage: usize,
    /// The value.
    pub value: ValueId,
    /// Its rows.
    pub rows: usize,
    /// Elements of a row.
    pub width: usize,
    /// Set where the backend has put the gated activation of `value` and this other one here at once.
    pub gated: Option<(Act, ValueId)>,
    /// Set where `value` is a residual sum, which the next stage begins with, that the backend has made at once of what
    /// the stage adds to it, this value. That one is nowhere then.
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
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than fit a step or the cache, sequences of another backend; whatever a
    /// device reports. The sequences are then unchanged, but that a device that fails in the middle of a step may have
    /// left no state to continue from: a sequence with states is then empty.
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError>;

    /// The pages of keys and values.
    fn pages(&mut self) -> Pages<'_>;

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

    /// As [`Backend::forward`], but one stage of the plan after the other. `look` sees each value that a stage has
    /// computed; the stages behind go on with whatever it leaves in [`Observed::data`].
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

    /// The backend itself, for those who know what it may be.
    fn as_any(&mut self) -> &mut dyn Any;
}
