//! Q4_K: see [`crate::quant::BlockQ4_K`].

use super::{declared, k_scales};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants};

pub(in super::super) struct Q4_K;

impl Loader for Q4_K {
    declared!(Q4_K, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe { k_scales::to_quants(s, p, None, p.add(16), out) }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe { k_scales::to_panel::<S, Self, false>(s, rows, out) }
    }
}

impl Block256 for Q4_K {
    const WORDS: Words<usize> = k_scales::WORDS;

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        k_scales::scales::<S, PIECES>(s, words, group)
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // SAFETY: the contract is passed on.
        unsafe { k_scales::quants::<S, false>(s, block, at) }
    }
}
