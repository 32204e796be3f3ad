//! How much device memory a plan takes.

use super::{GpuBackendOptions, lower::layout::lay_out, states::state_bytes};
use crate::{
    gpu::{Gpu, GpuBackend, GpuError, weights},
    graph::{CacheId, Device, Plan},
    step::{PAGE_TOKENS, PageBook},
};

/// Parameters, tables and read-back buffers: small, but not nothing.
const SMALL: u64 = 1 << 20;

impl GpuBackend {
    /// Bytes of device memory that the GPU's steps of `plan` take, with the cache full and one sequence: weights that are
    /// copied, keys and values, states, activations.
    ///
    /// # Errors
    /// Where the activations of one token do not fit a binding.
    pub fn memory_needed(gpu: &Gpu, plan: &Plan, options: &GpuBackendOptions) -> Result<u64, GpuError> {
        let layout = lay_out(gpu, plan, options.max_step_tokens)?;
        let book = PageBook::new(plan.graph.caches(), options.kv_type, options.max_cached_tokens);
        let pages = options.max_cached_tokens.div_ceil(PAGE_TOKENS).next_power_of_two().max(4) as u64;
        let on_gpu = |cache: &usize| plan.cache_device(CacheId(*cache as u32)) == Some(Device::Gpu);
        let kv: u64 = (0..plan.graph.caches().len())
            .filter(on_gpu)
            .map(|cache| {
                let group = &book.groups[book.place(CacheId(cache as u32)).0];
                pages.min(group.capacity as u64) * group.layer_bytes(options.kv_type) as u64
            })
            .sum();
        let states: u64 = state_bytes(plan).iter().sum();
        let vectors = plan.graph.weights().filter(|(_, t)| t.shape().len() == 1);
        let vectors: u64 = vectors.map(|(_, t)| t.row_len() as u64 * 4).sum();
        Ok(weights::bytes_to_copy(gpu, plan) + kv + states + layout.bytes(1) + vectors + SMALL)
    }
}
