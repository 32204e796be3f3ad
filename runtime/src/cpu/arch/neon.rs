//! NEON: four lanes. `LEVEL` 0 is the baseline, 1 has `sdot`, 2 also has `smmla`. Halves are converted by `fcvtl` and
//! `fcvtn`, which the baseline has; they are written as assembly because the intrinsics ask for more than that.

use super::Simd;
use std::arch::aarch64::*;
use std::arch::asm;

/// NEON, with the int8 dot product at `LEVEL` 1 and the int8 matrix product at 2.
#[derive(Clone, Copy, Debug)]
pub struct Neon<const LEVEL: u8>(());

const LANES: usize = 4;

/// The first `n` 16-bit values, zeroes after them.
#[inline(always)]
unsafe fn load_u16_partial(p: *const u16, n: usize) -> uint16x4_t {
    let mut buffer = [0u16; LANES];
    // SAFETY: the caller vouches for min(n, LANES) values; the buffer has LANES.
    unsafe {
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast::<u8>(), 2 * n.min(LANES));
        vld1_u16(buffer.as_ptr())
    }
}

/// Four halves to floats.
#[inline(always)]
pub(super) unsafe fn widen_f16(v: uint16x4_t) -> float32x4_t {
    let out: float32x4_t;
    // SAFETY: fcvtl is in the baseline and touches only the named registers.
    unsafe { asm!("fcvtl {0:v}.4s, {1:v}.4h", out(vreg) out, in(vreg) v, options(pure, nomem, nostack)) };
    out
}

/// Four floats to halves, to nearest even (the default rounding mode).
#[inline(always)]
unsafe fn narrow_f16(v: float32x4_t) -> uint16x4_t {
    let out: uint16x4_t;
    // SAFETY: fcvtn is in the baseline and touches only the named registers.
    unsafe { asm!("fcvtn {0:v}.4h, {1:v}.4s", out(vreg) out, in(vreg) v, options(pure, nomem, nostack)) };
    out
}

/// bfloat16 is the upper half of a float.
#[inline(always)]
unsafe fn widen_bf16(v: uint16x4_t) -> float32x4_t {
    // SAFETY: called only from methods of the token.
    unsafe { vreinterpretq_f32_u32(vshll_n_u16::<16>(v)) }
}

