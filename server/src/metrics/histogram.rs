//! A histogram of times with fixed bounds.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::{Counter, nanoseconds};

/// Times by their size.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds in seconds, which belong to their buckets; the smallest first.
    bounds: &'static [f64],
    /// A counter for each bound, and one for what is above all.
    buckets: Box<[Counter]>,
    nanoseconds: AtomicU64,
}

/// A histogram at one moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Bounds, and how many times are at or below each.
    pub cumulative: Vec<(f64, u64)>,
    pub count: u64,
    /// Seconds.
    pub sum: f64,
}

impl Histogram {
    pub fn new(bounds: &'static [f64]) -> Self {
        let buckets = (0..=bounds.len()).map(|_| Counter::default()).collect();
        Self { bounds, buckets, nanoseconds: AtomicU64::new(0) }
    }

    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        self.nanoseconds.fetch_add(nanoseconds(time), Ordering::Relaxed);
    }

    /// The count is the sum of the buckets that were read, so that the two never contradict each other, whoever adds
    /// meanwhile.
    pub(super) fn snapshot(&self) -> Snapshot {
        let mut count = 0;
        let counts = self.buckets.iter().map(|bucket| {
            count += bucket.get();
            count
        });
        let counts: Vec<u64> = counts.collect();
        let cumulative = self.bounds.iter().copied().zip(counts).collect();
        Snapshot { cumulative, count, sum: self.nanoseconds.load(Ordering::Relaxed) as f64 / 1e9 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_cumulative_and_have_their_bounds() {
        let histogram = Histogram::new(&[0.001, 0.01, 0.1]);
        for microseconds in [0, 1000, 1001, 10_000, 50_000, 100_000, 100_001, 7_000_000] {
            histogram.observe(Duration::from_micros(microseconds));
        }
        let Snapshot { cumulative, count, sum } = histogram.snapshot();
        assert_eq!(cumulative, [(0.001, 2), (0.01, 4), (0.1, 6)]);
        assert_eq!(count, 8);
        assert!((sum - 7.262_002).abs() < 1e-9, "{sum}");
    }
}
