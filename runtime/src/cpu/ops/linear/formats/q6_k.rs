//! Q6_K: see [`crate::quant::BlockQ6_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Minima, Sums, scales_of_16};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, high4, low4, signed_byte, two_bits};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct Q6_K;

impl Loader for Q6_K {
    declared!(Q6_K, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe {
            let d = half(s, p.add(208));
            for sub in 0..16 {
                out.scale[sub] = d * f32::from(*p.add(192 + sub) as i8);
            }
            for part in 0..8 {
                // Parts of 32 quants: nibbles from 32 of the half's 64 bytes, bit pairs from its 32.
                let (h, j) = (part / 4, part % 4);
                let low: [u8; 32] = bytes(p.add(64 * h + j % 2 * 32));
                let high: [u8; 32] = bytes(p.add(128 + 32 * h));
                for i in 0..32 {
                    out.q[32 * part + i] = (low[i] >> (j / 2 * 4) & 15) | (high[i] >> (2 * j) & 3) << 4;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            let d = s.f16_high(rows.words(s, 194)[3]);
            for (word, scales) in rows.words(s, 192).into_iter().enumerate() {
                for at in 0..4 {
                    let scale = s.mul(d, s.i32_to_f32(signed_byte(s, scales, at)));
                    out.scale::<S, Self::Shape>(s, 4 * word + at, scale);
                }
            }
            for h in 0..2 {
                // Groups of 16 of a half: two for each of its four parts.
                for half in 0..2 {
                    let high = rows.words(s, 128 + 32 * h + 16 * half);
                    for part in 0..2 {
                        let low = rows.words(s, 64 * h + 32 * part + 16 * half);
                        for j in 0..4 {
                            let top = |from| s.shl_i32(two_bits(s, high[j], from), 4);
                            let group = 8 * h + 2 * part + half;
                            out.quants(s, group, j, s.or_i32(low4(s, low[j]), top(2 * part as u32)));
                            out.quants(s, group + 4, j, s.or_i32(high4(s, low[j]), top(4 + 2 * part as u32)));
                        }
                    }
                }
            }
        }
    }
}

impl Block256 for Q6_K {
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
            let d = half(s, block.add(208));
            let table = scales_of_16(s, block.add(192).cast(), d, Minima::Scales(-32.0), x, sums);
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
