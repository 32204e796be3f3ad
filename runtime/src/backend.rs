//! The interface that all backends share.

use crate::{
    BackendError,
    graph::{Act, Plan, ValueId},
    profile::Trace,
    sample::Chosen,
    step::{Pages, SequenceStep, Ticket},
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

/// What a step was asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct StepOutput<'a> {
    /// The output rows `[outputs, width]`, in the order of the sequences.
    pub logits: &'a [f32],
    /// The hidden states `[rows, width]` that were asked for, in the order of the sequences.
    pub hidden: &'a [f32],
    /// The tokens that were chosen, in the order of the sequences that had a choice.
    pub chosen: Vec<Chosen>,
}

/// Runs the steps of one model.
pub trait Backend: Send + 'static {
    /// Begins a step: new tokens of one or more sequences, whose caches then hold them. Up to
    /// [`MOST_UNDER_WAY`](crate::step::MOST_UNDER_WAY) steps may be under way, each of which may build on tokens that those
    /// before it choose. Where such a token turns out to end the answer, truncate the sequence to what counts.
    ///
    /// A GPU runs the step while the caller goes on; on the CPU the caller's thread is one of those that run it, so it is
    /// over when this returns.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than a step or the cache holds, sequences of another backend, too
    /// many steps under way, tokens of a step that is not; errors of the device. The sequences are then unchanged, with one
    /// exception: a device that fails in the middle of a step may have overwritten a state, and a sequence with states is
    /// then empty.
    fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, BackendError>;

    /// Whether [`Backend::collect`] would return at once.
    ///
    /// # Errors
    /// [`StepError::NotUnderWay`](crate::step::StepError::NotUnderWay); errors of the device.
    fn is_done(&mut self, ticket: Ticket) -> Result<bool, BackendError>;

    /// Waits until a step is over.
    ///
    /// # Errors
    /// [`StepError::NotUnderWay`](crate::step::StepError::NotUnderWay); errors of the device, after which the step is no
    /// longer under way: truncate the sequences to what they held before it.
    fn wait(&mut self, ticket: Ticket) -> Result<(), BackendError>;

    /// Waits for a step and hands out what it was asked for. Steps may be collected in any order, each once.
    ///
    /// # Errors
    /// As [`Backend::wait`].
    fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, BackendError>;

    /// Steps of one sequence that it pays to have under way: 1 where a step is over when it is submitted.
    fn steps_ahead(&self) -> usize;

    /// Runs a step to its end and returns its output rows `[outputs, width]`, in the order of the sequences.
    ///
    /// # Errors
    /// As [`Backend::submit`].
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError> {
        let before: Vec<usize> = steps.iter().map(|s| s.kv.len()).collect();
        let ticket = self.submit(steps)?;
        if let Err(error) = self.wait(ticket) {
            for (step, len) in steps.iter_mut().zip(before) {
                if !self.pages().truncate(step.kv, len)? {
                    self.pages().truncate(step.kv, 0)?;
                }
            }
            return Err(error);
        }
        Ok(self.collect(ticket)?.logits)
    }

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
}
