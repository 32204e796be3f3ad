//! Attention of a tile of queries.
//!
//! Vectors run along queries.
//!
//! ```text
//! queries, once a tile      qt [strip][head_dim][lanes]     strips of RV vectors of query rows, scaled
//! for each piece of keys    kp [PIECE][head_dim]            widened to f32 once for all strips
//!                           vp [PIECE][v_pad]
//!   for each strip          p  [PIECE][lanes]     = kp · qt     KB keys × RV vectors in registers
//!                           p  = 2^(p − max), sums, factors that join the piece to those before
//!                           ot [v_pad][lanes]    += vpᵀ · p     VB values × RV vectors in registers
//! ```
//!
//! A key is broadcast from `kp` and multiplied with vectors of queries: per step KB broadcasts and RV loads feed KB · RV
//! multiply-adds. Keys that a lane does not see weigh an exact zero, so a row's result does not depend on the rows
//! beside it.
//!
//! Per item and visible key: 2 · (head_dim + v_dim) elements read, 2 · rows · (head_dim + v_dim) flops.

use super::join::normaliser;
use super::rows::widen;
use super::scores::scaled_block;
use super::tile::{StripRows, score_block, softmax, spoiled_value, value_block};
use super::{AttentionParams, NO_SCORE, PIECE, PromptItem, QUERY_ROWS};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;
use crate::step::KV_BLOCK;

simd_dispatch!(
    /// Computes one tile of queries. `scratch` has [`AttentionParams::scratch_len`] floats with any content.
    ///
    /// # Safety
    /// All pages of keys that the tile sees must be readable as [`KvPages`](super::KvPages) describes and not be written
    /// meanwhile. `out` must be writable for `n_tokens` rows; of these the kernel writes the tile's heads only.
    ///
    /// # Panics
    /// If a slice is too short or a visible key's page is missing.
    pub unsafe fn attention_prompt(item: &PromptItem<'_>, scratch: &mut [f32]) = prompt_impl
);

/// Rows of a piece's keys and scores in scratch: the last block of KB keys may reach beyond the piece.
const KEY_ROWS: usize = PIECE + 6;
/// Query rows of the longest strip.
const STRIP: usize = 32;
/// `v_dim` is padded to this in scratch: a multiple of every VB.
const V_PAD: usize = 8;

fn v_pad(params: &AttentionParams<'_>) -> usize {
    params.v_dim.next_multiple_of(V_PAD)
}

pub(super) fn scratch_len(params: &AttentionParams<'_>) -> usize {
    let (dim, v_pad) = (params.head_dim, v_pad(params));
    QUERY_ROWS * (dim + v_pad + 4) + KEY_ROWS * (dim + STRIP) + PIECE * v_pad + V_PAD
}

/// The parts of scratch. Arrays over strips hold `RV * LANES` rows a strip.
struct Scratch<'a> {
    qt: &'a mut [f32],
    ot: &'a mut [f32],
    max: &'a mut [f32],
    sum: &'a mut [f32],
    /// The first key that a row sees and, in `to`, the first beyond those that it sees.
    from: &'a mut [f32],
    to: &'a mut [f32],
    kp: &'a mut [f32],
    vp: &'a mut [f32],
    p: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn new(params: &AttentionParams<'_>, scratch: &'a mut [f32]) -> Self {
        let (dim, v_pad) = (params.head_dim, v_pad(params));
        let (qt, rest) = scratch.split_at_mut(QUERY_ROWS * dim);
        let (ot, rest) = rest.split_at_mut(QUERY_ROWS * v_pad);
        let (max, rest) = rest.split_at_mut(QUERY_ROWS);
        let (sum, rest) = rest.split_at_mut(QUERY_ROWS);
        let (from, rest) = rest.split_at_mut(QUERY_ROWS);
        let (to, rest) = rest.split_at_mut(QUERY_ROWS);
        let (kp, rest) = rest.split_at_mut(KEY_ROWS * dim + V_PAD);
        let (vp, rest) = rest.split_at_mut(PIECE * v_pad);
        let (p, _) = rest.split_at_mut(KEY_ROWS * STRIP);
        Scratch { qt, ot, max, sum, from, to, kp, vp, p }
    }
}

