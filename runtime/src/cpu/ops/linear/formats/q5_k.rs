//! Q5_K: see [`crate::quant::BlockQ5_K`].

use super::{declared, k_scales};
use crate::cpu::arch::SimdBytes;
use crate::cpu::ops::linear::act::ActChunk;
use crate::cpu::ops::linear::mat_vec_super::{Block256, Sums};
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
    #[inline(always)]
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    ) {
        // SAFETY: the contract is passed on.
        unsafe { k_scales::accumulate::<S, T, true>(s, block, x, sums) }
    }
}
