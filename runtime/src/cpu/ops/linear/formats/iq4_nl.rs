//! IQ4_NL: see [`crate::quant::BlockIQ4_NL`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};
use crate::quant::IQ4_VALUES;

pub(in super::super) struct IQ4_NL;

/// The values as bytes.
pub(super) const VALUES: [u8; 16] = {
    let mut values = [0; 16];
    let mut i = 0;
    while i < 16 {
        values[i] = IQ4_VALUES[i] as u8;
        i += 1;
    }
    values
};

/// The values of sixteen bytes of indices, the low ones first, as quants.
#[inline(always)]
pub(super) fn look_up<S: SimdBytes>(packed: [u8; 16], out: &mut [u8]) {
    for (i, byte) in packed.into_iter().enumerate() {
        out[i] = VALUES[usize::from(byte & 15)] ^ S::I8_BIAS as u8;
        out[i + 16] = VALUES[usize::from(byte >> 4)] ^ S::I8_BIAS as u8;
    }
}

impl Loader for IQ4_NL {
    declared!(IQ4_NL, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = half(s, p);
            look_up::<S>(bytes(p.add(2)), &mut out.q[..32]);
        }
    }
}

impl Block32 for IQ4_NL {
    nibbles!(IQ4_NL, 2, of VALUES);
}
