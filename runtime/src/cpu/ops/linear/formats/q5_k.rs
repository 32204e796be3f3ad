//! Q5_K: see [`crate::quant::BlockQ5_K`].

use super::{declared, k_scales};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Scales, Words};
use crate::cpu::ops::linear::panel::{PanelBlock, RowBlocks};
use crate::cpu::ops::linear::unpack::{Loader, Quants, bytes};

pub(in super::super) struct Q5_K;

impl Loader for Q5_K {
    declared!(Q5_K, mat_vec_super);

    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the super-block's size.
        unsafe { k_scales::to_quants(s, p, Some(bytes(p.add(16))), p.add(48), out) }
    }

    #[inline(always)]
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock) {
        // SAFETY: all offsets are below the block's size, and all groups are the block's.
        unsafe { k_scales::to_panel::<S, Self, true>(s, rows, out) }
    }
}

impl Block256 for Q5_K {
    const WORDS: Words<usize> = k_scales::WORDS;

    #[inline(always)]
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F> {
        k_scales::scales::<S, PIECES>(s, words, group)
    }

    #[inline(always)]
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B {
        // SAFETY: the contract is passed on.
        unsafe { k_scales::quants::<S, true>(s, block, at) }
    }
}
