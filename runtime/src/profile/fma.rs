//! FMA peak: f32 operations that threads together do on operands in registers.

use super::time_together;
use crate::{
    cpu::arch::{Isa, Simd},
    simd_dispatch,
};
use std::{hint::black_box, time::Duration};

/// Accumulators: enough for two FMA units of latency 5, few enough for 16 registers beside two operands.
const CHAINS: usize = 12;

/// f32 operations a second (an FMA counts as two) that `threads` threads do together with the vectors of `isa`,
/// measured for about `time`.
pub fn measure_fma_peak(threads: usize, isa: Isa, time: Duration) -> f64 {
    let run = chains(isa);
    let flops = |turns: usize| (turns * CHAINS * lanes(isa)() * 2 * threads) as f64;
    let measure = |turns: usize| {
        time_together(threads.max(1), |_| {
            black_box(run(black_box(turns), black_box(0.999), black_box(0.5)));
        })
        .as_secs_f64()
        .max(1e-9)
    };
    // A short run wakes the wide units up and tells how long the real run must be; the best of three real runs counts.
    let mut turns = 1 << 12;
    let mut seconds = measure(turns);
    turns = ((turns as f64 * time.as_secs_f64() / 3.0 / seconds) as usize).clamp(1 << 10, 1 << 34);
    seconds = (0..3).map(|_| measure(turns)).fold(f64::INFINITY, f64::min);
    flops(turns) / seconds
}

simd_dispatch!(fn chains(turns: usize, factor: f32, addend: f32) -> f32 = chains_impl);
simd_dispatch!(fn lanes() -> usize = lanes_impl);

#[inline(always)]
fn chains_impl<S: Simd>(s: S, turns: usize, factor: f32, addend: f32) -> f32 {
    let (factor, addend) = (s.splat(factor), s.splat(addend));
    let mut acc = [s.zero(); CHAINS];
    for _ in 0..turns {
        for a in &mut acc {
            // Converges to addend / (1 - factor): never a denormal, never infinite.
            *a = s.mul_add(*a, factor, addend);
        }
    }
    let mut all = s.zero();
    for a in acc {
        all = s.add(all, a);
    }
    s.reduce_sum(all)
}

#[inline(always)]
fn lanes_impl<S: Simd>(_s: S) -> usize {
    S::LANES
}
