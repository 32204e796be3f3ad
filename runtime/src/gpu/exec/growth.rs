//! Buffers that grow with their contents: new ones are made, the old contents copied, all in one submit.
//!
//! The old buffers lie beside the new ones until the device has copied them, and nobody waits for that. Only where
//! memory runs out meanwhile are the copies submitted at once and waited for, so that the old buffers make room.

use super::arena::DEVICE;
use crate::gpu::{Gpu, GpuError};

/// Buffers that grow together.
pub(super) struct Growth<'a> {
    gpu: &'a Gpu,
    encoder: wgpu::CommandEncoder,
    /// Buffers that the recorded copies read.
    old: Vec<wgpu::Buffer>,
}

impl<'a> Growth<'a> {
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, encoder: encoder(gpu), old: Vec::new() }
    }

    /// Replaces `buffer` by one of `bytes` that begins with its first `kept` bytes.
    ///
    /// # Errors
    /// No memory, also without the buffers that have grown before; `buffer` is then as it was.
    pub fn grow(&mut self, buffer: &mut wgpu::Buffer, what: &str, bytes: u64, kept: u64) -> Result<(), GpuError> {
        let new = match self.gpu.buffer(what, bytes, DEVICE) {
            Err(GpuError::OutOfMemory { .. }) if !self.old.is_empty() => {
                self.submit();
                // Calls that are bound to them are bound again before they run.
                self.old.drain(..).for_each(|old| old.destroy());
                self.gpu.wait()?;
                self.gpu.buffer(what, bytes, DEVICE)?
            }
            new => new?,
        };
        let old = std::mem::replace(buffer, new);
        if kept > 0 {
            self.encoder.copy_buffer_to_buffer(&old, 0, buffer, 0, Some(kept));
            self.old.push(old);
        }
        Ok(())
    }

    fn submit(&mut self) {
        let encoder = std::mem::replace(&mut self.encoder, encoder(self.gpu));
        self.gpu.queue.submit([encoder.finish()]);
    }
}

impl Drop for Growth<'_> {
    /// Copies what has grown, also where the next buffer found no memory.
    fn drop(&mut self) {
        if !self.old.is_empty() {
            self.submit();
        }
    }
}

fn encoder(gpu: &Gpu) -> wgpu::CommandEncoder {
    gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
}
