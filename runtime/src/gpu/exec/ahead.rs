//! Steps ahead of the host: tokens are chosen on the device and feed the next step there; the host reads them late.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use super::{
    Binding, Dispatch, GpuBackend, Tail,
    arena::{ArenaLayout, Source},
    memory::Memory,
    shape::Shape,
};
use crate::{
    gpu::{
        Gpu, GpuError,
        kernel::Pipeline,
        ops::{
            Dim, Place,
            sample::{self, Choice, SampleDispatches},
        },
        weights::GpuWeights,
    },
    graph::{Plan, Rows},
    step::{Outputs, SequenceKv, SequenceStep, StepError},
};

/// Steps under way at most: one runs, one waits, and one has its token on the way to the host.
const SLOTS: usize = 3;

/// The calls and buffers of choosing on the device, beside the plan's own.
pub(super) struct Ahead {
    samplers: wgpu::Buffer,
    chosen: wgpu::Buffer,
    calls: Vec<SampleCall>,
    /// One a slot: the buffer with the token on its way to the host, and whether it has arrived.
    staging: Vec<(wgpu::Buffer, Arc<AtomicBool>)>,
    /// Steps begun and tokens read.
    begun: u64,
    read: u64,
}

struct SampleCall {
    pipeline: Arc<Pipeline>,
    params: wgpu::Buffer,
    grid: [Dim; 3],
    group: Option<wgpu::BindGroup>,
    /// Buffers from binding 4 on.
    more: Vec<wgpu::Buffer>,
    /// Whether `tokens` and `chosen` follow these buffers.
    chooses: bool,
}

/// The dispatches that choose from the logits of `plan`.
pub(super) fn dispatches(gpu: &Gpu, plan: &Plan, layout: &ArenaLayout) -> SampleDispatches {
    let slot = plan.slot(plan.output);
    let logits = Place {
        base: layout.output_base() as u32,
        offset: slot.offset as u32,
        stride: slot.stride as u32,
        rows: Rows::Output,
    };
    sample::dispatches(gpu.caps(), logits, slot.width)
}

impl Ahead {
    /// The slot of the next step.
    pub fn slot(&self) -> usize {
        self.begun as usize % SLOTS
    }

    fn new(gpu: &Gpu, made: SampleDispatches, vocab: usize) -> Result<Self, GpuError> {
        use wgpu::BufferUsages as U;
        let storage = U::STORAGE | U::COPY_DST | U::COPY_SRC;
        let chunks = gpu.buffer("logit chunks", sample::chunks_len(vocab, 1) as u64 * 4, storage)?;
        let samplers = gpu.buffer("samplers", 32, storage)?;
        let chosen = gpu.buffer("chosen tokens", SLOTS as u64 * 4, storage)?;
        let call = |dispatch: Dispatch, more: Vec<wgpu::Buffer>, chooses: bool| -> Result<SampleCall, GpuError> {
            let params =
                gpu.buffer("parameters", dispatch.params.len() as u64, U::UNIFORM | U::STORAGE | U::COPY_DST)?;
            gpu.queue.write_buffer(&params, 0, &dispatch.params);
            let pipeline = gpu.pipeline(&dispatch.kernel)?;
            Ok(SampleCall { pipeline, params, grid: dispatch.grid, group: None, more, chooses })
        };
        let calls = vec![
            call(made.chunks, vec![chunks.clone()], false)?,
            call(made.choose, vec![chunks, samplers.clone()], true)?,
        ];
        let slot = |_| Ok((gpu.buffer("a token", 4, U::MAP_READ | U::COPY_DST)?, Arc::default()));
        let staging = (0..SLOTS).map(slot).collect::<Result<_, GpuError>>()?;
        Ok(Self { samplers, chosen, calls, staging, begun: 0, read: 0 })
    }
}

impl Ahead {
    /// Binds the calls; with `anew`, again, because buffers are new.
    pub fn bind(&mut self, gpu: &Gpu, memory: &Memory, weights: &GpuWeights, anew: bool) {
        for call in &mut self.calls {
            if call.group.is_some() && !anew {
                continue;
            }
            let sources = [Source::Batch, Source::Arena, Source::Vectors];
            let mut bindings = vec![Binding::from(&call.params)];
            bindings.extend(sources.map(|s| memory.binding(s, weights)));
            bindings.extend(call.more.iter().map(Binding::from));
            if call.chooses {
                bindings.extend([Binding::from(&memory.tokens), Binding::from(&self.chosen)]);
            }
            call.group = Some(call.pipeline.bind(gpu, &bindings));
        }
    }

