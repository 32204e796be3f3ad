//! Devices.

use std::sync::Arc;

use handmill_runtime::gpu::{Gpu, GpuError, GpuOptions};

use super::models::no_adapter;

/// A device of the test's own; none, and a visible line, where there is no adapter.
pub fn open_gpu(test: &str, options: &GpuOptions) -> Option<Arc<Gpu>> {
    match Gpu::open(options) {
        Ok(gpu) => Some(gpu.into()),
        Err(GpuError::NoAdapter) => {
            no_adapter(test);
            None
        }
        Err(e) => panic!("{e}"),
    }
}
