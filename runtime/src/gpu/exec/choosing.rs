//! Choice of tokens behind a step's own calls: kernels and buffers that are made when they are first needed.

use std::sync::Arc;

use super::{
    Dispatch, Tail,
    arena::{ArenaLayout, DEVICE, Source},
    memory::Memory,
    shape::Shape,
};
use crate::{
    gpu::{
        Gpu, GpuError,
        kernel::{Binding, Kernel, Pipeline},
        ops::{
            Place,
            sample::{self, RESULT_WORDS, Records, SampleDispatches},
        },
        weights::GpuWeights,
    },
    graph::{Device, Plan, Rows},
};

/// The calls that choose tokens.
pub(super) struct Choosing {
    calls: [ChoiceCall; 5],
    vocab: usize,
    chunks: wgpu::Buffer,
    originals: wgpu::Buffer,
    pub results: wgpu::Buffer,
}

struct ChoiceCall {
    dispatch: Dispatch,
    /// Buffers from binding 4 on.
    operands: &'static [Operand],
    made: Option<(Arc<Pipeline>, wgpu::Buffer)>,
    group: Option<wgpu::BindGroup>,
}

#[derive(Clone, Copy)]
enum Operand {
    Chunks,
    Originals,
    Results,
    Tokens,
}

/// The calls, in their order.
const ADJUST: usize = 0;
const CHUNKS: usize = 1;
const CHOOSE: usize = 2;
const RESTORE: usize = 3;
const LOG_PROBABILITIES: usize = 4;

/// The dispatches that choose from the logits of `plan`.
fn dispatches(gpu: &Gpu, plan: &Plan, layout: &ArenaLayout) -> SampleDispatches {
    let slot = plan.slot(plan.output);
    let logits = Place {
        base: layout.output_base() as u32,
        offset: slot.offset as u32,
        stride: slot.stride as u32,
        rows: Rows::Output,
    };
    sample::dispatches(gpu.caps(), logits, slot.width)
}

fn unbind(calls: &mut [ChoiceCall]) {
    calls.iter_mut().for_each(|call| call.group = None);
}

impl Choosing {
    /// The calls for `plan`; none where the device does not run all of its stages.
    pub fn of(gpu: &Gpu, plan: &Plan, layout: &ArenaLayout) -> Result<Option<Self>, GpuError> {
        let all = plan.stages.iter().all(|s| s.device == Device::Gpu);
        all.then(|| Self::new(gpu, plan, layout)).transpose()
    }

    fn new(gpu: &Gpu, plan: &Plan, layout: &ArenaLayout) -> Result<Self, GpuError> {
        let SampleDispatches { adjust, chunks, choose, restore, log_probabilities } = dispatches(gpu, plan, layout);
        let call = |dispatch, operands| ChoiceCall { dispatch, operands, made: None, group: None };
        use Operand as O;
        Ok(Self {
            calls: [
                call(adjust, &[O::Tokens, O::Originals]),
                call(chunks, &[O::Chunks]),
                call(choose, &[O::Chunks, O::Tokens]),
                call(restore, &[O::Originals]),
                call(log_probabilities, &[O::Tokens, O::Results]),
            ],
            vocab: plan.slot(plan.output).width,
            chunks: gpu.buffer("logit chunks", 0, DEVICE)?,
            originals: gpu.buffer("logits without penalties", 0, DEVICE)?,
            results: gpu.buffer("log-probabilities", 0, DEVICE)?,
        })
    }

    /// The kernels of every choice, to be compiled with the plan's.
    pub fn kernels(&self) -> [&Kernel; 2] {
        [CHUNKS, CHOOSE].map(|i| &self.calls[i].dispatch.kernel)
    }

    /// Which calls a step with these choices needs; `read` where its logits are read afterwards.
    fn needed(records: &Records, read: bool) -> [bool; 5] {
        let (any, changed) = (!records.is_empty(), records.originals > 0);
        let mut needed = [false; 5];
        (needed[CHUNKS], needed[CHOOSE], needed[ADJUST]) = (any, any, changed);
        needed[RESTORE] = changed && (read || records.log_probabilities);
        needed[LOG_PROBABILITIES] = records.log_probabilities;
        needed
    }

    /// Makes all that a step with these choices needs, and binds it; with `anew`, again, because buffers are new. `read` is
    /// as for [`Choosing::calls`].
    ///
    /// # Errors
    /// No memory, or a kernel that the driver refuses.
    pub fn prepare(
        &mut self,
        gpu: &Gpu,
        memory: &Memory,
        weights: &GpuWeights,
        records: &Records,
        read: bool,
        anew: bool,
    ) -> Result<(), GpuError> {
        if anew {
            // Before anything can fail: whoever comes next is told of new buffers once.
            unbind(&mut self.calls);
        }
        let n = records.len();
        let results = if records.log_probabilities { RESULT_WORDS * n } else { 0 };
        let words = [sample::chunks_len(self.vocab, n), records.originals, results];
        let buffers = [&mut self.chunks, &mut self.originals, &mut self.results];
        for ((buffer, words), what) in buffers.into_iter().zip(words).zip(["logit chunks", "logits", "probabilities"]) {
            if Memory::reserve(gpu, buffer, what, words as u64 * 4, None)? {
                unbind(&mut self.calls);
            }
        }
        let Self { calls, chunks, originals, results, .. } = self;
        for (call, needed) in calls.iter_mut().zip(Self::needed(records, read)) {
            if !needed || call.group.is_some() {
                continue;
            }
            if call.made.is_none() {
                use wgpu::BufferUsages as U;
                let bytes = &call.dispatch.params;
                let params = gpu.buffer("parameters", bytes.len() as u64, U::UNIFORM | U::STORAGE | U::COPY_DST)?;
                gpu.queue.write_buffer(&params, 0, bytes);
                call.made = Some((gpu.pipeline(&call.dispatch.kernel)?, params));
            }
            let Some((pipeline, params)) = &call.made else { continue };
            let mut bindings = vec![Binding::from(params)];
            let shared = [Source::Batch, Source::Arena, Source::Vectors];
            bindings.extend(shared.map(|s| memory.binding(s, weights)));
            bindings.extend(call.operands.iter().map(|operand| match operand {
                Operand::Chunks => Binding::from(&*chunks),
                Operand::Originals => Binding::from(&*originals),
                Operand::Results => Binding::from(&*results),
                Operand::Tokens => Binding::from(&memory.tokens),
            }));
            call.group = Some(pipeline.bind(gpu, &bindings));
        }
        Ok(())
    }

    /// The calls of a step that was prepared; `read` where its logits are read afterwards.
    pub fn calls(&self, shape: &Shape, records: &Records, read: bool) -> Vec<Tail> {
        let tail = |(call, needed): (&ChoiceCall, bool)| {
            let grid = call.dispatch.grid.map(|dim| shape.workgroups(dim, Rows::Output));
            let (pipeline, _) = call.made.as_ref().filter(|_| needed)?;
            call.group.clone().map(|group| (pipeline.clone(), group, grid))
        };
        self.calls.iter().zip(Self::needed(records, read)).filter_map(tail).collect()
    }
}
