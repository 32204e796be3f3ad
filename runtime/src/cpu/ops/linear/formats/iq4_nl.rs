//! IQ4_NL: see [`crate::quant::BlockIQ4_NL`].

use super::{declared, nibbles};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, half};
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

/// Writes the values of sixteen bytes of indices, the low ones first, as quants `at ..= at + 31`; a wider vector also
/// writes beyond them.
///
/// # Safety
/// `p` must be readable for 16 bytes.
#[inline(always)]
pub(super) unsafe fn look_up<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants, at: usize) {
    let values = VALUES.map(|v| v ^ S::I8_BIAS as u8);
    let q = out.q[at..][..16 + 4 * S::LANES].as_mut_ptr();
    // SAFETY: the caller vouches for the indices; the slice has room for both vectors.
    unsafe {
        let packed = s.load_pieces(p, [0; 4]);
        s.store_bytes(q, s.lookup(&values, s.low4(packed)));
        s.store_bytes(q.add(16), s.lookup(&values, s.high4(packed)));
    }
}

impl Loader for IQ4_NL {
    declared!(IQ4_NL, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = half(s, p);
            look_up(s, p.add(2), out, 0);
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            out.scale::<S, Self::Shape>(s, 0, s.f16_low(rows.words(s, 0)[0]));
            out.looked_up(s, 0, rows.words(s, 2), &VALUES.map(|v| v ^ S::I8_BIAS as u8));
        }
    }
}

impl Block32 for IQ4_NL {
    nibbles!(IQ4_NL, 2, of VALUES);
}
