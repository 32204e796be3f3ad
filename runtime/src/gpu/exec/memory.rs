//! The buffers of a backend, without its weights.

use wgpu::BufferUsages as U;

use super::{
    arena::{ArenaLayout, DEVICE, Source},
    growth::Growth,
    shape::Shape,
    states::StateBuffers,
};
use crate::{
    gpu::{Gpu, GpuError, kernel::Binding, staging::Staging, weights::GpuWeights},
    graph::{CacheId, Device, Plan},
    step::{Batch, MOST_UNDER_WAY, PageBook, SequenceKv},
};

/// Buffers that grow with use. A caller that makes one grow must bind its calls again.
pub(super) struct Memory {
    pub params: wgpu::Buffer,
    pub vectors: wgpu::Buffer,
    pub arena: wgpu::Buffer,
    /// Output rows that the arena has room for.
    pub max_outputs: usize,
    pub batch: wgpu::Buffer,
    pub tokens: wgpu::Buffer,
    pub rope: wgpu::Buffer,
    pub partials: wgpu::Buffer,
    pub scores: wgpu::Buffer,
    pairs: wgpu::Buffer,
    /// By cache.
    kv: Vec<wgpu::Buffer>,
    /// By group: pages that the buffers of its layers have room for.
    pages: Vec<usize>,
    /// A page on its way from one place to another.
    between: wgpu::Buffer,
    pub states: StateBuffers,
    /// Results on their way to the host.
    pub staging: wgpu::Buffer,
}

impl Memory {
    pub fn new(
        gpu: &Gpu,
        layout: &ArenaLayout,
        book: &PageBook,
        plan: &Plan,
        params: &[u8],
        vectors: &[f32],
    ) -> Result<Self, GpuError> {
        bindable(gpu, "the model's vectors", size_of_val(vectors) as u64)?;
        let filled = |what: &str, bytes: &[u8], usage: U| -> Result<wgpu::Buffer, GpuError> {
            let buffer = gpu.buffer(what, bytes.len() as u64, usage | U::COPY_DST)?;
            let mut nobody = |_, _| {};
            let mut staging = Staging::new(gpu, bytes.len() as u64, &mut nobody);
            staging.write(&buffer, 0, bytes)?;
            staging.finish()?;
            Ok(buffer)
        };
        let max_outputs = 1;
        let kv =
            plan.graph.caches().iter().map(|_| gpu.buffer("keys and values", 0, DEVICE)).collect::<Result<_, _>>()?;
        Ok(Self {
            params: filled("parameters", params, U::UNIFORM | U::STORAGE)?,
            vectors: filled("vectors", bytemuck::cast_slice(vectors), U::STORAGE)?,
            arena: gpu.buffer("activations", layout.bytes(max_outputs), DEVICE)?,
            max_outputs,
            batch: gpu.buffer("batch", 4096, DEVICE)?,
            // Those of the step, and those that each step under way chooses: no more than a step has tokens.
            tokens: gpu.buffer("tokens", (layout.max_tokens * (1 + MOST_UNDER_WAY)) as u64 * 4, DEVICE)?,
            rope: gpu.buffer("rotation tables", 4096, DEVICE)?,
            partials: gpu.buffer("partial attention", 4096, DEVICE)?,
            scores: gpu.buffer("scores of keys", 4096, DEVICE)?,
            pairs: gpu.buffer("pairs of rows and experts", layout.pair_words as u64 * 4, DEVICE)?,
            kv,
            pages: vec![0; book.groups.len()],
            between: gpu.buffer("a copied page", 0, DEVICE)?,
            states: StateBuffers::new(gpu, plan)?,
            staging: gpu.buffer("results", 4096, U::MAP_READ | U::COPY_DST)?,
        })
    }

