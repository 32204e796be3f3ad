//! Runs models: sessions over key/value pages, generation, perplexity.

mod chat;
mod chooser;
mod finite;
mod generate;
mod perplexity;
#[cfg(feature = "gpu")]
mod place;
pub mod sampling;
pub mod verify;

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use handmill_runtime::{
    Backend, BackendError, Precision,
    cpu::{CpuBackend, CpuError, CpuOptions, Isa, IsaError, Pool},
    format::{HugePages, Mapping, Paging},
    graph::{Device, Plan},
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

#[cfg(feature = "gpu")]
use handmill_runtime::{
    SplitBackend,
    gpu::{Gpu, GpuBackend, GpuBackendOptions},
};

use crate::{Error, Model};

pub use chat::{Chat, Reply, ToolCall};
pub use generate::{GenerateOptions, GenerateStats, StopReason};
pub use perplexity::Perplexity;

/// How cached keys and values are stored. It says nothing of arithmetic: see [`PrecisionChoice`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum KvChoice {
    /// f32 for models stored as f32, else f16.
    #[default]
    Auto,
    /// IEEE binary16.
    F16,
    /// IEEE binary32.
    F32,
    /// Signed bytes with a scale for each 32: about half the memory of f16, on the CPU alone. See
    /// [`KvType::Q8_0`].
    Q8_0,
}

/// How exactly linears are computed. See [`Precision`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum PrecisionChoice {
    /// Exact for models stored as f32, else fast.
    #[default]
    Auto,
    /// Activations may be rounded to int8 or f16 before they are multiplied.
    Fast,
    /// Activations stay in f32 for weights of all formats: exact, and slower where weights are in blocks. With
    /// [`KvChoice::F32`] nothing is rounded but sums.
    Exact,
}

/// The device of a model.
#[derive(Clone, Default)]
#[non_exhaustive]
pub enum DeviceChoice {
    /// The CPU.
    #[default]
    Cpu,
    /// An opened GPU.
    #[cfg(feature = "gpu")]
    Gpu(Arc<Gpu>),
}

/// Options of an engine.
#[derive(Clone)]
pub struct EngineOptions {
    /// The device.
    pub device: DeviceChoice,
    /// On a GPU: the number of layers that run there, the last ones together with the head; the CPU runs the rest. By
    /// default all.
    pub gpu_layers: Option<usize>,
    /// On a GPU: whether the CPU runs the experts of mixtures, most of whose weights a token does not read.
    pub experts_on_cpu: bool,
    /// Threads; by default the physical cores that the process may use.
    pub threads: Option<usize>,
    /// Tokens that all sequences together may hold; by default the context that the model was made for, within
    /// [`EngineOptions::MIN_CTX`] and [`EngineOptions::MAX_CTX`]. Memory grows with the tokens.
    pub n_ctx: Option<usize>,
    /// How cached keys and values are stored.
    pub kv: KvChoice,
    /// How exactly linears are computed.
    pub precision: PrecisionChoice,
    /// Instruction set; by default the one that `HANDMILL_CPU` names, else the best that the CPU has.
    pub isa: Option<Isa>,
    /// Most tokens in one step; longer prompts are cut into parts.
    pub max_step_tokens: usize,
    /// Treatment of files that the page cache holds in small pages, where the CPU runs.
    pub huge_pages: HugePages,
    /// Cancels the engine's work once it is set: every further step is refused with [`Error::Cancelled`].
    pub cancel: Option<Arc<AtomicBool>>,
}

impl EngineOptions {
    /// The shortest default context: beyond its own context a model relies on its rope scaling.
    pub const MIN_CTX: usize = 4096;
    /// The longest default context.
    pub const MAX_CTX: usize = 32768;
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            device: DeviceChoice::Cpu,
            gpu_layers: None,
            experts_on_cpu: false,
            threads: None,
            n_ctx: None,
            kv: KvChoice::Auto,
            precision: PrecisionChoice::Auto,
            isa: None,
            max_step_tokens: 512,
            huge_pages: HugePages::Auto,
            cancel: None,
        }
    }
}

/// A model with threads, memory and cache. One engine runs any number of sequences.
pub struct Engine {
    model: Model,
    backend: Box<dyn Backend>,
    n_ctx: usize,
    paging: Vec<Paging>,
    cancel: Option<Arc<AtomicBool>>,
}

/// One sequence of tokens and its cache, in the engine that ran its first step; no other engine continues it. Dropping
/// it, in any thread, gives the cache back.
#[derive(Debug, Default)]
pub struct Sequence {
    kv: SequenceKv,
    /// Those of its tokens that will not be taken back.
    tokens: Vec<u32>,
}

