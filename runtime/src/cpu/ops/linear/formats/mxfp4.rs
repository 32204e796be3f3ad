//! MXFP4, with and without its scales: see [`crate::quant::mxfp4`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_block::Block32;
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, field};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, e8m0_half, low_then_high};
use crate::quant::mxfp4::MXFP4_DOUBLED;

pub(in super::super) struct MXFP4;

pub(in super::super) struct MXFP4_SPLIT;

/// Twice the values of nibbles, centred on 16: quants of five bits.
const QUANTS: [u8; 16] = {
    let mut quants = [0; 16];
    let mut i = 0;
    while i < 16 {
        quants[i] = (MXFP4_DOUBLED[i] + 16) as u8;
        i += 1;
    }
    quants
};

/// Half of 2^(e − 127), with e in the low byte of every lane, because quants are twice the values; infinite for 255.
#[inline(always)]
fn e8m0_halves<S: SimdBytes>(s: S, headers: S::I) -> S::F {
    // e moves to the place of a float's exponent. The shift to the right spreads its top bit over the sign.
    let v = s.abs(s.f32_from_bits(s.shr_i32(s.shl_i32(headers, 24), 1)));
    // e = 0 stands for a subnormal.
    let least = s.splat(f32::from_bits(0x0040_0000));
    s.mul(s.max(v, least), s.splat(0.5))
}

impl Loader for MXFP4 {
    declared!(MXFP4, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(_: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = e8m0_half(*p);
            low_then_high(bytes(p.add(1)), out);
        }
        out.q[..32].iter_mut().for_each(|q| *q = QUANTS[usize::from(*q)]);
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            out.scale::<S, Self::Shape>(s, 0, e8m0_halves(s, rows.words(s, 0)[0]));
            out.looked_up(s, 0, rows.words(s, 1), &QUANTS);
        }
    }
}

impl Loader for MXFP4_SPLIT {
    declared!(MXFP4_SPLIT, mat_vec_block);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(_: S, p: *const u8, out: &mut Quants) {
        // SAFETY: the block has 16 bytes.
        let packed: [u8; 16] = unsafe { bytes(p) };
        out.scale[0] = 0.5;
        for (i, byte) in packed.into_iter().enumerate() {
            out.q[2 * i] = QUANTS[usize::from(byte & 15)];
            out.q[2 * i + 1] = QUANTS[usize::from(byte >> 4)];
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            out.scale::<S, Self::Shape>(s, 0, s.splat(0.5));
            for (j, packed) in rows.words(s, 0).into_iter().enumerate() {
                // Bytes become pairs: two of them are a word of four quants.
                for half in 0..2 {
                    let two = s.shr_i32(packed, 16 * half as u32);
                    let apart = s.or_i32(field(s, two, 0, 0xff), s.shl_i32(field(s, two, 8, 0xff), 16));
                    let nibbles = s.or_i32(
                        s.and_i32(apart, s.splat_i32(0x000f_000f)),
                        s.and_i32(s.shl_i32(apart, 4), s.splat_i32(0x0f00_0f00)),
                    );
                    out.quants(s, 0, 2 * j + half, s.bytes_to_words(s.lookup(&QUANTS, s.words_to_bytes(nibbles))));
                }
            }
        }
    }
}

impl Block32 for MXFP4 {
    #[inline(always)]
    fn scales<S: SimdBytes>(s: S, headers: S::I) -> S::F {
        e8m0_halves(s, headers)
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: quants follow the scale.
        let packed = unsafe { s.load_pieces(p.add(1), offsets) };
        (s.lookup(&QUANTS, s.low4(packed)), s.lookup(&QUANTS, s.high4(packed)))
    }
    #[inline(always)]
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
        // SAFETY: the caller vouches for the blocks.
        unsafe { Self::load(s, p, [0, 17, 34, 51]) }
    }
    #[inline(always)]
    unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I {
        // SAFETY: the caller vouches for the blocks.
        unsafe { s.load_headers(rows, [0, 17, 34, 51]) }
    }
}

impl Block32 for MXFP4_SPLIT {
    #[inline(always)]
    fn scales<S: SimdBytes>(s: S, headers: S::I) -> S::F {
        e8m0_halves(s, headers)
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: as the caller vouches.
        let packed = unsafe { s.load_pieces(p, offsets) };
        (s.lookup(&QUANTS, s.low4(packed)), s.lookup(&QUANTS, s.high4(packed)))
    }
    #[inline(always)]
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
        // SAFETY: blocks of 16 bytes side by side are a vector.
        let packed = unsafe { s.load_bytes(p) };
        (s.lookup(&QUANTS, s.low4(packed)), s.lookup(&QUANTS, s.high4(packed)))
    }
    // Never called: blocks have no headers.
    #[inline(always)]
    unsafe fn load_group_headers<S: SimdBytes>(s: S, _: [*const u8; 4]) -> S::I {
        s.splat_i32(0)
    }
}
