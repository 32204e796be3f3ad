//! The memory of per-sequence states on the device, and the calls of steps that have one.

use super::{
    lower::{Draft, Lowering, StepDraft},
    memory::{DEVICE, Source},
};
use crate::{
    gpu::{Gpu, GpuError, ops::recurrent},
    graph::{GatedDeltaStep, Rows, ShortConvStep, StateId, StateSpec},
    step::PageBook,
};

/// A buffer a state, with a place for every slot.
#[derive(Default)]
pub(super) struct StateBuffers {
    pub buffers: Vec<wgpu::Buffer>,
    /// Slots that there is room for.
    slots: usize,
}

impl StateBuffers {
    pub fn new(gpu: &Gpu, states: &[StateSpec]) -> Result<Self, GpuError> {
        let buffers = states.iter().map(|_| gpu.buffer("states of sequences", 0, DEVICE)).collect::<Result<_, _>>()?;
        Ok(Self { buffers, slots: 0 })
    }

    /// Makes room for every slot that `book` has handed out, keeping what is there; true where buffers are new.
    pub fn reserve(&mut self, gpu: &Gpu, states: &[StateSpec], book: &PageBook) -> Result<bool, GpuError> {
        let need = book.slots.made();
        if need <= self.slots {
            return Ok(false);
        }
        let most = gpu.caps().max_binding;
        let largest = states.iter().map(|s| s.elements as u64 * 4).max().unwrap_or(0);
        let fits = usize::try_from(most / largest.max(1)).unwrap_or(usize::MAX);
        if fits < need {
            return Err(GpuError::Limit {
                adapter: gpu.name().to_owned(),
                what: "storage bindings",
                has: most,
                op: format!("the states of {need} sequences"),
                needs: largest * need as u64,
            });
        }
        let slots = need.next_power_of_two().min(fits);
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut new = Vec::new();
        for (state, old) in states.iter().zip(&self.buffers) {
            let bytes = state.elements as u64 * 4;
            let buffer = gpu.buffer("states of sequences", bytes * slots as u64, DEVICE)?;
            if self.slots > 0 && bytes > 0 {
                encoder.copy_buffer_to_buffer(old, 0, &buffer, 0, Some(bytes * self.slots as u64));
            }
            new.push(buffer);
        }
        gpu.queue.submit([encoder.finish()]);
        (self.buffers, self.slots) = (new, slots);
        Ok(true)
    }
}

impl Lowering<'_> {
    /// What makes the states ready that kernels work on in place.
    pub(super) fn begin_states(&mut self) -> Vec<Draft> {
        let states: Vec<_> = (0u32..).map(StateId).zip(self.plan.graph.states().to_vec()).collect();
        let in_place = states.into_iter().filter(|(_, s)| !s.rewritten);
        let mut drafts = Vec::new();
        for (id, spec) in in_place {
            drafts.push(self.draft(recurrent::begin(self.gpu.caps(), spec.elements), &[Source::State(id)]));
        }
        drafts
    }

    pub(super) fn short_conv(&mut self, step: &ShortConvStep) -> StepDraft {
        let width = self.plan.graph.value(step.input).width;
        let weight = self.vector_at[step.op.weight.0 as usize];
        let places = [step.input, step.output].map(|v| self.value(v));
        let dispatch = recurrent::short_conv(self.gpu.caps(), &step.op, width, weight, places);
        let before = vec![self.draft(dispatch, &[Source::State(step.op.state)])];
        StepDraft { rows: Rows::Token, flops_per_row: 0, gated: None, before, variants: Vec::new() }
    }

    pub(super) fn gated_delta(&mut self, name: &str, step: &GatedDeltaStep) -> Result<StepDraft, GpuError> {
        let [qkv, b, a] = step.inputs.map(|v| self.value(v));
        let vectors = [step.op.decay, step.op.dt_bias].map(|w| self.vector_at[w.0 as usize]);
        let places = [qkv, b, a, self.value(step.output)];
        let dispatch = recurrent::gated_delta(self.gpu.caps(), name, &step.op, vectors, places)?;
        let before = vec![self.draft(dispatch, &[Source::State(step.op.state)])];
        let flops_per_row = 7 * step.op.state_elements().unwrap_or(0) as u64;
        Ok(StepDraft { rows: Rows::Token, flops_per_row, gated: None, before, variants: Vec::new() })
    }
}