impl Sequence {
    /// Tokens that the sequence holds.
    pub fn len(&self) -> usize {
        self.kv.len()
    }

    /// Whether the sequence holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.kv.is_empty()
    }
}

/// New tokens of one sequence for [`Engine::step`].
#[derive(Debug)]
pub struct Step<'a> {
    /// The sequence that they continue.
    pub sequence: &'a mut Sequence,
    /// The tokens.
    pub tokens: &'a [u32],
    /// Those that get logits.
    pub outputs: Outputs,
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
        let kv_type = match options.kv {
            KvChoice::F32 => KvType::F32,
            KvChoice::Auto if model.is_f32() => KvType::F32,
            KvChoice::Auto | KvChoice::F16 => KvType::F16,
            KvChoice::Q8_0 => KvType::Q8_0,
        };
        let precision = match options.precision {
            PrecisionChoice::Exact => Precision::Exact,
            PrecisionChoice::Auto if model.is_f32() => Precision::Exact,
            PrecisionChoice::Auto | PrecisionChoice::Fast => Precision::Fast,
        };
        let mut n_ctx =
            options.n_ctx.unwrap_or(model.info().context.clamp(EngineOptions::MIN_CTX, EngineOptions::MAX_CTX)).max(1);
        let cpu_options = |n_ctx: usize| {
            let isa = options.isa.map_or_else(Isa::from_env, Ok);
            let isa = isa.map_err(|e: IsaError| BackendError::from(CpuError::Isa(e.to_string())))?;
            let threads = options.threads.unwrap_or_else(Pool::default_threads);
            let max_step_tokens = options.max_step_tokens.clamp(1, n_ctx);
            Ok::<_, Error>(CpuOptions { isa, threads, kv_type, precision, max_cached_tokens: n_ctx, max_step_tokens })
        };
        let mut paging = Vec::new();
        let mut on_cpu = || {
            paging = prepare_files(model, options.huge_pages)?;
            let plan = Plan::new(model.graph().clone(), |_, _, _| Ok(Device::Cpu))?;
            let backend = CpuBackend::new(plan, &cpu_options(n_ctx)?).map_err(BackendError::from)?;
            Ok::<Box<dyn Backend>, Error>(Box::new(backend))
        };
        let backend = match &options.device {
            DeviceChoice::Cpu => {
                let _ = progress;
                on_cpu()?
            }
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(_) if options.gpu_layers == Some(0) => on_cpu()?,
            #[cfg(feature = "gpu")]
            DeviceChoice::Gpu(gpu) => {
                let plan =
                    place::plan(model.graph(), options.gpu_layers.unwrap_or(usize::MAX), options.experts_on_cpu)?;
                if options.n_ctx.is_none() {
                    // The default context is cut to the cache that the device can hold.
                    n_ctx = n_ctx.min(GpuBackend::most_cached_tokens(gpu, &plan, kv_type)).max(1);
                }
                let max_step_tokens = options.max_step_tokens.clamp(1, n_ctx);
                let gpu_options = GpuBackendOptions { kv_type, precision, max_cached_tokens: n_ctx, max_step_tokens };
                let before = gpu.memory_in_use();
                let made = if plan.stages.iter().all(|s| s.device == Device::Gpu) {
                    let backend = GpuBackend::new(gpu.clone(), plan, &gpu_options, progress);
                    backend.map(|b| Box::new(b) as Box<dyn Backend>).map_err(BackendError::from)
                } else {
                    paging = prepare_files(model, options.huge_pages)?;
                    let backend = SplitBackend::new(gpu.clone(), plan, &gpu_options, &cpu_options(n_ctx)?, progress);
                    backend.map(|b| Box::new(b) as Box<dyn Backend>)
                };
                made.map_err(|e| place::explain(e, model, gpu, &gpu_options, options.experts_on_cpu, before))?
            }
        };
        Ok(Self { model: model.clone(), backend, n_ctx, paging, cancel: options.cancel.clone() })
    }

    /// The model that runs.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The backend, for its profile and the size of its cache.
    pub fn backend(&mut self) -> &mut (dyn Backend + 'static) {
        &mut *self.backend
    }

    /// Tokens that all sequences together may hold.
    pub fn n_ctx(&self) -> usize {
        self.n_ctx
    }

    /// The outcome for the pages of the model's files; empty where the CPU runs nothing.
    pub fn paging(&self) -> &[Paging] {
        &self.paging
    }

    /// Whether [`EngineOptions::cancel`] is set.
    pub fn cancelled(&self) -> bool {
        self.cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
    }

    /// An empty sequence.
    pub fn sequence(&self) -> Sequence {
        Sequence::default()
    }

    /// Another sequence with the same tokens; pages are shared until one of the two writes.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn fork(&mut self, sequence: &Sequence) -> Result<Sequence, Error> {
        let kv = self.backend.pages().fork(&sequence.kv).map_err(BackendError::from)?;
        Ok(Sequence { kv, tokens: sequence.tokens.clone() })
    }

    /// Forgets all but the first `len` tokens. Returns false, and changes nothing, where a sliding window has already
    /// dropped keys that a continuation would read.
    ///
    /// # Errors
    /// A sequence of another engine.
    pub fn truncate(&mut self, sequence: &mut Sequence, len: usize) -> Result<bool, Error> {
        let done = self.backend.pages().truncate(&mut sequence.kv, len).map_err(BackendError::from)?;
        sequence.tokens.truncate(sequence.len());
        Ok(done)
    }

    /// Runs new tokens of one or more sequences together. Returns logits `[outputs, vocab]` in the order of the steps.
    ///
    /// # Errors
    /// More tokens than a step or the cache takes; ids outside the vocabulary; sequences of another engine;
    /// [`EngineOptions::cancel`]. The sequences are then unchanged, with one exception: a device that fails in the
    /// middle of a step may leave sequences of models with recurrent states empty.
    pub fn step(&mut self, steps: &mut [Step<'_>]) -> Result<&[f32], Error> {
        if self.cancelled() {
            return Err(Error::Cancelled);
        }
        let mut of_backend: Vec<SequenceStep<'_>> = steps
            .iter_mut()
            .map(|s| SequenceStep { kv: &mut s.sequence.kv, tokens: s.tokens, outputs: s.outputs })
            .collect();
        let done = self.backend.forward(&mut of_backend);
        for step in steps.iter_mut() {
            let Sequence { kv, tokens } = &mut *step.sequence;
            match done {
                Ok(_) => tokens.extend_from_slice(step.tokens),
                Err(_) => tokens.truncate(kv.len()),
            }
        }
        Ok(done?)
    }

    /// Appends any number of `tokens` to `sequence` and returns the last one's logits.
    ///
    /// # Errors
    /// As [`Engine::step`]; parts that fitted before the error stay in the sequence.
    pub fn prefill(&mut self, sequence: &mut Sequence, tokens: &[u32]) -> Result<&[f32], Error> {
        // This call has no flag of its own to cancel it.
        let rest = self.prefill_but_last(sequence, tokens, &|_| false)?.unwrap_or_default();
        self.step(&mut [Step { sequence, tokens: rest, outputs: Outputs::Last }])
    }

    /// Appends all of `tokens` except the last part that one step takes, and returns that part. `cancelled` hears
    /// between parts how many have been run; where it returns true, the result is none.
    fn prefill_but_last<'t>(
        &mut self,
        sequence: &mut Sequence,
        tokens: &'t [u32],
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<&'t [u32]>, Error> {
        if tokens.is_empty() {
            return Err(Error::EmptyPrompt);
        }
        let before = sequence.len();
        let total = before + tokens.len();
        if total > self.n_ctx {
            return Err(Error::ContextFull { tokens: total, n_ctx: self.n_ctx });
        }
        sequence.kv.expect(total);
        let mut run = || {
            let mut rest = tokens;
            while let Some((tokens, more)) = rest.split_at_checked(self.backend.step_tokens(sequence.len()))
                && !more.is_empty()
            {
                if cancelled(sequence.len() - before) {
                    return Ok(None);
                }
                self.step(&mut [Step { sequence, tokens, outputs: Outputs::None }])?;
                rest = more;
            }
            Ok((!cancelled(sequence.len() - before)).then_some(rest))
        };
        let result = run();
        // The announced length ends with the last part.
        sequence.kv.expect(0);
        result
    }

    /// Logits `[tokens, vocab]` of every token of `tokens`, run as a sequence of its own, passed to `each` part by
    /// part.
    ///
    /// # Errors
    /// As [`Engine::step`]; [`Error::NotFinite`] where a logit is +inf or no number.
    pub fn logits(&mut self, tokens: &[u32], mut each: impl FnMut(&[f32])) -> Result<(), Error> {
        if tokens.len() > self.n_ctx {
            return Err(Error::ContextFull { tokens: tokens.len(), n_ctx: self.n_ctx });
        }
        let mut sequence = self.sequence();
        sequence.kv.expect(tokens.len());
        let mut rest = tokens;
        while !rest.is_empty() {
            let (part, more) = rest.split_at(self.output_rows_per_step(sequence.len()).min(rest.len()));
            let logits = self.step(&mut [Step { sequence: &mut sequence, tokens: part, outputs: Outputs::All }])?;
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
