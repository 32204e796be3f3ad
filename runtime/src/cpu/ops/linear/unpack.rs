//! Unpacking rows of W for the matrix product: any format to floats.

use super::mat_vec_block::{self as block, Block32};
use super::mat_vec_float::{BF16, F16, F32, FloatWeight};
use super::mat_vec_super::{self as super_block, Block256, unpack_scales};
use crate::cpu::arch::SimdBytes;

/// Most elements that are unpacked in one piece.
pub(super) const MAX_LEN: usize = 256;

/// A weight format that can be unpacked piece by piece.
pub(super) trait Unpack {
    /// Elements of a piece, ≤ [`MAX_LEN`]; it divides every row.
    const LEN: usize;
    /// Bytes of a piece.
    const BYTES: usize;
    /// Writes LEN floats.
    /// # Safety
    /// `p` must be readable for BYTES, `out` writable for LEN.
    unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, out: *mut f32);
}

macro_rules! unpack_float {
    ($($format:ty),*) => {$(
        impl Unpack for $format {
            const LEN: usize = 1;
            const BYTES: usize = <$format as FloatWeight>::BYTES;
            #[inline(always)]
            unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, out: *mut f32) {
                // SAFETY: one element is read and written.
                unsafe { s.store_partial(out, 1, <$format>::load_partial(s, p, 1)) }
            }
        }
    )*};
}
unpack_float!(F32, F16, BF16);

/// The half at `p`.
#[inline(always)]
unsafe fn half<S: SimdBytes>(s: S, p: *const u8) -> f32 {
    // SAFETY: the caller vouches for two bytes.
    s.f16_to_f32(u16::from_le(unsafe { p.cast::<u16>().read_unaligned() }))
}

/// A 32-element block of nibbles: `fifth` has one more bit for each.
#[inline(always)]
unsafe fn nibbles_to_f32(p: *const u8, fifth: u32, scale: f32, add: f32, out: *mut f32) {
    // SAFETY: the caller vouches for 16 bytes and 32 floats.
    let (q, out) = unsafe { (p.cast::<[u8; 16]>().read_unaligned(), &mut *out.cast::<[f32; 32]>()) };
    for i in 0..16 {
        let lo = u32::from(q[i] & 15) | (fifth >> i & 1) << 4;
        let hi = u32::from(q[i] >> 4) | (fifth >> (i + 16) & 1) << 4;
        out[i] = lo as i32 as f32 * scale + add;
        out[i + 16] = hi as i32 as f32 * scale + add;
    }
}

/// The 32-bit word at `p`.
#[inline(always)]
unsafe fn word(p: *const u8) -> u32 {
    // SAFETY: the caller vouches for four bytes.
    u32::from_le(unsafe { p.cast::<u32>().read_unaligned() })
}

macro_rules! unpack_block {
    ($($format:ty: |$s:ident, $p:ident, $out:ident| $body:expr),* $(,)?) => {$(
        impl Unpack for $format {
            const LEN: usize = 32;
            const BYTES: usize = <$format as Block32>::BYTES;
            #[inline(always)]
            unsafe fn to_f32<S: SimdBytes>($s: S, $p: *const u8, $out: *mut f32) {
                // SAFETY: all offsets are below the block's size.
                unsafe { $body }
            }
        }
    )*};
}
unpack_block! {
    block::Q4_0: |s, p, out| {
        let d = half(s, p);
        nibbles_to_f32(p.add(2), 0, d, -8.0 * d, out)
    },
    block::Q4_1: |s, p, out| nibbles_to_f32(p.add(4), 0, half(s, p), half(s, p.add(2)), out),
    block::Q5_0: |s, p, out| {
        let d = half(s, p);
        nibbles_to_f32(p.add(6), word(p.add(2)), d, -16.0 * d, out)
    },
    block::Q5_1: |s, p, out| nibbles_to_f32(p.add(8), word(p.add(4)), half(s, p), half(s, p.add(2)), out),
    block::Q8_0: |s, p, out| {
        let (d, q) = (half(s, p), p.add(2).cast::<[i8; 32]>().read_unaligned());
        for i in 0..32 {
            *out.add(i) = f32::from(q[i]) * d;
        }
    },
}

/// Q4_K, and Q5_K where there are `fifth` bits.
#[inline(always)]
unsafe fn super_to_f32<S: SimdBytes>(s: S, p: *const u8, fifth: Option<[u8; 32]>, nibbles: *const u8, out: *mut f32) {
    // SAFETY: the caller vouches for the super-block and for 256 floats.
    unsafe {
        let (d, dmin) = (half(s, p), half(s, p.add(2)));
        let scales = unpack_scales(p.add(4));
        for sub in 0..8 {
            let (scale, min) = (d * f32::from(scales[sub]), dmin * f32::from(scales[8 + sub]));
            let q = nibbles.add(sub / 2 * 32).cast::<[u8; 32]>().read_unaligned();
            for i in 0..32 {
                let mut v = q[i] >> (sub % 2 * 4) & 15;
                if let Some(fifth) = fifth {
                    v |= (fifth[i] >> sub & 1) << 4;
                }
                *out.add(32 * sub + i) = f32::from(v) * scale - min;
            }
        }
    }
}

macro_rules! unpack_super {
    ($($format:ty: |$s:ident, $p:ident, $out:ident| $body:expr),* $(,)?) => {$(
        impl Unpack for $format {
            const LEN: usize = 256;
            const BYTES: usize = <$format as Block256>::BYTES;
            #[inline(always)]
            unsafe fn to_f32<S: SimdBytes>($s: S, $p: *const u8, $out: *mut f32) {
                // SAFETY: all offsets are below the super-block's size.
                unsafe { $body }
            }
        }
    )*};
}
unpack_super! {
    super_block::Q4_K: |s, p, out| super_to_f32(s, p, None, p.add(16), out),
    super_block::Q5_K: |s, p, out| super_to_f32(s, p, Some(p.add(16).cast::<[u8; 32]>().read_unaligned()), p.add(48), out),
    super_block::Q6_K: |s, p, out| {
        let d = half(s, p.add(208));
        for part in 0..8 {
            // Parts of 32 quants: nibbles from 32 of the half's 64 bytes, bit pairs from its 32.
            let (h, j) = (part / 4, part % 4);
            let low = p.add(64 * h + j % 2 * 32).cast::<[u8; 32]>().read_unaligned();
            let high = p.add(128 + 32 * h).cast::<[u8; 32]>().read_unaligned();
            for sub in 0..2 {
                let scale = d * f32::from(*p.add(192 + 2 * part + sub) as i8);
                for i in 16 * sub..16 * sub + 16 {
                    let q = (low[i] >> (j / 2 * 4) & 15) | (high[i] >> (2 * j) & 3) << 4;
                    *out.add(32 * part + i) = f32::from(q as i8 - 32) * scale;
                }
            }
        }
    },
}
