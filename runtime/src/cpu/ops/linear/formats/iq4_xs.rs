//! IQ4_XS: see [`crate::quant::BlockIQ4_XS`].

use super::{
    declared,
    iq4_nl::{VALUES, look_up},
};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Sums, scales_of_32};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, field};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct IQ4_XS;

/// The eight scales of the super-block at `p`, twice.
///
/// # Safety
/// Its first eight bytes must be readable.
#[inline(always)]
unsafe fn unpack_scales(p: *const u8) -> [i8; 16] {
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
    bytemuck::cast([scales.to_le(); 2])
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
            let [header, low, ..] = rows.words(s, 0);
            let d = s.f16_low(header);
            let values = VALUES.map(|v| v ^ S::I8_BIAS as u8);
            for sub in 0..8 {
                let high = s.shl_i32(field(s, header, 16 + 2 * sub as u32, 3), 4);
                let scale = s.or_i32(field(s, low, 4 * sub as u32, 15), high);
                let scale = s.i32_to_f32(s.sub_i32(scale, s.splat_i32(32)));
                out.scale::<S, Self::Shape>(s, sub, s.mul(d, scale));
                out.looked_up(s, sub, rows.words(s, 8 + 16 * sub), &values);
            }
        }
    }
}

/// The quants of as many sub-blocks as a vector has pieces: the first 16 of each, the last 16.
///
/// # Safety
/// `p` must be readable for a vector of indices.
#[inline(always)]
unsafe fn quants<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
    // SAFETY: as the caller vouches.
    let packed = unsafe { s.load_bytes(p) };
    (s.lookup(&VALUES, s.low4(packed)), s.lookup(&VALUES, s.high4(packed)))
}

/// The products of quants with the activations at `q`: four lanes a sub-block.
///
/// # Safety
/// `q` must be readable for the sub-blocks.
#[inline(always)]
unsafe fn dot<S: SimdBytes>(s: S, (lo, hi): (S::B, S::B), q: *const u8) -> S::I {
    const AT: [usize; 4] = [0, 32, 64, 96];
    // SAFETY: as the caller vouches.
    unsafe { s.dot2_i8(lo, s.load_pieces(q, AT), hi, s.load_pieces(q.add(16), AT)) }
}

impl Block256 for IQ4_XS {
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        // SAFETY: all offsets are below the super-block's and the chunk's size.
        unsafe {
            let d = half(s, block);
            // Products of signed bytes add a bias to every quant; the minima take it off again.
            let bias = -(S::I8_BIAS as f32) * d;
            let table = scales_of_32(s, &unpack_scales(block), [d, bias], x, sums);
            for sub in (0..8).step_by(2 * S::PIECES) {
                let indices = block.add(8 + 16 * sub);
                let (lo, hi) = (quants(s, indices), quants(s, indices.add(16 * S::PIECES)));
                for t in 0..T {
                    let q = (&raw const (*x[t]).q).cast::<u8>().add(32 * sub);
                    let scales = table[t].as_ptr().add(sub);
                    let lo = s.i32_to_f32(dot(s, lo, q));
                    let hi = s.i32_to_f32(dot(s, hi, q.add(32 * S::PIECES)));
                    sums[t].lo = s.mul_add(lo, s.load_dup4(scales), sums[t].lo);
                    sums[t].hi = s.mul_add(hi, s.load_dup4(scales.add(S::PIECES)), sums[t].hi);
                }
            }
        }
    }
}
