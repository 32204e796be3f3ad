//! The memory of per-sequence states on the device.

use super::memory::DEVICE;
use crate::{
    gpu::{Gpu, GpuError},
    graph::StateSpec,
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
