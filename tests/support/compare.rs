//! Comparison of logits.

use super::Matrix;

/// Index of the largest value; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Difference of two logits that rounding activations, keys and values leaves alone: seven times what it moves a
/// log-probability by on average. Where exact arithmetic prefers its token by no more than 0.26, llama.cpp's may be another.
pub const MARGIN: f32 = 0.5;

/// The greedy choice, and by how much its logit exceeds the second best.
pub fn choice(row: &[f32]) -> (usize, f32) {
    let best = argmax(row);
    let others = row.iter().enumerate().filter(|(i, _)| *i != best).map(|(_, v)| *v);
    (best, row[best] - others.fold(f32::MIN, f32::max))
}

/// Log-probability of `token` where `row` are logits.
pub fn log_probability(row: &[f32], token: u32) -> f64 {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
    f64::from(row[token as usize] - max) - sum.ln()
}

/// Kullback-Leibler divergence of the distribution of logits `got` from that of `want`, in nats.
pub fn kl_divergence(want: &[f32], got: &[f32]) -> f64 {
    let log_sum = |row: &[f32]| {
        let max = row.iter().copied().fold(f32::MIN, f32::max);
        f64::from(max) + row.iter().map(|&v| f64::from(v - max).exp()).sum::<f64>().ln()
    };
    let (want_sum, got_sum) = (log_sum(want), log_sum(got));
    let term = |(&w, &g): (&f32, &f32)| {
        let w = f64::from(w) - want_sum;
        w.exp() * (w - (f64::from(g) - got_sum))
    };
    want.iter().zip(got).map(term).sum()
}

/// The largest |a − b|, with its row and column. NaN on either side counts as infinitely far.
pub fn worst(got: &Matrix, want: &Matrix) -> (f32, usize, usize) {
    assert_eq!((got.rows, got.cols), (want.rows, want.cols), "shapes differ: got (left), want (right)");
    let mut worst = (0.0, 0, 0);
    for (i, (a, b)) in got.data.iter().zip(&want.data).enumerate() {
        let d = (a - b).abs();
        let d = if d.is_nan() { f32::INFINITY } else { d };
        if d > worst.0 {
            worst = (d, i / want.cols, i % want.cols);
        }
    }
    worst
}

/// Fails, naming the worst element and both values, where any |got − want| exceeds `tolerance`.
pub fn assert_close(what: &str, got: &Matrix, want: &Matrix, tolerance: f32) {
    let (d, row, col) = worst(got, want);
    assert!(
        d <= tolerance,
        "{what}: max |Δ| {d:.3e} > {tolerance:.1e} at row {row}, column {col}: got {}, want {}",
        got.row(row)[col],
        want.row(row)[col],
    );
}
