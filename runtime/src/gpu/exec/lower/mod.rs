//! From the stages of a plan to calls of kernels.

mod attention;
mod calls;
mod experts;
pub(super) mod layout;
mod linear;
mod recurrent;
mod select;
mod windows;

use std::{borrow::Cow, collections::HashMap, sync::Arc};

use super::{
    Call, Dim, Dispatch, GpuBackendOptions, Pipeline,
    arena::{ArenaLayout, Source},
    bind,
    kinds::{self, AttentionKind},
    memory::Memory,
};
use crate::{
    Precision,
    cpu::Pool,
    format::ScaleType,
    gpu::{
        Caps, Gpu, GpuError, Kernel,
        ops::{
            Place,
            rows::{self, Extra, RowDispatch},
        },
        weights::GpuWeights,
    },
    graph::{Act, Device, Plan, ResidualSum, RowProgram, Rows, Src, StageKind, ValueId},
    step::PageBook,
};
pub(super) use calls::StageCalls;
use calls::{Flops, When};

/// A call that is not compiled yet.
#[derive(Clone)]
struct Draft {
    kernel: Kernel,
    sources: Vec<Source>,
    grid: [Dim; 3],
    rows: Rows,
}

struct StageDraft {
    rows: Rows,
    flops: Flops,
    gated: Option<Act>,
    sum: Option<ResidualSum>,
    before: Vec<Draft>,
    variants: Vec<(When, Vec<Draft>)>,
}

impl StageDraft {
    /// The same calls for any number of rows.
    fn of(rows: Rows, flops: Flops, before: Vec<Draft>) -> Self {
        Self { rows, flops, gated: None, sum: None, before, variants: Vec::new() }
    }
}

/// All facts that must be known before memory is allocated.
pub(super) struct Lowering<'a> {
    plan: &'a Plan,
    gpu: &'a Gpu,
    weights: &'a GpuWeights,
    book: &'a PageBook,
    pub kinds: Vec<AttentionKind>,
    /// The capabilities that linears may use. Where keys and values are f32, factors may be neither f16 nor int8.
    linear_caps: Caps,
    pub layout: ArenaLayout,
    /// Uniform parameters of all calls.
    pub params: Vec<u8>,
    /// All small f32 vectors, one after the other.
    pub vectors: Vec<f32>,
    /// First element in `vectors`, by weight.
    vector_at: Vec<u32>,
    stages: Vec<StageDraft>,
    /// By stage: the sum behind it that its kernel can make.
    sums: Vec<Option<ResidualSum>>,
    /// The route whose pairs are on the device at this point of the plan.
    sorted: Option<ValueId>,
}

