//! Estimates the device memory of a plan.

use super::{
    GpuBackendOptions, angles,
    lower::layout::{lay_out, scores_bytes},
    states::state_bytes,
};
use crate::{
    gpu::{Gpu, GpuBackend, GpuError, weights},
    graph::{CacheId, Device, Plan},
    step::{Group, KvType, PageBook},
};

/// An allowance for parameters, angles of rows and read-back buffers.
const SMALL: u64 = 1 << 20;

impl GpuBackend {
    /// Tokens that all sequences together may hold at most: a layer's keys and values must fit one binding. Caches of a
    /// sliding window drop passed pages and do not count.
    pub fn most_cached_tokens(gpu: &Gpu, plan: &Plan, kv_type: KvType) -> usize {
        let book = PageBook::new(plan.graph.caches(), kv_type, 1);
        let fits = |group: &Group| {
            let pages = gpu.caps().max_binding as usize / group.layer_bytes(kv_type).max(1);
            pages.saturating_mul(group.spec.page_tokens())
        };
        layers(plan, &book).filter(|group| group.spec.window.is_none()).map(fits).min().unwrap_or(usize::MAX)
    }

    /// Refuses rows that cannot be stored, those in q8_0, and more cached tokens than [`GpuBackend::most_cached_tokens`].
    pub(super) fn check_cache(gpu: &Gpu, plan: &Plan, options: &GpuBackendOptions) -> Result<(), GpuError> {
        options.kv_type.check(plan.graph.caches())?;
        if options.kv_type == KvType::Q8_0 {
            return Err(GpuError::Unsupported {
                op: "a cache of",
                name: "q8_0".to_owned(),
                why: "no kernel for GPUs reads it yet (those for f16 and f32 do)".to_owned(),
            });
        }
        let most = Self::most_cached_tokens(gpu, plan, options.kv_type);
        if options.max_cached_tokens <= most {
            return Ok(());
        }
        Err(GpuError::Cache { adapter: gpu.name().to_owned(), asked: options.max_cached_tokens, most })
    }

    /// Limits pages and states to what bindings show: with several sequences, more pages are partly empty.
    pub(crate) fn bound_pages(gpu: &Gpu, plan: &Plan, book: &mut PageBook) {
        let most = gpu.caps().max_binding;
        // Where not even one fits, making room for it gives the error.
        let fits = |bytes: u64| most.checked_div(bytes).map_or(usize::MAX, |n| n.max(1) as usize);
        for id in caches(plan) {
            let (place, _) = book.place(id);
            let bytes = book.groups[place].layer_bytes(book.kv_type()) as u64;
            book.groups[place].capacity = book.groups[place].capacity.min(fits(bytes));
        }
        book.slots.bound(fits(state_bytes(plan).into_iter().max().unwrap_or(0)));
    }

    /// Bytes of device memory that the GPU's stages of `plan` take at most, with the cache full and one sequence:
    /// weights that are copied, keys and values, states, activations, angles of keys. While a layer's cache grows it
    /// exists twice.
    ///
    /// # Errors
    /// Activations of one token that do not fit a binding.
    pub fn memory_needed(gpu: &Gpu, plan: &Plan, options: &GpuBackendOptions) -> Result<u64, GpuError> {
        let layout = lay_out(gpu, plan, options)?;
        let book = PageBook::new(plan.graph.caches(), options.kv_type, options.max_cached_tokens);
        let layers: Vec<u64> = layers(plan, &book)
            .map(|group| {
                let pages = options.max_cached_tokens.div_ceil(group.spec.page_tokens());
                let pages = pages.next_power_of_two().max(4).min(group.capacity);
                (pages * group.layer_bytes(options.kv_type)) as u64
            })
            .collect();
        let kv = layers.iter().sum::<u64>() + layers.iter().max().unwrap_or(&0) / 2;
        let states: u64 = state_bytes(plan).iter().sum();
        let wanted = plan.graph.vectors();
        let vectors = plan.graph.weights().zip(wanted).filter(|(_, wanted)| *wanted);
        let vectors: u64 = vectors.map(|((_, t), _)| (t.rows() * t.row_len()) as u64 * 4).sum();
        let scores = scores_bytes(plan, layout.max_tokens, options.max_cached_tokens);
        let tables = angles::table_bytes(plan, options.max_cached_tokens);
        Ok(weights::bytes_to_copy(gpu, plan) + kv + states + layout.bytes(1) + vectors + scores + tables + SMALL)
    }
}

/// The caches that lie on the GPU.
fn caches(plan: &Plan) -> impl Iterator<Item = CacheId> + '_ {
    let ids = (0..plan.graph.caches().len()).map(|cache| CacheId(cache as u32));
    ids.filter(|id| plan.cache_device(*id) == Some(Device::Gpu))
}

/// For each cache that lies on the GPU, the group that it belongs to.
fn layers<'a>(plan: &'a Plan, book: &'a PageBook) -> impl Iterator<Item = &'a Group> {
    caches(plan).map(|id| &book.groups[book.place(id).0])
}
