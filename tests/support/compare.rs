//! Comparison of logits.

use super::Matrix;

/// Index of the largest value; the first of equals.
pub fn argmax(row: &[f32]) -> usize {
    (1..row.len()).fold(0, |best, i| if row[i] > row[best] { i } else { best })
}

/// Log-probability of `token` where `row` are logits.
pub fn log_probability(row: &[f32], token: u32) -> f64 {
    let max = row.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = row.iter().map(|&v| f64::from(v - max).exp()).sum();
    f64::from(row[token as usize] - max) - sum.ln()
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
