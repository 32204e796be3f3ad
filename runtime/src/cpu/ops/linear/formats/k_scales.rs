//! Scales and quants of Q4_K and Q5_K, whose loaders share this; [`crate::quant::k_scales`] draws the layout.

use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words, bits_of_group, scales_to_panel};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, high4, low4, or_bit};
use crate::cpu::ops::linear::unpack::{Quants, bytes, half};

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

/// The header: f16 scale and minimum, then the twelve bytes of sub-scales.
pub(super) const WORDS: Words<usize> = [0, 4, 8, 12, 0];

/// As [`unpack_scales`], of several rows.
#[inline(always)]
pub(super) fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
    let [header, a, b, c, _] = words;
    let bits = |v, from, n| bits_of_group::<S, PIECES>(s, v, group % 4, (from, 8), n);
    let (scale, min) = if group < 4 {
        (bits(a, 0, 6), bits(b, 0, 6))
    } else {
        let high = |v| s.shl_i32(bits(v, 6, 2), 4);
        (s.or_i32(bits(c, 0, 4), high(a)), s.or_i32(bits(c, 4, 4), high(b)))
    };
    Scales {
        scale: s.mul(s.f16_low(header), s.i32_to_f32(scale)),
        min: s.mul(s.neg(s.f16_high(header)), s.i32_to_f32(min)),
    }
}

/// Quants in their order; Q5_K, with `FIFTH`, has 32 bytes of fifth bits before the 128 bytes of nibbles.
///
/// # Safety
/// As for [`Block256::quants`].
#[inline(always)]
pub(super) unsafe fn quants<S: SimdBytes, const FIFTH: bool>(s: S, block: *const u8, at: usize) -> S::B {
    // SAFETY: all offsets are below the super-block's size.
    unsafe {
        let q = s.nibbles_by_32(block.add(if FIFTH { 48 } else { 16 } + at / 64 * 32), at % 64);
        if !FIFTH {
            return q;
        }
        // Where a vector is wider than 32 bytes its halves lie in different sub-blocks.
        let (fifth, b) = (block.add(16), at + 2 * S::LANES);
        let bits = s.load_halves(fifth.add(at % 32), fifth.add(b % 32));
        s.or_where::<16>(q, bits, s.splat_byte_halves(1 << (at / 32), 1 << (b / 32)))
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
/// As for [`to_panel`](super::super::unpack::Loader::to_panel).
#[inline(always)]
pub(super) unsafe fn to_panel<S: SimdBytes, W: Block256, const FIFTH: bool>(s: S, rows: RowBlocks, out: PanelBlock) {
    // SAFETY: all offsets are below the super-block's size, and all groups are the super-block's.
    unsafe {
        scales_to_panel::<S, W>(s, rows, out);
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
