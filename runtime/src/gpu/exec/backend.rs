//! The GPU backend behind the interface of all backends.

use std::any::Any;

use super::GpuBackend;
use crate::{
    Backend, BackendError, Observed,
    graph::Plan,
    profile::Trace,
    step::{GpuStats, Pages, SequenceStep},
};

impl Backend for GpuBackend {
    fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], BackendError> {
        Ok(GpuBackend::forward(self, steps)?)
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

    fn gpu_stats(&self) -> Option<GpuStats> {
        Some(self.stats())
    }

    fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        Some(self.weight_bytes())
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

impl dyn Backend + '_ {
    /// The GPU backend, where it runs all stages.
    pub fn as_gpu(&mut self) -> Option<&mut GpuBackend> {
        self.as_any().downcast_mut()
    }
}
