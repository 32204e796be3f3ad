//! Q3_K: see [`crate::quant::BlockQ3_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words, scales_to_panel, signed_byte_of_group};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks, or_bit, two_bits};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes, half};

pub(in super::super) struct Q3_K;

/// The sixteen scales out of their twelve bytes.
#[inline(always)]
fn unpack_scales(packed: [u8; 12]) -> [i8; 16] {
    let [a, b, c]: [u32; 3] = bytemuck::cast(packed);
    const LOW: u32 = 0x0f0f_0f0f;
    const HIGH: u32 = 0x3030_3030;
    let words =
        [a & LOW | c << 4 & HIGH, b & LOW | c << 2 & HIGH, a >> 4 & LOW | c & HIGH, b >> 4 & LOW | c >> 2 & HIGH];
    // Takes 32 from every byte; the top bits are set meanwhile, so that no byte borrows from the next.
    bytemuck::cast(words.map(|w| ((w | 0x8080_8080) - 0x2020_2020) ^ 0x8080_8080))
}

impl Loader for Q3_K {
    declared!(Q3_K, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe {
            let d = half(s, p.add(108));
            let scales = unpack_scales(bytes(p.add(96)));
            for sub in 0..16 {
                out.scale[sub] = d * f32::from(scales[sub]);
            }
            let high: [u8; 32] = bytes(p);
            for part in 0..8 {
                // Parts of 32 quants: bit pairs of the half's 32 bytes, and a bit of all 32.
                let low: [u8; 32] = bytes(p.add(32 + part / 4 * 32));
                for i in 0..32 {
                    out.q[32 * part + i] = (low[i] >> (part % 4 * 2) & 3) | (high[i] >> part & 1) << 2;
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe {
            scales_to_panel::<S, Self>(s, rows, out);
            for half in 0..2 {
                let high = rows.words(s, 16 * half);
                for h in 0..2 {
                    let packed = rows.words(s, 32 + 32 * h + 16 * half);
                    for part in 0..4 {
                        for j in 0..4 {
                            let q = or_bit::<S, 4>(s, two_bits(s, packed[j], 2 * part as u32), high[j], 4 * h + part);
                            out.quants(s, 8 * h + 2 * part + half, j, q);
                        }
                    }
                }
            }
        }
    }
}

/// Quants `at .. at + 4 · LANES` of half `h` of a super-block.
///
/// # Safety
/// The super-block must be readable.
#[inline(always)]
unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, h: usize, at: usize) -> S::B {
    // Where a vector is wider than 32 bytes its halves lie in different sub-blocks of 32.
    let (a, b) = (at, at + 2 * S::LANES);
    // SAFETY: all offsets are below the super-block's size.
    unsafe {
        let low = s.two_bits(block.add(32 + 32 * h), at);
        let high = s.load_halves(block.add(a % 32), block.add(b % 32));
        s.or_where::<4>(low, high, s.splat_byte_halves(1 << (4 * h + a / 32), 1 << (4 * h + b / 32)))
    }
}

impl Block256 for Q3_K {
    const WORDS: Words<usize> = [96, 100, 104, 106, 96];

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        let [a, b, c, unit, _] = words;
        let (low, high) = (s.splat_i32(0x0f0f_0f0f), s.splat_i32(0x3030_3030));
        // As in `unpack_scales`, but with a row a lane; 32 is taken off below.
        let words = [
            s.or_i32(s.and_i32(a, low), s.and_i32(s.shl_i32(c, 4), high)),
            s.or_i32(s.and_i32(b, low), s.and_i32(s.shl_i32(c, 2), high)),
            s.or_i32(s.and_i32(s.shr_i32(a, 4), low), s.and_i32(c, high)),
            s.or_i32(s.and_i32(s.shr_i32(b, 4), low), s.and_i32(s.shr_i32(c, 2), high)),
        ];
        let scale = s.sub_i32(signed_byte_of_group::<S, PIECES>(s, words, group), s.splat_i32(32));
        Scales { scale: s.mul(s.f16_high(unit), s.i32_to_f32(scale)), min: s.zero() }
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // SAFETY: the contract is passed on.
        unsafe { quants(s, block, at / 128, at % 128) }
    }
}
