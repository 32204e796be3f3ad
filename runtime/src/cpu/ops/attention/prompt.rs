//! Attention of a tile of queries.
//!
//! Vectors run along queries, so every operation is vertical: no horizontal sums, no shuffles, one maximum a lane.
//!
//! ```text
//! queries, once a tile      qt [strip][head_dim][lanes]     strips of RV vectors of query rows, scaled
//! for each tile of keys     kp [KEY_TILE][head_dim]         widened to f32 once for all strips
//!                           vp [KEY_TILE][v_pad]
//!   for each strip          p  [KEY_TILE][lanes]  = kp · qt     KB keys × RV vectors in registers
//!                           p  = 2^(p − max), sums, correction of the former tiles
//!                           ot [v_pad][lanes]    += vpᵀ · p     VB values × RV vectors in registers
//! ```
//!
//! A key is broadcast from `kp` and multiplied with vectors of queries: per step KB broadcasts and RV loads feed KB · RV
//! multiply-adds. Tiles of keys lie at multiples of `KEY_TILE` from position 0; keys that a lane does not see weigh an
//! exact zero, so a row's result does not depend on the rows beside it.
//!
//! Per item and visible key: 2 · (head_dim + v_dim) elements read, 2 · rows · (head_dim + v_dim) flops.

use std::ops::Range;

use super::decode::widen;
use super::{AttentionParams, KvType, NO_SCORE, PromptItem, QUERY_ROWS, exp2_negative, normaliser};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

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

/// Keys of a tile: a multiple of every KB; K and V panels of 64-element heads fit the first-level cache beside a strip.
const KEY_TILE: usize = 96;
/// `v_dim` is padded to this in scratch: a multiple of every VB.
const V_PAD: usize = 8;

fn v_pad(params: &AttentionParams<'_>) -> usize {
    params.v_dim.next_multiple_of(V_PAD)
}

pub(super) fn scratch_len(params: &AttentionParams<'_>) -> usize {
    let (dim, v_pad) = (params.head_dim, v_pad(params));
    QUERY_ROWS * (dim + v_pad + 4) + KEY_TILE * (dim + v_pad + QUERY_ROWS) + V_PAD
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
        let (kp, rest) = rest.split_at_mut(KEY_TILE * dim + V_PAD);
        let (vp, rest) = rest.split_at_mut(KEY_TILE * v_pad);
        let (p, _) = rest.split_at_mut(KEY_TILE * QUERY_ROWS);
        Scratch { qt, ot, max, sum, from, to, kp, vp, p }
    }
}

#[inline(always)]
unsafe fn prompt_impl<S: Simd>(s: S, item: &PromptItem<'_>, scratch: &mut [f32]) {
    // Accumulators: 12 · 2 of 32 registers (AVX-512), 6 · 2 of 16 (AVX2), 6 · 4 of 32 (NEON).
    // SAFETY: the caller's promise is passed on.
    unsafe {
        match (item.kv.kv, S::LANES) {
            (KvType::F16, 16) => prompt_typed::<S, true, 12, 8, 2>(s, item, scratch),
            (KvType::F32, 16) => prompt_typed::<S, false, 12, 8, 2>(s, item, scratch),
            (KvType::F16, 8) => prompt_typed::<S, true, 6, 4, 2>(s, item, scratch),
            (KvType::F32, 8) => prompt_typed::<S, false, 6, 4, 2>(s, item, scratch),
            (KvType::F16, _) => prompt_typed::<S, true, 6, 4, 4>(s, item, scratch),
            (KvType::F32, _) => prompt_typed::<S, false, 6, 4, 4>(s, item, scratch),
        }
    }
}

