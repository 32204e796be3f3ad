//! The error that all backends share.

#[cfg(feature = "gpu")]
use crate::gpu::GpuError;
use crate::{cpu::CpuError, step::StepError};

/// An error of a backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BackendError {
    /// A step that no backend could run.
    #[error(transparent)]
    Step(#[from] StepError),
    /// The CPU.
    #[error(transparent)]
    Cpu(CpuError),
    /// A GPU.
    #[cfg(feature = "gpu")]
    #[error(transparent)]
    Gpu(GpuError),
}

impl From<CpuError> for BackendError {
    fn from(error: CpuError) -> Self {
        match error {
            CpuError::Step(step) => Self::Step(step),
            other => Self::Cpu(other),
        }
    }
}

#[cfg(feature = "gpu")]
impl From<GpuError> for BackendError {
    fn from(error: GpuError) -> Self {
        match error {
            GpuError::Step(step) => Self::Step(step),
            other => Self::Gpu(other),
        }
    }
}
