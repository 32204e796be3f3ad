//! Q3_K: see [`crate::quant::BlockQ3_K`].

use super::declared;
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Minima, Sums, scales_of_16};
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
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        let width = 4 * S::LANES;
        // SAFETY: all offsets are below the super-block's and the chunk's size.
        unsafe {
            let scales = unpack_scales(bytes(block.add(96)));
            let d = half(s, block.add(108));
            let table = scales_of_16(s, scales.as_ptr(), d, Minima::Scales(-4.0), x, sums);
            for h in 0..2 {
                for at in (0..128).step_by(2 * width) {
                    let (lo, hi) = (quants(s, block, h, at), quants(s, block, h, at + width));
                    for t in 0..T {
                        let q = (&raw const (*x[t]).q).cast::<u8>().add(128 * h + at);
                        let scales = table[t].as_ptr().add((128 * h + at) / 16);
                        let lo = s.i32_to_f32(s.dot_u6(lo, s.load_bytes(q)));
                        let hi = s.i32_to_f32(s.dot_u6(hi, s.load_bytes(q.add(width))));
                        sums[t].lo = s.mul_add(lo, s.load_dup4(scales), sums[t].lo);
                        sums[t].hi = s.mul_add(hi, s.load_dup4(scales.add(S::PIECES)), sums[t].hi);
                    }
                }
            }
        }
    }
}
