//! Q8_0: see [`crate::quant::BlockQ8_0`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::{Block32, biased};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct Q8_0;

impl Loader for Q8_0 {
    declared!(Q8_0, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        let q: [u8; 32] = unsafe {
            out.scale[0] = half(s, p);
            bytes(p.add(2))
        };
        for i in 0..32 {
            out.q[i] = q[i] ^ S::I8_BIAS as u8;
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            out.scale::<S, Self::Shape>(s, 0, s.f16_low(rows.words(s, 0)[0]));
            for half in 0..2 {
                for (j, q) in rows.words(s, 2 + 16 * half).into_iter().enumerate() {
                    out.quants(s, 0, 4 * half + j, s.bytes_to_words(biased(s, s.words_to_bytes(q))));
                }
            }
        }
    }
}

impl Block32 for Q8_0 {
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: 32 quants follow the scale.
        unsafe { (s.load_pieces(p.add(2), offsets), s.load_pieces(p.add(18), offsets)) }
    }
    #[inline(always)]
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
        // SAFETY: the caller vouches for the blocks.
        unsafe { s.load_group_pairs::<34, 2>(p) }
    }
    #[inline(always)]
    unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I {
        // SAFETY: the caller vouches for the blocks.
        unsafe { s.load_group_headers::<34>(rows) }
    }
}
