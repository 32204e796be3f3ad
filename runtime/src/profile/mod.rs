//! The walls that kernels are measured against: the most that the machine can do. And the time of each stage of a
//! model's steps.
//!
//! Code of this crate measures both walls on the machine and in the minute of the comparison: data sheets do not know
//! about virtual machines, neighbours and clock limits.

mod bandwidth;
mod fma;
mod trace;

pub use bandwidth::ReadBandwidth;
pub use fma::measure_fma_peak;
pub(crate) use trace::RawCall;
pub use trace::{CallTrace, Clock, Phase, RunTrace, Total, Trace};

use std::{
    sync::Barrier,
    thread,
    time::{Duration, Instant},
};

/// Runs `work(index)` on `threads` threads that start together; the time from the first start to the last end.
fn time_together(threads: usize, work: impl Fn(usize) + Sync) -> Duration {
    let barrier = Barrier::new(threads);
    let (barrier, work) = (&barrier, &work);
    thread::scope(|scope| {
        let handles: Vec<_> = (0..threads)
            .map(|index| {
                scope.spawn(move || {
                    barrier.wait();
                    let start = Instant::now();
                    work(index);
                    (start, Instant::now())
                })
            })
            .collect();
        let spans: Vec<(Instant, Instant)> = handles.into_iter().filter_map(|handle| handle.join().ok()).collect();
        match (spans.iter().map(|s| s.0).min(), spans.iter().map(|s| s.1).max()) {
            (Some(start), Some(end)) => end - start,
            _ => Duration::ZERO,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::arch::Isa;

    #[test]
    fn walls_are_positive_on_every_isa() {
        for isa in Isa::available() {
            let mut bandwidth = ReadBandwidth::with_bytes(2, 1 << 20, isa).unwrap();
            assert!(bandwidth.sample() > 0.0, "{isa:?}");
            assert!(measure_fma_peak(1, isa, Duration::from_millis(1)) > 0.0, "{isa:?}");
        }
    }

    #[test]
    fn more_threads_than_bytes_are_fine() {
        let mut bandwidth = ReadBandwidth::with_bytes(7, 100, Isa::Generic).unwrap();
        assert!(bandwidth.sample() > 0.0);
    }
}
