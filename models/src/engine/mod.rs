//! Runs models: sessions over key/value pages, generation, perplexity.

mod backend;
mod chat;
mod chooser;
mod embed;
mod finite;
mod generate;
mod options;
mod perplexity;
#[cfg(feature = "gpu")]
mod place;
mod prefix;
mod running;
pub mod sampling;
mod sequence;
pub mod verify;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use handmill_runtime::{
    Backend, BackendError, StepOutput,
    cpu::{CpuBackend, CpuError, CpuOptions, Isa, IsaError, Pool},
    format::{HugePages, Mapping, Paging},
    graph::{Device, Plan},
    step::{GpuStats, Outputs, Prefixes, SequenceStep, Ticket, Tokens},
};

#[cfg(feature = "gpu")]
use handmill_runtime::{
    SplitBackend,
    gpu::{GpuBackend, GpuBackendOptions},
};

use crate::{Error, Model};
use backend::AnyBackend;

pub use chat::{Chat, Reply, ToolCall};
pub use embed::Pooling;
pub use generate::{GenerateOptions, GenerateStats, StopReason};
pub use options::{DeviceChoice, EngineOptions, KvChoice, PrecisionChoice};
pub use perplexity::Perplexity;
pub use running::{RunId, Running};
pub use sequence::{Sequence, Step};

/// A model with threads, memory and cache. One engine runs any number of sequences.
pub struct Engine {
    model: Model,
    backend: AnyBackend,
    n_ctx: usize,
    cache_tokens: usize,
    prefixes: Prefixes,
    paging: Vec<Paging>,
    cancel: Option<Arc<AtomicBool>>,
}

/// The last part of a prompt, and the step before it, which is under way.
struct Rest<'t> {
    tokens: &'t [u32],
    before: Option<Ticket>,
    /// The sequence's tokens before the prompt.
    already: usize,
}

/// Puts huge pages under the files that have the model's weights.
fn prepare_files(model: &Model, huge_pages: HugePages) -> Result<Vec<Paging>, Error> {
    let mut files: Vec<&Arc<Mapping>> = Vec::new();
    for (_, weight) in model.graph().weights() {
        if let Some((file, _)) = weight.shared_bytes().mapping()
            && !files.iter().any(|f| Arc::ptr_eq(f, file))
        {
            files.push(file);
        }
    }
    let prepare = |file: &Arc<Mapping>| {
        let no_memory = |_| CpuError::OutOfMemory { what: "a copy of the weights in huge pages", bytes: file.len() };
        Ok(file.prepare(huge_pages).map_err(no_memory).map_err(BackendError::from)?)
    };
    files.into_iter().map(prepare).collect()
}

impl Engine {
    /// Plans the model's graph and makes a backend for it.
    ///
    /// # Errors
    /// No memory, no threads, or an instruction set that this CPU lacks.
    pub fn new(model: &Model, options: &EngineOptions) -> Result<Self, Error> {
        Self::with_progress(model, options, &mut |_, _| {})
    }

