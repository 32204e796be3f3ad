//! Executes plans on the CPU.
//!
//! A step of the model (one token, a prompt, a batch) is one run of the thread pool. Between two barriers each worker
//! claims items: ranges of weight rows, heads of attention, rows of activations. A step allocates memory only when it
//! wants more outputs than any step before it.
//!
//! Where a step has few rows, every worker that claims an item of a linear first runs the row program before it, into
//! its own scratch: repeating a norm costs less than a barrier. The worker that gets item 0 stores the program's
//! results for the others. Reads of the arena therefore happen only inside items, as
//! [`Worker::for_each`](super::pool::Worker::for_each) demands.

mod attention;
mod attention_rows;
#[cfg(test)]
mod attention_tests;
mod backend;
pub(crate) mod choose;
mod experts;
#[cfg(test)]
mod experts_tests;
mod heads;
#[cfg(test)]
mod heads_tests;
mod linear;
mod observe;
mod pairs;
mod part;
mod pool;
mod recurrent;
mod rows;
mod schedule;
mod select;

use std::time::Instant;

use super::{
    CpuError,
    arch::Isa,
    buffer::Buffer,
    kv::KvMemory,
    ops::{LinearKernels, OpKernels, attention::PIECE, exact_linear_kernels, linear_kernels, op_kernels, rope_cos_sin},
    pool::{Pool, Worker},
    states::StateMemory,
};
use crate::{
    Precision,
    backend::StepOutput,
    graph::{Device, Plan, Rows, StageKind, ValueId, WeightId},
    sample::Chosen,
    step::{Batch, ChoiceRef, KvType, PageBook, SequenceKv, SequenceStep, Ticket, UnderWay, check_results},
};
use choose::{Choices, Samplers};
use schedule::Schedule;

/// Options of a CPU backend.
#[derive(Clone, Debug)]
pub struct CpuOptions {
    /// Instruction set.
    pub isa: Isa,
    /// Threads, the caller's included.
    pub threads: usize,
    /// How cached keys and values are stored.
    pub kv_type: KvType,
    /// How exactly linears are computed.
    pub precision: Precision,
    /// Tokens that all sequences together may hold.
    pub max_cached_tokens: usize,
    /// Tokens that one step may have over all sequences.
    pub max_step_tokens: usize,
}

impl Default for CpuOptions {
    /// The best instruction set and the physical cores that the process may use, 4096 tokens in f16, 512 a step.
    fn default() -> Self {
        Self {
            isa: Isa::detect(),
            threads: Pool::default_threads(),
            kv_type: KvType::F16,
            precision: Precision::Fast,
            max_cached_tokens: 4096,
            max_step_tokens: 512,
        }
    }
}

/// A plan ready to run, with its memory and threads.
pub struct CpuBackend {
    plan: Plan,
    pool: Pool,
    book: PageBook,
    kv: KvMemory,
    states: StateMemory,
    isa: Isa,
    ops: &'static OpKernels,
    linear: &'static LinearKernels,
    /// Norm scales, biases and sinks as f32, by weight.
    vectors: Vec<Vec<f32>>,
    /// By cache: what is taken from each key. Empty where keys are not stored in blocks.
    key_centres: Vec<Vec<f32>>,
    schedule: Schedule,
    /// Values with a row per token, then values with a row per output.
    token_values: Buffer,
    output_values: Buffer,
    /// Quantised activations of a step with many rows.
    acts: Buffer,
    /// Scratch by worker.
    scratch: Vec<Buffer>,
    /// Cosines and sines: by rope, by token, `rotary_dims / 2` cos then as many sin.
    rope_tables: Vec<Buffer>,
    /// For length-dependent ropes: cosines of every cached position of every sequence in turn, then the sines.
    key_rope_tables: Vec<Buffer>,
    /// Results of attention over pieces of long sequences.
    partials: Buffer,
    /// By worker: scores of the keys of the longest sequence, where keys are chosen.
    select_scratch: Vec<Buffer>,
    max_step_tokens: usize,
    vocab: usize,
    batch: Batch,
    samplers: Samplers,
    /// Steps that have run and are not collected yet.
    under_way: UnderWay<Finished>,
    /// Logits that are handed out and do not lie together in `output_values`, and hidden states.
    results: [Vec<f32>; 2],
    /// The trace and its clock, while tracing is on.
    tracing: Option<observe::Tracing>,
}

