//! Observation of a step: the time of each stage, and the values that stages compute.

use std::time::Instant;

use super::{CpuBackend, StepContext};
use crate::{
    backend::Observed,
    cpu::CpuError,
    profile::{Clock, RawCall, Trace},
    step::{SequenceKv, SequenceStep},
};

/// A trace, and the start of its clock.
pub(super) struct Tracing {
    trace: Trace,
    since: Instant,
}

impl CpuBackend {
    /// Starts measuring where time goes, from zero, or stops it.
    pub fn set_tracing(&mut self, on: bool) {
        self.tracing = on.then(|| Tracing { trace: Trace::new(Clock::Runs, &self.plan), since: Instant::now() });
    }

    /// The measurements since tracing began.
    pub fn trace(&self) -> Option<&Trace> {
        self.tracing.as_ref().map(|t| &t.trace)
    }

    /// Adds the times of the step that began at `start`.
    pub(super) fn add_trace(&mut self, start: Instant, calls: &[RawCall]) {
        let Some(Tracing { trace, since }) = &mut self.tracing else { return };
        let load = self.batch.load(self.book.kv_type());
        trace.add(&self.plan, &load, (start - *since, start.elapsed()), calls);
    }

    /// As [`CpuBackend::submit`], but one stage of the plan after the other. `look` sees the values of each stage, and
    /// may change them: later stages read the changed rows.
    ///
    /// # Errors
    /// As [`CpuBackend::submit`].
    pub fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), CpuError> {
        self.prepare(steps)?;
        let kvs: Vec<&SequenceKv> = steps.iter().map(|s| &*s.kv).collect();
        for i in 0..self.plan.stages.len() {
            self.run_part(&kvs, i..i + 1);
            self.observe(i, look);
        }
        self.batch.settle(&mut self.book, steps);
        Ok(())
    }
}

impl StepContext<'_> {
    /// Runs each of the first `stages` of the plan as a run of the pool of its own. Within one run no thread sees when a stage ends: a
    /// thread that the system has put aside skips phases that the others have done.
    pub(super) fn run_timed(&self, start: Instant, stages: usize) -> Vec<RawCall> {
        let timed = |i: usize| {
            let begun = Instant::now();
            self.backend.pool.run(&|worker| self.stage(worker, i));
            (Some(i), "", begun - start, begun.elapsed())
        };
        (0..stages).map(timed).collect()
    }
}
