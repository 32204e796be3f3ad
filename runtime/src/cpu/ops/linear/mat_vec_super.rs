//! Mat-vec over the 256-element formats, four rows at once.
//!
//! As in [`super::mat_vec_block`], exact integer products of a group of 16 or 32 elements lie beside each other, lane
//! 4·group + row; group g of a row is in chain g mod 4 of its four. A super-block's sub-scales are unpacked in the same
//! order, for as many groups at a time as a vector has pieces.
//!
//! 2·rows·k·tokens flops; W is read once.

use super::act::ActChunk;
use super::chains::join;
use super::job::{AHEAD, Job};
use super::mat_vec_block::biased;
use super::panel::{PanelBlock, RowBlocks};
use super::unpack::{Loader, Shape};
use crate::cpu::arch::SimdBytes;

/// The scales of some groups, and their minima; those of formats without minima are not used.
pub(super) struct Scales<F> {
    pub scale: F,
    pub min: F,
}

/// Words of a super-block's header.
pub(super) type Words<I> = [I; 5];

/// A super-block of 256 quants.
pub(super) trait Block256: Loader {
    /// The offsets of the words that hold scales; unused ones repeat another.
    const WORDS: Words<usize>;

    /// Scales by the words at [`Block256::WORDS`] of several rows, a row a lane. With `PIECES`, the words of four rows are
    /// repeated in every piece, and piece i is about group `group + i`; without, all lanes are about group `group`.
    fn scales<S: SimdBytes, const PIECES: bool>(s: S, words: Words<S::I>, group: usize) -> Scales<S::F>;

    /// Quants `at .. at + 4 · LANES` of a super-block, in their order; signed ones without a bias.
    /// # Safety
    /// The super-block must be readable.
    unsafe fn quants<S: SimdBytes>(s: S, block: *const u8, at: usize) -> S::B;
}

/// Moves words down by `from` bits, and with `PIECES` by `step` more in each piece than in the one before.
#[inline(always)]
fn shr<S: SimdBytes, const PIECES: bool>(s: S, v: S::I, from: u32, step: u32) -> S::I {
    if PIECES { s.shr_pieces(v, from, step) } else { s.shr_i32(v, from) }
}

/// As [`Block256::scales`]: for each group `bits` bits of `v`, at `from` for group 0 and `step` further up for the next.
#[inline(always)]
pub(super) fn bits_of_group<S: SimdBytes, const PIECES: bool>(
    s: S,
    v: S::I,
    group: usize,
    (from, step): (u32, u32),
    bits: u32,
) -> S::I {
    s.and_i32(shr::<S, PIECES>(s, v, from + step * group as u32, step), s.splat_i32((1 << bits) - 1))
}

/// As [`Block256::scales`]: the byte of each group out of four words, with its sign.
#[inline(always)]
pub(super) fn signed_byte_of_group<S: SimdBytes, const PIECES: bool>(s: S, words: [S::I; 4], group: usize) -> S::I {
    s.shr_i32(s.shl_i32(shr::<S, PIECES>(s, words[group / 4], 8 * (group % 4) as u32, 8), 24), 24)
}

/// Writes the scales and minima of a super-block of many rows into a panel.
///
/// # Safety
/// As for [`Loader::to_panel`].
#[inline(always)]
pub(super) unsafe fn scales_to_panel<S: SimdBytes, W: Block256>(s: S, rows: RowBlocks, out: PanelBlock) {
    // SAFETY: all words are within the super-block, and all groups are the super-block's.
    unsafe {
        let words = [
            rows.word::<S, W>(s, W::WORDS[0]),
            rows.word::<S, W>(s, W::WORDS[1]),
            rows.word::<S, W>(s, W::WORDS[2]),
            rows.word::<S, W>(s, W::WORDS[3]),
            rows.word::<S, W>(s, W::WORDS[4]),
        ];
        for group in 0..W::LEN / W::Shape::GROUP {
            let scales = W::scales::<S, false>(s, words, group);
            out.scale::<S, W::Shape>(s, group, scales.scale);
            if W::Shape::HAS_MIN {
                out.min::<S, W::Shape>(s, group, scales.min);
            }
        }
    }
}

