//! From the steps of a plan to calls of kernels.

use std::{collections::HashMap, sync::Arc};

use super::{
    Call, Dim, Dispatch, Kernel, Pipeline, bind,
    memory::{ArenaLayout, Memory, Source},
};
use crate::{
    gpu::{
        Gpu, GpuError,
        ops::{
            Place,
            attention::{self, AttentionPlaces},
            linear::{self, LinearCall, LinearPart},
            rows::{self, Extra, RowDispatch},
        },
        weights::GpuWeights,
    },
    graph::{
        Act, AttentionStep, LinearStep, Plan, RowInstr, RowOp, RowProgram, Rows, Src, StepKind, ValueId, WeightId,
    },
    step::PageBook,
};

/// The calls of one step of the plan.
pub(super) struct StepCalls {
    /// The rows that choose the variant.
    pub rows: Rows,
    pub flops_per_row: u64,
    /// Set where the step's kernel applies the gated activation of its two outputs.
    pub gated: Option<Act>,
    /// For any number of rows.
    before: Vec<Call>,
    /// Then the first of these that suits.
    variants: Vec<(When, Vec<Call>)>,
}

/// What a variant of a step's calls is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// At most so many rows.
    RowsUpTo(u32),
    /// Sequences of many new tokens.
    Prompt,
    /// The keys of this group of caches are divided into parts.
    Split(usize),
    /// Any step.
    Always,
}

/// What a step is like, as far as the choice of calls goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Shape {
    pub tokens: usize,
    pub outputs: usize,
    pub sequences: usize,
    /// No sequence has more than a few new tokens.
    pub decode: bool,
    /// By group of caches: the parts that a row's keys are divided into.
    pub splits: Vec<u32>,
}

impl Shape {
    pub fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.tokens,
            Rows::Output => self.outputs,
        }
    }

    /// Workgroups in a dimension of a dispatch over `rows`.
    pub fn workgroups(&self, dim: Dim, rows: Rows) -> u32 {
        match dim {
            Dim::Fixed(n) => n,
            Dim::RowsOver(n) => (self.count(rows) as u32).div_ceil(n),
            Dim::Sequences => self.sequences as u32,
            Dim::Splits(group) => self.splits[group as usize],
        }
    }
}

impl StepCalls {
    /// The calls for a step of that shape.
    pub fn calls(&self, shape: &Shape) -> impl Iterator<Item = &Call> {
        let fits = |(when, _): &&(When, Vec<Call>)| match when {
            When::RowsUpTo(most) => shape.count(self.rows) as u64 <= u64::from(*most),
            When::Prompt => !shape.decode,
            When::Split(group) => shape.splits[*group] > 1,
            When::Always => true,
        };
        let variant = self.variants.iter().find(fits).map_or(&[][..], |(_, calls)| calls);
        self.before.iter().chain(variant)
    }

    /// All calls of all variants.
    pub fn calls_mut(&mut self) -> impl Iterator<Item = &mut Call> {
        self.before.iter_mut().chain(self.variants.iter_mut().flat_map(|(_, calls)| calls))
    }
}

/// A call that is not compiled yet.
pub(super) struct Draft {
    kernel: Kernel,
    sources: Vec<Source>,
    grid: [Dim; 3],
    rows: Rows,
}

pub(super) struct StepDraft {
    pub rows: Rows,
    pub flops_per_row: u64,
    pub gated: Option<Act>,
    pub before: Vec<Draft>,
    pub variants: Vec<(When, Vec<Draft>)>,
}

/// All that must be known before memory is allocated.
pub(super) struct Lowering<'a> {
    pub plan: &'a Plan,
    pub gpu: &'a Gpu,
    weights: &'a GpuWeights,
    book: &'a PageBook,
    pub layout: ArenaLayout,
    /// Uniform parameters of all calls.
    pub params: Vec<u8>,
    /// All small f32 vectors, one after the other.
    pub vectors: Vec<f32>,
    /// First element in `vectors`, by weight.
    pub vector_at: Vec<u32>,
    steps: Vec<StepDraft>,
}

