//! Costs of steps on the host's side of a GPU.

use std::time::Duration;

/// Sums over steps.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GpuStats {
    /// Steps run.
    pub steps: u64,
    /// Kernels dispatched.
    pub dispatches: u64,
    /// Command buffers submitted.
    pub submits: u64,
    /// Bytes written to the device.
    pub uploaded: u64,
    /// Time spent preparing and recording, without waiting for the device.
    pub host: Duration,
}

impl GpuStats {
    /// The sums of the steps after `before`.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            steps: self.steps - before.steps,
            dispatches: self.dispatches - before.dispatches,
            submits: self.submits - before.submits,
            uploaded: self.uploaded - before.uploaded,
            host: self.host.saturating_sub(before.host),
        }
    }
}
