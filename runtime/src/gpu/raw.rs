//! A device in wgpu's own types, for programs that encode passes of their own: with the feature `unstable-wgpu`.
//!
//! [`wgpu`] is the version that these types are of.

use std::sync::Arc;

pub use wgpu;

pub use super::kernel::{Access, Binding, Kernel, Pipeline};
use super::{Gpu, GpuError};

/// An opened device in wgpu's types.
#[derive(Clone, Copy)]
pub struct RawGpu<'a>(&'a Gpu);

impl Gpu {
    /// The device in wgpu's types.
    pub fn raw(&self) -> RawGpu<'_> {
        RawGpu(self)
    }
}

impl<'a> RawGpu<'a> {
    /// For buffers and encoders.
    pub fn device(self) -> &'a wgpu::Device {
        &self.0.device
    }

    /// For writes and submits.
    pub fn queue(self) -> &'a wgpu::Queue {
        &self.0.queue
    }

    /// A buffer of `bytes` zeros (at least 16, a multiple of 4).
    ///
    /// # Errors
    /// A device without the memory, or a size above its limit.
    pub fn buffer(self, what: &str, bytes: u64, usage: wgpu::BufferUsages) -> Result<wgpu::Buffer, GpuError> {
        self.0.buffer(what, bytes, usage)
    }

    /// The compiled kernel; it is compiled at the first call and cached.
    ///
    /// # Errors
    /// A shader that cannot be composed or that the driver refuses.
    pub fn pipeline(self, kernel: &Kernel) -> Result<Arc<Pipeline>, GpuError> {
        self.0.pipeline(kernel)
    }

    /// Runs `kernel` once over buffers made of `data`, in the order of its bindings, and returns the contents of the
    /// writable ones.
    ///
    /// # Errors
    /// As [`RawGpu::pipeline`], [`RawGpu::buffer`] and [`Gpu::wait`].
    pub fn dispatch_once(self, kernel: &Kernel, data: &[&[u8]], grid: [u32; 3]) -> Result<Vec<Vec<u8>>, GpuError> {
        self.0.dispatch_once(kernel, data, grid)
    }
}
