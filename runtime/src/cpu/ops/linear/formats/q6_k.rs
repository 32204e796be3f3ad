//! Q6_K: see [`crate::quant::BlockQ6_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words, scales_to_panel, signed_byte_of_group};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, high4, low4, two_bits};
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
            scales_to_panel::<S, Self>(s, rows, out);
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
    const WORDS: Words<usize> = [192, 196, 200, 204, 206];

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        let [a, b, c, d, unit] = words;
        let scale = s.i32_to_f32(signed_byte_of_group::<S, PIECES>(s, [a, b, c, d], group));
        Scales { scale: s.mul(s.f16_high(unit), scale), min: s.zero() }
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // Half h: 64 bytes whose low nibbles are quants 0..64 of the half and whose high ones are 64..128.
        let (h, at) = (at / 128, at % 128);
        // SAFETY: all offsets are below the super-block's size.
        unsafe {
            let packed = s.load_bytes(block.add(64 * h + at % 64));
            let (low_top, high_top) = s.high2(block.add(128 + 32 * h), at % 64);
            if at < 64 { s.or_bytes(s.low4(packed), low_top) } else { s.or_bytes(s.high4(packed), high_top) }
        }
    }
}
