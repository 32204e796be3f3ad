//! Scores of one query token's heads with a batch of keys.
//!
//! ```text
//! q  [group][head_dim / 8][STEP]   scaled, padded with zeros; STEP is 8, or 16 (the eight twice) for 16 lanes
//! ```
//!
//! A batch has `LANES` keys and takes eight vectors a head. A vector holds the eight chains of one key (of two keys with
//! 16 lanes, half of one with 4), and [`Simd::sum_eights`] turns the eight vectors into one score a lane.

use super::rows::Elements;
use super::{MOST_LANES, PIECE, SCORE_CHAINS};
use crate::cpu::arch::Simd;
use crate::step::{KV_BLOCK, turn_block};

/// Heads that share a pass over keys or values, at most.
pub(super) const HEADS: usize = 4;

/// Steps of eight elements in a head, the last one padded.
fn steps(head_dim: usize) -> usize {
    head_dim.div_ceil(SCORE_CHAINS)
}

/// Floats that a head's queries take at most.
pub(super) fn queries_len(head_dim: usize) -> usize {
    steps(head_dim) * MOST_LANES
}

/// Queries times the score's factor, as the module's docs show them; turned, where keys are.
#[inline(always)]
pub(super) fn load_queries<S: Simd>(heads: &[f32], dim: usize, factor: f32, turned: bool, q: &mut [f32]) {
    let step = S::LANES.max(SCORE_CHAINS);
    for (head, q) in heads.chunks_exact(dim).zip(q.chunks_exact_mut(steps(dim) * step)) {
        for (x, q) in head.chunks(KV_BLOCK).zip(q.chunks_mut(KV_BLOCK / SCORE_CHAINS * step)) {
            let x = scaled_block(x, factor, turned);
            for (x, q) in x.chunks_exact(SCORE_CHAINS).zip(q.chunks_exact_mut(step)) {
                q.chunks_exact_mut(SCORE_CHAINS).for_each(|q| q.copy_from_slice(x));
            }
        }
    }
}

/// Elements of a query, [`KV_BLOCK`] or the last ones, times the score's factor and padded with zeros. Where they are
/// turned, the block's length in the product of two turned blocks goes into the factor.
#[inline(always)]
pub(super) fn scaled_block(x: &[f32], factor: f32, turned: bool) -> [f32; KV_BLOCK] {
    let mut block = [0.0; KV_BLOCK];
    block[..x.len()].copy_from_slice(x);
    let factor = if turned { factor / KV_BLOCK as f32 } else { factor };
    if turned {
        turn_block(&mut block);
    }
    block.map(|x| x * factor)
}

/// `scores[g * PIECE + j] = q[g] · rows[j]` for all heads of the group and `LANES` rows of keys.
///
/// # Safety
/// `rows` must be readable for `dim` elements, `scores` writable for those places; `q` is as [`load_queries`] makes it.
#[inline(always)]
pub(super) unsafe fn group_scores<S: Simd, E: Elements>(
    s: S,
    group: usize,
    dim: usize,
    q: *const f32,
    rows: &[*const u8; MOST_LANES],
    scores: *mut f32,
) {
    // The last elements of heads that eight does not divide, padded with zeros as the queries are.
    let mut padded = [[0f32; SCORE_CHAINS]; MOST_LANES];
    let (full, rest) = (dim / SCORE_CHAINS * SCORE_CHAINS, dim % SCORE_CHAINS);
    let mut tails = *rows;
    if rest > 0 {
        for ((row, padded), tail) in rows.iter().zip(&mut padded).zip(&mut tails).take(S::LANES) {
            let to = padded.as_mut_ptr().cast::<u8>();
            // SAFETY: the row's last `rest` elements, fewer than there is room for.
            unsafe { std::ptr::copy_nonoverlapping(row.add(full * E::BYTES), to, rest * E::BYTES) };
            *tail = to;
        }
    }
    let rows = [rows, &tails];
    let mut g = 0;
    while g < group {
        // SAFETY: heads g.. of `group`. Registers: 4 · 4 sums and 4 keys of 32, or 4 · 2 and 2 of 16.
        unsafe {
            let (q, scores) = (q.add(g * steps(dim) * S::LANES.max(SCORE_CHAINS)), scores.add(g * PIECE));
            g += match (group - g, S::LANES) {
                (1, 8) => head_scores::<S, E, 1, 2>(s, dim, q, rows, scores),
                (2, 8) => head_scores::<S, E, 2, 2>(s, dim, q, rows, scores),
                (3, 8) => head_scores::<S, E, 3, 2>(s, dim, q, rows, scores),
                (_, 8) => head_scores::<S, E, HEADS, 2>(s, dim, q, rows, scores),
                (1, _) => head_scores::<S, E, 1, 4>(s, dim, q, rows, scores),
                (2, _) => head_scores::<S, E, 2, 4>(s, dim, q, rows, scores),
                (3, _) => head_scores::<S, E, 3, 4>(s, dim, q, rows, scores),
                _ => head_scores::<S, E, HEADS, 4>(s, dim, q, rows, scores),
            };
        }
    }
}

