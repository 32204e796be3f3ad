//! Q4_0: see [`crate::quant::BlockQ4_0`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half, low_then_high};

pub(in super::super) struct Q4_0;

impl Loader for Q4_0 {
    declared!(Q4_0, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = half(s, p);
            low_then_high(bytes(p.add(2)), out);
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            out.scale::<S, Self::Shape>(s, 0, s.f16_low(rows.words(s, 0)[0]));
            out.nibbles(s, 0, rows.words(s, 2));
        }
    }
}

impl Block32 for Q4_0 {
    nibbles!(Q4_0, 2);
}