#[inline(always)]
unsafe fn prompt_impl<S: Simd>(s: S, item: &PromptItem<'_>, scratch: &mut [f32]) {
    // Accumulators of scores: 2 · 6 · 2 of 32 registers (AVX-512), 2 · 3 · 2 of 16 (AVX2), 2 · 3 · 4 of 32 (NEON).
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match S::LANES {
            16 => prompt_blocks::<S, 6, 8, 2>(s, item, scratch),
            8 => prompt_blocks::<S, 3, 4, 2>(s, item, scratch),
            _ => prompt_blocks::<S, 3, 4, 4>(s, item, scratch),
        }
    }
}

/// # Safety
/// As [`attention_prompt`]. `RV * LANES` divides [`QUERY_ROWS`] and is at most [`STRIP`].
#[inline(always)]
unsafe fn prompt_blocks<S: Simd, const KB: usize, const VB: usize, const RV: usize>(
    s: S,
    item: &PromptItem<'_>,
    scratch: &mut [f32],
) {
    const { assert!(PIECE + KB <= KEY_ROWS + 1 && V_PAD.is_multiple_of(VB)) };
    let params = item.params;
    let (dim, v_pad, lanes) = (params.head_dim, v_pad(params), RV * S::LANES);
    let scratch = Scratch::new(params, scratch);
    let (group, (_, cap)) = (params.group(), params.factors());
    let kv = item.kv.kv;
    let [k_bytes, v_bytes] = [dim, params.v_dim].map(|dim| kv.row_bytes(dim));
    let rows = item.tile * QUERY_ROWS..((item.tile + 1) * QUERY_ROWS).min(item.n_tokens * group);
    let strips = rows.len().div_ceil(lanes);
    scratch.ot[..strips * v_pad * lanes].fill(0.0);
    scratch.max.fill(NO_SCORE);
    scratch.sum.fill(0.0);
    load_queries(item, rows.start, rows.len(), lanes, scratch.qt);

    // The keys that some row sees, and for each strip the keys that all of its rows see.
    let (mut start, mut end) = (usize::MAX, 0);
    let mut seen_by_all = [(0, usize::MAX); QUERY_ROWS];
    let mut visible = 0..0;
    for at in 0..strips * lanes {
        let row = (rows.start + at).min(rows.end - 1);
        if at == 0 || row % group == 0 {
            visible = params.visible(item.first_position + row / group, item.kv.len);
        }
        if !visible.is_empty() {
            (start, end) = (start.min(visible.start), end.max(visible.end));
        }
        let (from, to) = &mut seen_by_all[at / lanes];
        (*from, *to) = ((*from).max(visible.start), (*to).min(visible.end));
        // Exact below 2²⁴ tokens.
        (scratch.from[at], scratch.to[at]) = (visible.start as f32, visible.end as f32);
    }
    while start < end {
        let piece = start..end.min((start / PIECE + 1) * PIECE);
        start = piece.end;
        let (mut next, mut spoiled) = (piece.clone(), s.zero());
        while !next.is_empty() {
            let run = item.kv.run(params, item.kv_head, next.clone());
            for j in 0..run.n {
                let at = run.key + j - piece.start;
                let key = &mut scratch.kp[at * dim..][..dim];
                // SAFETY: rows of this run, one after the other.
                unsafe {
                    let of_key = widen(s, kv, run.k.add(j * k_bytes), key);
                    spoiled = s.add(
                        spoiled,
                        match params.v_in_k {
                            true => of_key,
                            false => {
                                let value = &mut scratch.vp[at * v_pad..][..params.v_dim];
                                widen(s, kv, run.v.add(j * v_bytes), value)
                            }
                        },
                    );
                }
                if let Some(rope) = &params.k_rope {
                    rope.turn(s, run.key + j, key);
                }
            }
            next.start += run.n;
        }
        let n = piece.len();
        let spoiled = s.reduce_sum(spoiled).is_nan();
        for (strip, &(from, to)) in seen_by_all[..strips].iter().enumerate() {
            let first = strip * lanes;
            let masked = from > piece.start || to < piece.end;
            // SAFETY: all pointers are to the strip's part of scratch arrays, whose sizes `scratch_len` fixes; blocks of
            // keys and values end inside of the padded piece.
            unsafe {
                let (qt, p) = (scratch.qt.as_ptr().add(first * dim), scratch.p.as_mut_ptr());
                for j in (0..n).step_by(KB) {
                    score_block::<S, KB, RV>(s, dim, scratch.kp.as_ptr().add(j * dim), qt, p.add(j * lanes));
                }
                let strip_rows = StripRows {
                    max: scratch.max.as_mut_ptr().add(first),
                    sum: scratch.sum.as_mut_ptr().add(first),
                    from: scratch.from.as_ptr().add(first),
                    to: scratch.to.as_ptr().add(first),
                };
                let factors = softmax::<S, RV>(s, piece.clone(), p, &strip_rows, cap, masked);
                let ot = scratch.ot.as_mut_ptr().add(first * v_pad);
                // Columns from v_dim to v_pad may hold anything: they stay in columns that nobody reads. `kp` is longer
                // than its keys by the most that the last of them is padded with.
                let (values, stride) =
                    if params.v_in_k { (scratch.kp.as_ptr(), dim) } else { (scratch.vp.as_ptr(), v_pad) };
                if spoiled && masked {
                    for d in 0..params.v_dim {
                        let (value, ot) = ((values.add(d), stride), ot.add(d * lanes));
                        spoiled_value(s, piece.clone(), value, p, &strip_rows, &factors, ot);
                    }
                    continue;
                }
                for d in (0..v_pad).step_by(VB) {
                    value_block::<S, VB, RV>(s, n, (values.add(d), stride), p, &factors, ot.add(d * lanes));
                }
            }
        }
    }
    // SAFETY: the caller vouches for `out`.
    unsafe { store_rows(s, item, rows.start, rows.len(), lanes, &scratch) };
}