/// # Safety
/// As [`attention_prompt`]; `F16` must agree with the storage. `KB` divides [`KEY_TILE`], `VB` divides [`V_PAD`],
/// `RV * LANES` divides [`QUERY_ROWS`].
#[inline(always)]
unsafe fn prompt_typed<S: Simd, const F16: bool, const KB: usize, const VB: usize, const RV: usize>(
    s: S,
    item: &PromptItem<'_>,
    scratch: &mut [f32],
) {
    const { assert!(KEY_TILE.is_multiple_of(KB) && V_PAD.is_multiple_of(VB)) };
    let params = item.params;
    let (dim, v_pad, lanes) = (params.head_dim, v_pad(params), RV * S::LANES);
    let scratch = Scratch::new(params, scratch);
    let (group, (_, cap)) = (params.group(), params.factors());
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
        let tile = start..end.min((start / KEY_TILE + 1) * KEY_TILE);
        start = tile.end;
        let mut next = tile.clone();
        while !next.is_empty() {
            let run = item.kv.run(params, item.kv_head, next.clone());
            for j in 0..run.n {
                let at = run.key + j - tile.start;
                let key = &mut scratch.kp[at * dim..][..dim];
                // SAFETY: rows of this run.
                unsafe {
                    widen::<S, F16>(s, run.k, j, key);
                    if !params.v_in_k {
                        widen::<S, F16>(s, run.v, j, &mut scratch.vp[at * v_pad..][..params.v_dim]);
                    }
                }
                if let Some(rope) = &params.k_rope {
                    rope.turn(s, run.key + j, key);
                }
            }
            next.start += run.n;
        }
        let n = tile.len();
        for (strip, &(from, to)) in seen_by_all[..strips].iter().enumerate() {
            let first = strip * lanes;
            let masked = from > tile.start || to < tile.end;
            // SAFETY: all pointers are to the strip's part of scratch arrays, whose sizes `scratch_len` fixes; blocks of
            // keys and values end inside of the padded tile.
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
                let corrections: [S::F; RV] = softmax(s, tile.clone(), p, &strip_rows, cap, masked);
                let ot = scratch.ot.as_mut_ptr().add(first * v_pad);
                // Columns from v_dim to v_pad may hold anything: they stay in columns that nobody reads. `kp` is longer
                // than its keys by the most that the last of them is padded with.
                let (values, stride) =
                    if params.v_in_k { (scratch.kp.as_ptr(), dim) } else { (scratch.vp.as_ptr(), v_pad) };
                for d in (0..v_pad).step_by(VB) {
                    let values = values.add(d);
                    value_block::<S, VB, RV>(s, n, stride, values, p, &corrections, ot.add(d * lanes));
                }
            }
        }
    }
    // SAFETY: the caller vouches for `out`.
    unsafe { store_rows(item, rows.start, rows.len(), lanes, &scratch) };
}

/// Transposes the tile's queries into strips, times the score's factor. Lanes beyond the last row repeat it.
#[inline(always)]
fn load_queries(item: &PromptItem<'_>, first: usize, rows: usize, lanes: usize, qt: &mut [f32]) {
    let (dim, group, (factor, _)) = (item.params.head_dim, item.params.group(), item.params.factors());
    for at in 0..rows.next_multiple_of(lanes) {
        let row = first + at.min(rows - 1);
        let head = item.kv_head * group + row % group;
        let q = &item.q[row / group * item.q_stride + head * dim..][..dim];
        let strip = &mut qt[at / lanes * lanes * dim..][..lanes * dim];
        for (column, &x) in strip.chunks_exact_mut(lanes).zip(q) {
            column[at % lanes] = x * factor;
        }
    }
}

/// Writes the tile's results, divided by the softmax's denominators.
///
/// # Safety
/// `out` must be writable as [`attention_prompt`] says.
#[inline(always)]
unsafe fn store_rows(item: &PromptItem<'_>, first: usize, rows: usize, lanes: usize, scratch: &Scratch<'_>) {
    let (params, group, v_pad) = (item.params, item.params.group(), v_pad(item.params));
    for at in 0..rows {
        let row = first + at;
        let head = item.kv_head * group + row % group;
        let factor = normaliser(scratch.max[at], scratch.sum[at], params.sinks.map(|sinks| sinks[head]));
        let strip = &scratch.ot[at / lanes * lanes * v_pad..][..lanes * v_pad];
        // SAFETY: the token's row of this head.
        let out = unsafe {
            let start = item.out.add(row / group * item.out_stride + head * params.v_dim);
            std::slice::from_raw_parts_mut(start, params.v_dim)
        };
        for (column, out) in strip.chunks_exact(lanes).zip(out) {
            *out = column[at % lanes] * factor;
        }
    }
}