/// [`group_scores`] for `G` heads, `B` of the eight vectors at a time; returns `G`. `rows` are whole rows, and what is
/// left of them after whole steps.
///
/// # Safety
/// As [`group_scores`].
#[inline(always)]
unsafe fn head_scores<S: Simd, E: Elements, const G: usize, const B: usize>(
    s: S,
    dim: usize,
    q: *const f32,
    [rows, tails]: [&[*const u8; MOST_LANES]; 2],
    scores: *mut f32,
) -> usize {
    let stride = steps(dim) * S::LANES.max(SCORE_CHAINS);
    let mut sums = [[s.zero(); 8]; G];
    for first in (0..8).step_by(B) {
        let mut chains = [[s.zero(); B]; G];
        // SAFETY: eight elements from each `element` on are there in all rows, and queries of as many steps.
        unsafe {
            for t in 0..dim / SCORE_CHAINS {
                add_step::<S, E, G, B>(s, (rows, first, t * SCORE_CHAINS), (q, stride, t), &mut chains);
            }
            if !dim.is_multiple_of(SCORE_CHAINS) {
                add_step::<S, E, G, B>(s, (tails, first, 0), (q, stride, dim / SCORE_CHAINS), &mut chains);
            }
        }
        for (sums, chains) in sums.iter_mut().zip(&chains) {
            sums[first..first + B].copy_from_slice(chains);
        }
    }
    for (g, sums) in sums.into_iter().enumerate() {
        // SAFETY: the places of head g.
        unsafe { s.store(scores.add(g * PIECE), s.sum_eights(sums)) };
    }
    G
}

/// Adds the products of eight elements of each row, from `element` on, to vectors `first..first + B` of the chains.
///
/// # Safety
/// The elements must be readable, and step `t` of `G` heads of queries, `stride` apart.
#[inline(always)]
unsafe fn add_step<S: Simd, E: Elements, const G: usize, const B: usize>(
    s: S,
    (rows, first, element): (&[*const u8; MOST_LANES], usize, usize),
    (q, stride, t): (*const f32, usize, usize),
    chains: &mut [[S::F; B]; G],
) {
    let step = S::LANES.max(SCORE_CHAINS);
    let mut keys = [s.zero(); B];
    for (i, key) in keys.iter_mut().enumerate() {
        // SAFETY: the caller's promise.
        *key = unsafe { chain_vector::<S, E>(s, rows, first + i, element) };
    }
    for (g, chains) in chains.iter_mut().enumerate() {
        for (i, (chain, &key)) in chains.iter_mut().zip(&keys).enumerate() {
            // SAFETY: as above.
            let q = unsafe { s.load(q.add(g * stride + t * step + (first + i) * S::LANES % step)) };
            *chain = s.mul_add(key, q, *chain);
        }
    }
}

/// Vector `i` of eight that hold eight elements of each of `LANES` rows.
///
/// # Safety
/// The elements must be readable.
#[inline(always)]
unsafe fn chain_vector<S: Simd, E: Elements>(s: S, rows: &[*const u8; MOST_LANES], i: usize, element: usize) -> S::F {
    let (row, element) = (i * S::LANES / SCORE_CHAINS, element + i * S::LANES % SCORE_CHAINS);
    // SAFETY: by the caller's promise.
    unsafe {
        match S::LANES > SCORE_CHAINS {
            true => E::pair(s, [rows[row], rows[row + 1]], element),
            false => E::lanes(s, rows[row], element, S::LANES),
        }
    }
}
