//! Rows made of several streams side by side (`[streams · width]`, as AltUp's residual is): mixtures of them, matched
//! magnitudes, a row added to each; and the sparsity of an activation that its own statistics set.
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

/// Every stream of `x`, as long as `like`, scaled to the root mean square of `like`:
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

/// `max(x - (mean(x) + deviations · std(x)), 0)`, the standard deviation that of the row's elements themselves
/// (Gemma 3n's activation sparsity).
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
    // The matrix is kept turned, as it is wanted: row u here is column u of what is made doubly stochastic.
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

/// `Σ f(x)` in sixteen sums side by side: a fixed order that the compiler can make vectors of.
fn sum(x: &[f32], f: impl Fn(f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (whole, rest) = x.as_chunks::<16>();
    for x in whole {
        sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += f(*x));
    }
    sums.iter_mut().zip(rest).for_each(|(sum, x)| *sum += f(*x));
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::{
        arch::Isa,
        ops::{
            op_kernels,
            testing::{hyper_f64, random, relative_error},
        },
    };

    fn wide(x: &[f32]) -> Vec<f64> {
        x.iter().map(|x| f64::from(*x)).collect()
    }

    #[test]
    fn streams_match_f64() {
        for isa in Isa::available() {
            let ops = op_kernels(isa);
            for (width, inputs, outputs) in [(1, 1, 1), (7, 3, 2), (64, 4, 4), (100, 1, 5)] {
                let (x, coefs) = (random(1, inputs * width), random(2, outputs * inputs));
                let (wide_x, wide_coefs) = (wide(&x), wide(&coefs));
                let check = |what: &str, out: &[f32], expected: Vec<f64>| {
                    let error = relative_error(out, &expected);
                    assert!(error < 1e-6, "{what} {} {width} {inputs} {outputs}: {error:e}", isa.name());
                };
                let mut out = vec![f32::NAN; outputs * width];
                mix(ops, &x, &coefs, inputs, 0.5, &mut out);
                let mixed = |i: usize| {
                    let coef = |u: usize| wide_coefs[i / width * inputs + u] + 0.5;
                    (0..inputs).map(|u| coef(u) * wide_x[u * width + i % width]).sum()
                };
                check("mix", &out, (0..outputs * width).map(mixed).collect());
                let like = random(3, width);
                let mean = |x: &[f64]| x.iter().map(|x| x * x).sum::<f64>() / width as f64;
                // A floor above and below what the streams have.
                for floor in [1e-5f32, 10.0] {
                    let mut out = vec![f32::NAN; inputs * width];
                    match_rms(ops, &x, &like, floor, &mut out);
                    let factor = |s: usize| {
                        let own = mean(&wide_x[s * width..(s + 1) * width]).max(f64::from(floor));
                        (mean(&wide(&like)) / own).sqrt()
                    };
                    check("match_rms", &out, (0..x.len()).map(|i| wide_x[i] * factor(i / width)).collect());
                }
                let mut out = vec![f32::NAN; inputs * width];
                add_repeated(ops, &x, &like, &mut out);
                check("add_repeated", &out, (0..x.len()).map(|i| wide_x[i] + wide(&like)[i % width]).collect());
            }
        }
    }

    #[test]
    fn coefficients_match_f64() {
        let weight = crate::graph::WeightId(0);
        for (streams, iterations) in [(1, 1), (2, 4), (4, 20), (3, 2)] {
            let op = HyperOp { streams, iterations, eps: 1e-3, scale: weight, base: weight };
            let n = streams;
            let (x, base) = (random(1, n * (n + 2)), random(2, n * (n + 2)));
            let scale = [0.7f32, -1.3, 2.1];
            let mut out = vec![f32::NAN; x.len()];
            hyper(&op, &x, &scale, &base, &mut out);
            let expected = hyper_f64(&op, &wide(&x), &scale, &base);
            let error = relative_error(&out, &expected);
            assert!(error < 1e-6, "{n} streams: {error:e}");
            // For reading alone.
            let mut read = vec![f32::NAN; n];
            hyper(&op, &x[..n], &scale[..1], &base[..n], &mut read);
            assert_eq!(read, out[..n]);
        }
    }

    #[test]
    fn what_is_below_the_cut_is_zero() {
        for n in [1usize, 5, 16, 100, 1153] {
            let x: Vec<f32> = random(4, n).iter().map(|x| 3.0 * x + 1.0).collect();
            let wide = wide(&x);
            let mean = wide.iter().sum::<f64>() / n as f64;
            let deviation = (wide.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64).sqrt();
            for deviations in [-0.5f32, 0.8] {
                let mut out = vec![f32::NAN; n];
                sparsify(&x, deviations, &mut out);
                let cut = mean + f64::from(deviations) * deviation;
                let expected: Vec<f64> = wide.iter().map(|x| (x - cut).max(0.0)).collect();
                let peak = expected.iter().fold(1e-3, |m: f64, x| m.max(*x));
                let worst = out.iter().zip(&expected).fold(0.0, |m: f64, (a, b)| m.max((f64::from(*a) - b).abs()));
                assert!(worst < 1e-5 * peak, "{n}: {worst:e}");
            }
        }
    }
}
