//! The CPU backend behind the interface of all backends.

use super::CpuBackend;
use crate::{
    Backend, BackendError, Observed, StepOutput,
    graph::Plan,
    profile::Trace,
    step::{Pages, SequenceStep, StepError, Ticket},
};

impl Backend for CpuBackend {
    fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, BackendError> {
        Ok(CpuBackend::submit(self, steps)?)
    }

    fn is_done(&mut self, ticket: Ticket) -> Result<bool, BackendError> {
        self.under_way.get(ticket).map(|_| true).ok_or(StepError::NotUnderWay.into())
    }

    fn wait(&mut self, ticket: Ticket) -> Result<(), BackendError> {
        self.is_done(ticket).map(drop)
    }

    fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, BackendError> {
        Ok(CpuBackend::collect(self, ticket)?)
    }

    fn steps_ahead(&self) -> usize {
        1
    }

    fn pages(&mut self) -> Pages<'_> {
        Pages(&mut self.book)
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
