//! Executes plans on the GPU.
//!
//! On loading, every stage of the plan becomes a few calls: a compiled kernel, a bind group, a grid that depends on how
//! many rows the step has. A step of the model is then one upload of its rows, one command encoder, one compute pass
//! and one submit; what differs from token to token lies in buffers, so that nothing is bound or compiled anew. Only
//! when a buffer had to grow are the bind groups made again.

mod ahead;
mod angles;
mod arena;
mod backend;
#[cfg(test)]
mod expert_tests;
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

use std::{sync::Arc, time::Instant};

use super::{
    Gpu, GpuError,
    kernel::{Binding, Kernel, Pipeline},
    ops::{
        Dim, Dispatch,
        attention::{self, AttentionDispatches},
    },
    weights::GpuWeights,
};
use crate::{
    graph::{Device, Plan, Rows},
    step::{Batch, GpuStats, KvType, PageBook, SequenceKv, SequenceStep, StepError},
};
use ahead::Ahead;
use angles::Angles;
use arena::{ArenaLayout, Source};
use kinds::AttentionKind;
use lower::{Lowering, StageCalls, layout::scores_bytes};
use memory::Memory;
use shape::Shape;

/// How to make a backend.
#[derive(Clone, Debug)]
pub struct GpuBackendOptions {
    /// Element type of cached keys and values. With f32, linears round nothing to f16 or int8 either.
    pub kv_type: KvType,
    /// Tokens that all sequences together may hold.
    pub max_cached_tokens: usize,
    /// Tokens that one step may have over all sequences; fewer where their values would not fit a binding.
    pub max_step_tokens: usize,
}

/// A plan ready to run on a device, with its memory.
pub struct GpuBackend {
    gpu: Arc<Gpu>,
    plan: Plan,
    book: PageBook,
    weights: GpuWeights,
    layout: ArenaLayout,
    memory: Memory,
    steps: Vec<StageCalls>,
    batch: Batch,
    vocab: usize,
    shape: Shape,
    kinds: Vec<AttentionKind>,
    words: Vec<u32>,
    angles: Angles,
    results: Vec<f32>,
    stats: GpuStats,
    /// Buffers have grown that calls are not bound to yet: a step may fail between the two.
    unbound: bool,
    /// The last step that nobody waits for, having no results.
    unread: Option<wgpu::SubmissionIndex>,
    /// Made when tokens are first chosen on the device.
    ahead: Option<Ahead>,
    /// Set while somebody wants to know where time goes.
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

/// New tokens a sequence up to which attention takes them one by one.
const DECODE_ROWS: usize = 4;

impl GpuBackend {
    /// Prepares `plan`: uploads or imports weights, compiles kernels, lays out memory. `progress` hears of bytes of
    /// weights uploaded and bytes in all.
    ///
    /// # Errors
    /// Where an op is not supported, no binding holds the cache, device memory runs out, or the driver refuses a kernel.
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
        // Tokens are chosen on a device that runs all of the model.
        let all = plan.stages.iter().all(|s| s.device == Device::Gpu);
        let choosing = all.then(|| ahead::dispatches(&gpu, &plan, &layout));
        let choosing: Vec<&Kernel> = choosing.iter().flat_map(|c| [&c.chunks.kernel, &c.choose.kernel]).collect();
        let steps = lowering.compile(&gpu, &memory, &weights, &choosing)?;
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
            steps,
            batch: Batch::default(),
            words: Vec::new(),
            results: Vec::new(),
            stats: GpuStats::default(),
            unbound: false,
            unread: None,
            ahead: None,
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

