//! Bytes on their way to the device, a bounded part of them at a time.

use super::{Gpu, GpuError};

/// Writes weights to buffers. The queue keeps its bytes in host memory of its own until the device has copied them, so
/// at most [`Caps::max_staging`](super::Caps::max_staging) bytes are given to it before a wait.
pub(super) struct Staging<'a> {
    gpu: &'a Gpu,
    /// Bytes given to the queue since the last wait.
    under_way: u64,
    written: u64,
    total: u64,
    progress: &'a mut dyn FnMut(u64, u64),
}

impl<'a> Staging<'a> {
    /// For `total` bytes; `progress` hears of bytes written and bytes in all.
    pub fn new(gpu: &'a Gpu, total: u64, progress: &'a mut dyn FnMut(u64, u64)) -> Self {
        Self { gpu, under_way: 0, written: 0, total, progress }
    }

    /// Bytes of one submit, whole words; a few submits are under way at a time.
    pub fn piece(&self) -> usize {
        usize::try_from(self.gpu.caps().max_staging / 16).unwrap_or(usize::MAX / 4).max(1) * 4
    }

    /// Writes `bytes` to `buffer` from byte `at` on, a multiple of 4, and zeros behind them up to a whole word.
    ///
    /// # Errors
    /// Errors of the device so far, where the write had to wait.
    pub fn write(&mut self, buffer: &wgpu::Buffer, at: u64, bytes: &[u8]) -> Result<(), GpuError> {
        let mut at = at;
        for piece in bytes.chunks(self.piece()) {
            let padded = piece.len().next_multiple_of(4) as u64;
            if self.under_way + padded > self.gpu.caps().max_staging {
                self.gpu.wait()?;
                self.under_way = 0;
            }
            let (words, rest) = piece.split_at(piece.len() / 4 * 4);
            self.gpu.queue.write_buffer(buffer, at, words);
            if !rest.is_empty() {
                let mut word = [0; 4];
                word[..rest.len()].copy_from_slice(rest);
                self.gpu.queue.write_buffer(buffer, at + words.len() as u64, &word);
            }
            self.gpu.queue.submit([]);
            at += padded;
            self.under_way += padded;
            self.written += piece.len() as u64;
            (self.progress)(self.written, self.total);
        }
        Ok(())
    }

    /// Waits for all writes; returns the bytes written.
    ///
    /// # Errors
    /// Errors of the device.
    pub fn finish(self) -> Result<u64, GpuError> {
        if self.under_way > 0 {
            self.gpu.wait()?;
        }
        Ok(self.written)
    }
}
