//! One loader a format: how vectors and scalars read its blocks. All other facts of a format that kernels need follow
//! from its declaration in [`crate::quant`].

#![allow(non_camel_case_types)]

mod k_scales;

pub(super) mod f8_e4m3;
pub(super) mod floats;
pub(super) mod iq4_nl;
pub(super) mod iq4_xs;
pub(super) mod mxfp4;
pub(super) mod q2_k;
pub(super) mod q3_k;
pub(super) mod q4_0;
pub(super) mod q4_1;
pub(super) mod q4_k;
pub(super) mod q5_0;
pub(super) mod q5_1;
pub(super) mod q5_k;
pub(super) mod q6_k;
pub(super) mod q8_0;

/// The items of a [`Loader`](super::unpack::Loader) that follow from the declaration of `$format`, and its mat-vec, by the
/// kernel of the module `$kernel`.
macro_rules! declared {
    ($format:ident, $kernel:ident) => {
        const DTYPE: crate::quant::DType = crate::quant::DType::$format;
        type Shape = crate::cpu::ops::linear::unpack::Declared<
            { crate::cpu::ops::linear::unpack::Numbers::of(crate::quant::DType::$format).group },
            { crate::cpu::ops::linear::unpack::Numbers::of(crate::quant::DType::$format).minima },
            { crate::cpu::ops::linear::unpack::Numbers::of(crate::quant::DType::$format).signed },
            { crate::cpu::ops::linear::unpack::Numbers::of(crate::quant::DType::$format).zero },
            { crate::cpu::ops::linear::unpack::Numbers::of(crate::quant::DType::$format).bits },
        >;
        #[inline(always)]
        unsafe fn mat_vec<S: $crate::cpu::arch::SimdBytes>(s: S, job: &crate::cpu::ops::linear::job::Job) {
            // SAFETY: the contract is passed on.
            unsafe { crate::cpu::ops::linear::$kernel::mat_vec::<S, Self>(s, job) }
        }
    };
}
use declared;

/// The methods of a [`Block32`](super::mat_vec_block::Block32) whose quants are nibbles from byte `$skip` of its block on,
/// the low ones first; with the fifth bits of all 32 in the word at byte `$fifth`, or as indices of the bytes in `$table`.
macro_rules! nibbles {
    ($format:ident, $skip:literal $(, $fifth:literal)? $(, of $table:ident)?) => {
        #[inline(always)]
        unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
            // SAFETY: the caller vouches for the blocks.
            unsafe {
                let packed = s.load_pieces(p.add($skip), offsets);
                let (lo, hi) = (s.low4(packed), s.high4(packed));
                $(let (lo, hi) = s.or_fifth_bits(p.add($fifth), offsets, lo, hi);)?
                $(let (lo, hi) = (s.lookup(&$table, lo), s.lookup(&$table, hi));)?
                (lo, hi)
            }
        }
        #[inline(always)]
        unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
            const BYTES: usize = crate::quant::DType::$format.block_bytes();
            // SAFETY: the caller vouches for the blocks.
            unsafe {
                let packed = s.load_group::<BYTES, $skip>(p);
                let (lo, hi) = (s.low4(packed), s.high4(packed));
                $(let (lo, hi) = s.or_fifth_bits(p.add($fifth), [0, BYTES, 2 * BYTES, 3 * BYTES], lo, hi);)?
                $(let (lo, hi) = (s.lookup(&$table, lo), s.lookup(&$table, hi));)?
                (lo, hi)
            }
        }
        #[inline(always)]
        unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I {
            // SAFETY: the caller vouches for the blocks.
            unsafe { s.load_group_headers::<{ crate::quant::DType::$format.block_bytes() }>(rows) }
        }
    };
}
use nibbles;
