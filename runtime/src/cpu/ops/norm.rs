//! RMS norm and layer norm of one row.
//!
//! Two passes over a row that stays in the first-level cache.

use super::{by_lanes, sums};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

simd_dispatch!(
    /// `out[i] = x[i] / sqrt(mean(x²) + eps) * (weight[i] + weight_offset)`, without the last factor where there is no
    /// weight (Zhang and Sennrich 2019). `weight_offset` is 1 for Gemma's checkpoints, which store the weight less one,
    /// and 0 for others.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn rms_norm(x: &[f32], weight: Option<&[f32]>, weight_offset: f32, eps: f32, out: &mut [f32]) = rms_norm_impl
);
simd_dispatch!(
    /// [`rms_norm`] with the result in the place of `x`.
    pub fn rms_norm_in_place(x: &mut [f32], weight: Option<&[f32]>, weight_offset: f32, eps: f32) =
        rms_norm_in_place_impl
);
simd_dispatch!(
    /// `out[i] = (x[i] - mean(x)) / sqrt(var(x) + eps) * (weight[i] + weight_offset) + bias[i]`, without the terms that are
    /// `None`; the offset goes with its weight.
    ///
    /// # Panics
    /// If the lengths differ.
    pub fn layer_norm(
        x: &[f32],
        weight: Option<&[f32]>,
        weight_offset: f32,
        bias: Option<&[f32]>,
        eps: f32,
        out: &mut [f32],
    ) = layer_norm_impl
);

#[inline(always)]
fn rms_norm_impl<S: Simd>(s: S, x: &[f32], weight: Option<&[f32]>, weight_offset: f32, eps: f32, out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    // SAFETY: both are slices of that length, and a write never precedes the read of the same element.
    unsafe { rms_norm_raw(s, x.len(), x.as_ptr(), weight, weight_offset, eps, out.as_mut_ptr()) }
}

#[inline(always)]
fn rms_norm_in_place_impl<S: Simd>(s: S, x: &mut [f32], weight: Option<&[f32]>, weight_offset: f32, eps: f32) {
    let (n, p) = (x.len(), x.as_mut_ptr());
    // SAFETY: `x` is read and written, each element read before it is written.
    unsafe { rms_norm_raw(s, n, p, weight, weight_offset, eps, p) }
}

/// # Safety
/// `x` must be readable and `out` writable for `n` floats; they may be the same.
#[inline(always)]
unsafe fn rms_norm_raw<S: Simd>(
    s: S,
    n: usize,
    x: *const f32,
    weight: Option<&[f32]>,
    weight_offset: f32,
    eps: f32,
    out: *mut f32,
) {
    // SAFETY: the caller vouches for `x`.
    let sum = unsafe { sums::dot(s, n, x, x) };
    let factor = s.splat(1.0 / (sum / n as f32 + eps).sqrt());
    let Some(weight) = weight else {
        by_lanes!(n, i, m => {
            // SAFETY: i + m <= n.
            unsafe { s.store_partial(out.add(i), m, s.mul(s.load_partial(x.add(i), m), factor)) };
        });
        return;
    };
    assert_eq!(weight.len(), n);
    let (w, offset) = (weight.as_ptr(), s.splat(weight_offset));
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n, the length of all three.
        unsafe {
            let weight = s.add(s.load_partial(w.add(i), m), offset);
            s.store_partial(out.add(i), m, s.mul(s.mul(s.load_partial(x.add(i), m), factor), weight));
        }
    });
}

#[inline(always)]
fn layer_norm_impl<S: Simd>(
    s: S,
    x: &[f32],
    weight: Option<&[f32]>,
    weight_offset: f32,
    bias: Option<&[f32]>,
    eps: f32,
    out: &mut [f32],
) {
    let n = x.len();
    assert_eq!(n, out.len());
    assert!(weight.is_none_or(|w| w.len() == n) && bias.is_none_or(|b| b.len() == n));
    let (x, out) = (x.as_ptr(), out.as_mut_ptr());
    // SAFETY: `x` has `n` elements.
    let mean = unsafe { sums::sum(s, n, x) } / n as f32;
    // SAFETY: as above.
    let variance = unsafe { sums::sum_of_squares(s, n, x, mean) } / n as f32;
    let (mean, factor, offset) = (s.splat(mean), s.splat(1.0 / (variance + eps).sqrt()), s.splat(weight_offset));
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n, the length of all four.
        unsafe {
            let mut y = s.mul(s.sub(s.load_partial(x.add(i), m), mean), factor);
            if let Some(w) = weight {
                y = s.mul(y, s.add(s.load_partial(w.as_ptr().add(i), m), offset));
            }
            if let Some(b) = bias {
                y = s.add(y, s.load_partial(b.as_ptr().add(i), m));
            }
            s.store_partial(out.add(i), m, y);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{LENGTHS, random};
    use crate::cpu::arch::Isa;

    #[test]
    fn norms_in_place_are_the_same() {
        for isa in Isa::available() {
            for n in LENGTHS {
                let (x, weight) = (random(1, n), random(2, n));
                for weight in [None, Some(&weight[..])] {
                    let (mut out, mut in_place) = (vec![f32::NAN; n], x.clone());
                    rms_norm(isa)(&x, weight, 1.0, 1e-2, &mut out);
                    rms_norm_in_place(isa)(&mut in_place, weight, 1.0, 1e-2);
                    assert_eq!(out, in_place, "{} n={n}", isa.name());
                }
            }
        }
    }
}
