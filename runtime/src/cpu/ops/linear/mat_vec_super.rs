//! Mat-vec over the 256-element formats (Q4_K, Q5_K, Q6_K), one row after the other.
//!
//! A super-block's 6- or 8-bit sub-scales become floats once, times the activations' scales, in a small table; each dot
//! product of a vector's width then takes its scales from there by broadcast. Minima and offsets of all sub-blocks are
//! one multiplication with the activations' sums. 2·rows·k·tokens flops; W is read once.

use super::act::ActChunk;
use super::job::{AHEAD, Job};
use crate::cpu::arch::SimdBytes;

/// Sums of one row for one token: two chains for the dot products, one for minima.
#[derive(Clone, Copy)]
pub(super) struct Sums<F> {
    lo: F,
    hi: F,
    mins: F,
}

/// A super-block of 256 quants.
pub(super) trait Block256 {
    /// Bytes of a super-block.
    const BYTES: usize;
    /// Adds the products of one super-block with the chunks of T tokens.
    /// # Safety
    /// The super-block and the chunks must be readable.
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    );
}

/// See [`crate::quant::DType::Q4_K`].
#[allow(non_camel_case_types)]
pub(super) struct Q4_K;
/// See [`crate::quant::DType::Q5_K`].
#[allow(non_camel_case_types)]
pub(super) struct Q5_K;
/// See [`crate::quant::DType::Q6_K`].
#[allow(non_camel_case_types)]
pub(super) struct Q6_K;

/// Unpacks the twelve bytes of 6-bit scales and minima of Q4_K and Q5_K: eight scales, then eight minima.
///
/// Bytes 0–3 hold scales 0–3, bytes 4–7 minima 0–3, each in the low six bits. Bytes 8–11 hold the low four bits of scale
/// and of minimum 4–7; their upper two bits are the top bits of bytes 0–3 and of bytes 4–7.
#[inline(always)]
pub(super) unsafe fn unpack_scales(p: *const u8) -> [u8; 16] {
    // SAFETY: the caller vouches for twelve bytes.
    let [a, b, c] = unsafe { p.cast::<[u32; 3]>().read_unaligned() }.map(u32::from_le);
    let words = [
        a & 0x3f3f_3f3f,
        (c & 0x0f0f_0f0f) | (a >> 2 & 0x3030_3030),
        b & 0x3f3f_3f3f,
        (c >> 4 & 0x0f0f_0f0f) | (b >> 2 & 0x3030_3030),
    ];
    bytemuck::cast(words.map(u32::to_le))
}

/// Where byte `at` of a super-block's 128 bytes of nibbles has its low nibble: blocks of 32 quants alternate between the
/// low and the high nibbles of 32 bytes.
const fn quant_of_low(at: usize) -> usize {
    at / 32 * 64 + at % 32
}

/// Q4_K and, with `FIFTH`, Q5_K: f16 scale and minimum, 12 bytes of sub-scales, then 32 bytes of fifth bits in Q5_K, then
/// 128 bytes of nibbles.
#[inline(always)]
unsafe fn accumulate_45<S: SimdBytes, const T: usize, const FIFTH: bool>(
    s: S,
    block: *const u8,
    x: [*const ActChunk; T],
    sums: &mut [Sums<S::F>; T],
) {
    let width = 4 * S::LANES;
    // SAFETY: all offsets are below the super-block's and the chunk's size.
    unsafe {
        let header = block.cast::<[u16; 2]>().read_unaligned();
        let (d, dmin) = (s.f16_to_f32(u16::from_le(header[0])), -s.f16_to_f32(u16::from_le(header[1])));
        let scales = unpack_scales(block.add(4));
        // table[t]: eight scales times activation scales, then eight minima times activation sums.
        let mut table = [[0f32; 16]; T];
        let mut i = 0;
        while i < 16 {
            let factor = if S::LANES == 16 { s.splat_halves(d, dmin) } else { s.splat(if i < 8 { d } else { dmin }) };
            let base = s.mul(s.load_u8(scales.as_ptr().add(i)), factor);
            for t in 0..T {
                let product = s.mul(base, s.load((&raw const (*x[t]).scale).cast::<f32>().add(i)));
                s.store(table[t].as_mut_ptr().add(i), product);
                if S::LANES == 16 {
                    sums[t].mins = s.add_upper(sums[t].mins, product);
                } else if i >= 8 {
                    sums[t].mins = s.add(sums[t].mins, product);
                }
            }
            i += S::LANES;
        }
        let fifth = block.add(16);
        let nibbles = block.add(if FIFTH { 48 } else { 16 });
        let mut at = 0;
        while at < 128 {
            // The halves of a vector lie in different sub-blocks where it is wider than 32 bytes.
            let (a, b) = (quant_of_low(at), quant_of_low(at + width / 2));
            let packed = s.load_bytes(nibbles.add(at));
            let (mut lo, mut hi) = (s.low4(packed), s.high4(packed));
            if FIFTH {
                let q = s.load_halves(fifth.add(at % 32), fifth.add((at + width / 2) % 32));
                let (bit_a, bit_b) = (1u8 << (a / 32), 1u8 << (b / 32));
                lo = s.or16_where(lo, q, s.splat_byte_halves(bit_a, bit_b));
                hi = s.or16_where(hi, q, s.splat_byte_halves(bit_a << 1, bit_b << 1));
            }
            for t in 0..T {
                let q = (&raw const (*x[t]).q).cast::<u8>();
                let x_lo = s.load_halves(q.add(a), q.add(b));
                let x_hi = s.load_halves(q.add(a + 32), q.add(b + 32));
                let lo = s.i32_to_f32(s.dot_u6(lo, x_lo));
                let hi = s.i32_to_f32(s.dot_u6(hi, x_hi));
                let table = &table[t];
                sums[t].lo = s.mul_add(lo, s.splat_halves(table[a / 32], table[b / 32]), sums[t].lo);
                sums[t].hi = s.mul_add(hi, s.splat_halves(table[a / 32 + 1], table[b / 32 + 1]), sums[t].hi);
            }
            at += width;
        }
    }
}