    /// The calls for a step of that shape.
    pub fn calls(&self, shape: &Shape) -> Vec<Tail> {
        let tail = |call: &SampleCall| {
            let grid = call.grid.map(|dim| shape.workgroups(dim, Rows::Output));
            call.group.clone().map(|group| (call.pipeline.clone(), group, grid))
        };
        self.calls.iter().filter_map(tail).collect()
    }
}

impl GpuBackend {
    /// Steps that may begin before the first token is read.
    pub const AHEAD: usize = SLOTS - 1;

    /// From now on [`GpuBackend::step_ahead`] chooses tokens by `choice`.
    ///
    /// # Errors
    /// No memory, or a kernel that the driver refuses.
    pub fn choose_by(&mut self, choice: &Choice) -> Result<(), GpuError> {
        if self.ahead.is_none() {
            let made = dispatches(&self.gpu, &self.plan, &self.layout);
            self.ahead = Some(Ahead::new(&self.gpu, made, self.plan.slot(self.plan.output).width)?);
        }
        // An answer that was broken off has left unread tokens.
        while self.ahead.as_ref().is_some_and(|a| a.read < a.begun) {
            self.read_token()?;
        }
        if let Some(ahead) = &mut self.ahead {
            let words = Choice { token_row: Some(0), ..*choice }.words();
            self.gpu.queue.write_buffer(&ahead.samplers, 0, bytemuck::cast_slice(&words));
        }
        Ok(())
    }

    /// Begins a step of one sequence: over `tokens`, or over the token that the previous step has chosen. Each step
    /// chooses one token; [`GpuBackend::read_token`] returns them in order.
    ///
    /// # Errors
    /// As [`GpuBackend::forward`].
    pub fn step_ahead(&mut self, kv: &mut SequenceKv, tokens: Option<&[u32]>) -> Result<(), GpuError> {
        let mut steps = [SequenceStep { kv, tokens: tokens.unwrap_or(&[0]), outputs: Outputs::Last }];
        self.admit(&mut steps, true)?;
        let done = self.ahead_admitted(&steps, tokens.is_some());
        // The steps that are ahead may be taken back.
        self.settle(&mut steps, done, SLOTS)
    }

    fn ahead_admitted(&mut self, steps: &[SequenceStep<'_>], tokens: bool) -> Result<(), GpuError> {
        let start = Instant::now();
        let mut encoder = self.begin(steps, tokens, true)?;
        let Some(ahead) = &mut self.ahead else { return Ok(()) };
        let (buffer, there) = ahead.staging[ahead.slot()].clone();
        encoder.copy_buffer_to_buffer(&ahead.chosen, ahead.slot() as u64 * 4, &buffer, 0, Some(4));
        ahead.begun += 1;
        self.submit(encoder, start);
        there.store(false, Ordering::Release);
        buffer.map_async(wgpu::MapMode::Read, ..4, move |_| there.store(true, Ordering::Release));
        self.finish_trace(start)
    }

    /// Refuses a token that no step can go on with, as [`GpuBackend::forward`] would. A step on the device's own token
    /// has no such check.
    ///
    /// # Errors
    /// [`StepError::TokenOutOfRange`].
    pub fn check_token(&self, id: u32) -> Result<(), StepError> {
        let vocab = self.vocab;
        if (id as usize) < vocab { Ok(()) } else { Err(StepError::TokenOutOfRange { id, vocab }) }
    }

    /// The token of the earliest step that is not read yet; `None` where no step is under way, where all logits forbid
    /// every token, or where a logit is +inf or NaN.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn read_token(&mut self) -> Result<Option<u32>, GpuError> {
        let Some(ahead) = &mut self.ahead else { return Ok(None) };
        if ahead.read == ahead.begun {
            return Ok(None);
        }
        let (buffer, there) = &ahead.staging[ahead.read as usize % SLOTS];
        while !there.load(Ordering::Acquire) {
            // Waits for one submission at a time, the earliest first: later ones stay under way.
            let polled = self.gpu.device.poll(wgpu::PollType::Poll);
            self.gpu.check()?;
            polled.map_err(|e| self.gpu.failed(&e))?;
            if !there.load(Ordering::Acquire) {
                std::thread::sleep(std::time::Duration::from_micros(20));
            }
        }
        let view = buffer.get_mapped_range(..4).map_err(|e| self.gpu.failed(&e))?;
        let token = u32::from_le_bytes([view[0], view[1], view[2], view[3]]);
        drop(view);
        buffer.unmap();
        ahead.read += 1;
        Ok((token != u32::MAX).then_some(token))
    }
}
