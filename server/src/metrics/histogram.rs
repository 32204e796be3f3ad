//! A histogram of times with fixed bounds.

use std::time::Duration;

use super::Counter;

/// Times by their size.
#[derive(Debug)]
pub(crate) struct Histogram {
    /// Upper bounds in seconds, which belong to their buckets; the smallest first.
    bounds: &'static [f64],
    /// A counter for each bound, and one for what is above all.
    buckets: Box<[Counter]>,
    nanoseconds: Counter,
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
        Self { bounds, buckets, nanoseconds: Counter::default() }
    }

    pub fn observe(&self, time: Duration) {
        let seconds = time.as_secs_f64();
        let at = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(bucket) = self.buckets.get(at) {
            bucket.add(1);
        }
        // Those of 584 years fit.
        self.nanoseconds.add(time.as_nanos() as u64);
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
        Snapshot { cumulative, count, sum: self.nanoseconds.get() as f64 / 1e9 }
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