impl<'a> Lowering<'a> {
    pub fn new(
        gpu: &'a Gpu,
        plan: &'a Plan,
        weights: &'a GpuWeights,
        book: &'a PageBook,
        max_step_tokens: usize,
    ) -> Result<Self, GpuError> {
        let (vectors, vector_at) = decode_vectors(plan)?;
        let layout = lay_out(gpu, plan, max_step_tokens)?;
        let mut lowering =
            Self { plan, gpu, weights, book, layout, params: Vec::new(), vectors, vector_at, steps: Vec::new() };
        // Set where the step before has made this step's gated activation.
        let mut gated = None;
        let mut states = lowering.begin_states();
        for (i, step) in plan.steps.iter().enumerate() {
            let made = gated.take();
            let mut draft = match &step.kind {
                StepKind::Rows(program) => {
                    let before = lowering.program(program, None)?;
                    StepDraft { rows: program.rows, flops_per_row: 0, gated: None, before, variants: Vec::new() }
                }
                StepKind::Linear(linear) => {
                    gated = lowering.gated_with_next(i, linear)?;
                    let act = gated.map(|(act, _)| act);
                    match made {
                        Some((_, value)) => lowering.linear(&without_first(linear, value), act)?,
                        None => lowering.linear(linear, act)?,
                    }
                }
                StepKind::Attention(attention) => lowering.attention(&step.name, attention)?,
                StepKind::ShortConv(conv) => lowering.short_conv(conv),
                StepKind::GatedDelta(delta) => lowering.gated_delta(&step.name, delta)?,
            };
            // With the first step.
            draft.before.splice(..0, states.drain(..));
            lowering.steps.push(draft);
        }
        Ok(lowering)
    }

    /// Compiles every kernel, several at a time, and binds the calls.
    pub fn compile(self, gpu: &Gpu, memory: &Memory, weights: &GpuWeights) -> Result<Vec<StepCalls>, GpuError> {
        let drafts = || self.steps.iter().flat_map(|s| s.before.iter().chain(s.variants.iter().flat_map(|(_, c)| c)));
        let mut kernels: Vec<&Kernel> = Vec::new();
        for draft in drafts() {
            if !kernels.contains(&&draft.kernel) {
                kernels.push(&draft.kernel);
            }
        }
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(kernels.len().max(1));
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
        let steps = self.steps.iter().map(|step| StepCalls {
            rows: step.rows,
            flops_per_row: step.flops_per_row,
            gated: step.gated,
            before: step.before.iter().map(call).collect(),
            variants: step.variants.iter().map(|(n, calls)| (*n, calls.iter().map(call).collect())).collect(),
        });
        Ok(steps.collect())
    }

    /// Where a value of the arena lies.
    pub(super) fn value(&self, id: ValueId) -> Place {
        let slot = self.plan.slot(id);
        let base = match slot.rows {
            Rows::Token => 0,
            Rows::Output => self.layout.output_base(),
        };
        Place { base: base as u32, offset: slot.offset as u32, stride: slot.stride as u32, rows: slot.rows }
    }

