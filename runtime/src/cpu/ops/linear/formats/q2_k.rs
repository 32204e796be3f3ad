//! Q2_K: see [`crate::quant::BlockQ2_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Minima, Sums, scales_of_16};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, field, two_bits};
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
            let header = rows.words(s, 68)[3];
            let (d, dmin) = (s.f16_low(header), s.neg(s.f16_high(header)));
            for (word, scales) in rows.words(s, 0).into_iter().enumerate() {
                for at in 0..4 {
                    let number = |from| s.i32_to_f32(field(s, scales, 8 * at as u32 + from, 15));
                    out.scale::<S, Self::Shape>(s, 4 * word + at, s.mul(d, number(0)));
                    out.min::<S, Self::Shape>(s, 4 * word + at, s.mul(dmin, number(4)));
                }
            }
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
            let packed: [u8; 16] = bytes(block);
            let (scales, minima) = (packed.map(|b| b & 15), packed.map(|b| b >> 4));
            let (d, dmin) = (half(s, block.add(80)), -half(s, block.add(82)));
            let minima = Minima::Own(minima.as_ptr().cast(), dmin);
            let table = scales_of_16(s, scales.as_ptr().cast(), d, minima, x, sums);
            for h in 0..2 {
                for at in (0..128).step_by(2 * width) {
                    let qs = block.add(16 + 32 * h);
                    let (lo, hi) = (s.two_bits(qs, at), s.two_bits(qs, at + width));
                    for t in 0..T {
                        let q = (&raw const (*x[t]).q).cast::<u8>().add(128 * h + at);
                        let scales = table[t].as_ptr().add((128 * h + at) / 16);
                        let lo = s.i32_to_f32(s.dot_u6(lo, s.load_bytes(q)));
                        let hi = s.i32_to_f32(s.dot_u6(hi, s.load_bytes(q.add(width))));
                        sums[t].lo = s.mul_add(lo, s.load_dup4(scales), sums[t].lo);
                        sums[t].hi = s.mul_add(hi, s.load_dup4(scales.add(S::PIECES)), sums[t].hi);
                    }
                }
            }
        }
    }
}
