//! Executes plans on the GPU.
//!
//! On loading, every stage of the plan becomes a few calls: a compiled kernel, a bind group, a grid that depends on the
//! number of rows of the step. A step of the model is then one upload of its rows, one command encoder, one compute
//! pass and one submit. Data that changes from token to token lies in buffers, so nothing is bound or compiled again;
//! bind groups are made again only when a buffer has grown.

mod angles;
mod arena;
mod backend;
mod choosing;
#[cfg(test)]
mod expert_tests;
mod flight;
mod growth;
mod kinds;
mod lower;
mod memory;
mod need;
mod observe;
mod part;
#[cfg(test)]
mod pieces_tests;
mod shape;
mod states;
mod submit;
mod submitted;

use std::{sync::Arc, time::Instant};

use super::{
    Gpu, GpuError,
    kernel::{Binding, Pipeline},
    ops::{Dim, Dispatch, attention::AttentionDispatches, sample::Records},
    weights::GpuWeights,
};
use crate::{
    Precision,
    graph::{Plan, Rows},
    sample::Sampler,
    step::{Batch, GpuStats, KvType, PageBook, Role, SequenceKv, SequenceStep, UnderWay},
};
use angles::Angles;
use arena::{ArenaLayout, Source};
use choosing::Choosing;
use kinds::AttentionKind;
use lower::{Lowering, StageCalls, layout::scores_bytes};
use memory::Memory;
use shape::Shape;
use submit::StagingBuffers;
use submitted::Submitted;

/// Options of a GPU backend.
#[derive(Clone, Debug)]
pub struct GpuBackendOptions {
    /// How cached keys and values are stored.
    pub kv_type: KvType,
    /// How exactly linears are computed.
    pub precision: Precision,
    /// Tokens that all sequences together may hold.
    pub max_cached_tokens: usize,
    /// Tokens that one step may have over all sequences; fewer where their values would not fit a binding.
    pub max_step_tokens: usize,
}

impl Default for GpuBackendOptions {
    /// 4096 tokens in f16, 512 a step.
    fn default() -> Self {
        Self { kv_type: KvType::F16, precision: Precision::Fast, max_cached_tokens: 4096, max_step_tokens: 512 }
    }
}

/// A plan ready to run on a device, with its memory.
pub struct GpuBackend {
    gpu: Arc<Gpu>,
    plan: Plan,
    book: PageBook,
    weights: GpuWeights,
    layout: ArenaLayout,
    memory: Memory,
    stages: Vec<StageCalls>,
    batch: Batch,
    vocab: usize,
    shape: Shape,
    kinds: Vec<AttentionKind>,
    words: Vec<u32>,
    angles: Angles,
    /// Logits and hidden states that were collected last.
    results: [Vec<f32>; 2],
    stats: GpuStats,
    /// Whether buffers have grown since calls were bound: a step may fail between the two.
    unbound: bool,
    /// The calls that choose tokens, where the device runs the whole plan.
    choosing: Option<Choosing>,
    /// The choices that the device makes in the step under preparation.
    records: Records,
    /// Makes the others.
    sampler: Sampler,
    under_way: UnderWay<Submitted>,
    staging: StagingBuffers,
    /// The trace and its timestamps, while tracing is on.
    tracing: Option<Box<observe::Tracing>>,
}

/// One call of a compiled kernel.
struct Call {
    pipeline: Arc<Pipeline>,
    sources: Vec<Source>,
    group: wgpu::BindGroup,
    grid: [Dim; 3],
    rows: Rows,
}

/// A call behind those of the plan: kernel, buffers, workgroups.
type Tail = (Arc<Pipeline>, wgpu::BindGroup, [u32; 3]);

