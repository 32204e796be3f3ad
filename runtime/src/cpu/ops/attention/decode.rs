//! Attention of one query token over a piece of its keys.
//!
//! One item does all `group` query heads of a kv head together, up to four at a time over the same key and value rows.
//!
//! ```text
//! q       as scores::load_queries makes them
//! scores  [group][PIECE]    then probabilities, at the keys' places in the piece
//! ```
//!
//! `scores.rs` makes the scores of a batch of keys; weighted values accumulate in registers over all of the piece.
//!
//! Per item: reads 2 · keys · head_dim elements (the wall, at long contexts), 4 · group · keys · head_dim flops.

use std::ops::Range;

use super::super::sums::halved;
use super::join::exp2_negative;
use super::rows::{Floats, Rows, by_rows};
use super::scores::{HEADS, group_scores, load_queries, queries_len};
use super::{AttentionParams, DecodeItem, MOST_LANES, NO_SCORE, PIECE, SUM_CHAINS};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

simd_dispatch!(
    /// Computes one piece: `partial` ([`AttentionParams::partial_len`] floats) gets the maximum score, the sum of
    /// probabilities relative to it, and the values weighted by them, for each head of the group. `scratch` has
    /// [`AttentionParams::scratch_len`] floats with any content.
    ///
    /// # Safety
    /// All pages of the visible keys must be readable as [`KvPages`](super::KvPages) describes, and not be written
    /// meanwhile.
    ///
    /// # Panics
    /// If a slice is too short or a visible key's page is missing.
    pub unsafe fn attention_decode(item: &DecodeItem<'_>, scratch: &mut [f32], partial: &mut [f32]) = decode_impl
);

pub(super) fn scratch_len(params: &AttentionParams<'_>) -> usize {
    let dim = params.head_dim;
    params.group() * (queries_len(dim) + PIECE) + MOST_LANES * dim
}

#[inline(always)]
unsafe fn decode_impl<S: Simd>(s: S, item: &DecodeItem<'_>, scratch: &mut [f32], partial: &mut [f32]) {
    // SAFETY: the caller's promise is passed on; the storage type decides how rows are read.
    by_rows!(item.kv.kv, R => unsafe { decode_typed::<S, R>(s, item, scratch, partial) })
}

/// The keys of a piece.
struct Piece<'a> {
    /// Places of the keys within the piece.
    places: Range<usize>,
    /// Position of place 0, where keys are not chosen.
    start: usize,
    chosen: Option<&'a [f32]>,
    /// Rows of keys and values by place. Places beside `places` have the nearest one's key, as far as a batch of keys
    /// may reach.
    keys: [*const u8; PIECE],
    values: [*const u8; PIECE],
}

impl<'a> Piece<'a> {
    #[inline(always)]
    fn new(item: &DecodeItem<'a>) -> Self {
        let (params, kv, start) = (item.params, item.kv, item.piece * PIECE);
        let chosen = item.keys.map(|keys| &keys[keys.len().min(start)..]);
        let chosen = chosen.map(|keys| &keys[..keys.len().min(PIECE)]);
        let places = match chosen {
            Some(chosen) => 0..chosen.len(),
            None => {
                let visible = params.visible(item.position, kv.len);
                let end = visible.end.clamp(start, start + PIECE) - start;
                (visible.start.max(start) - start).min(end)..end
            }
        };
        let nowhere = [std::ptr::null(); PIECE];
        let mut piece = Piece { places: places.clone(), start, chosen, keys: nowhere, values: nowhere };
        let [k_bytes, v_bytes] = [params.head_dim, params.v_stride()].map(|dim| kv.kv.row_bytes(dim));
        let mut at = places.start;
        while at < places.end {
            let first = piece.position(at, kv.len);
            let together = match chosen {
                Some(_) => (at..places.end).take_while(|i| piece.position(*i, kv.len) == first + i - at).count(),
                None => places.end - at,
            };
            let run = kv.run(params, item.kv_head, first..first + together);
            for j in 0..run.n {
                piece.keys[at + j] = run.k.wrapping_add(j * k_bytes);
                piece.values[at + j] = run.v.wrapping_add(j * v_bytes);
            }
            at += run.n;
        }
        if !places.is_empty() {
            let around = whole(&places, MOST_LANES);
            let (first, last) = (piece.keys[places.start], piece.keys[places.end - 1]);
            piece.keys[around.start..places.start].fill(first);
            piece.keys[places.end..around.end].fill(last);
        }
        piece
    }

