//! NEON byte vectors: one piece of 16 bytes. Dot products are `sdot` where the CPU has it, else widening multiplications
//! and pairwise sums. `sdot` is written as assembly because its intrinsic is not stable.

use super::neon::widen_f16;
use super::{Neon, Simd, SimdBytes};
use std::arch::aarch64::*;
use std::arch::asm;

/// Lane i of the result is lane i of `acc` plus the products of signed bytes 4i ..= 4i + 3.
#[inline(always)]
unsafe fn dot<const LEVEL: u8>(acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
    // SAFETY: called only from methods of the token, which has `sdot` from level 1 on.
    unsafe {
        let (w, x) = (vreinterpretq_s8_u8(w), vreinterpretq_s8_u8(x));
        if LEVEL >= 1 {
            let mut acc = acc;
            asm!(
                ".arch_extension dotprod",
                "sdot {0:v}.4s, {1:v}.16b, {2:v}.16b",
                inout(vreg) acc, in(vreg) w, in(vreg) x, options(pure, nomem, nostack)
            );
            acc
        } else {
            let low = vpaddlq_s16(vmull_s8(vget_low_s8(w), vget_low_s8(x)));
            let high = vpaddlq_s16(vmull_high_s8(w, x));
            vaddq_s32(acc, vpaddq_s32(low, high))
        }
    }
}

/// The bits 0x01, 0x02, … 0x80, twice.
#[inline(always)]
unsafe fn each_bit() -> uint8x16_t {
    // SAFETY: called only from methods of the token.
    unsafe { vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201)) }
}