    /// The buffer and range behind `source`.
    pub fn binding<'a>(&'a self, source: Source, weights: &'a GpuWeights) -> Binding<'a> {
        match source {
            Source::Params { offset, len } => Binding { buffer: &self.params, offset, size: Some(len) },
            Source::Weights { buffer, offset, len } => {
                Binding { buffer: &weights.buffers[buffer], offset, size: Some(len) }
            }
            Source::Batch => (&self.batch).into(),
            Source::Arena => (&self.arena).into(),
            Source::Vectors => (&self.vectors).into(),
            Source::Tokens => (&self.tokens).into(),
            Source::Kv(cache) => (&self.kv[cache]).into(),
            Source::State(id) => (&self.states.buffers[id.0 as usize]).into(),
            Source::Rope => (&self.rope).into(),
            Source::Partials => (&self.partials).into(),
            Source::Pairs => (&self.pairs).into(),
            Source::Scores => (&self.scores).into(),
        }
    }

    /// Makes room for `outputs` output rows; true where the arena is new.
    pub fn reserve_outputs(&mut self, gpu: &Gpu, layout: &ArenaLayout, outputs: usize) -> Result<bool, GpuError> {
        if outputs <= self.max_outputs {
            return Ok(false);
        }
        // Values are used within one step only, so a new arena needs no copy.
        let rounded = outputs.next_power_of_two();
        let outputs = if layout.bytes(rounded) <= gpu.caps().max_binding { rounded } else { outputs };
        self.arena = gpu.buffer("activations", layout.bytes(outputs), DEVICE)?;
        self.max_outputs = outputs;
        Ok(true)
    }

    /// Makes room for every page that `book` has handed out, and keeps cached pages. Sets `grown` where buffers are
    /// new, also where it then fails for want of memory.
    pub fn reserve_pages(&mut self, gpu: &Gpu, plan: &Plan, book: &PageBook, grown: &mut bool) -> Result<(), GpuError> {
        let mut growth = Growth::new(gpu);
        for g in 0..book.groups.len() {
            let need = book.pages_made(g);
            if need <= self.pages[g] {
                continue;
            }
            let layer_bytes = book.groups[g].layer_bytes(book.kv_type()) as u64;
            let pages = need.next_power_of_two().max(4).min(book.groups[g].capacity);
            let (bytes, kept) = (layer_bytes * pages as u64, self.pages[g] as u64 * layer_bytes);
            for cache in caches_of(plan, book, g) {
                bindable(gpu, &format!("a cache of {} tokens", pages * book.groups[g].spec.page_tokens()), bytes)?;
                growth.grow(&mut self.kv[cache], "keys and values", bytes, kept)?;
                *grown = true;
            }
            self.pages[g] = pages;
        }
        Ok(())
    }

