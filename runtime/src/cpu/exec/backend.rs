//! The CPU backend behind the interface of all backends.

use std::any::Any;

use super::CpuBackend;
use crate::{
    Backend, BackendError, Observed,
    graph::Plan,
    profile::Trace,
    step::{Pages, SequenceStep},
};

impl Backend for CpuBackend {
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError> {
        Ok(CpuBackend::forward(self, steps)?)
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

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}