/// A step that has run.
#[derive(Debug)]
pub(crate) struct Finished {
    pub chosen: Vec<Chosen>,
    pub logits: Logits,
    pub hidden: Vec<f32>,
}

/// The logits of a step that are handed out.
#[derive(Debug)]
pub(crate) enum Logits {
    /// The elements of the output values that begin at this one.
    InPlace { first: usize, len: usize },
    /// Kept apart.
    Apart(Vec<f32>),
}

impl Finished {
    /// The token of choice `i`, for a step that builds on it.
    pub fn token(&self, i: usize) -> u32 {
        // Where there was no choice, the step's results mean nothing, whatever it runs on.
        self.chosen.get(i).and_then(|c| c.token).unwrap_or(0)
    }
}

impl UnderWay<Finished> {
    /// The tokens of the sequences that run on what a step under way has chosen.
    pub fn tokens(&self, steps: &[SequenceStep<'_>]) -> Vec<Option<u32>> {
        steps.iter().map(|s| s.tokens.chosen().map(|input| self.token(input))).collect()
    }

    /// What a step under way has chosen.
    pub fn token(&self, (ticket, i): ChoiceRef) -> u32 {
        self.get(ticket).map_or(0, |finished| finished.token(i))
    }
}

/// Data that the workers share during a step.
struct StepContext<'a> {
    backend: &'a CpuBackend,
    kvs: &'a [&'a SequenceKv],
}

impl CpuBackend {
    /// Prepares `plan`: decodes its small vectors, lays out memory, starts threads.
    ///
    /// # Errors
    /// No memory, no threads, or an instruction set that this CPU lacks.
    pub fn new(plan: Plan, options: &CpuOptions) -> Result<Self, CpuError> {
        let threads = options.threads.max(1);
        let pool = Pool::new(threads).map_err(|source| CpuError::Threads { threads, source })?;
        let ops = op_kernels(options.isa);
        let linear = match options.precision {
            Precision::Fast => linear_kernels(options.isa),
            Precision::Exact => exact_linear_kernels(options.isa),
        };
        let graph = &plan.graph;
        options.kv_type.check(graph.caches())?;
        let book = PageBook::new(graph.caches(), options.kv_type, options.max_cached_tokens)
            .with_states(graph.states(), options.max_cached_tokens);
        let kv = KvMemory::new(&book)?;
        let vocab = plan.vocab();
        let mut vectors = plan.decode_vectors()?;
        let key_centres = match options.kv_type {
            KvType::Q8_0 => plan.key_centres(Device::Cpu, &vectors),
            _ => vec![Vec::new(); graph.caches().len()],
        };
        recurrent::turn_taps(&plan, &mut vectors);
        let schedule = Schedule::new(&plan, linear, threads);
        let max_tokens = options.max_step_tokens.max(1);
        let table = |rows: usize, dims: usize| Buffer::new(rows * dims * 4, "the rotation tables");
        let rope_tables = graph.ropes().iter().map(|r| table(max_tokens, r.rotary_dims)).collect::<Result<_, _>>()?;
        let key_rope_tables = graph.ropes().iter().map(|_| table(0, 0)).collect::<Result<_, _>>()?;
        let scratch_bytes = schedule.scratch_bytes(&plan, linear, max_tokens);
        let scratch =
            (0..threads).map(|_| Buffer::new(scratch_bytes, "a worker's scratch")).collect::<Result<_, _>>()?;
        Ok(Self {
            token_values: Buffer::new(plan.token_elements * max_tokens * 4, "the activations")?,
            output_values: Buffer::new(plan.output_elements * 4, "the outputs")?,
            acts: Buffer::new(schedule.act_bytes_per_row * max_tokens, "the quantised activations")?,
            scratch,
            rope_tables,
            key_rope_tables,
            partials: Buffer::new(0, "partial attention")?,
            select_scratch: (0..threads).map(|_| Buffer::new(0, "scores of keys")).collect::<Result<_, _>>()?,
            max_step_tokens: max_tokens,
            batch: Batch::default(),
            samplers: Samplers::new(threads),
            under_way: UnderWay::default(),
            results: Default::default(),
            tracing: None,
            isa: options.isa,
            pool,
            book,
            kv,
            states: StateMemory::default(),
            vocab,
            ops,
            linear,
            vectors,
            key_centres,
            schedule,
            plan,
        })
    }