/// Mat-vec for one or two tokens.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Chunks form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Block256>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            _ => mat_vec_n::<S, W, 2>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block256, const T: usize>(s: S, job: &Job) {
    for row in (0..job.n_rows).step_by(4) {
        let mut chains = [[s.zero(); 4]; T];
        // SAFETY: rows are clamped to those that exist; a row has k / 256 super-blocks, and every token as many chunks.
        unsafe {
            let mut blocks = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            let mut cursor = job.w.wrapping_add(if row == 0 { AHEAD } else { (row + 4) * job.row_bytes + AHEAD });
            for i in 0..job.k / 256 {
                // The first rows' own bytes and the next rows': see `mat_vec_block`.
                for _ in 0..if row == 0 { 2 } else { 1 } {
                    job.prefetch(s, cursor, 4 * W::BYTES);
                    cursor = cursor.wrapping_add(4 * W::BYTES);
                }
                let x: [*const ActChunk; T] = std::array::from_fn(|t| job.act(t).cast::<ActChunk>().add(i));
                add_blocks::<S, W, T>(s, blocks, x, &mut chains);
                blocks = blocks.map(|p| p.add(W::BYTES));
            }
            for (t, chains) in chains.into_iter().enumerate().take(job.n_tokens) {
                job.write4(row, t, join(s, chains));
            }
        }
    }
}

/// Adds a super-block of each of four rows.
///
/// # Safety
/// The super-blocks and the chunks must be readable.
#[inline(always)]
unsafe fn add_blocks<S: SimdBytes, W: Block256, const T: usize>(
    s: S,
    blocks: [*const u8; 4],
    x: [*const ActChunk; T],
    chains: &mut [[S::F; 4]; T],
) {
    let (width, group_len) = (4 * S::LANES, W::Shape::GROUP);
    // SAFETY: words and quants are within the super-block, and what is read of a chunk within it.
    unsafe {
        let words = [
            s.load_headers(blocks, [W::WORDS[0]; 4]),
            s.load_headers(blocks, [W::WORDS[1]; 4]),
            s.load_headers(blocks, [W::WORDS[2]; 4]),
            s.load_headers(blocks, [W::WORDS[3]; 4]),
            s.load_headers(blocks, [W::WORDS[4]; 4]),
        ];
        for group in (0..256 / group_len).step_by(S::PIECES) {
            let part = group / S::PIECES % (4 / S::PIECES);
            let at = group * group_len;
            let scales = W::scales::<S, true>(s, words, group);
            let first = quants_of_rows::<S, W>(s, blocks, at);
            // A vector's worth of groups of 32 takes two vectors.
            let second = if group_len == 32 { quants_of_rows::<S, W>(s, blocks, at + width) } else { first };
            for t in 0..T {
                let q = (&raw const (*x[t]).q).cast::<u8>();
                let mut products = dots::<S, W>(s, first, s.load_bytes(q.add(at)));
                if group_len == 32 {
                    products = s.add_piece_pairs(products, dots::<S, W>(s, second, s.load_bytes(q.add(at + width))));
                }
                let acts = ActChunk::of_groups(x[t], group_len);
                if W::Shape::zero::<S>() != 0 {
                    let share = W::Shape::times_zero(s, s.load_dup4_i32(acts.neg_sum.add(group)));
                    products = s.add_i32(products, share);
                }
                let scale = s.mul(scales.scale, s.load_dup4(acts.scale.add(group)));
                let chain = &mut chains[t][part];
                *chain = s.mul_add(s.i32_to_f32(products), scale, *chain);
                if W::Shape::HAS_MIN {
                    *chain = s.mul_add(scales.min, s.load_dup4(acts.scaled_sum.add(group)), *chain);
                }
            }
        }
    }
}

/// Quants `at ..` of a super-block of four rows, with [`SimdBytes::I8_BIAS`] added to signed ones.
///
/// # Safety
/// The super-blocks must be readable.
#[inline(always)]
unsafe fn quants_of_rows<S: SimdBytes, W: Block256>(s: S, blocks: [*const u8; 4], at: usize) -> [S::B; 4] {
    // SAFETY: as the caller vouches.
    let q = unsafe {
        [
            W::quants(s, blocks[0], at),
            W::quants(s, blocks[1], at),
            W::quants(s, blocks[2], at),
            W::quants(s, blocks[3], at),
        ]
    };
    if !W::Shape::SIGNED {
        return q;
    }
    [biased(s, q[0]), biased(s, q[1]), biased(s, q[2]), biased(s, q[3])]
}

/// The products of four rows' quants, lane 4·piece + row.
#[inline(always)]
fn dots<S: SimdBytes, W: Block256>(s: S, q: [S::B; 4], x: S::B) -> S::I {
    let zero = s.splat_i32(0);
    s.sum4_i32(if W::Shape::SIGNED {
        [
            s.dot_add::<true>(zero, q[0], x),
            s.dot_add::<true>(zero, q[1], x),
            s.dot_add::<true>(zero, q[2], x),
            s.dot_add::<true>(zero, q[3], x),
        ]
    } else {
        [
            s.dot_add::<false>(zero, q[0], x),
            s.dot_add::<false>(zero, q[1], x),
            s.dot_add::<false>(zero, q[2], x),
            s.dot_add::<false>(zero, q[3], x),
        ]
    })
}
