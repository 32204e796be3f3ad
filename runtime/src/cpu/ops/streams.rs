//! Rows made of adjacent streams (`[streams · width]`, as AltUp's residual is): mixtures of them, matched magnitudes, a
//! row added to each; and the sparsity of an activation, whose threshold its own statistics set.
//!
//! Each reads its operands once or twice and does a few flops an element; all of it stays in the first-level cache.

use super::OpKernels;
use crate::graph::HyperOp;

/// `out[s · width + i] = Σ_u (coefs[s · inputs + u] + offset) · x[u · width + i]`: each stream of the result is a mixture
/// of the streams of `x`.
///
/// # Panics
/// If `inputs` is 0 or the lengths do not fit.
pub fn mix(ops: &OpKernels, x: &[f32], coefs: &[f32], inputs: usize, offset: f32, out: &mut [f32]) {
    let width = x.len() / inputs;
    for (out, coefs) in out.chunks_exact_mut(width).zip(coefs.chunks_exact(inputs)) {
        out.fill(0.0);
        for (x, coef) in x.chunks_exact(width).zip(coefs) {
            (ops.add_scaled)(out, x, coef + offset);
        }
    }
}

/// Every stream of `x`, which is as long as `like`, scaled to the root mean square of `like`:
/// `x · rms(like) / sqrt(max(mean(x²), floor))`.
///
/// # Panics
/// If `like` is empty.
pub fn match_rms(ops: &OpKernels, x: &[f32], like: &[f32], floor: f32, out: &mut [f32]) {
    let width = like.len();
    let mean = |x: &[f32]| sum(x, |x| x * x) / width as f32;
    let magnitude = mean(like).sqrt();
    for (x, out) in x.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
        out.copy_from_slice(x);
        (ops.scale)(out, magnitude / mean(x).max(floor).sqrt());
    }
}

/// `a` with `b` added to each of its streams, which are as long as `b`.
///
/// # Panics
/// If `b` is empty.
pub fn add_repeated(ops: &OpKernels, a: &[f32], b: &[f32], out: &mut [f32]) {
    out.copy_from_slice(a);
    out.chunks_exact_mut(b.len()).for_each(|out| (ops.add_assign)(out, b));
}

/// `max(x - (mean(x) + deviations · std(x)), 0)` with the standard deviation of the row's own elements (Gemma 3n's
/// activation sparsity).
pub fn sparsify(x: &[f32], deviations: f32, out: &mut [f32]) {
    let n = x.len() as f32;
    let mean = sum(x, |x| x) / n;
    let variance = sum(x, |x| (x - mean) * (x - mean)) / n;
    let cut = mean + deviations * variance.sqrt();
    out.iter_mut().zip(x).for_each(|(out, x)| *out = (x - cut).max(0.0));
}

/// Coefficients of hyper-connections from the projections `x`; see [`HyperOp`].
///
/// # Panics
/// If a slice is shorter than the op says.
pub fn hyper(op: &HyperOp, x: &[f32], scale: &[f32], base: &[f32], out: &mut [f32]) {
    let (n, eps) = (op.streams, op.eps);
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    let at = |i: usize, part: usize| scale[part] * x[i] + base[i];
    out[..n].iter_mut().enumerate().for_each(|(i, out)| *out = sigmoid(at(i, 0)) + eps);
    if x.len() == n {
        return;
    }
    out[n..2 * n].iter_mut().zip(n..).for_each(|(out, i)| *out = 2.0 * sigmoid(at(i, 1)));
    // The matrix is kept transposed, as the result wants it: row u here is column u of the matrix made doubly
    // stochastic.
    let mix = &mut out[2 * n..];
    for row in 0..n {
        let logit = |column: usize| at((2 + row) * n + column, 2);
        let max = (0..n).map(logit).fold(f32::NEG_INFINITY, f32::max);
        let sum: f32 = (0..n).map(|column| (logit(column) - max).exp()).sum();
        (0..n).for_each(|column| mix[column * n + row] = (logit(column) - max).exp() / sum + eps);
    }
    for turn in 0..op.iterations {
        if turn > 0 {
            for row in 0..n {
                let sum: f32 = (0..n).map(|column| mix[column * n + row]).sum();
                (0..n).for_each(|column| mix[column * n + row] /= sum + eps);
            }
        }
        for column in mix.chunks_exact_mut(n) {
            let sum: f32 = column.iter().sum();
            column.iter_mut().for_each(|x| *x /= sum + eps);
        }
    }
}

/// `Σ f(x)` in sixteen sums at once: a fixed order that the compiler turns into vectors.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f(*x));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += f(*x));
    sums.iter().sum()
}
