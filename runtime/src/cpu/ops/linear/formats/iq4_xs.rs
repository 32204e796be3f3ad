//! IQ4_XS: see [`crate::quant::BlockIQ4_XS`].

use super::{
    declared,
    iq4_nl::{VALUES, look_up},
};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words, bits_of_group, scales_to_panel};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct IQ4_XS;

/// The eight scales of the super-block at `p`.
///
/// # Safety
/// Its first eight bytes must be readable.
#[inline(always)]
unsafe fn unpack_scales(p: *const u8) -> [i8; 8] {
    // SAFETY: as the caller vouches.
    let (high, low) = unsafe { (u16::from_le_bytes(bytes(p.add(2))), u32::from_le_bytes(bytes(p.add(4)))) };
    // A nibble and two bits go to each of eight bytes: each line halves the runs that lie together.
    let low = u64::from(low);
    let low = (low | low << 16) & 0x0000_ffff_0000_ffff;
    let low = (low | low << 8) & 0x00ff_00ff_00ff_00ff;
    let low = (low | low << 4) & 0x0f0f_0f0f_0f0f_0f0f;
    let high = u64::from(high);
    let high = (high | high << 24) & 0x0000_00ff_0000_00ff;
    let high = (high | high << 12) & 0x000f_000f_000f_000f;
    let high = (high | high << 6) & 0x0303_0303_0303_0303;
    // Takes 32 from every byte; the top bits are set meanwhile, so that no byte borrows from the next.
    let scales = (((low | high << 4) | 0x8080_8080_8080_8080) - 0x2020_2020_2020_2020) ^ 0x8080_8080_8080_8080;
    bytemuck::cast(scales.to_le())
}

impl Loader for IQ4_XS {
    declared!(IQ4_XS, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe {
            let d = half(s, p);
            let scales = unpack_scales(p);
            for sub in 0..8 {
                out.scale[sub] = d * f32::from(scales[sub]);
                look_up(s, p.add(8 + 16 * sub), out, 32 * sub);
            }
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            scales_to_panel::<S, Self>(s, rows, out);
            let values = VALUES.map(|v| v ^ S::I8_BIAS as u8);
            for sub in 0..8 {
                out.looked_up(s, sub, rows.words(s, 8 + 16 * sub), &values);
            }
        }
    }
}

impl Block256 for IQ4_XS {
    const WORDS: Words<usize> = [0, 4, 0, 0, 0];

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        let [header, low, ..] = words;
        let high = s.shl_i32(bits_of_group::<S, PIECES>(s, header, group, (16, 2), 2), 4);
        let scale = s.or_i32(bits_of_group::<S, PIECES>(s, low, group, (0, 4), 4), high);
        let scale = s.i32_to_f32(s.sub_i32(scale, s.splat_i32(32)));
        Scales { scale: s.mul(s.f16_low(header), scale), min: s.zero() }
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // SAFETY: all offsets are below the super-block's size.
        unsafe { s.lookup(&VALUES, s.nibbles_by_16(block.add(8 + at / 32 * 16), at % 32)) }
    }
}