impl<'a> Lowering<'a> {
    pub fn new(
        gpu: &'a Gpu,
        plan: &'a Plan,
        weights: &'a GpuWeights,
        book: &'a PageBook,
        options: &GpuBackendOptions,
    ) -> Result<Self, GpuError> {
        let (mut vectors, mut vector_at) = (Vec::new(), Vec::new());
        for (vector, (_, tensor)) in plan.decode_vectors()?.into_iter().zip(plan.graph.weights()) {
            vector_at.push(vectors.len() as u32);
            vectors.extend(vector);
            // Scales that a file keeps apart lie among the vectors.
            if let Some(scales) = tensor.scales().filter(|s| s.dtype == ScaleType::F32) {
                vectors.extend(scales.bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)));
            }
        }
        // Some kernels read four elements at a time.
        vectors.resize(vectors.len().next_multiple_of(4), 0.0);
        let layout = layout::lay_out(gpu, plan, options)?;
        let rounding = options.precision == Precision::Fast;
        let caps = gpu.caps();
        let linear_caps = Caps { f16: caps.f16 && rounding, int8_dot: caps.int8_dot && rounding, ..caps.clone() };
        let mut lowering = Self {
            plan,
            gpu,
            weights,
            book,
            kinds: kinds::kinds(plan, book),
            linear_caps,
            layout,
            params: Vec::new(),
            vectors,
            vector_at,
            stages: Vec::new(),
            sums: plan.residual_sums(),
            sorted: None,
        };
        // The value that this stage's program begins with, where the stage before has made it.
        let mut begun: Option<ValueId> = None;
        let mut states = lowering.begin_states();
        for (i, stage) in plan.stages.iter().enumerate() {
            let made = begun.take();
            if stage.device != Device::Gpu {
                // Another device runs this stage.
                lowering.stages.push(StageDraft::of(Rows::Token, Flops::default(), Vec::new()));
                continue;
            }
            let kind = match made {
                Some(value) => Cow::Owned(stage.kind.clone().without_first(value)),
                None => Cow::Borrowed(&stage.kind),
            };
            let mut draft = match &*kind {
                StageKind::Rows(program) => {
                    let before = lowering.program(program, None)?;
                    StageDraft::of(program.rows, Flops::default(), before)
                }
                StageKind::Linear(linear) => {
                    let gated = lowering.gated_with_next(i, linear)?;
                    let sum = if gated.is_none() { lowering.sum_with_next(i, linear)? } else { None };
                    begun = gated.map(|(_, value)| value).or(sum.map(|s| s.sum));
                    lowering.linear(linear, gated.map(|(act, _)| act), sum)?
                }
                StageKind::Experts(experts) => lowering.experts(experts)?,
                StageKind::Select(select) => lowering.select(&stage.name, select)?,
                StageKind::Pool(pool) => lowering.pool(&stage.name, pool)?,
                StageKind::Attention(attention) => lowering.attention(&stage.name, attention)?,
                StageKind::ShortConv(conv) => lowering.short_conv(conv),
                StageKind::GatedDelta(delta) => lowering.gated_delta(&stage.name, delta)?,
            };
            // The states are made ready before the first stage.
            draft.before.splice(..0, states.drain(..));
            lowering.stages.push(draft);
        }
        Ok(lowering)
    }

    /// Compiles all kernels, and those of `others`, several at a time, and binds the calls.
    pub fn compile(
        self,
        gpu: &Gpu,
        memory: &Memory,
        weights: &GpuWeights,
        others: &[&Kernel],
    ) -> Result<Vec<StageCalls>, GpuError> {
        let drafts = || self.stages.iter().flat_map(|s| s.before.iter().chain(s.variants.iter().flat_map(|(_, c)| c)));
        let mut kernels: Vec<&Kernel> = Vec::new();
        for kernel in drafts().map(|draft| &draft.kernel).chain(others.iter().copied()) {
            if !kernels.contains(&kernel) {
                kernels.push(kernel);
            }
        }
        let threads = Pool::hardware_threads().min(kernels.len().max(1));
        let next = std::sync::atomic::AtomicUsize::new(0);
        let compiled: Vec<Result<(), GpuError>> = std::thread::scope(|scope| {
            let work = || {
                while let Some(kernel) = kernels.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    gpu.pipeline(kernel)?;
                }
                Ok(())
            };
            let handles: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
            handles.into_iter().filter_map(|h| h.join().ok()).collect()
        });
        compiled.into_iter().collect::<Result<(), _>>()?;
        let mut pipelines: HashMap<&Kernel, Arc<Pipeline>> = HashMap::new();
        for kernel in kernels {
            pipelines.insert(kernel, gpu.pipeline(kernel)?);
        }
        let call = |draft: &Draft| {
            let pipeline = pipelines[&draft.kernel].clone();
            let group = bind(gpu, &pipeline, &draft.sources, memory, weights);
            Call { pipeline, sources: draft.sources.clone(), group, grid: draft.grid, rows: draft.rows }
        };
        let stages = self.stages.iter().map(|stage| StageCalls {
            rows: stage.rows,
            flops: stage.flops,
            gated: stage.gated,
            sum: stage.sum.map(|s| s.sum),
            before: stage.before.iter().map(call).collect(),
            variants: stage.variants.iter().map(|(n, calls)| (*n, calls.iter().map(call).collect())).collect(),
        });
        Ok(stages.collect())
    }

    /// The place of a value of the arena.
    fn value(&self, id: ValueId) -> Place {
        let slot = self.plan.slot(id);
        let base = match slot.rows {
            Rows::Token => 0,
            Rows::Output => self.layout.output_base(),
        };
        Place { base: base as u32, offset: slot.offset as u32, stride: slot.stride as u32, rows: slot.rows }
    }

    /// The place of a source of `program`: values and stored temps lie in their slots, other temps behind all values.
    fn source(&self, program: &RowProgram, src: Src) -> Place {
        let index = match src {
            Src::Value(v) => return self.value(v),
            Src::Temp(t) => usize::from(t),
        };
        if let Some(stored) = program.instrs[index].store {
            return self.value(stored);
        }
        let before: usize = program.instrs[..index].iter().map(|i| i.width.next_multiple_of(16)).sum();
        self.scratch(program.rows, before, program.instrs[index].width)
    }

    /// A place of `width` elements a row, `offset` elements behind the plan's own values.
    fn scratch(&self, rows: Rows, offset: usize, width: usize) -> Place {
        let (base, first) = match rows {
            Rows::Token => (0, self.plan.token_elements),
            Rows::Output => (self.layout.output_base(), self.plan.output_elements),
        };
        Place { base: base as u32, offset: (first + offset) as u32, stride: width.next_multiple_of(16) as u32, rows }
    }

    /// Adds a dispatch's parameters to all parameters and names its buffers.
    fn draft(&mut self, dispatch: Dispatch, others: &[Source]) -> Draft {
        let caps = self.gpu.caps();
        let align = caps.uniform_alignment.max(caps.storage_alignment).max(16) as usize;
        self.params.resize(self.params.len().next_multiple_of(align), 0);
        let offset = self.params.len() as u64;
        // Uniform structs are multiples of 16 bytes.
        let len = dispatch.params.len().next_multiple_of(16) as u64;
        self.params.extend_from_slice(&dispatch.params);
        self.params.resize((offset + len) as usize, 0);
        let mut sources = vec![Source::Params { offset, len }, Source::Batch, Source::Arena, Source::Vectors];
        sources.extend_from_slice(others);
        sources.truncate(dispatch.kernel.bindings.len());
        Draft { kernel: dispatch.kernel, sources, grid: dispatch.grid, rows: dispatch.rows }
    }
}

