//! Looking on: where the time of a step goes, and what each stage of the plan computes.

use std::time::Instant;

use super::{CpuBackend, StepContext};
use crate::{
    backend::Observed,
    cpu::CpuError,
    profile::{Clock, RawCall, Trace},
    step::{SequenceKv, SequenceStep},
};

/// A trace, and the clock that its times count from.
pub(super) struct Tracing {
    trace: Trace,
    since: Instant,
}

impl CpuBackend {
    /// Starts anew (or stops) measuring where time goes.
    pub fn set_tracing(&mut self, on: bool) {
        self.tracing = on.then(|| Tracing { trace: Trace::new(Clock::Runs, &self.plan), since: Instant::now() });
    }

    /// What was measured since tracing began.
    pub fn trace(&self) -> Option<&Trace> {
        self.tracing.as_ref().map(|t| &t.trace)
    }

    /// Adds the times of the step that began at `start`.
    pub(super) fn add_trace(&mut self, start: Instant, calls: &[RawCall]) {
        let Some(Tracing { trace, since }) = &mut self.tracing else { return };
        let load = self.batch.load(self.book.kv_type());
        trace.add(&self.plan, &load, (start - *since, start.elapsed()), calls);
    }

    /// As [`CpuBackend::forward`], but one stage of the plan after the other; `look` sees what each has computed, and the
    /// steps behind go on with whatever it leaves.
    ///
    /// # Errors
    /// As [`CpuBackend::forward`].
    pub fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), CpuError> {
        self.admit(steps)?;
        let kvs: Vec<&SequenceKv> = steps.iter().map(|s| &*s.kv).collect();
        for i in 0..self.plan.stages.len() {
            self.run_part(&kvs, i..i + 1);
            self.observe(i, look);
        }
        for step in steps.iter_mut() {
            self.book.drop_passed(step.kv, 0);
        }
        Ok(())
    }
}

impl StepContext<'_> {
    /// Runs each stage of the plan on its own. Within one run of the pool no thread sees when a step ends: one that the
    /// system has put aside skips what the others have done.
    pub(super) fn run_timed(&self, start: Instant) -> Vec<RawCall> {
        let timed = |i: usize| {
            let begun = Instant::now();
            self.backend.pool.run(&|worker| self.step(worker, i));
            (Some(i), "", begun - start, begun.elapsed())
        };
        (0..self.backend.plan.stages.len()).map(timed).collect()
    }
}
