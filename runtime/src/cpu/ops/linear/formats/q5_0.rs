//! Q5_0: see [`crate::quant::BlockQ5_0`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, field};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, fifth_bits, half, low_then_high};

pub(in super::super) struct Q5_0;

impl Loader for Q5_0 {
    declared!(Q5_0, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = half(s, p);
            low_then_high(bytes(p.add(6)), out);
            fifth_bits(u32::from_le_bytes(bytes(p.add(2))), out);
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            let [header, next, ..] = rows.words(s, 0);
            out.scale::<S, Self::Shape>(s, 0, s.f16_low(header));
            // The word at byte 2.
            let fifth = s.or_i32(field(s, header, 16, 0xffff), s.shl_i32(next, 16));
            out.nibbles_and_fifth(s, rows.words(s, 6), fifth);
        }
    }
}

impl Block32 for Q5_0 {
    nibbles!(Q5_0, 6, 2);
}