    /// Where a source of `program` lies: values and stored temps in their slots, other temps behind all values.
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
    pub(super) fn draft(&mut self, dispatch: Dispatch, others: &[Source]) -> Draft {
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
    /// A row program's calls. `result` is what the step goes on with, if it does.
    fn program(&mut self, program: &RowProgram, result: Option<Src>) -> Result<Vec<Draft>, GpuError> {
        let places = rows::Places {
            place: &|src| self.source(program, src),
            vector: &|id| self.vector_at[id.0 as usize],
            // A table that no binding holds is looked up window by window; each leaves alone what it does not have.
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

    fn linear(&mut self, step: &LinearStep, gated: Option<Act>) -> Result<StepDraft, GpuError> {
        let rows = step.prologue.rows;
        let before = self.program(&step.prologue, Some(step.input))?;
        let input = self.source(&step.prologue, step.input);
        let mut variants: Vec<(When, Vec<Draft>)> = Vec::new();
        for (source, parts) in self.bindings_of(step)? {
            let call = LinearCall { input, k: step.k as u32, parts, rows, residual: None, gated };
            let made = linear::dispatches(self.gpu.caps(), &call)?;
            for (i, variant) in made.into_iter().enumerate() {
                let mut drafts = Vec::new();
                for dispatch in variant.dispatches {
                    drafts.push(self.draft(dispatch, &[source]));
                }
                match variants.get_mut(i) {
                    Some((_, all)) => all.extend(drafts),
                    None => variants.push((When::RowsUpTo(variant.max_rows), drafts)),
                }
            }
        }
        let weights = step.parts.iter().map(|p| self.plan.graph.weight(p.weight));
        let flops_per_row = weights.map(|w| 2 * (w.rows() * w.row_len()) as u64).sum();
        Ok(StepDraft { rows, flops_per_row, gated, before, variants })
    }

    /// The gated activation that step `i`'s kernel can apply to its two outputs, and the place of the first of them,
    /// where the result goes: where the next step begins with it, nothing else reads them, and one binding shows both
    /// weights.
    fn gated_with_next(&self, i: usize, step: &LinearStep) -> Result<Option<(Act, ValueId)>, GpuError> {
        let [a, b] = &step.parts[..] else { return Ok(None) };
        let Some(StepKind::Linear(next)) = self.plan.steps.get(i + 1).map(|s| &s.kind) else { return Ok(None) };
        let first = next.prologue.instrs.first();
        let Some(RowInstr { op: RowOp::GatedAct { act, gate, up }, store: None, .. }) = first else { return Ok(None) };
        let readers =
            |v: ValueId| self.plan.steps.iter().flat_map(|s| s.kind.reads_and_writes().0).filter(move |r| *r == v);
        let fits = *gate == Src::Value(a.output)
            && *up == Src::Value(b.output)
            && readers(a.output).chain(readers(b.output)).count() == 2
            && next.prologue.rows == step.prologue.rows;
        if !fits {
            return Ok(None);
        }
        let groups = self.bindings_of(step)?;
        let whole = groups.len() == 1 && groups[0].1.len() == 2 && groups[0].1[0].rows == groups[0].1[1].rows;
        Ok(whole.then_some((*act, a.output)))
    }

    /// The parts of a step by the binding that shows their weights: as few as possible, parts cut by rows where no
    /// binding holds them.
    fn bindings_of(&self, step: &LinearStep) -> Result<Vec<(Source, Vec<LinearPart>)>, GpuError> {
        let mut windows = Vec::new();
        for part in &step.parts {
            let tensor = self.plan.graph.weight(part.weight);
            for window in self.windows(part.weight, 0..tensor.rows() as u32)? {
                windows.push((part, window));
            }
        }
        let mut groups: Vec<(Source, Vec<LinearPart>)> = Vec::new();
        for (part, window) in windows {
            let tensor = self.plan.graph.weight(part.weight);
            let Source::Weights { buffer, offset, len } = window.source else { continue };
            let make = |byte: u64| LinearPart {
                dtype: tensor.dtype(),
                rows: window.rows.len() as u32,
                out: self.value(part.output),
                out_first: window.rows.start,
                bias: part.bias.map(|b| self.vector_at[b.0 as usize] + window.rows.start),
                weight_byte: byte,
                row_bytes: tensor.row_bytes() as u64,
            };
            if let Some((Source::Weights { buffer: b, offset: o, len: l }, parts)) = groups.last_mut()
                && *b == buffer
                && parts.len() < linear::MAX_PARTS
            {
                let first = offset.min(*o);
                let end = (offset + len).max(*o + *l);
                if end - first <= self.gpu.caps().max_binding {
                    for p in parts.iter_mut() {
                        p.weight_byte += *o - first;
                    }
                    parts.push(make(offset + window.byte - first));
                    (*o, *l) = (first, end - first);
                    continue;
                }
            }
            groups.push((window.source, vec![make(window.byte)]));
        }
        Ok(groups)
    }

    /// Bindings that together show the rows `range` of a weight.
    fn windows(&self, id: WeightId, range: std::ops::Range<u32>) -> Result<Vec<Window>, GpuError> {
        let tensor = self.plan.graph.weight(id);
        let unsupported =
            |why: String| GpuError::Unsupported { op: "linear", name: self.plan.graph.weight_name(id).to_owned(), why };
        let place = self.weights.place(id).ok_or_else(|| unsupported("the weight is not on the device".to_owned()))?;
        let row = tensor.row_bytes() as u64;
        let align = self.gpu.caps().storage_alignment;
        let most = self.gpu.caps().max_binding / align * align;
        let per_window = (most - align).checked_div(row).unwrap_or(1).min(u64::from(u32::MAX)) as u32;
        if per_window == 0 {
            return Err(unsupported(format!("a row of {row} bytes is longer than a binding")));
        }
        let mut windows = Vec::new();
        let mut start = range.start;
        while start < range.end {
            let rows = start..range.end.min(start.saturating_add(per_window));
            let first = place.byte + u64::from(rows.start) * row;
            let end = place.byte + u64::from(rows.end) * row;
            let offset = first / align * align;
            // Kernels read whole words.
            let len = (end - offset).next_multiple_of(4);
            let source = Source::Weights { buffer: place.buffer, offset, len };
            start = rows.end;
            windows.push(Window { rows, byte: first - offset, source });
        }
        Ok(windows)
    }
}

/// `step` without its program's first instruction, whose result is already at `value`.
fn without_first(step: &LinearStep, value: ValueId) -> LinearStep {
    let moved = |src: &mut Src| match *src {
        Src::Temp(0) => *src = Src::Value(value),
        Src::Temp(t) => *src = Src::Temp(t - 1),
        Src::Value(_) => {}
    };
    let mut step = step.clone();
    step.prologue.instrs.remove(0);
    step.prologue.instrs.iter_mut().flat_map(|i| i.op.srcs_mut()).for_each(moved);
    moved(&mut step.input);
    step
}

/// Rows of a weight as one binding shows them.
struct Window {
    rows: std::ops::Range<u32>,
    /// Where the first row begins in the binding.
    byte: u64,
    source: Source,
}

/// The elements that a row of each kind takes, with the scratch of the step that needs most, and how many token rows
/// leave room in one binding for an output row at least.
fn lay_out(gpu: &Gpu, plan: &Plan, max_step_tokens: usize) -> Result<ArenaLayout, GpuError> {
    let mut scratch = [0, 0];
    for step in &plan.steps {
        let program = match &step.kind {
            StepKind::Rows(p) => p,
            StepKind::Linear(l) => &l.prologue,
            StepKind::Attention(_) | StepKind::ShortConv(_) | StepKind::GatedDelta(_) => continue,
        };
        let temps: usize = program.instrs.iter().map(|i| i.width.next_multiple_of(16)).sum();
        let kind = &mut scratch[usize::from(program.rows == Rows::Output)];
        *kind = (*kind).max(temps);
    }
    let mut layout = ArenaLayout {
        token_elements: plan.token_elements + scratch[0],
        output_elements: plan.output_elements + scratch[1],
        max_tokens: max_step_tokens.max(1),
    };
    // Room for some output rows beside the tokens: perplexity wants many, everything else one a sequence.
    let most = gpu.caps().max_binding;
    while layout.max_tokens > 1 && layout.bytes(8) > most {
        layout.max_tokens /= 2;
    }
    if layout.bytes(1) > most {
        return Err(GpuError::Limit {
            adapter: gpu.name().to_owned(),
            what: "storage bindings",
            has: most,
            op: "the activations of one token".to_owned(),
            needs: layout.bytes(1),
        });
    }
    Ok(layout)
}

/// Norm scales, biases and sinks as f32, one after the other, and where each begins.
fn decode_vectors(plan: &Plan) -> Result<(Vec<f32>, Vec<u32>), GpuError> {
    let (mut all, mut at) = (Vec::new(), Vec::new());
    for (_, tensor) in plan.graph.weights() {
        at.push(all.len() as u32);
        if tensor.shape().len() == 1 {
            let first = all.len();
            all.resize(first + tensor.row_len(), 0.0);
            tensor.dtype().decode_row(tensor.bytes(), &mut all[first..])?;
        }
    }
    Ok((all, at))
}

impl Lowering<'_> {
    fn attention(&mut self, name: &str, step: &AttentionStep) -> Result<StepDraft, GpuError> {
        let (group, _) = self.book.place(step.op.cache);
        let places = AttentionPlaces {
            inputs: step.inputs.map(|v| self.value(v)),
            output: self.value(step.output),
            cache_group: group as u32,
            kv: self.book.kv_type(),
            vector: &|id| self.vector_at[id.0 as usize],
        };
        let made = attention::dispatches(self.gpu.caps(), &self.plan.graph, name, step, &places)?;
        let cache = [Source::Rope, Source::Kv(step.op.cache.0 as usize)];
        let parts = [cache[0], cache[1], Source::Partials];
        let before = vec![self.draft(made.heads, &cache)];
        let split = vec![self.draft(made.split, &parts), self.draft(made.merge, &parts)];
        let variants = vec![
            (When::Prompt, vec![self.draft(made.prompt, &cache)]),
            (When::Split(group), split),
            (When::Always, vec![self.draft(made.single, &cache)]),
        ];
        Ok(StepDraft { rows: Rows::Token, flops_per_row: 0, gated: None, before, variants })
    }
}
