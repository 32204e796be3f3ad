//! The cases of every op: shapes, formats and parameters, declared once. Parity tests on the CPU and on GPUs and the benches
//! iterate over the same rows.
//!
//! A case is an op with its dimensions. It has a name, makes its inputs from a seeded generator, and knows in f64 what the op
//! makes of them. Cases with `speed` have the sizes of real models: the benches time those. The others are there for
//! lengths that no vector divides, and for parameters. Drivers are short and lie beside the kernels: tests in
//! `cpu/ops` and `gpu/ops`, benches in `benches/ops`.
//!
//! Compiled for tests, and with the feature `cases` for benches.

pub mod argmax;
pub mod attention;
pub mod experts;
pub mod head_linear;
pub mod linear;
#[cfg(test)]
pub(crate) mod mapped_experts;
pub mod paged;
pub mod pool;
pub mod recurrent;
pub mod route;
pub mod row_tables;
pub mod rows;
pub mod select;

/// Lengths around the vectors' sizes, and two that models have.
pub const LENGTHS: [usize; 12] = [1, 2, 3, 7, 8, 15, 16, 17, 33, 100, 576, 1153];

/// Reproducible numbers in −1..1.
pub fn random(seed: u64, n: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..n)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        })
        .collect()
}

/// [`random`] numbers in −size..size.
pub fn scaled(seed: u64, n: usize, size: f32) -> Vec<f32> {
    random(seed, n).into_iter().map(|x| x * size).collect()
}

/// The same numbers in f64.
pub fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|x| f64::from(*x)).collect()
}

/// ‖out − reference‖ / ‖reference‖; NaN where `out` holds one.
///
/// # Panics
/// If the lengths differ.
pub fn relative_error(out: &[f32], reference: &[f64]) -> f64 {
    assert_eq!(out.len(), reference.len());
    let error: f64 = out.iter().zip(reference).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum();
    let norm: f64 = reference.iter().map(|b| b * b).sum();
    (error / norm.max(1e-300)).sqrt()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}