impl GpuBackend {
    /// Prepares `plan`: uploads or imports weights, compiles kernels, lays out memory. `progress` hears of bytes of
    /// weights uploaded and bytes in all.
    ///
    /// # Errors
    /// An op that the GPU backend does not run, a cache that no binding holds, too little device memory, or a kernel
    /// that the driver refuses.
    pub fn new(
        gpu: Arc<Gpu>,
        plan: Plan,
        options: &GpuBackendOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, GpuError> {
        Self::check_cache(&gpu, &plan, options)?;
        let weights = GpuWeights::new(&gpu, &plan, progress)?;
        let mut book = PageBook::new(plan.graph.caches(), options.kv_type, options.max_cached_tokens)
            .with_states(plan.graph.states(), options.max_cached_tokens);
        Self::bound_pages(&gpu, &plan, &mut book);
        let mut lowering = Lowering::new(&gpu, &plan, &weights, &book, options)?;
        let layout = lowering.layout;
        let kinds = std::mem::take(&mut lowering.kinds);
        let memory = Memory::new(&gpu, &layout, &book, &plan, &lowering.params, &lowering.vectors)?;
        let choosing = Choosing::of(&gpu, &plan, &layout)?;
        let kernels: Vec<_> = choosing.iter().flat_map(Choosing::kernels).collect();
        let stages = lowering.compile(&gpu, &memory, &weights, &kernels)?;
        gpu.check()?;
        gpu.save_pipelines();
        Ok(Self {
            vocab: plan.vocab(),
            shape: Shape::default(),
            kinds,
            gpu,
            angles: Angles::new(&plan),
            plan,
            book,
            weights,
            layout,
            memory,
            stages,
            batch: Batch::default(),
            words: Vec::new(),
            results: Default::default(),
            stats: GpuStats::default(),
            unbound: false,
            choosing,
            records: Records::default(),
            sampler: Sampler::default(),
            under_way: UnderWay::default(),
            staging: StagingBuffers::default(),
            tracing: None,
        })
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The device.
    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Tokens that one step may have.
    pub fn max_step_tokens(&self) -> usize {
        self.layout.max_tokens
    }

    /// Tokens that a step should have at most for a sequence that already has `cached`: as many as keep every stage of
    /// the plan within the operations of one submit, because submits are cut only between stages.
    pub fn step_tokens(&self, cached: usize) -> usize {
        let limit = self.gpu.caps().submit_flops;
        let longest = |n: usize| {
            let of_tokens = self.stages.iter().filter(|s| s.rows == Rows::Token);
            of_tokens.map(|s| s.flops.of(n, cached + n)).max().unwrap_or(0)
        };
        let mut tokens = self.layout.max_tokens;
        while tokens > 1 && longest(tokens) > limit {
            tokens /= 2;
        }
        tokens
    }

    /// Output rows that one step may have.
    pub fn max_outputs(&self) -> usize {
        let row = self.layout.output_elements.max(1) as u64 * 4;
        ((self.gpu.caps().max_binding - self.layout.bytes(0)) / row) as usize
    }

    /// Costs of all steps since the start.
    pub fn stats(&self) -> GpuStats {
        self.stats
    }

    /// Bytes of weights copied to the device, and bytes that it reads where they lie in host memory.
    pub fn weight_bytes(&self) -> (u64, u64) {
        (self.weights.copied, self.weights.imported)
    }

    /// Bytes of keys and values on the device.
    pub fn kv_bytes(&self) -> u64 {
        self.memory.kv_bytes()
    }

    fn submit_encoder(&mut self, encoder: wgpu::CommandEncoder, start: Instant) -> wgpu::SubmissionIndex {
        let submitted = self.gpu.queue.submit([encoder.finish()]);
        self.stats.submits += 1;
        self.stats.steps += 1;
        self.stats.host += start.elapsed();
        submitted
    }

    /// Makes room for the admitted step's rows and writes them to the device; true where a buffer had to grow. Its choices
    /// are written from `chosen_at` on.
    ///
    /// # Errors
    /// No memory.
    fn upload(&mut self, steps: &[SequenceStep<'_>], chosen_at: usize) -> Result<bool, GpuError> {
        let gpu = self.gpu.clone();
        let memory = &mut self.memory;
        let grown = &mut self.unbound;
        *grown |= memory.reserve_outputs(&gpu, &self.layout, self.batch.outputs.len())?;
        memory.reserve_pages(&gpu, &self.plan, &self.book, grown)?;
        memory.states.reserve(&gpu, &self.book, grown)?;
        memory.copy_pages(&gpu, &self.plan, &self.book, &self.batch)?;
        let longest = self.batch.sequences.iter().map(|s| s.cached).max().unwrap_or(0);
        let n = self.batch.tokens.len();
        let shape = &mut self.shape;
        (shape.tokens, shape.outputs, shape.sequences) = (n, self.batch.outputs.len(), self.batch.sequences.len());
        shape.choices = self.records.len();
        shape.generated = self.batch.role() == Role::Generated;
        shape.longest = longest;
        let mut partials = 0;
        shape.parts.resize_with(self.kinds.len(), Default::default);
        for (kind, parts) in self.kinds.iter().zip(&mut shape.parts) {
            parts.fill(gpu.caps(), kind, &self.batch, longest);
            if parts.splits() {
                partials = partials.max(AttentionDispatches::partials_len(&kind.op, parts.len()) as u64);
            }
        }
        *grown |= Memory::reserve(&gpu, &mut memory.partials, "partial attention", partials * 4, None)?;
        let scores = scores_bytes(&self.plan, n, longest);
        *grown |= Memory::reserve(&gpu, &mut memory.scores, "scores of keys", scores, None)?;
        let kvs: Vec<&SequenceKv> = self.batch.sequences.iter().map(|s| &*steps[s.step].kv).collect();
        memory::pack(&self.batch, &kvs, &self.shape, self.book.groups.len(), &mut self.words);
        self.words[11] = chosen_at as u32;
        self.records.pack(&mut self.words);
        self.angles.pack(&self.plan, &self.batch, gpu.caps().max_binding, &mut self.words);
        *grown |= Memory::reserve(&gpu, &mut memory.batch, "batch", self.words.len() as u64 * 4, None)?;
        let new_angles = Memory::reserve(&gpu, &mut memory.rope, "rotation tables", self.angles.bytes(), None)?;
        *grown |= new_angles;
        let grown = std::mem::take(grown);
        if grown {
            for call in self.stages.iter_mut().flat_map(StageCalls::calls_mut) {
                call.bind(&gpu, memory, &self.weights);
            }
        }
        let ids = bytemuck::cast_slice::<u32, u8>(&self.batch.tokens);
        for (buffer, bytes) in [(&memory.batch, bytemuck::cast_slice::<u32, u8>(&self.words)), (&memory.tokens, ids)] {
            if !bytes.is_empty() {
                gpu.queue.write_buffer(buffer, 0, bytes);
                self.stats.uploaded += bytes.len() as u64;
            }
        }
        self.stats.uploaded += self.angles.upload(&gpu, &memory.rope, &self.plan, new_angles);
        Ok(grown)
    }

    /// Records the calls of the stages `range` of the plan, and `tail` after them. Long ranges are submitted in parts;
    /// returns the last part.
    fn encode(&mut self, range: std::ops::Range<usize>, tail: &[Tail]) -> wgpu::CommandEncoder {
        let begin = || self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut encoder = begin();
        let mut stages = self.stages.iter().enumerate().take(range.end).skip(range.start).peekable();
        let mut tracing = self.tracing.as_deref_mut();
        while stages.peek().is_some() {
            let mut flops = 0;
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                if let Some(tracing) = &mut tracing {
                    tracing.stamp(&mut pass, None);
                }
                while let Some((_, stage)) = stages.peek() {
                    let n = self.shape.count(stage.rows);
                    let more = stage.flops.of(n, self.shape.longest);
                    // A stage that is longer than a submit should be has a submit of its own.
                    if flops > 0 && flops + more > self.gpu.caps().submit_flops {
                        break;
                    }
                    flops += more;
                    let Some((i, stage)) = stages.next().filter(|_| n > 0) else { continue };
                    for call in stage.calls(&self.shape) {
                        pass.set_pipeline(&call.pipeline.pipeline);
                        pass.set_bind_group(0, &call.group, &[]);
                        let [x, y, z] = call.grid.map(|dim| self.shape.workgroups(dim, call.rows));
                        pass.dispatch_workgroups(x, y, z);
                        if let Some(tracing) = &mut tracing {
                            tracing.stamp(&mut pass, Some((Some(i), call.pipeline.name)));
                        }
                        self.stats.dispatches += 1;
                    }
                }
                if stages.peek().is_none() {
                    for (pipeline, group, [x, y, z]) in tail {
                        pass.set_pipeline(&pipeline.pipeline);
                        pass.set_bind_group(0, group, &[]);
                        pass.dispatch_workgroups(*x, *y, *z);
                        if let Some(tracing) = &mut tracing {
                            tracing.stamp(&mut pass, Some((None, pipeline.name)));
                        }
                        self.stats.dispatches += 1;
                    }
                }
            }
            if stages.peek().is_some() {
                self.gpu.queue.submit([encoder.finish()]);
                self.stats.submits += 1;
                encoder = begin();
            }
        }
        if let Some(tracing) = tracing {
            tracing.resolve(&mut encoder);
        }
        encoder
    }
}

impl Call {
    fn bind(&mut self, gpu: &Gpu, memory: &Memory, weights: &GpuWeights) {
        self.group = bind(gpu, &self.pipeline, &self.sources, memory, weights);
    }
}

fn bind(gpu: &Gpu, pipeline: &Pipeline, sources: &[Source], memory: &Memory, weights: &GpuWeights) -> wgpu::BindGroup {
    let bindings: Vec<Binding<'_>> = sources.iter().map(|s| memory.binding(*s, weights)).collect();
    pipeline.bind(gpu, &bindings)
}