    /// Position of the key at a place, in a cache of `len` keys.
    #[inline(always)]
    fn position(&self, place: usize, len: usize) -> usize {
        match self.chosen {
            // An observer of a step may leave any numbers there.
            Some(chosen) => (chosen[place] as usize).min(len.saturating_sub(1)),
            None => self.start + place,
        }
    }
}

/// `places` and those around them that make whole blocks of `n`.
fn whole(places: &Range<usize>, n: usize) -> Range<usize> {
    places.start / n * n..places.end.next_multiple_of(n)
}

/// # Safety
/// As [`attention_decode`]; `R` must agree with the storage.
#[inline(always)]
unsafe fn decode_typed<S: Simd, R: Rows>(s: S, item: &DecodeItem<'_>, scratch: &mut [f32], partial: &mut [f32]) {
    let params = item.params;
    let (group, dim) = (params.group(), params.head_dim);
    let (max, rest) = partial[..params.partial_len()].split_at_mut(group);
    let (sum, acc) = rest.split_at_mut(group);
    let piece = Piece::new(item);
    if piece.places.is_empty() {
        max.fill(NO_SCORE);
        sum.fill(0.0);
        acc.fill(0.0);
        return;
    }
    let (q, rest) = scratch.split_at_mut(group * queries_len(dim));
    let (scores, widened) = rest.split_at_mut(group * PIECE);
    let widened = &mut widened[..MOST_LANES * dim];
    let (factor, cap) = params.factors();
    let turned = params.turned(item.kv.kv);
    load_queries::<S>(&item.q[item.kv_head * group * dim..][..group * dim], dim, factor, turned, q);

    let batches = whole(&piece.places, S::LANES);
    for at in batches.step_by(S::LANES) {
        let mut rows = [std::ptr::null(); MOST_LANES];
        rows[..S::LANES].copy_from_slice(&piece.keys[at..at + S::LANES]);
        let scores = scores[at..].as_mut_ptr();
        // SAFETY: rows of visible keys; `q` and `scores` have `group` rows, and the batch ends inside of the piece.
        unsafe {
            if R::WIDENED || params.k_rope.is_some() {
                for (i, row) in widened.chunks_exact_mut(dim).take(S::LANES).enumerate() {
                    R::widen(s, rows[i], row);
                    if let Some(rope) = &params.k_rope {
                        let place = (at + i).clamp(piece.places.start, piece.places.end - 1);
                        rope.turn(s, piece.position(place, item.kv.len), row);
                    }
                    rows[i] = row.as_ptr().cast();
                }
                group_scores::<S, Floats>(s, group, dim, q.as_ptr(), &rows, scores);
            } else {
                group_scores::<S, R::Scored>(s, group, dim, q.as_ptr(), &rows, scores);
            }
        }
    }
    for (g, row) in scores.chunks_exact_mut(PIECE).enumerate() {
        (max[g], sum[g]) = softmax(s, row, piece.places.clone(), cap);
    }
    let values = &piece.values[piece.places.clone()];
    // SAFETY: rows of values of visible keys, as many weights for each head, and `acc` has `group` rows of `v_dim`.
    unsafe {
        group_values::<S, R>(s, group, (params.v_dim, params.v_stride()), values, &scores[piece.places.start..], acc)
    };
}

/// Turns the scores at `places` of a piece into probabilities relative to their maximum; returns it and their sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], places: Range<usize>, cap: Option<f32>) -> (f32, f32) {
    let around = whole(&places, SUM_CHAINS);
    assert!(around.end <= scores.len());
    let x = scores.as_mut_ptr();
    if let Some(cap) = cap {
        for at in around.clone().step_by(S::LANES) {
            // SAFETY: LANES divides the chains, and so at + LANES <= around.end.
            unsafe { s.store(x.add(at), s.mul(s.splat(cap), s.tanh(s.load(x.add(at))))) };
        }
    }
    scores[around.start..places.start].fill(f32::NEG_INFINITY);
    scores[places.end..around.end].fill(f32::NEG_INFINITY);
    let (mut top, x) = (s.splat(NO_SCORE), scores.as_mut_ptr());
    for at in around.clone().step_by(S::LANES) {
        // SAFETY: as above.
        top = s.max(top, unsafe { s.load(x.add(at)) });
    }
    let max = s.reduce_max(top);
    let mut chains = [s.zero(); 4];
    for at in around.step_by(SUM_CHAINS) {
        for (i, chain) in chains.iter_mut().take(SUM_CHAINS / S::LANES).enumerate() {
            // SAFETY: as above.
            unsafe {
                let place = x.add(at + i * S::LANES);
                let weight = exp2_negative(s, s.sub(s.load(place), s.splat(max)));
                s.store(place, weight);
                *chain = s.add(*chain, weight);
            }
        }
    }
    const { assert!(SUM_CHAINS == 16) };
    (max, s.reduce_sum(halved(s, chains)))
}