// SAFETY: every method touches only the memory of its contract; a token exists only where the CPU has the features.
// In all methods: the token proves that the intrinsics' features are there.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
unsafe impl<const LEVEL: u8> Simd for Neon<LEVEL> {
    type F = float32x4_t;
    type I = int32x4_t;
    type M = uint32x4_t;
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn new() -> Self {
        Neon(())
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> float32x4_t {
        unsafe { vld1q_f32(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> float32x4_t {
        let mut buffer = [0f32; LANES];
        unsafe {
            std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast::<u8>(), 4 * n.min(LANES));
            vld1q_f32(buffer.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: float32x4_t) {
        unsafe { vst1q_f32(p, v) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: float32x4_t) {
        let mut buffer = [0f32; LANES];
        unsafe {
            vst1q_f32(buffer.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast::<u8>(), p.cast::<u8>(), 4 * n.min(LANES));
        }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> float32x4_t {
        unsafe { widen_f16(vld1_u16(p)) }
    }
    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const u16, n: usize) -> float32x4_t {
        unsafe { widen_f16(load_u16_partial(p, n)) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: float32x4_t) {
        unsafe { vst1_u16(p, narrow_f16(v)) }
    }
    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut u16, n: usize, v: float32x4_t) {
        let mut buffer = [0u16; LANES];
        unsafe {
            vst1_u16(buffer.as_mut_ptr(), narrow_f16(v));
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast::<u8>(), p.cast::<u8>(), 2 * n.min(LANES));
        }
    }
    #[inline(always)]
    unsafe fn load_pair(self, a: *const f32, b: *const f32) -> float32x4_t {
        unsafe { vcombine_f32(vld1_f32(a), vld1_f32(b)) }
    }
    #[inline(always)]
    unsafe fn load_pair_f16(self, a: *const u16, b: *const u16) -> float32x4_t {
        unsafe {
            let both = [a.cast::<u32>().read_unaligned(), b.cast::<u32>().read_unaligned()];
            widen_f16(vreinterpret_u16_u32(vld1_u32(both.as_ptr())))
        }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> float32x4_t {
        unsafe { widen_bf16(vld1_u16(p)) }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const u16, n: usize) -> float32x4_t {
        unsafe { widen_bf16(load_u16_partial(p, n)) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> float32x4_t {
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(p.cast::<u32>().read_unaligned()));
            vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes))))
        }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> float32x4_t {
        unsafe { vdupq_n_f32(x) }
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> float32x4_t {
        unsafe { widen_f16(vdup_n_u16(bits)) }
    }
    #[inline(always)]
    fn add(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vaddq_f32(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vsubq_f32(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmulq_f32(a, b) }
    }
    #[inline(always)]
    fn div(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vdivq_f32(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: float32x4_t, b: float32x4_t, c: float32x4_t) -> float32x4_t {
        unsafe { vfmaq_f32(c, a, b) }
    }
    #[inline(always)]
    fn max(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vmaxq_f32(a, b) }
    }
    #[inline(always)]
    fn min(self, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vminq_f32(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: float32x4_t) -> float32x4_t {
        unsafe { vabsq_f32(a) }
    }
    #[inline(always)]
    fn neg(self, a: float32x4_t) -> float32x4_t {
        unsafe { vnegq_f32(a) }
    }
    #[inline(always)]
    fn sqrt(self, a: float32x4_t) -> float32x4_t {
        unsafe { vsqrtq_f32(a) }
    }

    #[inline(always)]
    fn reduce_sum(self, a: float32x4_t) -> f32 {
        // Not `vaddvq`, which adds neighbours first.
        unsafe { vpadds_f32(vadd_f32(vget_low_f32(a), vget_high_f32(a))) }
    }
    #[inline(always)]
    fn sum_eights(self, v: [float32x4_t; 8]) -> float32x4_t {
        // Vectors 2i and 2i + 1 hold block i.
        unsafe {
            let low = vpaddq_f32(vpaddq_f32(v[0], v[2]), vpaddq_f32(v[4], v[6]));
            let high = vpaddq_f32(vpaddq_f32(v[1], v[3]), vpaddq_f32(v[5], v[7]));
            vaddq_f32(low, high)
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: float32x4_t) -> f32 {
        unsafe { vmaxvq_f32(a) }
    }

    #[inline(always)]
    fn lt(self, a: float32x4_t, b: float32x4_t) -> uint32x4_t {
        unsafe { vcltq_f32(a, b) }
    }
    #[inline(always)]
    fn select(self, m: uint32x4_t, a: float32x4_t, b: float32x4_t) -> float32x4_t {
        unsafe { vbslq_f32(m, a, b) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> int32x4_t {
        unsafe { vdupq_n_s32(x) }
    }
    #[inline(always)]
    fn add_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    fn sub_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vsubq_s32(a, b) }
    }
    // The compiler folds a constant vector of counts into the immediate form.
    #[inline(always)]
    fn shl_i32(self, a: int32x4_t, n: u32) -> int32x4_t {
        unsafe { vshlq_s32(a, vdupq_n_s32(n as i32)) }
    }
    #[inline(always)]
    fn shr_i32(self, a: int32x4_t, n: u32) -> int32x4_t {
        unsafe { vshlq_s32(a, vdupq_n_s32(-(n as i32))) }
    }
    #[inline(always)]
    fn and_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vandq_s32(a, b) }
    }
    #[inline(always)]
    fn or_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vorrq_s32(a, b) }
    }
    #[inline(always)]
    fn xor_i32(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { veorq_s32(a, b) }
    }
    #[inline(always)]
    fn round_to_i32(self, a: float32x4_t) -> int32x4_t {
        unsafe { vcvtnq_s32_f32(a) }
    }
    #[inline(always)]
    fn i32_to_f32(self, a: int32x4_t) -> float32x4_t {
        unsafe { vcvtq_f32_s32(a) }
    }
    #[inline(always)]
    fn f32_from_bits(self, a: int32x4_t) -> float32x4_t {
        unsafe { vreinterpretq_f32_s32(a) }
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: int32x4_t) {
        unsafe { vst1q_s32(p, v) }
    }
}