    /// The plan that runs.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Threads in use.
    pub fn threads(&self) -> usize {
        self.pool.threads()
    }

    /// Tokens that one step may have.
    pub fn max_step_tokens(&self) -> usize {
        self.max_step_tokens
    }

    /// See [`Backend::submit`](crate::Backend::submit).
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than a step or the cache holds, sequences of another backend, no
    /// memory, too many steps under way or tokens of a step that is not. The sequences are then unchanged.
    pub fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, CpuError> {
        let start = Instant::now();
        self.prepare(steps)?;
        let choices = Choices::of(&self.batch, steps, &self.under_way);
        let stages = self.batch.stages(&self.plan);
        if !self.batch.tokens.is_empty() {
            let kvs: Vec<&SequenceKv> = steps.iter().map(|s| &*s.kv).collect();
            let context = StepContext { backend: self, kvs: &kvs };
            if self.tracing.is_some() {
                let calls = context.run_timed(start, stages);
                self.pool.run(&|worker| context.choose(worker, &choices));
                self.add_trace(start, &calls);
            } else {
                self.pool.run(&|worker| {
                    (0..stages).for_each(|i| context.stage(worker, i));
                    context.choose(worker, &choices);
                });
            }
        }
        self.batch.settle(&mut self.book, steps);
        let (chosen, hidden) = (choices.finish(), self.hidden());
        let finished = Finished { chosen, logits: self.logits(), hidden };
        Ok(self.under_way.push(steps, finished))
    }

    /// See [`Backend::collect`](crate::Backend::collect).
    ///
    /// # Errors
    /// A step that is not under way.
    pub fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, CpuError> {
        let Finished { chosen, logits, hidden } = self.under_way.take(ticket)?;
        self.results[1] = hidden;
        let logits = match logits {
            // SAFETY: no run is under way, so nobody writes.
            Logits::InPlace { first, len } => unsafe { self.output_values.slice(first, len) },
            Logits::Apart(rows) => {
                self.results[0] = rows;
                &self.results[0]
            }
        };
        Ok(StepOutput { logits, hidden: &self.results[1], chosen })
    }

    /// Copies the hidden states that are handed out.
    fn hidden(&self) -> Vec<f32> {
        let Some(slot) = self.plan.hidden.map(|hidden| self.plan.slot(hidden)) else { return Vec::new() };
        let n = self.batch.outputs.len();
        // SAFETY: the run is over, so nobody writes.
        let rows = unsafe { self.output_values.slice::<f32>(slot.offset * n, slot.stride * n) };
        self.batch.hidden.iter().flat_map(|row| &rows[*row as usize * slot.stride..][..slot.width]).copied().collect()
    }

    /// Makes the output rows of the step that has run lie together, where all of them are handed out; copies those that are,
    /// where not.
    fn logits(&mut self) -> Logits {
        let (n, slot) = (self.batch.outputs.len(), self.plan.slot(self.plan.output));
        debug_assert_eq!(slot.rows, Rows::Output);
        let first = slot.offset * n;
        if self.batch.wanted.is_empty() {
            return Logits::Apart(Vec::new());
        }
        // SAFETY: the run is over, so nobody writes. Rows are `stride` apart; see below for padded ones.
        let rows = unsafe { self.output_values.slice_mut::<f32>(first, slot.stride * n) };
        if !self.batch.wants_all() {
            let wanted = self.batch.wanted.iter();
            return Logits::Apart(
                wanted.flat_map(|row| &rows[*row as usize * slot.stride..][..slot.width]).copied().collect(),
            );
        }
        if slot.stride != slot.width {
            for r in 1..n {
                rows.copy_within(r * slot.stride..r * slot.stride + slot.width, r * slot.width);
            }
        }
        Logits::InPlace { first, len: n * slot.width }
    }

