//! The GPU backend behind the interface of all backends.

use super::GpuBackend;
use crate::{
    Backend, BackendError, Observed, StepOutput,
    graph::Plan,
    profile::Trace,
    step::{Pages, SequenceStep, Ticket},
};

impl Backend for GpuBackend {
    fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, BackendError> {
        Ok(GpuBackend::submit(self, steps)?)
    }

    fn is_done(&mut self, ticket: Ticket) -> Result<bool, BackendError> {
        Ok(GpuBackend::is_done(self, ticket)?)
    }

    fn wait(&mut self, ticket: Ticket) -> Result<(), BackendError> {
        Ok(GpuBackend::wait(self, ticket)?)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, BackendError> {
        Ok(GpuBackend::collect(self, ticket)?)
    }

    fn steps_ahead(&self) -> usize {
        // One runs and one waits.
        2
    }

    fn pages(&mut self) -> Pages<'_> {
        Pages(&mut self.book)
    }

    fn max_step_tokens(&self) -> usize {
        GpuBackend::max_step_tokens(self)
    }

    fn step_tokens(&self, cached: usize) -> usize {
        GpuBackend::step_tokens(self, cached)
    }

    fn max_outputs(&self) -> usize {
        GpuBackend::max_outputs(self)
    }

    fn plan(&self) -> &Plan {
        GpuBackend::plan(self)
    }

    fn set_tracing(&mut self, on: bool) -> Result<(), BackendError> {
        Ok(GpuBackend::set_tracing(self, on)?)
    }

    fn trace(&self) -> Option<&Trace> {
        GpuBackend::trace(self)
    }

    fn forward_observed(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        look: &mut dyn FnMut(&mut Observed),
    ) -> Result<(), BackendError> {
        Ok(GpuBackend::forward_observed(self, steps, look)?)
    }

    fn describe(&self) -> String {
        let s = self.gpu().summary();
        format!("gpu {} ({}, {})", s.name, s.kind, s.api)
    }
}