/// Transposes the tile's queries into strips, times the score's factor; turned, where keys are. Lanes beyond the last row
/// repeat it.
#[inline(always)]
fn load_queries(item: &PromptItem<'_>, first: usize, rows: usize, lanes: usize, qt: &mut [f32]) {
    let (dim, group, (factor, _)) = (item.params.head_dim, item.params.group(), item.params.factors());
    let turned = item.params.turned(item.kv.kv);
    for at in 0..rows.next_multiple_of(lanes) {
        let row = first + at.min(rows - 1);
        let head = item.kv_head * group + row % group;
        let q = &item.q[row / group * item.q_stride + head * dim..][..dim];
        let strip = &mut qt[at / lanes * lanes * dim..][..lanes * dim];
        for (x, strip) in q.chunks(KV_BLOCK).zip(strip.chunks_mut(KV_BLOCK * lanes)) {
            for (column, x) in strip.chunks_exact_mut(lanes).zip(scaled_block(x, factor, turned)) {
                column[at % lanes] = x;
            }
        }
    }
}

/// Writes the tile's results, divided by the softmax's denominators.
///
/// # Safety
/// `out` must be writable as [`attention_prompt`] says.
#[inline(always)]
unsafe fn store_rows<S: Simd>(
    s: S,
    item: &PromptItem<'_>,
    first: usize,
    rows: usize,
    lanes: usize,
    scratch: &Scratch<'_>,
) {
    let (params, group, v_pad) = (item.params, item.params.group(), v_pad(item.params));
    let head = |at: usize| item.kv_head * group + (first + at) % group;
    let (mut sinks, mut factors) = ([0.0; QUERY_ROWS], [0.0; QUERY_ROWS]);
    if let Some(all) = params.sinks {
        sinks.iter_mut().enumerate().for_each(|(at, sink)| *sink = all[head(at)]);
    }
    for at in (0..QUERY_ROWS).step_by(S::LANES) {
        // SAFETY: LANES divides the length of all of them.
        unsafe {
            let (max, sum) = (s.load(scratch.max.as_ptr().add(at)), s.load(scratch.sum.as_ptr().add(at)));
            let sinks = if params.sinks.is_some() { Some(s.load(sinks.as_ptr().add(at))) } else { None };
            s.store(factors.as_mut_ptr().add(at), normaliser(s, max, sum, sinks));
        }
    }
    for at in 0..rows {
        let row = first + at;
        let strip = &scratch.ot[at / lanes * lanes * v_pad..][..lanes * v_pad];
        // SAFETY: the token's row of this head.
        let out = unsafe {
            let start = item.out.add(row / group * item.out_stride + head(at) * params.v_dim);
            std::slice::from_raw_parts_mut(start, params.v_dim)
        };
        for (column, out) in strip.chunks_exact(lanes).zip(out) {
            // As `join::finish` makes it.
            *out = column[at % lanes] * factors[at] + 0.0;
        }
    }
}