    /// Copies logits that nobody has collected yet out of the way of the next step.
    fn keep_results(&mut self) {
        for step in self.under_way.iter_mut() {
            if let Logits::InPlace { first, len } = step.logits {
                // SAFETY: no run is under way, so nobody writes.
                step.logits = Logits::Apart(unsafe { self.output_values.slice(first, len) }.to_vec());
            }
        }
    }

    /// Admits a step that may build on steps under way, and keeps what they have computed.
    fn prepare(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<(), CpuError> {
        self.under_way.check(steps)?;
        let tokens = self.under_way.tokens(steps);
        self.keep_results();
        self.admit(steps, &tokens)
    }

    /// Admits a step: pages for its tokens, room for its values, tables for its positions. `tokens` has those that steps
    /// under way have chosen. After it the step cannot fail.
    fn admit(&mut self, steps: &mut [SequenceStep<'_>], tokens: &[Option<u32>]) -> Result<(), CpuError> {
        check_results(steps, &self.plan)?;
        self.batch.admit(&mut self.book, steps, self.max_step_tokens, self.vocab, tokens)?;
        let reserved = self.reserve(steps.len());
        if reserved.is_err() {
            self.batch.undo(&mut self.book, steps);
        }
        reserved?;
        self.kv.copy(&self.book, &self.batch.copies);
        Ok(())
    }

    /// Room for the admitted step's values and states, and tables for its positions.
    fn reserve(&mut self, n_sequences: usize) -> Result<(), CpuError> {
        let n_outputs = self.batch.outputs.len();
        let output_bytes = self.plan.output_elements * n_outputs * 4;
        if self.output_values.len() < output_bytes {
            self.output_values = Buffer::new(output_bytes, "the outputs")?;
        }
        self.fill_rope_tables()?;
        let longest = self.batch.sequences.iter().map(|s| s.cached).max().unwrap_or(0);
        let partials = self.schedule.partial_len * longest.div_ceil(PIECE) * n_sequences * 4;
        let selects = self.plan.stages.iter().any(|s| matches!(s.kind, StageKind::Select(_)));
        let scores = select::scratch_bytes(longest);
        if selects && self.select_scratch[0].len() < scores {
            for buffer in &mut self.select_scratch {
                *buffer = Buffer::new(scores.next_power_of_two(), "scores of keys")?;
            }
        }
        if self.partials.len() < partials {
            self.partials = Buffer::new(partials.next_power_of_two(), "partial attention")?;
        }
        self.states.prepare(&self.book, self.plan.graph.states(), &self.batch)
    }

    /// Cosines and sines of every row of the step, once per rotation.
    fn fill_rope_tables(&mut self) -> Result<(), CpuError> {
        for (r, rope) in self.plan.graph.ropes().iter().enumerate() {
            let half = rope.rotary_dims / 2;
            let keys = self.batch.cached;
            if rope.length_dependent() && self.key_rope_tables[r].len() < keys * rope.rotary_dims * 4 {
                let bytes = keys.next_power_of_two() * rope.rotary_dims * 4;
                self.key_rope_tables[r] = Buffer::new(bytes, "the rotation tables")?;
            }
            for seq in &self.batch.sequences {
                let (inv_freq, factor) = (rope.inv_freq(seq.length), rope.factor(seq.length));
                for row in seq.first_row..seq.first_row + seq.n_rows {
                    // SAFETY: no run is under way, and `&mut self` excludes others.
                    let both = unsafe { self.rope_tables[r].slice_mut::<f32>(row * 2 * half, 2 * half) };
                    let (cos, sin) = both.split_at_mut(half);
                    let position = (self.batch.positions[row] as usize).saturating_sub(rope.back);
                    rope_cos_sin(&inv_freq, factor, position, cos, sin);
                }
                if rope.length_dependent() {
                    // SAFETY: as above.
                    let both = unsafe { self.key_rope_tables[r].slice_mut::<f32>(0, 2 * keys * half) };
                    let (cos, sin) = both.split_at_mut(keys * half);
                    for position in 0..seq.cached {
                        let at = (seq.first_key + position) * half..(seq.first_key + position + 1) * half;
                        rope_cos_sin(&inv_freq, factor, position, &mut cos[at.clone()], &mut sin[at]);
                    }
                }
            }
        }
        Ok(())
    }
}

impl StepContext<'_> {
    /// Makes the step's choices.
    fn choose(&self, worker: &Worker<'_>, choices: &Choices<'_>) {
        let (plan, samplers) = (&self.backend.plan, &self.backend.samplers);
        let width = plan.slot(plan.output).width;
        // SAFETY: the stages before have written the rows, and nobody writes them any more.
        choices.make(worker, samplers, |row| unsafe { self.row(plan.output, row, width) });
    }

    /// Runs one stage of the plan.
    fn stage(&self, worker: &Worker<'_>, i: usize) {
        match &self.backend.plan.stages[i].kind {
            StageKind::Rows(program) => self.rows(worker, program),
            StageKind::Linear(linear) => self.linear(worker, linear, &self.backend.schedule.linear[i]),
            StageKind::Experts(experts) => self.experts(worker, experts, &self.backend.schedule.experts[i]),
            StageKind::Select(select) => self.select(worker, select),
            StageKind::Pool(pool) => self.pool(worker, pool),
            StageKind::Attention(attention) => self.attention(worker, attention),
            StageKind::ShortConv(conv) => self.short_conv(worker, conv),
            StageKind::GatedDelta(delta) => self.gated_delta(worker, delta),
        }
    }

    /// Rows of a kind in this step.
    fn count(&self, rows: Rows) -> usize {
        self.backend.batch.count(rows)
    }

    /// The buffer and element where row `row` of `value` starts, and the elements to the next row.
    fn place(&self, value: ValueId, row: usize) -> (&Buffer, usize, usize) {
        let slot = self.backend.plan.slot(value);
        let buffer = match slot.rows {
            Rows::Token => &self.backend.token_values,
            Rows::Output => &self.backend.output_values,
        };
        (buffer, slot.offset * self.count(slot.rows) + row * slot.stride, slot.stride)
    }

    /// Row `row` of `value`.
    ///
    /// # Safety
    /// Nobody writes the row in this phase.
    unsafe fn row(&self, value: ValueId, row: usize, width: usize) -> &[f32] {
        let (buffer, start, _) = self.place(value, row);
        // SAFETY: the caller's promise.
        unsafe { buffer.slice(start, width) }
    }

    /// Row `row` of `value`, for writing.
    ///
    /// # Safety
    /// Nobody else uses the row in this phase.
    #[allow(clippy::mut_from_ref)]
    unsafe fn row_mut(&self, value: ValueId, row: usize, width: usize) -> &mut [f32] {
        let (buffer, start, _) = self.place(value, row);
        // SAFETY: the caller's promise.
        unsafe { buffer.slice_mut(start, width) }
    }

    /// A norm's scale, a bias or sinks as f32.
    fn vector(&self, id: Option<WeightId>) -> Option<&[f32]> {
        id.map(|id| &self.backend.vectors[id.0 as usize][..])
    }

    /// Cosines and sines of row `row`.
    fn cos_sin(&self, rope: crate::graph::RopeId, row: usize) -> (&[f32], &[f32]) {
        let half = self.backend.plan.graph.ropes()[rope.0 as usize].rotary_dims / 2;
        // SAFETY: tables are written before the run only.
        let both = unsafe { self.backend.rope_tables[rope.0 as usize].slice::<f32>(row * 2 * half, 2 * half) };
        both.split_at(half)
    }
}
