//! Read bandwidth: how fast threads together sum a buffer that fits no cache.
//!
//! Bytes per sample: `PASSES` × the buffer, one add per 4 bytes. Each thread reads its own stretch front to back with
//! eight vector accumulators, as a mat-vec reads weights; the sum keeps the loads from being dropped.

use super::time_together;
use crate::{
    cpu::arch::{Isa, Simd},
    simd_dispatch,
};
use memmap2::MmapMut;
use std::{hint::black_box, io};

/// A buffer larger than any cache, and the loop that reads it.
#[non_exhaustive]
pub struct ReadBandwidth {
    buffer: MmapMut,
    threads: usize,
    sum: fn(&[f32]) -> f32,
}

/// Readings of the buffer in a sample; the fastest counts.
const PASSES: usize = 3;

impl ReadBandwidth {
    /// Buffer size: well above what a process gets of a last-level cache.
    const BYTES: usize = 512 << 20;

    /// A buffer of 512 MiB, in huge pages where the system gives them, each stretch first touched by a thread.
    ///
    /// # Errors
    /// The system has no such memory.
    pub fn new(threads: usize, isa: Isa) -> io::Result<Self> {
        Self::with_bytes(threads, Self::BYTES, isa)
    }

    /// The same with a buffer of `bytes`.
    ///
    /// # Errors
    /// The system has no such memory.
    pub fn with_bytes(threads: usize, bytes: usize, isa: Isa) -> io::Result<Self> {
        let threads = threads.max(1);
        let mut buffer = MmapMut::map_anon(bytes)?;
        #[cfg(target_os = "linux")]
        // Only a hint: without it the sample pays for more address translation.
        let _ = buffer.advise(memmap2::Advice::HugePage);
        let floats: &mut [f32] = bytemuck::cast_slice_mut(&mut buffer[..]);
        let stretch = floats.len().div_ceil(threads).max(1);
        std::thread::scope(|scope| {
            for part in floats.chunks_mut(stretch) {
                scope.spawn(move || part.fill(1.0));
            }
        });
        Ok(Self { buffer, threads, sum: sum(isa) })
    }

    /// Bytes a second that the threads read together: the best of three passes right now.
    pub fn sample(&mut self) -> f64 {
        let floats: &[f32] = bytemuck::cast_slice(&self.buffer[..]);
        let stretch = floats.len().div_ceil(self.threads).max(1);
        let pass = || {
            time_together(self.threads, |index| {
                let part = floats.chunks(stretch).nth(index).unwrap_or(&[]);
                black_box((self.sum)(part));
            })
        };
        let best = (0..PASSES).map(|_| pass()).min().unwrap_or_default();
        self.buffer.len() as f64 / best.as_secs_f64().max(1e-9)
    }
}

simd_dispatch!(fn sum(x: &[f32]) -> f32 = sum_impl);

/// Sum of `x` without the few elements after the last whole run of eight vectors.
#[inline(always)]
fn sum_impl<S: Simd>(s: S, x: &[f32]) -> f32 {
    let mut acc = [s.zero(); 8];
    let step = 8 * S::LANES;
    for run in x.chunks_exact(step) {
        for (k, a) in acc.iter_mut().enumerate() {
            // SAFETY: `run` has 8 * LANES elements and k < 8.
            *a = s.add(*a, unsafe { s.load(run.as_ptr().add(k * S::LANES)) });
        }
    }
    let mut all = s.zero();
    for a in acc {
        all = s.add(all, a);
    }
    s.reduce_sum(all)
}