/// `p[j][lanes] = Σ_d k[j][d] · q[d][lanes]` for `KB` keys.
///
/// # Safety
/// `k` is `[KB][dim]`, `q` `[dim][RV * LANES]`, `p` `[KB][RV * LANES]`.
#[inline(always)]
unsafe fn score_block<S: Simd, const KB: usize, const RV: usize>(
    s: S,
    dim: usize,
    k: *const f32,
    q: *const f32,
    p: *mut f32,
) {
    let mut sums = [[s.zero(); RV]; KB];
    // SAFETY: by the operands' sizes.
    unsafe {
        for d in 0..dim {
            let mut query = [s.zero(); RV];
            for (v, query) in query.iter_mut().enumerate() {
                *query = s.load(q.add((d * RV + v) * S::LANES));
            }
            for (j, sums) in sums.iter_mut().enumerate() {
                let key = s.splat(*k.add(j * dim + d));
                for (sum, &query) in sums.iter_mut().zip(&query) {
                    *sum = s.mul_add(key, query, *sum);
                }
            }
        }
        for (j, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                s.store(p.add((j * RV + v) * S::LANES), sum);
            }
        }
    }
}

/// The running maxima and sums of a strip's rows, and the keys that they see.
struct StripRows {
    max: *mut f32,
    sum: *mut f32,
    from: *const f32,
    to: *const f32,
}

/// Turns a strip's scores of `keys` into probabilities relative to the running maximum, in place. Returns the factor on
/// the values gathered from former tiles.
///
/// # Safety
/// `p` is `[keys][RV * LANES]`, the rows' arrays `[RV * LANES]`.
#[inline(always)]
unsafe fn softmax<S: Simd, const RV: usize>(
    s: S,
    keys: Range<usize>,
    p: *mut f32,
    rows: &StripRows,
    cap: Option<f32>,
    masked: bool,
) -> [S::F; RV] {
    let n = keys.len();
    let mut corrections = [s.zero(); RV];
    for (v, correction) in corrections.iter_mut().enumerate() {
        // SAFETY: by the operands' sizes.
        unsafe {
            let at = v * S::LANES;
            let before = s.load(rows.max.add(at));
            let (from, to) = (s.load(rows.from.add(at)), s.load(rows.to.add(at)));
            let mut max = before;
            for j in 0..n {
                let place = p.add(j * RV * S::LANES + at);
                let mut score = s.load(place);
                if let Some(cap) = cap {
                    score = s.mul(s.splat(cap), s.tanh(score));
                }
                if masked {
                    let key = s.splat((keys.start + j) as f32);
                    let hidden = s.splat(f32::NEG_INFINITY);
                    score = s.select(s.lt(key, to), score, hidden);
                    score = s.select(s.lt(key, from), hidden, score);
                }
                if masked || cap.is_some() {
                    s.store(place, score);
                }
                max = s.max(max, score);
            }
            *correction = exp2_negative(s, s.sub(before, max));
            let mut sum = s.mul(s.load(rows.sum.add(at)), *correction);
            for j in 0..n {
                let place = p.add(j * RV * S::LANES + at);
                let weight = exp2_negative(s, s.sub(s.load(place), max));
                s.store(place, weight);
                sum = s.add(sum, weight);
            }
            s.store(rows.max.add(at), max);
            s.store(rows.sum.add(at), sum);
        }
    }
    corrections
}

/// `ot[d][lanes] = ot[d][lanes] · correction + Σ_j v[j][d] · p[j][lanes]` for `VB` values of `n` keys.
///
/// # Safety
/// `v` is `[n][VB..stride]`, `p` `[n][RV * LANES]`, `ot` `[VB][RV * LANES]`.
#[inline(always)]
unsafe fn value_block<S: Simd, const VB: usize, const RV: usize>(
    s: S,
    n: usize,
    stride: usize,
    v: *const f32,
    p: *const f32,
    corrections: &[S::F; RV],
    ot: *mut f32,
) {
    let mut sums = [[s.zero(); RV]; VB];
    // SAFETY: by the operands' sizes.
    unsafe {
        for (d, sums) in sums.iter_mut().enumerate() {
            for (r, (sum, &correction)) in sums.iter_mut().zip(corrections).enumerate() {
                *sum = s.mul(s.load(ot.add((d * RV + r) * S::LANES)), correction);
            }
        }
        for j in 0..n {
            let mut weight = [s.zero(); RV];
            for (r, weight) in weight.iter_mut().enumerate() {
                *weight = s.load(p.add((j * RV + r) * S::LANES));
            }
            for (d, sums) in sums.iter_mut().enumerate() {
                let value = s.splat(*v.add(j * stride + d));
                for (sum, &weight) in sums.iter_mut().zip(&weight) {
                    *sum = s.mul_add(value, weight, *sum);
                }
            }
        }
        for (d, sums) in sums.iter().enumerate() {
            for (r, &sum) in sums.iter().enumerate() {
                s.store(ot.add((d * RV + r) * S::LANES), sum);
            }
        }
    }
}