// SAFETY: every method touches only the memory of its contract; a token exists only where the CPU has the features.
// In all methods: the token proves that the intrinsics' features are there.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
unsafe impl<const LEVEL: u8> SimdBytes for Neon<LEVEL> {
    type B = uint8x16_t;
    // Thirty-two registers: 24 sums, four vectors of rows, an activation.
    const GEMM_VECTORS: usize = 4;
    // Thirty-two registers: twelve sums, twelve dot products, two vectors of rows, an activation.
    const GEMM_I8_VECTORS: usize = 2;
    const GEMM_I8_TOKENS: usize = 6;
    const GEMM_I8_BY_FOUR: bool = false;
    const I8_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> uint8x16_t {
        unsafe { vld1q_u8(p) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, a: *const u8, b: *const u8) -> uint8x16_t {
        unsafe { vcombine_u8(vld1_u8(a), vld1_u8(b)) }
    }
    #[inline(always)]
    unsafe fn load_pieces(self, p: *const u8, offsets: [usize; 4]) -> uint8x16_t {
        unsafe { vld1q_u8(p.add(offsets[0])) }
    }
    #[inline(always)]
    unsafe fn load_headers(self, rows: [*const u8; 4], offsets: [usize; 4]) -> int32x4_t {
        unsafe {
            let v = vdupq_n_s32(rows[0].add(offsets[0]).cast::<i32>().read_unaligned());
            let v = vsetq_lane_s32::<1>(rows[1].add(offsets[0]).cast::<i32>().read_unaligned(), v);
            let v = vsetq_lane_s32::<2>(rows[2].add(offsets[0]).cast::<i32>().read_unaligned(), v);
            vsetq_lane_s32::<3>(rows[3].add(offsets[0]).cast::<i32>().read_unaligned(), v)
        }
    }
    #[inline(always)]
    unsafe fn load_dup4(self, p: *const f32) -> float32x4_t {
        unsafe { vdupq_n_f32(p.read_unaligned()) }
    }
    #[inline(always)]
    unsafe fn load_dup4_i32(self, p: *const i32) -> int32x4_t {
        unsafe { vld1q_dup_s32(p) }
    }
    #[inline(always)]
    unsafe fn splat_word(self, p: *const u8) -> uint8x16_t {
        unsafe { vreinterpretq_u8_u32(vdupq_n_u32(p.cast::<u32>().read_unaligned())) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: uint8x16_t) {
        unsafe { vst1q_u8(p, v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { asm!("prfm pldl2keep, [{0}]", in(reg) p, options(nostack, preserves_flags, readonly)) }
    }

    #[inline(always)]
    fn low4(self, v: uint8x16_t) -> uint8x16_t {
        unsafe { vandq_u8(v, vdupq_n_u8(15)) }
    }
    #[inline(always)]
    fn high4(self, v: uint8x16_t) -> uint8x16_t {
        unsafe { vshrq_n_u8::<4>(v) }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], v: uint8x16_t) -> uint8x16_t {
        unsafe { vqtbl1q_u8(vld1q_u8(table.as_ptr()), v) }
    }
    #[inline(always)]
    fn or_bytes(self, a: uint8x16_t, b: uint8x16_t) -> uint8x16_t {
        unsafe { vorrq_u8(a, b) }
    }
    #[inline(always)]
    unsafe fn or_fifth_bits(
        self,
        p: *const u8,
        offsets: [usize; 4],
        lo: uint8x16_t,
        hi: uint8x16_t,
    ) -> (uint8x16_t, uint8x16_t) {
        unsafe {
            let p = p.add(offsets[0]);
            let lo_bits = self.splat_byte_halves(*p, *p.add(1));
            let hi_bits = self.splat_byte_halves(*p.add(2), *p.add(3));
            (self.or_where::<16>(lo, lo_bits, each_bit()), self.or_where::<16>(hi, hi_bits, each_bit()))
        }
    }
    #[inline(always)]
    fn or_where<const BIT: i8>(self, v: uint8x16_t, q: uint8x16_t, bits: uint8x16_t) -> uint8x16_t {
        unsafe { vorrq_u8(v, vandq_u8(vtstq_u8(q, bits), vdupq_n_u8(BIT as u8))) }
    }
    #[inline(always)]
    unsafe fn nibbles_by_16(self, p: *const u8, at: usize) -> uint8x16_t {
        // SAFETY: the caller vouches for 16 bytes.
        let packed = unsafe { self.load_bytes(p) };
        if at < 16 { self.low4(packed) } else { self.high4(packed) }
    }
    #[inline(always)]
    fn splat_byte_halves(self, a: u8, b: u8) -> uint8x16_t {
        unsafe { vcombine_u8(vdup_n_u8(a), vdup_n_u8(b)) }
    }
    #[inline(always)]
    unsafe fn high2(self, q: *const u8, at: usize) -> (uint8x16_t, uint8x16_t) {
        unsafe {
            let q = vld1q_u8(q.add(at % 32));
            let (lo, hi) = if at < 32 { (vshlq_n_u8::<4>(q), q) } else { (vshlq_n_u8::<2>(q), vshrq_n_u8::<2>(q)) };
            let mask = vdupq_n_u8(0x30);
            (vandq_u8(lo, mask), vandq_u8(hi, mask))
        }
    }
    #[inline(always)]
    unsafe fn two_bits(self, q: *const u8, at: usize) -> uint8x16_t {
        unsafe {
            let q = vld1q_u8(q.add(at % 32));
            let q = match at / 32 {
                0 => q,
                1 => vshrq_n_u8::<2>(q),
                2 => vshrq_n_u8::<4>(q),
                _ => vshrq_n_u8::<6>(q),
            };
            vandq_u8(q, vdupq_n_u8(3))
        }
    }
    #[inline(always)]
    fn spread_byte<const B: usize>(self, v: int32x4_t) -> uint8x16_t {
        unsafe {
            let at: [u8; 16] = std::array::from_fn(|i| (i / 4 * 4 + B) as u8);
            vqtbl1q_u8(vreinterpretq_u8_s32(v), vld1q_u8(at.as_ptr()))
        }
    }
    #[inline(always)]
    fn shr_pieces(self, v: int32x4_t, from: u32, _step: u32) -> int32x4_t {
        unsafe { vreinterpretq_s32_u32(vshlq_u32(vreinterpretq_u32_s32(v), vdupq_n_s32(-(from as i32)))) }
    }
    #[inline(always)]
    fn transpose4(self, v: [uint8x16_t; 4]) -> [uint8x16_t; 4] {
        unsafe {
            let v = [
                vreinterpretq_u32_u8(v[0]),
                vreinterpretq_u32_u8(v[1]),
                vreinterpretq_u32_u8(v[2]),
                vreinterpretq_u32_u8(v[3]),
            ];
            let a = vreinterpretq_u64_u32(vtrn1q_u32(v[0], v[1]));
            let b = vreinterpretq_u64_u32(vtrn2q_u32(v[0], v[1]));
            let c = vreinterpretq_u64_u32(vtrn1q_u32(v[2], v[3]));
            let d = vreinterpretq_u64_u32(vtrn2q_u32(v[2], v[3]));
            [
                vreinterpretq_u8_u64(vtrn1q_u64(a, c)),
                vreinterpretq_u8_u64(vtrn1q_u64(b, d)),
                vreinterpretq_u8_u64(vtrn2q_u64(a, c)),
                vreinterpretq_u8_u64(vtrn2q_u64(b, d)),
            ]
        }
    }

    #[inline(always)]
    fn bytes_to_words(self, v: uint8x16_t) -> int32x4_t {
        unsafe { vreinterpretq_s32_u8(v) }
    }
    #[inline(always)]
    fn words_to_bytes(self, v: int32x4_t) -> uint8x16_t {
        unsafe { vreinterpretq_u8_s32(v) }
    }

    #[inline(always)]
    fn dot2_u5(self, w0: uint8x16_t, x0: uint8x16_t, w1: uint8x16_t, x1: uint8x16_t) -> int32x4_t {
        unsafe { dot::<LEVEL>(dot::<LEVEL>(self.splat_i32(0), w0, x0), w1, x1) }
    }
    // Weights below 128 are the same signed or not.
    #[inline(always)]
    fn dot_add<const SIGNED: bool>(self, acc: int32x4_t, w: uint8x16_t, x: uint8x16_t) -> int32x4_t {
        unsafe { dot::<LEVEL>(acc, w, x) }
    }

    #[inline(always)]
    fn f16_low(self, v: int32x4_t) -> float32x4_t {
        unsafe { widen_f16(vmovn_u32(vreinterpretq_u32_s32(v))) }
    }
    #[inline(always)]
    fn f16_high(self, v: int32x4_t) -> float32x4_t {
        unsafe { widen_f16(vshrn_n_u32::<16>(vreinterpretq_u32_s32(v))) }
    }
    #[inline(always)]
    fn f16_to_f32(self, h: u16) -> f32 {
        unsafe { vgetq_lane_f32::<0>(widen_f16(vdup_n_u16(h))) }
    }
    #[inline(always)]
    fn sum4(self, v: [float32x4_t; 4]) -> float32x4_t {
        unsafe {
            // Interleaving by ones, then by twos, as the other instruction sets do.
            let a = vaddq_f32(vzip1q_f32(v[0], v[1]), vzip2q_f32(v[0], v[1]));
            let b = vaddq_f32(vzip1q_f32(v[2], v[3]), vzip2q_f32(v[2], v[3]));
            vaddq_f32(vcombine_f32(vget_low_f32(a), vget_low_f32(b)), vcombine_f32(vget_high_f32(a), vget_high_f32(b)))
        }
    }
    #[inline(always)]
    fn sum4_i32(self, v: [int32x4_t; 4]) -> int32x4_t {
        unsafe { vpaddq_s32(vpaddq_s32(v[0], v[1]), vpaddq_s32(v[2], v[3])) }
    }
    #[inline(always)]
    fn add_piece_pairs(self, a: int32x4_t, b: int32x4_t) -> int32x4_t {
        unsafe { vaddq_s32(a, b) }
    }
    #[inline(always)]
    fn reduce_pieces(self, v: float32x4_t) -> [f32; 4] {
        let mut out = [0.0; 4];
        unsafe { vst1q_f32(out.as_mut_ptr(), v) };
        out
    }
}