    /// As [`Engine::new`]; where weights are copied to a device, `progress` hears of the bytes done and the bytes in all.
    ///
    /// # Errors
    /// As [`Engine::new`].
    pub fn with_progress(
        model: &Model,
        options: &EngineOptions,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self, Error> {
        let (kv_type, precision) = options.formats(model);
        #[cfg_attr(not(feature = "gpu"), allow(unused_mut))]
        let mut n_ctx =
            options.n_ctx.unwrap_or(model.info().context.clamp(EngineOptions::MIN_CTX, EngineOptions::MAX_CTX)).max(1);
        let cache_tokens = |n_ctx: usize| options.cache_tokens.unwrap_or(n_ctx).max(n_ctx);
        let cpu_options = |n_ctx: usize| {
            let isa = options.isa.map_or_else(Isa::from_env, Ok);
            let isa = isa.map_err(|e: IsaError| BackendError::from(CpuError::Isa(e.to_string())))?;
            let threads = options.threads.unwrap_or_else(Pool::default_threads);
            let max_step_tokens = options.max_step_tokens.clamp(1, n_ctx);
            Ok::<_, Error>(CpuOptions {
                isa,
                threads,
                kv_type,
                precision,
                max_cached_tokens: cache_tokens(n_ctx),
                max_step_tokens,
            })
        };
        let mut paging = Vec::new();
        let mut on_cpu = || {
            paging = prepare_files(model, options.huge_pages)?;
            let graph = model.graph().clone();
            let plan = match options.hidden {
                true => Plan::with_hidden(graph, |_, _, _| Ok(Device::Cpu))?,
                false => Plan::new(graph, |_, _, _| Ok(Device::Cpu))?,
            };
            let backend = CpuBackend::new(plan, &cpu_options(n_ctx)?).map_err(BackendError::from)?;
            Ok::<_, Error>(AnyBackend::Cpu(Box::new(backend)))
        };
        let mut backend = match &options.device {
            DeviceChoice::Cpu => {
                let _ = progress;
                on_cpu()?
            }
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(_) if options.gpu_layers == Some(0) => on_cpu()?,
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(gpu) => {
                let layers = options.gpu_layers.unwrap_or(usize::MAX);
                let plan = place::plan(model.graph(), layers, options.experts_on_cpu, options.hidden)?;
                if options.n_ctx.is_none() {
                    // The default context is cut to the cache that the device can hold.
                    n_ctx = n_ctx.min(GpuBackend::most_cached_tokens(gpu, &plan, kv_type)).max(1);
                }
                let max_step_tokens = options.max_step_tokens.clamp(1, n_ctx);
                let max_cached_tokens = cache_tokens(n_ctx);
                let gpu_options = GpuBackendOptions { kv_type, precision, max_cached_tokens, max_step_tokens };
                let before = gpu.memory_in_use();
                let made = if plan.stages.iter().all(|s| s.device == Device::Gpu) {
                    let backend = GpuBackend::new(gpu.clone(), plan, &gpu_options, progress);
                    backend.map(|b| AnyBackend::Gpu(Box::new(b))).map_err(BackendError::from)
                } else {
                    paging = prepare_files(model, options.huge_pages)?;
                    let backend = SplitBackend::new(gpu.clone(), plan, &gpu_options, &cpu_options(n_ctx)?, progress);
                    backend.map(|b| AnyBackend::Split(Box::new(b)))
                };
                made.map_err(|e| place::explain(e, model, gpu, &gpu_options, options, before))?
            }
        };
        let cache_tokens = cache_tokens(n_ctx);
        let prefixes = prefix::new(backend.pages(), cache_tokens);
        let cancel = options.cancel.clone();
        Ok(Self { model: model.clone(), backend, n_ctx, cache_tokens, prefixes, paging, cancel })
    }

    /// The model that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The backend, for its profile and the size of its cache.
    pub fn backend(&mut self) -> &mut (dyn Backend + 'static) {
        &mut *self.backend
    }

    /// The GPU backend, where a GPU runs all of the model.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Option<&GpuBackend> {
        self.backend.gpu()
    }

    /// Costs of all steps so far on the host's side of a GPU; none on the CPU.
    pub fn gpu_stats(&self) -> Option<GpuStats> {
        self.backend.gpu_stats()
    }

