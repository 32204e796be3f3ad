//! Devices.

use std::sync::Arc;

use handmill_runtime::gpu::{Gpu, GpuError, GpuOptions};

use super::models::{Skip, skip};

/// A device of the test's own; none, and a visible line, where there is no adapter.
pub fn open_gpu(test: &str, options: &GpuOptions) -> Option<Arc<Gpu>> {
    match Gpu::open(options) {
        Ok(gpu) => Some(gpu.into()),
        Err(GpuError::NoAdapter) => {
            skip(Skip::Missing, test, "no Vulkan driver (on Debian: apt-get install mesa-vulkan-drivers)");
            None
        }
        Err(e) => panic!("{e}"),
    }
}
