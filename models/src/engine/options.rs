//! Options of an engine.

use std::sync::{Arc, atomic::AtomicBool};

#[cfg(feature = "gpu")]
use handmill_runtime::gpu::Gpu;
use handmill_runtime::{Precision, cpu::Isa, format::HugePages, step::KvType};

use crate::Model;

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
    /// Tokens that one sequence may hold; by default the context that the model was made for, within
    /// [`EngineOptions::MIN_CTX`] and [`EngineOptions::MAX_CTX`].
    pub n_ctx: Option<usize>,
    /// Tokens that all sequences together may hold, with what is kept of earlier ones: `n_ctx` at least, and by default.
    /// Memory grows with the tokens.
    pub cache_tokens: Option<usize>,
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
    /// Whether hidden states are handed out ([`Engine::embed`](super::Engine::embed), [`Step::hidden`](super::Step::hidden)). The last norm is a stage of its own then,
    /// which costs a token a barrier or a dispatch more.
    pub hidden: bool,
    /// Cancels the engine's work once it is set: every further step is refused with [`Error::Cancelled`](crate::Error::Cancelled).
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
            cache_tokens: None,
            kv: KvChoice::Auto,
            precision: PrecisionChoice::Auto,
            isa: None,
            max_step_tokens: 512,
            huge_pages: HugePages::Auto,
            hidden: false,
            cancel: None,
        }
    }
}

impl EngineOptions {
    /// The choices for `model`.
    pub(super) fn formats(&self, model: &Model) -> (KvType, Precision) {
        let kv_type = match self.kv {
            KvChoice::F32 => KvType::F32,
            KvChoice::Auto if model.is_f32() => KvType::F32,
            KvChoice::Auto | KvChoice::F16 => KvType::F16,
            KvChoice::Q8_0 => KvType::Q8_0,
        };
        let precision = match self.precision {
            PrecisionChoice::Exact => Precision::Exact,
            PrecisionChoice::Auto if model.is_f32() => Precision::Exact,
            PrecisionChoice::Auto | PrecisionChoice::Fast => Precision::Fast,
        };
        (kv_type, precision)
    }
}