impl Block256 for Q4_K {
    const BYTES: usize = 144;
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        // SAFETY: the contract is passed on.
        unsafe { accumulate_45::<S, T, false>(s, block, x, sums) }
    }
}

impl Block256 for Q5_K {
    const BYTES: usize = 176;
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        // SAFETY: the contract is passed on.
        unsafe { accumulate_45::<S, T, true>(s, block, x, sums) }
    }
}

/// 128 bytes of low nibbles, 64 of upper bit pairs, 16 signed scales, an f16 scale; quants are centred on 32.
impl Block256 for Q6_K {
    const BYTES: usize = 210;
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        let width = 4 * S::LANES;
        // SAFETY: all offsets are below the super-block's and the chunk's size.
        unsafe {
            let d = s.splat(s.f16_to_f32(u16::from_le(block.add(208).cast::<u16>().read_unaligned())));
            let offset = s.splat(-32.0);
            let mut table = [[0f32; 16]; T];
            let mut i = 0;
            while i < 16 {
                let base = s.mul(s.load_i8(block.add(192 + i).cast()), d);
                let mins = s.mul(base, offset);
                for t in 0..T {
                    let scale = s.load((&raw const (*x[t]).scale16).cast::<f32>().add(i));
                    s.store(table[t].as_mut_ptr().add(i), s.mul(base, scale));
                    let sum = s.load((&raw const (*x[t]).scaled_sum16).cast::<f32>().add(i));
                    sums[t].mins = s.mul_add(mins, sum, sums[t].mins);
                }
                i += S::LANES;
            }
            // Half h: 64 bytes whose low nibbles are quants 0..64 of the half and whose high ones are 64..128.
            for h in 0..2 {
                let mut at = 0;
                while at < 64 {
                    let packed = s.load_bytes(block.add(64 * h + at));
                    let (lo_bits, hi_bits) = s.high2(block.add(128 + 32 * h), at);
                    let lo = s.or_bytes(s.low4(packed), lo_bits);
                    let hi = s.or_bytes(s.high4(packed), hi_bits);
                    for t in 0..T {
                        let q = (&raw const (*x[t]).q).cast::<u8>().add(128 * h + at);
                        let scales = table[t].as_ptr().add((128 * h + at) / 16);
                        let lo = s.i32_to_f32(s.dot_u6(lo, s.load_bytes(q)));
                        let hi = s.i32_to_f32(s.dot_u6(hi, s.load_bytes(q.add(64))));
                        sums[t].lo = s.mul_add(lo, s.load_dup4(scales), sums[t].lo);
                        sums[t].hi = s.mul_add(hi, s.load_dup4(scales.add(4)), sums[t].hi);
                    }
                    at += width;
                }
            }
        }
    }
}

/// Mat-vec for 1 to 4 tokens; three run as four, the last one twice, which costs less than a kernel of their own.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Chunks form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Block256>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            2 => mat_vec_n::<S, W, 2>(s, job),
            _ => mat_vec_n::<S, W, 4>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block256, const T: usize>(s: S, job: &Job) {
    for row in 0..job.n_rows {
        let mut sums = [Sums { lo: s.zero(), hi: s.zero(), mins: s.zero() }; T];
        for i in 0..job.k / 256 {
            // SAFETY: the row has k / 256 super-blocks, and every token as many chunks.
            unsafe {
                let block = job.row(row).add(i * W::BYTES);
                job.prefetch(s, block.wrapping_add(AHEAD), W::BYTES);
                let x: [*const ActChunk; T] = std::array::from_fn(|t| job.act(t).cast::<ActChunk>().add(i));
                W::accumulate(s, block, x, &mut sums);
            }
        }
        for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
            let sum = s.reduce_sum(s.add(s.add(sums.lo, sums.hi), sums.mins));
            // SAFETY: the row and the token exist.
            unsafe { *job.out.add(t * job.out_stride + row) = sum };
        }
    }
}
