//! The backend of an engine.

use std::ops::{Deref, DerefMut};

use handmill_runtime::{Backend, cpu::CpuBackend, step::GpuStats};
#[cfg(feature = "gpu")]
use handmill_runtime::{SplitBackend, gpu::GpuBackend};

/// One of the runtime's backends.
pub(super) enum AnyBackend {
    Cpu(Box<CpuBackend>),
    #[cfg(feature = "gpu")]
    Gpu(Box<GpuBackend>),
    #[cfg(feature = "gpu")]
    Split(Box<SplitBackend>),
}

impl AnyBackend {
    /// The GPU's, where it runs all stages.
    #[cfg(feature = "gpu")]
    pub fn gpu(&self) -> Option<&GpuBackend> {
        match self {
            AnyBackend::Gpu(gpu) => Some(gpu),
            _ => None,
        }
    }

    /// Costs of all steps so far on the host's side of a GPU.
    pub fn gpu_stats(&self) -> Option<GpuStats> {
        match self {
            AnyBackend::Cpu(_) => None,
            #[cfg(feature = "gpu")]
            AnyBackend::Gpu(gpu) => Some(gpu.stats()),
            #[cfg(feature = "gpu")]
            AnyBackend::Split(split) => Some(split.gpu_stats()),
        }
    }

    /// Bytes of weights copied to a GPU, and bytes that it reads where they lie in host memory.
    pub fn gpu_weight_bytes(&self) -> Option<(u64, u64)> {
        match self {
            AnyBackend::Cpu(_) => None,
            #[cfg(feature = "gpu")]
            AnyBackend::Gpu(gpu) => Some(gpu.weight_bytes()),
            #[cfg(feature = "gpu")]
            AnyBackend::Split(split) => Some(split.gpu_weight_bytes()),
        }
    }
}

impl Deref for AnyBackend {
    type Target = dyn Backend;

    fn deref(&self) -> &Self::Target {
        match self {
            AnyBackend::Cpu(cpu) => &**cpu,
            #[cfg(feature = "gpu")]
            AnyBackend::Gpu(gpu) => &**gpu,
            #[cfg(feature = "gpu")]
            AnyBackend::Split(split) => &**split,
        }
    }
}

impl DerefMut for AnyBackend {
    fn deref_mut(&mut self) -> &mut Self::Target {
        match self {
            AnyBackend::Cpu(cpu) => &mut **cpu,
            #[cfg(feature = "gpu")]
            AnyBackend::Gpu(gpu) => &mut **gpu,
            #[cfg(feature = "gpu")]
            AnyBackend::Split(split) => &mut **split,
        }
    }
}