    /// Copies the pages that `batch` asks for, of all layers, in one submit.
    pub fn copy_pages(&mut self, gpu: &Gpu, plan: &Plan, book: &PageBook, batch: &Batch) -> Result<(), GpuError> {
        let layer_bytes = |g: usize| book.groups[g].layer_bytes(book.kv_type()) as u64;
        let page_bytes = |g: usize| layer_bytes(g) * caches_of(plan, book, g).count() as u64;
        let Some(most) = batch.copies.iter().map(|copy| page_bytes(copy.group)).max() else { return Ok(()) };
        // A buffer cannot be copied to itself.
        Self::reserve(gpu, &mut self.between, "a copied page", most, None)?;
        let mut encoder = gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        for copy in &batch.copies {
            let bytes = layer_bytes(copy.group);
            // All layers one way and then all the other way, so that few copies wait for others.
            for (i, cache) in caches_of(plan, book, copy.group).enumerate() {
                let (from, to) = (u64::from(copy.from) * bytes, i as u64 * bytes);
                encoder.copy_buffer_to_buffer(&self.kv[cache], from, &self.between, to, Some(bytes));
            }
            for (i, cache) in caches_of(plan, book, copy.group).enumerate() {
                let (from, to) = (i as u64 * bytes, u64::from(copy.to) * bytes);
                encoder.copy_buffer_to_buffer(&self.between, from, &self.kv[cache], to, Some(bytes));
            }
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    /// Makes `buffer` at least `bytes` long, without keeping its contents; true where it is new.
    pub fn reserve(
        gpu: &Gpu,
        buffer: &mut wgpu::Buffer,
        what: &str,
        bytes: u64,
        usage: Option<U>,
    ) -> Result<bool, GpuError> {
        if bytes <= buffer.size() {
            return Ok(false);
        }
        bindable(gpu, what, bytes)?;
        let rounded = bytes.next_power_of_two();
        let bytes = if rounded <= gpu.caps().max_binding { rounded } else { bytes };
        *buffer = gpu.buffer(what, bytes, usage.unwrap_or(DEVICE))?;
        Ok(true)
    }

    /// Makes room for `bytes` of results on their way to the host.
    pub fn reserve_results(&mut self, gpu: &Gpu, bytes: u64) -> Result<(), GpuError> {
        Self::reserve(gpu, &mut self.staging, "results", bytes, Some(U::MAP_READ | U::COPY_DST)).map(drop)
    }

    /// Bytes of all keys and values.
    pub fn kv_bytes(&self) -> u64 {
        self.kv.iter().map(wgpu::Buffer::size).sum()
    }
}

/// The caches of group `g` that lie on the GPU.
fn caches_of<'a>(plan: &'a Plan, book: &'a PageBook, g: usize) -> impl Iterator<Item = usize> + 'a {
    (0..plan.graph.caches().len()).filter(move |cache| {
        let id = CacheId(*cache as u32);
        book.place(id).0 == g && plan.cache_device(id) == Some(Device::Gpu)
    })
}

/// Refuses a buffer that is longer than a binding may be.
fn bindable(gpu: &Gpu, what: &str, bytes: u64) -> Result<(), GpuError> {
    let has = gpu.caps().max_binding;
    if bytes <= has {
        return Ok(());
    }
    let (adapter, op) = (gpu.name().to_owned(), what.to_owned());
    Err(GpuError::Limit { adapter, what: "storage bindings", has, op, needs: bytes })
}

/// Words of `batch.wgsl`'s header.
const HEADER: usize = 16;

/// Writes the step as `lib/batch.wgsl` reads it, without its angles. There are `n_groups` groups of caches.
pub(super) fn pack(batch: &Batch, kvs: &[&SequenceKv], shape: &Shape, n_groups: usize, words: &mut Vec<u32>) {
    words.clear();
    words.resize(HEADER, 0);
    let n = batch.tokens.len();
    words[0] = n as u32;
    words[1] = batch.outputs.len() as u32;
    words[2] = batch.sequences.len() as u32;
    words[3] = words.len() as u32;
    words.extend_from_slice(&batch.positions);
    words[4] = words.len() as u32;
    for (s, sequence) in batch.sequences.iter().enumerate() {
        words.extend(std::iter::repeat_n(s as u32, sequence.n_rows));
    }
    words[5] = words.len() as u32;
    words.extend_from_slice(&batch.outputs);
    words[7] = (4 + 2 * n_groups) as u32;
    words[6] = words.len() as u32;
    let records = words.len();
    words.resize(records + batch.sequences.len() * (4 + 2 * n_groups), 0);
    for (s, (sequence, kv)) in batch.sequences.iter().zip(kvs).enumerate() {
        let record = records + s * (4 + 2 * n_groups);
        words[record] = sequence.first_row as u32;
        words[record + 1] = sequence.n_rows as u32;
        words[record + 2] = sequence.cached as u32;
        for g in 0..n_groups {
            words[record + 4 + 2 * g] = words.len() as u32;
            words[record + 5 + 2 * g] = kv.dropped.get(g).copied().unwrap_or(0) as u32;
            words.extend_from_slice(kv.held.pages.get(g).map_or(&[], Vec::as_slice));
        }
    }
    words[10] = words.len() as u32;
    let parts = words.len();
    words.resize(parts + shape.parts.len(), 0);
    for (kind, of_rows) in shape.parts.iter().enumerate() {
        words[parts + kind] = words.len() as u32;
        of_rows.pack(words);
    }
    words[12] = words.len() as u32;
    for sequence in &batch.sequences {
        words.extend([sequence.state.from.unwrap_or(u32::MAX), sequence.state.to]);
    }
    words[13] = shape.longest as u32;
}
