//! The memory of per-sequence states on the device.

use super::{arena::DEVICE, growth::Growth};
use crate::{
    gpu::{Gpu, GpuError},
    graph::{Device, Plan, StateId},
    step::PageBook,
};

/// A buffer a state, with a place for every slot. States of other devices' stages have none.
pub(super) struct StateBuffers {
    pub buffers: Vec<wgpu::Buffer>,
    /// Bytes of each state in a slot; 0 for states of other devices.
    bytes: Vec<u64>,
    /// Slots that there is room for.
    slots: usize,
}

/// Bytes that one sequence's states take on the GPU, by state.
pub(super) fn state_bytes(plan: &Plan) -> Vec<u64> {
    let states = (0u32..).map(StateId).zip(plan.graph.states());
    let own = |id: StateId| plan.state_device(id) == Some(Device::Gpu);
    states.map(|(id, s)| if own(id) { s.elements as u64 * 4 } else { 0 }).collect()
}

impl StateBuffers {
    pub fn new(gpu: &Gpu, plan: &Plan) -> Result<Self, GpuError> {
        let bytes = state_bytes(plan);
        let buffers = bytes.iter().map(|_| gpu.buffer("states of sequences", 0, DEVICE)).collect::<Result<_, _>>()?;
        Ok(Self { buffers, bytes, slots: 0 })
    }

    /// Makes room for every slot that `book` has handed out, and keeps the states. Sets `grown` where buffers are new,
    /// also where it then fails for want of memory.
    pub fn reserve(&mut self, gpu: &Gpu, book: &PageBook, grown: &mut bool) -> Result<(), GpuError> {
        let need = book.slots.made();
        let largest = self.bytes.iter().copied().max().unwrap_or(0);
        if need <= self.slots || largest == 0 {
            return Ok(());
        }
        let most = gpu.caps().max_binding;
        let fits = usize::try_from(most / largest).unwrap_or(usize::MAX);
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
        let mut growth = Growth::new(gpu);
        for (bytes, buffer) in self.bytes.iter().zip(&mut self.buffers) {
            *grown = true;
            growth.grow(buffer, "states of sequences", bytes * slots as u64, bytes * self.slots as u64)?;
        }
        self.slots = slots;
        Ok(())
    }
}