impl Lowering<'_> {
    /// A row program's calls. `result` is the source that the stage reads afterwards, if any.
    fn program(&mut self, program: &RowProgram, result: Option<Src>) -> Result<Vec<Draft>, GpuError> {
        let places = rows::Places {
            place: &|src| self.source(program, src),
            vector: &|id| self.vector_at[id.0 as usize],
            // A table that no binding holds is looked up window by window; each dispatch skips the rows of other
            // windows.
            table: &|id| {
                let windows = self.windows(id, 0..self.plan.graph.weight(id).rows() as u32)?;
                Ok(windows.into_iter().map(|w| (w.rows, w.byte)).collect())
            },
        };
        let dispatches = rows::lower(self.gpu.caps(), &self.plan.graph, program, result, &places)?;
        let mut drafts = Vec::new();
        for RowDispatch { dispatch, extra } in dispatches {
            let draft = match extra {
                Extra::None => self.draft(dispatch, &[]),
                Extra::Rope => self.draft(dispatch, &[Source::Rope]),
                Extra::Tokens => self.draft(dispatch, &[Source::Tokens]),
                Extra::Table { weight, rows } => {
                    let windows = self.windows(weight, rows)?;
                    let sources: Vec<Source> = windows.iter().map(|w| w.source).collect();
                    self.draft(dispatch, &[sources[0], Source::Tokens])
                }
            };
            drafts.push(draft);
        }
        Ok(drafts)
    }
}
