//! Q5_0: see [`crate::quant::BlockQ5_0`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
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
}

impl Block32 for Q5_0 {
    nibbles!(Q5_0, 6, 2);
}
