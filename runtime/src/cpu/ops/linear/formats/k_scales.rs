//! Scales and quants of Q4_K and Q5_K, whose loaders share this; [`crate::quant::k_scales`] draws the layout.

use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Sums, scales_of_32};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, field, high4, low4, or_bit};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

/// Unpacks the twelve bytes of 6-bit scales and minima of Q4_K and Q5_K: eight scales, then eight minima.
///
/// Bytes 0–3 hold scales 0–3, bytes 4–7 minima 0–3, each in the low six bits. Bytes 8–11 hold the low four bits of scale
/// and of minimum 4–7; their upper two bits are the top bits of bytes 0–3 and of bytes 4–7.
#[inline(always)]
unsafe fn unpack_scales(p: *const u8) -> [u8; 16] {
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

/// The number of the quant in the low nibble of byte `at` of a super-block's 128 bytes: blocks of 32 quants alternate
/// between the low and the high nibbles of 32 bytes.
const fn quant_of_low(at: usize) -> usize {
    at / 32 * 64 + at % 32
}

/// Q4_K and, with `FIFTH`, Q5_K: f16 scale and minimum, 12 bytes of sub-scales, then 32 bytes of fifth bits in Q5_K, then
/// 128 bytes of nibbles.
#[inline(always)]
pub(super) unsafe fn accumulate<S: SimdBytes, const T: usize, const FIFTH: bool>(
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
        let table = scales_of_32(s, bytemuck::cast_ref(&scales), [d, dmin], x, sums);
        let fifth = block.add(16);
        let nibbles = block.add(if FIFTH { 48 } else { 16 });
        let mut at = 0;
        while at < 128 {
            // Where a vector is wider than 32 bytes its halves lie in different sub-blocks.
            let (a, b) = (quant_of_low(at), quant_of_low(at + width / 2));
            let packed = s.load_bytes(nibbles.add(at));
            let (mut lo, mut hi) = (s.low4(packed), s.high4(packed));
            if FIFTH {
                let q = s.load_halves(fifth.add(at % 32), fifth.add((at + width / 2) % 32));
                let (bit_a, bit_b) = (1u8 << (a / 32), 1u8 << (b / 32));
                lo = s.or_where::<16>(lo, q, s.splat_byte_halves(bit_a, bit_b));
                hi = s.or_where::<16>(hi, q, s.splat_byte_halves(bit_a << 1, bit_b << 1));
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

/// Q4_K, and Q5_K with its 32 bytes of `fifth` bits.
#[inline(always)]
pub(super) unsafe fn to_quants<S: SimdBytes>(
    s: S,
    p: *const u8,
    fifth: Option<[u8; 32]>,
    q: *const u8,
    out: &mut Quants,
) {
    // SAFETY: the caller vouches for the super-block, of which `q` is the 128 bytes of nibbles.
    unsafe {
        let (d, dmin) = (half(s, p), -half(s, p.add(2)));
        let scales = unpack_scales(p.add(4));
        for sub in 0..8 {
            out.scale[sub] = d * f32::from(scales[sub]);
            out.min[sub] = dmin * f32::from(scales[8 + sub]);
            let packed: [u8; 32] = bytes(q.add(sub / 2 * 32));
            for i in 0..32 {
                let high = fifth.map_or(0, |fifth| (fifth[i] >> sub & 1) << 4);
                out.q[32 * sub + i] = (packed[i] >> (sub % 2 * 4) & 15) | high;
            }
        }
    }
}

/// Q4_K, and Q5_K with `FIFTH`, of many rows.
///
/// # Safety
/// As for [`Loader::to_panel`].
#[inline(always)]
pub(super) unsafe fn to_panel<S: SimdBytes, W: Loader, const FIFTH: bool>(s: S, rows: RowBlocks, out: PanelBlock) {
    // SAFETY: all offsets are below the super-block's size, and all groups are the super-block's.
    unsafe {
        // As in `unpack_scales`, but with a row a lane.
        let [header, a, b, c] = rows.words(s, 0);
        let (d, dmin) = (s.f16_low(header), s.neg(s.f16_high(header)));
        for sub in 0..8 {
            let at = 8 * (sub as u32 % 4);
            let (scale, min) = if sub < 4 {
                (field(s, a, at, 63), field(s, b, at, 63))
            } else {
                let high = |v| s.shl_i32(field(s, v, at + 6, 3), 4);
                (s.or_i32(field(s, c, at, 15), high(a)), s.or_i32(field(s, c, at + 4, 15), high(b)))
            };
            out.scale::<S, W::Shape>(s, sub, s.mul(d, s.i32_to_f32(scale)));
            out.min::<S, W::Shape>(s, sub, s.mul(dmin, s.i32_to_f32(min)));
        }
        for half in 0..2 {
            let fifth = if FIFTH { rows.words(s, 16 + 16 * half) } else { [s.splat_i32(0); 4] };
            for pair in 0..4 {
                let packed = rows.words(s, if FIFTH { 48 } else { 16 } + 32 * pair + 16 * half);
                for j in 0..4 {
                    let (mut lo, mut hi) = (low4(s, packed[j]), high4(s, packed[j]));
                    if FIFTH {
                        lo = or_bit::<S, 16>(s, lo, fifth[j], 2 * pair);
                        hi = or_bit::<S, 16>(s, hi, fifth[j], 2 * pair + 1);
                    }
                    out.quants(s, 2 * pair, 4 * half + j, lo);
                    out.quants(s, 2 * pair + 1, 4 * half + j, hi);
                }
            }
        }
    }
}