    /// Bytes of weights copied to a GPU, and bytes that it reads where they lie in host memory; none on the CPU.
    pub fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        self.backend.gpu_weight_bytes()
    }

    /// Tokens that one sequence may hold.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// Tokens that all sequences together may hold.
    pub fn cache_tokens(&self) -> usize {
        self.cache_tokens
    }

    /// The outcome for the pages of the model's files; empty where the CPU runs nothing.
    pub fn paging(&self) -> &[Paging] {
        &self.paging
    }

    /// Whether [`EngineOptions::cancel`] is set.
    pub fn cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// An empty sequence, which shares nothing with others; see [`Engine::begin`].
    pub fn sequence(&self) -> Sequence {
        Sequence::default()
    }

    /// Another sequence with the same tokens; pages are shared until one of the two writes.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn fork(&mut self, sequence: &Sequence) -> Result<Sequence, Error> {
        let kv = self.backend.pages().fork(&sequence.kv).map_err(BackendError::from)?;
        Ok(Sequence { kv, tokens: sequence.tokens.clone(), ..*sequence })
    }

    /// Forgets all but the first `len` tokens. Returns false, and changes nothing, where a sliding window has already
    /// dropped keys that a continuation would read, or where the model has recurrent states and the one there was not
    /// kept; see [`Sequence::keep_back`].
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) -> Result<bool, Error> {
        let done = self.backend.pages().truncate(&mut sequence.kv, len).map_err(BackendError::from)?;
        sequence.tokens.truncate(sequence.len());
        Ok(done)
    }

    /// Forgets the tokens that steps under way have added to `sequence` and that were not confirmed: for the end of an
    /// answer that a step under way already went beyond. A sequence that cannot go back to there is empty afterwards: a
    /// model with recurrent states keeps as many of them as steps may be under way.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn take_back(&mut self, sequence: &mut Sequence) -> Result<(), Error> {
        let confirmed = sequence.tokens.len();
        self.undo(sequence, confirmed)
    }

    /// Begins a step: new tokens of one or more sequences together; see [`Backend::submit`]. Tokens that another step
    /// chooses count when they are [confirmed](Sequence::confirm). Kept prefixes make room for it.
    ///
    /// # Errors
    /// More tokens than a step, the context or the cache takes; ids outside the vocabulary; sequences of another engine; more
    /// steps under way than there may be; [`EngineOptions::cancel`]. The sequences are then unchanged, with one exception: a
    /// device that fails in the middle of a step may leave sequences of models with recurrent states empty.
    pub fn submit(&mut self, steps: &mut [Step<'_>]) -> Result<Ticket, Error> {
        if self.cancelled() {
            return Err(Error::Cancelled);
        }
        steps.iter().try_for_each(|s| self.check_context(s.sequence.len() + s.tokens.len()))?;
        for step in steps.iter().filter(|s| matches!(s.tokens, Tokens::Ids(ids) if !ids.is_empty())) {
            let unconfirmed = step.sequence.len() - step.sequence.tokens.len().min(step.sequence.len());
            if unconfirmed > 0 {
                return Err(Error::Unconfirmed { tokens: unconfirmed });
            }
        }
        if self.prefixes.tokens() > 0 {
            let wanted: Vec<_> = steps.iter().map(|s| (&s.sequence.kv, s.tokens.len())).collect();
            let keep = steps.iter().any(|s| matches!(s.tokens, Tokens::Chosen(..)));
            self.make_room_for(&wanted, keep)?;
        }
        let mut of_backend: Vec<SequenceStep<'_>> = steps.iter_mut().map(Step::of_backend).collect();
        let submitted = self.backend.submit(&mut of_backend);
        for step in steps.iter_mut() {
            let Sequence { kv, tokens, longest, .. } = &mut *step.sequence;
            *longest = kv.len().max(*longest);
            match (&submitted, step.tokens) {
                (Ok(_), Tokens::Ids(ids)) => tokens.extend_from_slice(ids),
                (Ok(_), _) => {}
                (Err(_), _) => tokens.truncate(kv.len()),
            }
        }
        Ok(submitted?)
    }

    /// Waits for a step; see [`Backend::collect`].
    ///
    /// # Errors
    /// A step that is not under way; errors of the device.
    pub fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, Error> {
        Ok(self.backend.collect(ticket)?)
    }

    /// Runs a step to its end. Returns logits `[outputs, vocab]` in the order of the steps.
    ///
    /// # Errors
    /// As [`Engine::submit`].
    pub fn step(&mut self, steps: &mut [Step<'_>]) -> Result<&[f32], Error> {
        let before: Vec<usize> = steps.iter().map(|s| s.sequence.len()).collect();
        let ticket = self.submit(steps)?;
        if let Err(error) = self.backend.wait(ticket) {
            for (step, len) in steps.iter_mut().zip(before) {
                self.undo(step.sequence, len)?;
            }
            return Err(error.into());
        }
        Ok(self.collect(ticket)?.logits)
    }

    /// Leaves `sequence` with its first `len` tokens, or with none where it cannot go back to them.
    fn undo(&mut self, sequence: &mut Sequence, len: usize) -> Result<(), Error> {
        if !self.truncate(sequence, len)? {
            self.truncate(sequence, 0)?;
        }
        Ok(())
    }

    /// Appends any number of `tokens` to `sequence` and returns the last one's logits.
    ///
    /// # Errors
    /// As [`Engine::step`]; parts that fitted before the error stay in the sequence.
    pub fn prefill(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<&[f32], Error> {
        // This call has no flag of its own to cancel it.
        let Some(rest) = self.prefill_but_last(sequence, tokens, &|_| false)? else { return Err(Error::Cancelled) };
        let last = Step::new(sequence, rest.tokens, Outputs::Last);
        Ok(self.finish_prefill(&rest, last)?.logits)
    }

    /// Appends all of `tokens` except the last part that one step takes, and returns that part. One part is recorded while
    /// the one before runs, and no more, because the caller may break a long prompt off. `cancelled` hears between parts how
    /// many have been submitted; where it returns true, the result is none.
    fn prefill_but_last<'t>(
        &mut self,
        sequence: &mut Sequence,
        tokens: &'t [u32],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Rest<'t>>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let already = sequence.len();
        let total = already + tokens.len();
        self.check_context(total)?;
        // One token is a prompt only where its owner has announced one.
        if tokens.len() > 1 {
            sequence.kv.expect(total);
        }
        sequence.longest = sequence.longest.max(total);
        let mut rest = Rest { tokens, before: None, already };
        // Set while a part may turn out to have failed.
        let mut broken = false;
        let mut run = || {
            while let Some((tokens, more)) =
                rest.tokens.split_at_checked(self.part_tokens(sequence, rest.tokens.len(), usize::MAX))
                && !more.is_empty()
            {
                if cancelled(sequence.len() - already) {
                    return Ok(true);
                }
                let ticket = self.submit(&mut [Step::new(sequence, tokens, Outputs::None)])?;
                rest.tokens = more;
                if let Some(before) = rest.before.replace(ticket) {
                    broken = true;
                    self.collect(before)?;
                    broken = false;
                }
                self.keep_pages(sequence)?;
            }
            Ok(cancelled(sequence.len() - already))
        };
        let result: Result<bool, Error> = run();
        match result {
            Ok(false) => Ok(Some(rest)),
            ended => {
                let before = rest.before.map_or(Ok(()), |ticket| self.collect(ticket).map(drop));
                sequence.kv.expect(0);
                if before.is_err() || broken {
                    // Parts may have failed whose pages are kept already.
                    self.undo(sequence, already)?;
                    self.forget_prefixes()?;
                }
                ended?;
                before.map(|()| None)
            }
        }
    }

    /// Runs the `last` step of a prompt, whose other steps are `rest`.
    fn finish_prefill(&mut self, rest: &Rest<'_>, last: Step<'_>) -> Result<StepOutput<'_>, Error> {
        let mut last = [last];
        let len = last[0].sequence.len();
        let submitted = self.submit(&mut last);
        let [Step { sequence, .. }] = last;
        if let Err(error) = rest.before.map_or(Ok(()), |ticket| self.collect(ticket).map(drop)) {
            let _ = submitted.map(|ticket| self.backend.wait(ticket));
            // The pages of that part are kept already.
            self.undo(sequence, rest.already)?;
            self.forget_prefixes()?;
            return Err(error);
        }
        let waited = submitted.and_then(|ticket| {
            self.backend.wait(ticket)?;
            Ok(ticket)
        });
        match waited {
            Ok(ticket) => self.collect(ticket),
            Err(error) => {
                self.undo(sequence, len)?;
                sequence.kv.expect(0);
                Err(error)
            }
        }
    }

    /// Logits `[tokens, vocab]` of every token of `tokens`, run as a sequence of its own, passed to `each` part by
    /// part.
    ///
    /// # Errors
    /// As [`Engine::step`]; [`Error::NotFinite`] where a logit is +inf or no number.
    pub fn logits(&mut self, tokens: &[u32], mut each: impl FnMut(&[f32])) -> Result<(), Error> {
        self.check_context(tokens.len())?;
        let mut sequence = self.sequence();
        sequence.kv.expect(tokens.len());
        let mut rest = tokens;
        while !rest.is_empty() {
            let (part, more) = rest.split_at(self.output_rows_per_step(sequence.len()).min(rest.len()));
            let logits = self.step(&mut [Step::new(&mut sequence, part, Outputs::All)])?;
            if !finite::are_logits(logits) {
                drop(sequence);
                return Err(self.not_finite(&tokens[..tokens.len() - more.len()]));
            }
            each(logits);
            rest = more;
        }
        Ok(())
    }

    /// Rows of logits to hold in memory at once, after `cached` tokens: about 64 MiB, and all rows of a short prompt.
    fn output_rows_per_step(&self, cached: usize) -> usize {
        let plan = self.backend.plan();
        let row = plan.graph.value(plan.output).width.max(1) * 4;
        let most = self.backend.step_tokens(cached);
        ((64 << 20) / row).clamp(16, most.max(16)).min(most).min(self.backend.max_outputs()).max(1)
    }
}