    /// Tokens that a step should have at most for a sequence that already has `cached`: as many as leave every step of
    /// the plan within the operations of one submit, for submits are cut between stages of the plan alone.
    pub fn step_tokens(&self, cached: usize) -> usize {
        let limit = self.gpu.caps().submit_flops;
        let longest = |n: usize| {
            let of_tokens = self.steps.iter().filter(|s| s.rows == Rows::Token);
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

    /// Runs the model over new tokens of one or more sequences and returns the output rows
    /// `[outputs, width]`, in the order of the sequences.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than fit a step or the cache, sequences of another backend, no memory:
    /// the sequences are then unchanged. Whatever the device reports: sequences with states may then be empty.
    pub fn forward(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<&[f32], GpuError> {
        self.admit(steps, false)?;
        let done = self.forward_admitted(steps);
        self.settle(steps, done, 0)?;
        Ok(&self.results)
    }

    /// Runs the admitted step and fetches its output rows.
    fn forward_admitted(&mut self, steps: &[SequenceStep<'_>]) -> Result<(), GpuError> {
        let start = Instant::now();
        self.results.clear();
        let n_outputs = self.batch.outputs.len();
        let slot = self.plan.slot(self.plan.output);
        let first = self.layout.output_base() + slot.offset * n_outputs;
        let bytes = (slot.stride * n_outputs) as u64 * 4;
        // Before anything runs: what fails until then costs the sequences nothing.
        self.memory.reserve_results(&self.gpu, bytes)?;
        let mut encoder = self.begin(steps, true, false)?;
        if n_outputs > 0 {
            encoder.copy_buffer_to_buffer(&self.memory.arena, first as u64 * 4, &self.memory.staging, 0, Some(bytes));
        }
        let submitted = self.submit(encoder, start);
        self.finish_trace(start)?;
        if n_outputs == 0 {
            // One step is recorded while the one before it runs, and no more: somebody may break a long prompt off.
            if let Some(before) = self.unread.replace(submitted) {
                let wait = wgpu::PollType::Wait { submission_index: Some(before), timeout: None };
                self.gpu.device.poll(wait).map_err(|e| self.gpu.failed(&e))?;
            }
            return self.gpu.check();
        }
        self.memory.staging.map_async(wgpu::MapMode::Read, ..bytes, |_| {});
        self.gpu.wait()?;
        let view = self.memory.staging.get_mapped_range(..bytes).map_err(|e| self.gpu.failed(&e))?;
        let rows: &[f32] = bytemuck::cast_slice(&view);
        for row in rows.chunks_exact(slot.stride) {
            self.results.extend_from_slice(&row[..slot.width]);
        }
        drop(view);
        self.memory.staging.unmap();
        Ok(())
    }

    /// Ends an admitted step: drops what its sequences' windows have passed, but for their last `back` tokens, or takes the
    /// step back where it has failed.
    fn settle(
        &mut self,
        steps: &mut [SequenceStep<'_>],
        done: Result<(), GpuError>,
        back: usize,
    ) -> Result<(), GpuError> {
        match &done {
            Ok(()) => steps.iter_mut().for_each(|s| self.book.drop_passed(s.kv, back)),
            Err(_) => self.batch.undo(&mut self.book, steps),
        }
        done
    }

    /// Writes the admitted step's rows to the device and records all of its calls. `tokens` says whether the token ids
    /// are the host's; else the device has written them itself. `choose` has it choose the next ones, too.
    fn begin(
        &mut self,
        steps: &[SequenceStep<'_>],
        tokens: bool,
        choose: bool,
    ) -> Result<wgpu::CommandEncoder, GpuError> {
        let start = Instant::now();
        let grown = self.upload(steps, tokens)?;
        let tail = match &mut self.ahead {
            Some(ahead) => {
                ahead.bind(&self.gpu, &self.memory, &self.weights, grown);
                if choose { ahead.calls(&self.shape) } else { Vec::new() }
            }
            None => Vec::new(),
        };
        if self.tracing.as_ref().is_some_and(|t| t.by_host()) {
            self.run_timed(start, &tail)?;
            return Ok(self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()));
        }
        Ok(self.encode(0..self.steps.len(), &tail))
    }

    /// Admits the step: pages for its tokens, and the list of its rows. `keep` says that it may be taken back later.
    fn admit(&mut self, steps: &mut [SequenceStep<'_>], keep: bool) -> Result<(), GpuError> {
        let (rows, limit) = (steps.iter().map(SequenceStep::n_outputs).sum(), self.max_outputs());
        if rows > limit {
            return Err(StepError::TooManyOutputs { rows, limit }.into());
        }
        Ok(self.batch.admit(&mut self.book, steps, self.layout.max_tokens, self.vocab, keep)?)
    }

    fn submit(&mut self, encoder: wgpu::CommandEncoder, start: Instant) -> wgpu::SubmissionIndex {
        let submitted = self.gpu.queue.submit([encoder.finish()]);
        self.stats.submits += 1;
        self.stats.steps += 1;
        self.stats.host += start.elapsed();
        submitted
    }

    /// Writes the admitted step's rows to the device, after making room for them; true where a buffer had to grow. Kernels
    /// may run then.
    ///
    /// # Errors
    /// Where there is no room.
    fn upload(&mut self, steps: &[SequenceStep<'_>], tokens: bool) -> Result<bool, GpuError> {
        let gpu = self.gpu.clone();
        let memory = &mut self.memory;
        let grown = &mut self.unbound;
        *grown |= memory.reserve_outputs(&gpu, &self.layout, self.batch.outputs.len())?;
        memory.reserve_pages(&gpu, &self.plan, &self.book, grown)?;
        *grown |= memory.states.reserve(&gpu, &self.book)?;
        memory.copy_pages(&gpu, &self.plan, &self.book, &self.batch)?;
        let longest = self.batch.sequences.iter().map(|s| s.cached).max().unwrap_or(0);
        let n = self.batch.tokens.len();
        let shape = &mut self.shape;
        (shape.tokens, shape.outputs, shape.sequences) = (n, self.batch.outputs.len(), self.batch.sequences.len());
        shape.decode = self.batch.sequences.iter().all(|s| s.n_rows <= DECODE_ROWS)
            || !self.kinds.iter().all(|k| attention::fits_one_part(gpu.caps(), &k.op, k.every, longest));
        shape.longest = longest;
        shape.splits.clear();
        let mut partials = 0;
        for k in &self.kinds {
            let splits = if shape.decode { attention::splits(gpu.caps(), &k.op, k.every, longest, n) } else { 1 };
            let len = AttentionDispatches::partials_len(&k.op, n, splits) as u64;
            partials = partials.max(len * u64::from(splits > 1));
            shape.splits.push(splits);
        }
        *grown |= Memory::reserve(&gpu, &mut memory.partials, "partial attention", partials * 4, None)?;
        let scores = scores_bytes(&self.plan, n, longest);
        *grown |= Memory::reserve(&gpu, &mut memory.scores, "scores of keys", scores, None)?;
        let kvs: Vec<&SequenceKv> = steps.iter().map(|s| &*s.kv).collect();
        memory::pack(&self.batch, &kvs, &self.shape, self.book.groups.len(), &mut self.words);
        self.angles.pack(&self.plan, &self.batch, gpu.caps().max_binding, &mut self.words);
        *grown |= Memory::reserve(&gpu, &mut memory.batch, "batch", self.words.len() as u64 * 4, None)?;
        let new_angles = Memory::reserve(&gpu, &mut memory.rope, "rotation tables", self.angles.bytes(), None)?;
        *grown |= new_angles;
        let grown = std::mem::take(grown);
        if grown {
            for call in self.steps.iter_mut().flat_map(StageCalls::calls_mut) {
                call.bind(&gpu, memory, &self.weights);
            }
        }
        let ids: &[u32] = if tokens { &self.batch.tokens } else { &[] };
        if let Some(ahead) = &self.ahead {
            self.words[11] = ahead.slot() as u32;
        }
        for (buffer, bytes) in
            [(&memory.batch, bytemuck::cast_slice::<u32, u8>(&self.words)), (&memory.tokens, bytemuck::cast_slice(ids))]
        {
            if !bytes.is_empty() {
                gpu.queue.write_buffer(buffer, 0, bytes);
                self.stats.uploaded += bytes.len() as u64;
            }
        }
        self.stats.uploaded += self.angles.upload(&gpu, &memory.rope, &self.plan, new_angles);
        self.batch.begin();
        Ok(grown)
    }

    /// Records the calls of the steps `range` of the plan, and `tail` behind them. Long ones are submitted in parts; the last part is returned.
    fn encode(&mut self, range: std::ops::Range<usize>, tail: &[Tail]) -> wgpu::CommandEncoder {
        let begin = || self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default());
        let mut encoder = begin();
        let mut steps = self.steps.iter().enumerate().take(range.end).skip(range.start).peekable();
        let mut tracing = self.tracing.as_deref_mut();
        while steps.peek().is_some() {
            let mut flops = 0;
            {
                let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
                if let Some(tracing) = &mut tracing {
                    tracing.stamp(&mut pass, None);
                }
                while let Some((_, step)) = steps.peek() {
                    let n = self.shape.count(step.rows);
                    let more = step.flops.of(n, self.shape.longest);
                    // A step that is longer than a submit should be has one of its own.
                    if flops > 0 && flops + more > self.gpu.caps().submit_flops {
                        break;
                    }
                    flops += more;
                    let Some((i, step)) = steps.next().filter(|_| n > 0) else { continue };
                    for call in step.calls(&self.shape) {
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
                if steps.peek().is_none() {
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
            if steps.peek().is_some() {
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
