//! Q2_K: see [`crate::quant::BlockQ2_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words, bits_of_group, scales_to_panel};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, two_bits};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct Q2_K;

impl Loader for Q2_K {
    declared!(Q2_K, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe {
            let (d, dmin) = (half(s, p.add(80)), -half(s, p.add(82)));
            let scales: [u8; 16] = bytes(p);
            for sub in 0..16 {
                out.scale[sub] = d * f32::from(scales[sub] & 15);
                out.min[sub] = dmin * f32::from(scales[sub] >> 4);
            }
            for part in 0..8 {
                // Parts of 32 quants, bit pairs of the half's 32 bytes.
                let packed: [u8; 32] = bytes(p.add(16 + part / 4 * 32));
                for i in 0..32 {
                    out.q[32 * part + i] = packed[i] >> (part % 4 * 2) & 3;
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
                for half in 0..2 {
                    let packed = rows.words(s, 16 + 32 * h + 16 * half);
                    for part in 0..4 {
                        for j in 0..4 {
                            let q = two_bits(s, packed[j], 2 * part as u32);
                            out.quants(s, 8 * h + 2 * part + half, j, q);
                        }
                    }
                }
            }
        }
    }
}

impl Block256 for Q2_K {
    const WORDS: Words<usize> = [0, 4, 8, 12, 80];

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        let header = words[4];
        let number = |from| s.i32_to_f32(bits_of_group::<S, PIECES>(s, words[group / 4], group % 4, (from, 8), 4));
        Scales { scale: s.mul(s.f16_low(header), number(0)), min: s.mul(s.neg(s.f16_high(header)), number(4)) }
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // SAFETY: all offsets are below the super-block's size.
        unsafe { s.two_bits(block.add(16 + at / 128 * 32), at % 128) }
    }
}