/// `acc[g] = Σ weights[g * PIECE + j] · rows[j]` for all heads of the group: the first `dim` elements of rows of `row`.
///
/// # Safety
/// `rows` must be readable.
#[inline(always)]
unsafe fn group_values<S: Simd, R: Rows>(
    s: S,
    group: usize,
    (dim, row): (usize, usize),
    rows: &[*const u8],
    weights: &[f32],
    acc: &mut [f32],
) {
    assert!(weights.len() >= (group - 1) * PIECE + rows.len() && acc.len() == group * dim);
    let mut g = 0;
    while g < group {
        // SAFETY: heads g.. of `group`.
        unsafe {
            let (weights, acc) = (weights.as_ptr().add(g * PIECE), acc.as_mut_ptr().add(g * dim));
            g += match group - g {
                1 => head_values::<S, R, 1>(s, (dim, row), rows, weights, acc),
                2 => head_values::<S, R, 2>(s, (dim, row), rows, weights, acc),
                3 => head_values::<S, R, 3>(s, (dim, row), rows, weights, acc),
                _ => head_values::<S, R, HEADS>(s, (dim, row), rows, weights, acc),
            };
        }
    }
}

/// [`group_values`] for `G` heads; returns `G`. Blocks of columns: four vectors, or two where registers are few.
///
/// # Safety
/// As [`group_values`].
#[inline(always)]
unsafe fn head_values<S: Simd, R: Rows, const G: usize>(
    s: S,
    (dim, row): (usize, usize),
    rows: &[*const u8],
    weights: *const f32,
    acc: *mut f32,
) -> usize {
    let mut i = 0;
    // SAFETY: each call covers columns below `dim`.
    unsafe {
        while S::LANES != 8 && i + 4 * S::LANES <= dim {
            value_block::<S, R, G, 4>(s, (dim, row), i, S::LANES, rows, weights, acc);
            i += 4 * S::LANES;
        }
        while i + 2 * S::LANES <= dim {
            value_block::<S, R, G, 2>(s, (dim, row), i, S::LANES, rows, weights, acc);
            i += 2 * S::LANES;
        }
        while i < dim {
            value_block::<S, R, G, 1>(s, (dim, row), i, S::LANES.min(dim - i), rows, weights, acc);
            i += S::LANES;
        }
    }
    G
}

/// Columns `i..` of [`head_values`]: `C` vectors of `m` lanes.
///
/// # Safety
/// As [`group_values`]; `m` is `LANES` unless `C` is 1.
#[inline(always)]
unsafe fn value_block<S: Simd, R: Rows, const G: usize, const C: usize>(
    s: S,
    (dim, row): (usize, usize),
    i: usize,
    m: usize,
    rows: &[*const u8],
    weights: *const f32,
    acc: *mut f32,
) {
    let mut sums = [[s.zero(); C]; G];
    // SAFETY: columns i..i + C · m are below `dim`.
    unsafe {
        for (j, &values) in rows.iter().enumerate() {
            let values = R::load::<S, C>(s, values, row, i, m);
            for (g, sums) in sums.iter_mut().enumerate() {
                let weight = s.splat(*weights.add(g * PIECE + j));
                for (sum, &value) in sums.iter_mut().zip(&values) {
                    *sum = s.mul_add(weight, value, *sum);
                }
            }
        }
        for (g, sums) in sums.iter().enumerate() {
            for (c, &sum) in sums.iter().enumerate() {
                s.store_partial(acc.add(g * dim + i + c * S::LANES), m, sum);
            }
        }
    }
}
