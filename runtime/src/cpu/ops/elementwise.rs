//! Elementwise ops over rows of f32, and conversions between f32 and the 16-bit floats. One pass over the operands:
//! bound by memory, so there is nothing to tile.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

simd_dispatch!(
    /// `x[i] += y[i]`. Panics if the lengths differ, as do all functions of two slices here.
    pub fn add_assign(x: &mut [f32], y: &[f32]) = add_assign_impl
);
simd_dispatch!(
    /// `x[i] += y[i] * factor`
    pub fn add_scaled(x: &mut [f32], y: &[f32], factor: f32) = add_scaled_impl
);
simd_dispatch!(
    /// `x[i] *= y[i]`
    pub fn mul_assign(x: &mut [f32], y: &[f32]) = mul_assign_impl
);
simd_dispatch!(
    /// `x[i] *= factor`
    pub fn scale(x: &mut [f32], factor: f32) = scale_impl
);
simd_dispatch!(
    /// `x[i] = cap * tanh(x[i] / cap)`: bounds logits softly (Gemma 2).
    pub fn softcap(x: &mut [f32], cap: f32) = softcap_impl
);
simd_dispatch!(
    /// Rounds to IEEE halves (as bits), to nearest even; values beyond a half's range become infinite.
    pub fn f32_to_f16(x: &[f32], out: &mut [u16]) = f32_to_f16_impl
);
simd_dispatch!(
    /// Widens IEEE halves (as bits); exact.
    pub fn f16_to_f32(x: &[u16], out: &mut [f32]) = f16_to_f32_impl
);
simd_dispatch!(
    /// Widens bfloat16 (as bits); exact.
    pub fn bf16_to_f32(x: &[u16], out: &mut [f32]) = bf16_to_f32_impl
);

// In all kernels below: `by_lanes` gives `i + m <= n` with `m <= LANES`, and all slices have `n` elements.

#[inline(always)]
fn add_assign_impl<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let (n, y, x) = (x.len(), y.as_ptr(), x.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe { s.store_partial(x.add(i), m, s.add(s.load_partial(x.add(i), m), s.load_partial(y.add(i), m))) };
    });
}

#[inline(always)]
fn add_scaled_impl<S: Simd>(s: S, x: &mut [f32], y: &[f32], factor: f32) {
    assert_eq!(x.len(), y.len());
    let (n, y, x, k) = (x.len(), y.as_ptr(), x.as_mut_ptr(), s.splat(factor));
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe {
            let sum = s.mul_add(s.load_partial(y.add(i), m), k, s.load_partial(x.add(i), m));
            s.store_partial(x.add(i), m, sum);
        }
    });
}

#[inline(always)]
fn mul_assign_impl<S: Simd>(s: S, x: &mut [f32], y: &[f32]) {
    assert_eq!(x.len(), y.len());
    let (n, y, x) = (x.len(), y.as_ptr(), x.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe { s.store_partial(x.add(i), m, s.mul(s.load_partial(x.add(i), m), s.load_partial(y.add(i), m))) };
    });
}

#[inline(always)]
fn scale_impl<S: Simd>(s: S, x: &mut [f32], factor: f32) {
    let (n, x, k) = (x.len(), x.as_mut_ptr(), s.splat(factor));
    by_lanes!(n, i, m => {
        // SAFETY: inside the slice.
        unsafe { s.store_partial(x.add(i), m, s.mul(s.load_partial(x.add(i), m), k)) };
    });
}

#[inline(always)]
fn softcap_impl<S: Simd>(s: S, x: &mut [f32], cap: f32) {
    let (n, x, cap, inverse) = (x.len(), x.as_mut_ptr(), s.splat(cap), s.splat(1.0 / cap));
    by_lanes!(n, i, m => {
        // SAFETY: inside the slice.
        unsafe { s.store_partial(x.add(i), m, s.mul(cap, s.tanh(s.mul(s.load_partial(x.add(i), m), inverse)))) };
    });
}

#[inline(always)]
fn f32_to_f16_impl<S: Simd>(s: S, x: &[f32], out: &mut [u16]) {
    assert_eq!(x.len(), out.len());
    let (n, x, out) = (x.len(), x.as_ptr(), out.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe { s.store_f16_partial(out.add(i), m, s.load_partial(x.add(i), m)) };
    });
}

#[inline(always)]
fn f16_to_f32_impl<S: Simd>(s: S, x: &[u16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let (n, x, out) = (x.len(), x.as_ptr(), out.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe { s.store_partial(out.add(i), m, s.load_f16_partial(x.add(i), m)) };
    });
}

#[inline(always)]
fn bf16_to_f32_impl<S: Simd>(s: S, x: &[u16], out: &mut [f32]) {
    assert_eq!(x.len(), out.len());
    let (n, x, out) = (x.len(), x.as_ptr(), out.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: inside both slices.
        unsafe { s.store_partial(out.add(i), m, s.load_bf16_partial(x.add(i), m)) };
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{LENGTHS, random};
    use crate::cpu::arch::Isa;

    #[test]
    fn sixteen_bit_floats_convert_exactly_as_the_half_crate_does() {
        for isa in Isa::available() {
            for n in LENGTHS {
                let mut x: Vec<f32> = random(3, n).iter().map(|x| x * 100.0).collect();
                x[0] = 1e6;
                let mut halves = vec![0xffff; n];
                f32_to_f16(isa)(&x, &mut halves);
                let mut back = vec![f32::NAN; n];
                f16_to_f32(isa)(&halves, &mut back);
                for ((&x, &bits), &back) in x.iter().zip(&halves).zip(&back) {
                    let expected = half::f16::from_f32(x);
                    assert_eq!((bits, back), (expected.to_bits(), expected.to_f32()), "{} {x}", isa.name());
                }
                let brains: Vec<u16> = x.iter().map(|x| (x.to_bits() >> 16) as u16).collect();
                bf16_to_f32(isa)(&brains, &mut back);
                assert!(brains.iter().zip(&back).all(|(&b, x)| u32::from(b) << 16 == x.to_bits()));
            }
        }
    }
}
