//! Q4_1: see [`crate::quant::BlockQ4_1`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half, low_then_high};

pub(in super::super) struct Q4_1;

impl Loader for Q4_1 {
    declared!(Q4_1, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            (out.scale[0], out.min[0]) = (half(s, p), half(s, p.add(2)));
            low_then_high(bytes(p.add(4)), out);
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            let header = rows.words(s, 0)[0];
            out.scale::<S, Self::Shape>(s, 0, s.f16_low(header));
            out.min::<S, Self::Shape>(s, 0, s.f16_high(header));
            out.nibbles(s, 0, rows.words(s, 4));
        }
    }
}

impl Block32 for Q4_1 {
    nibbles!(Q4_1, 4);
}
