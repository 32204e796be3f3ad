//! Vectors as plain arrays of four lanes. They are right on every CPU, and the compiler turns them into SSE2 or NEON
//! where the target has those. No feature flag is needed.

use super::Simd;
use crate::quant::{bf16_to_f32, f16_to_f32, f32_to_f16};
use std::array::from_fn;

/// Arrays that the compiler vectorises.
#[derive(Clone, Copy, Debug)]
pub struct Generic(());

const LANES: usize = 4;
type F = [f32; LANES];
type I = [i32; LANES];

// SAFETY: every method touches only the memory of its contract, and no instruction set is assumed.
unsafe impl Simd for Generic {
    type F = F;
    type I = I;
    type M = [bool; LANES];
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn new() -> Self {
        Generic(())
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> F {
        // SAFETY: the caller vouches for LANES floats; arrays of floats are read without alignment.
        unsafe { p.cast::<F>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> F {
        // SAFETY: lanes at or beyond n are not read.
        from_fn(|i| if i < n { unsafe { p.add(i).read_unaligned() } } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: F) {
        // SAFETY: the caller vouches for LANES floats.
        unsafe { p.cast::<F>().write_unaligned(v) }
    }

    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: F) {
        for (i, &x) in v.iter().enumerate().take(n) {
            // SAFETY: i < n.
            unsafe { p.add(i).write_unaligned(x) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> F {
        // SAFETY: the caller vouches for LANES halves.
        unsafe { self.load_f16_partial(p, LANES) }
    }

    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const u16, n: usize) -> F {
        // SAFETY: lanes at or beyond n are not read.
        from_fn(|i| if i < n { f16_to_f32(unsafe { p.add(i).read_unaligned() }) } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: F) {
        // SAFETY: the caller vouches for LANES halves.
        unsafe { self.store_f16_partial(p, LANES, v) }
    }

    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut u16, n: usize, v: F) {
        for (i, &x) in v.iter().enumerate().take(n) {
            // SAFETY: i < n.
            unsafe { p.add(i).write_unaligned(f32_to_f16(x)) }
        }
    }

    #[inline(always)]
    unsafe fn load_pair(self, a: *const f32, b: *const f32) -> F {
        // SAFETY: the caller vouches for half of the lanes at each.
        from_fn(|i| unsafe { if i < LANES / 2 { a.add(i) } else { b.add(i - LANES / 2) }.read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_pair_f16(self, a: *const u16, b: *const u16) -> F {
        // SAFETY: as above.
        from_fn(|i| unsafe { f16_to_f32(if i < LANES / 2 { a.add(i) } else { b.add(i - LANES / 2) }.read_unaligned()) })
    }

    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> F {
        // SAFETY: the caller vouches for LANES values.
        unsafe { self.load_bf16_partial(p, LANES) }
    }

    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const u16, n: usize) -> F {
        // SAFETY: lanes at or beyond n are not read.
        from_fn(|i| if i < n { bf16_to_f32(unsafe { p.add(i).read_unaligned() }) } else { 0.0 })
    }

    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> F {
        // SAFETY: the caller vouches for LANES bytes.
        from_fn(|i| f32::from(unsafe { *p.add(i) }))
    }

    #[inline(always)]
    fn splat(self, x: f32) -> F {
        [x; LANES]
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> F {
        [f16_to_f32(bits); LANES]
    }
    #[inline(always)]
    fn add(self, a: F, b: F) -> F {
        from_fn(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: F, b: F) -> F {
        from_fn(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: F, b: F) -> F {
        from_fn(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: F, b: F) -> F {
        from_fn(|i| a[i] / b[i])
    }
    // Not `f32::mul_add`: without the FMA feature that is a call into the C library for every lane.
    #[inline(always)]
    fn mul_add(self, a: F, b: F, c: F) -> F {
        from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    fn max(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] > b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn min(self, a: F, b: F) -> F {
        from_fn(|i| if a[i] < b[i] { a[i] } else { b[i] })
    }
    #[inline(always)]
    fn abs(self, a: F) -> F {
        from_fn(|i| a[i].abs())
    }
    #[inline(always)]
    fn neg(self, a: F) -> F {
        from_fn(|i| -a[i])
    }
    #[inline(always)]
    fn sqrt(self, a: F) -> F {
        from_fn(|i| a[i].sqrt())
    }

    #[inline(always)]
    fn reduce_sum(self, a: F) -> f32 {
        (a[0] + a[2]) + (a[1] + a[3])
    }
    #[inline(always)]
    fn sum_eights(self, v: [F; 8]) -> F {
        let sum = |a: F| (a[0] + a[1]) + (a[2] + a[3]);
        from_fn(|i| sum(v[2 * i]) + sum(v[2 * i + 1]))
    }
    #[inline(always)]
    fn reduce_max(self, a: F) -> f32 {
        a.into_iter().fold(f32::NEG_INFINITY, f32::max)
    }

    #[inline(always)]
    fn lt(self, a: F, b: F) -> [bool; LANES] {
        from_fn(|i| a[i] < b[i])
    }
    #[inline(always)]
    fn select(self, m: [bool; LANES], a: F, b: F) -> F {
        from_fn(|i| if m[i] { a[i] } else { b[i] })
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> I {
        [x; LANES]
    }
    #[inline(always)]
    fn add_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_add(b[i]))
    }
    #[inline(always)]
    fn sub_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i].wrapping_sub(b[i]))
    }
    #[inline(always)]
    fn shl_i32(self, a: I, n: u32) -> I {
        from_fn(|i| a[i] << n)
    }
    #[inline(always)]
    fn shr_i32(self, a: I, n: u32) -> I {
        from_fn(|i| a[i] >> n)
    }
    #[inline(always)]
    fn and_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i] & b[i])
    }
    #[inline(always)]
    fn or_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    fn xor_i32(self, a: I, b: I) -> I {
        from_fn(|i| a[i] ^ b[i])
    }
    // Adding 1.5·2²³ leaves the rounded integer in the low bits of the mantissa; a rounding function would be a call.
    #[inline(always)]
    fn round_to_i32(self, a: F) -> I {
        from_fn(|i| (a[i] + 12_582_912.0).to_bits().wrapping_sub(0x4b40_0000) as i32)
    }
    #[inline(always)]
    fn i32_to_f32(self, a: I) -> F {
        from_fn(|i| a[i] as f32)
    }
    #[inline(always)]
    fn f32_from_bits(self, a: I) -> F {
        from_fn(|i| f32::from_bits(a[i] as u32))
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: I) {
        // SAFETY: the caller vouches for LANES integers.
        unsafe { p.cast::<I>().write_unaligned(v) }
    }
}
