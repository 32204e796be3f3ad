//! Attention of one query token over a piece of its keys, and the merging of pieces.
//!
//! One item does all `group` query heads of a kv head together: it loads and widens every key and value row once for up
//! to four heads. Vectors run along a row: a score is one horizontal sum, and weighted values accumulate in registers
//! over a page's run of keys.
//!
//! Per item: reads 2 · keys · head_dim elements (the wall, at long contexts), 4 · group · keys · head_dim flops.

use super::super::by_lanes;
use super::{AttentionParams, DECODE_PIECE, DecodeItem, KvType, NO_SCORE, Run, exp2_negative, load_kv, normaliser};
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
simd_dispatch!(
    /// Merges the partial results of consecutive pieces (`[pieces][partial_len]`, at least one) of a kv head into `out`,
    /// the `[group][v_dim]` results of its query heads; sinks join here.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attention_merge(params: &AttentionParams<'_>, kv_head: usize, partials: &[f32], out: &mut [f32]) = merge_impl
);
simd_dispatch!(
    /// Joins the partial result of further keys to that of all before: both [`AttentionParams::partial_len`] floats.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attention_join(params: &AttentionParams<'_>, partial: &[f32], joined: &mut [f32]) = join_impl
);

/// Keys that are widened and rotated together where keys are cached un-rotated.
const TURNED_KEYS: usize = 16;

pub(super) fn scratch_len(params: &AttentionParams<'_>) -> usize {
    params.group() * (params.head_dim + DECODE_PIECE) + TURNED_KEYS * params.head_dim
}

#[inline(always)]
unsafe fn decode_impl<S: Simd>(s: S, item: &DecodeItem<'_>, scratch: &mut [f32], partial: &mut [f32]) {
    // SAFETY: the caller's promise is passed on; the storage type decides how rows are read.
    unsafe {
        match item.kv.kv {
            KvType::F16 => decode_typed::<S, true>(s, item, scratch, partial),
            KvType::F32 => decode_typed::<S, false>(s, item, scratch, partial),
        }
    }
}

/// # Safety
/// As [`attention_decode`]; `F16` must agree with the storage.
#[inline(always)]
unsafe fn decode_typed<S: Simd, const F16: bool>(
    s: S,
    item: &DecodeItem<'_>,
    scratch: &mut [f32],
    partial: &mut [f32],
) {
    let params = item.params;
    let (group, dim, v_dim) = (params.group(), params.head_dim, params.v_dim);
    let chosen = item.keys.map(|keys| &keys[keys.len().min(item.piece * DECODE_PIECE)..]);
    let chosen = chosen.map(|keys| &keys[..keys.len().min(DECODE_PIECE)]);
    let visible = params.visible(item.position, item.kv.len);
    let keys = visible.start.max(item.piece * DECODE_PIECE)..visible.end.min((item.piece + 1) * DECODE_PIECE);
    let n = chosen.map_or(keys.len(), <[f32]>::len);
    // The run of adjacent keys that begins with key number `done`.
    let run_from = |done: usize| {
        let Some(chosen) = chosen else { return item.kv.run(params, item.kv_head, keys.start + done..keys.end) };
        // An observer of a step may leave any numbers there.
        let number = |key: f32| (key as usize).min(item.kv.len.saturating_sub(1));
        let first = number(chosen[done]);
        let together = chosen[done..].iter().enumerate().take_while(|(i, key)| number(**key) == first + i).count();
        item.kv.run(params, item.kv_head, first..first + together)
    };
    let (max, rest) = partial[..params.partial_len()].split_at_mut(group);
    let (sum, acc) = rest.split_at_mut(group);
    acc.fill(0.0);
    let (q, rest) = scratch.split_at_mut(group * dim);
    let (scores, turned) = rest.split_at_mut(group * DECODE_PIECE);
    let (factor, cap) = params.factors();
    let heads = &item.q[item.kv_head * group * dim..][..group * dim];
    q.iter_mut().zip(heads).for_each(|(q, x)| *q = x * factor);

    let mut done = 0;
    while done < n {
        let run = run_from(done);
        // SAFETY: rows of visible keys; `q` and `scores` have `group` rows, and the run ends inside of this piece.
        unsafe {
            let scores = scores.as_mut_ptr().add(done);
            if params.k_rope.is_some() {
                turned_scores::<S, F16>(s, params, &run, q, turned, scores);
            } else {
                group_scores::<S, F16>(s, group, dim, q, run.k, run.n, scores);
            }
        }
        done += run.n;
    }
    for g in 0..group {
        let row = &mut scores[g * DECODE_PIECE..][..n];
        (max[g], sum[g]) = softmax(s, row, cap);
    }
    let mut done = 0;
    while done < n {
        let run = run_from(done);
        // SAFETY: as above, and `acc` has `group` rows of `v_dim`.
        unsafe {
            let weights = scores.as_ptr().add(done);
            group_values::<S, F16>(s, group, (v_dim, params.v_stride()), run.v, run.n, weights, acc.as_mut_ptr());
        }
        done += run.n;
    }
}

/// Scores of a run whose keys must be rotated first: in small batches, through floats in scratch.
///
/// # Safety
/// As [`group_scores`].
#[inline(always)]
unsafe fn turned_scores<S: Simd, const F16: bool>(
    s: S,
    params: &AttentionParams<'_>,
    run: &Run,
    q: &[f32],
    turned: &mut [f32],
    scores: *mut f32,
) {
    let dim = params.head_dim;
    let mut done = 0;
    while done < run.n {
        let n = (run.n - done).min(TURNED_KEYS);
        for (j, row) in turned[..n * dim].chunks_exact_mut(dim).enumerate() {
            // SAFETY: row `done + j` of the run.
            unsafe { widen::<S, F16>(s, run.k, done + j, row) };
            if let Some(rope) = &params.k_rope {
                rope.turn(s, run.key + done + j, row);
            }
        }
        // SAFETY: `turned` holds `n` rows of floats.
        unsafe { group_scores::<S, false>(s, params.group(), dim, q, turned.as_ptr().cast(), n, scores.add(done)) };
        done += n;
    }
}

/// Copies row `index` of consecutive rows into floats.
///
/// # Safety
/// That row, as long as `out`, must be readable.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd, const F16: bool>(s: S, rows: *const u8, index: usize, out: &mut [f32]) {
    let (dim, to) = (out.len(), out.as_mut_ptr());
    by_lanes!(dim, i, m => {
        // SAFETY: i + m <= the row's length.
        unsafe { s.store_partial(to.add(i), m, load_kv::<S, F16>(s, rows, index * dim + i, m)) };
    });
}

/// `scores[g * DECODE_PIECE + j] = q[g] · k[j]` for all heads of the group and `n` rows of keys.
///
/// # Safety
/// `k` must be readable for `n` rows of `dim` elements, `scores` writable for those places.
#[inline(always)]
unsafe fn group_scores<S: Simd, const F16: bool>(
    s: S,
    group: usize,
    dim: usize,
    q: &[f32],
    k: *const u8,
    n: usize,
    scores: *mut f32,
) {
    assert!(q.len() >= group * dim);
    let mut g = 0;
    while g < group {
        // SAFETY: heads g.. of `group`.
        unsafe {
            let (q, scores) = (q.as_ptr().add(g * dim), scores.add(g * DECODE_PIECE));
            g += match group - g {
                1 => head_scores::<S, F16, 1>(s, dim, q, k, n, scores),
                2 => head_scores::<S, F16, 2>(s, dim, q, k, n, scores),
                3 => head_scores::<S, F16, 3>(s, dim, q, k, n, scores),
                _ => head_scores::<S, F16, 4>(s, dim, q, k, n, scores),
            };
        }
    }
}

/// [`group_scores`] for `G` heads; returns `G`.
///
/// As [`group_scores`], with `q` readable for `G` rows of `dim`.
/// As there, with `q` readable for `G` rows of `dim`.
#[inline(always)]
unsafe fn head_scores<S: Simd, const F16: bool, const G: usize>(
    s: S,
    dim: usize,
    q: *const f32,
    k: *const u8,
    n: usize,
    scores: *mut f32,
) -> usize {
    for j in 0..n {
        let mut sums = [s.zero(); G];
        by_lanes!(dim, i, m => {
            // SAFETY: i + m <= dim.
            unsafe {
                let key = load_kv::<S, F16>(s, k, j * dim + i, m);
                for (g, sum) in sums.iter_mut().enumerate() {
                    *sum = s.mul_add(key, s.load_partial(q.add(g * dim + i), m), *sum);
                }
            }
        });
        for (g, sum) in sums.iter().enumerate() {
            // SAFETY: the place of head g and key j.
            unsafe { *scores.add(g * DECODE_PIECE + j) = s.reduce_sum(*sum) };
        }
    }
    G
}

/// Turns scores into probabilities relative to their maximum; returns it and their sum.
#[inline(always)]
fn softmax<S: Simd>(s: S, scores: &mut [f32], cap: Option<f32>) -> (f32, f32) {
    let (n, x) = (scores.len(), scores.as_mut_ptr());
    if let Some(cap) = cap {
        by_lanes!(n, i, m => {
            // SAFETY: i + m <= n.
            unsafe { s.store_partial(x.add(i), m, s.mul(s.splat(cap), s.tanh(s.load_partial(x.add(i), m)))) };
        });
    }
    let mut top = s.splat(NO_SCORE);
    let whole = n - n % S::LANES;
    for i in (0..whole).step_by(S::LANES) {
        // SAFETY: i + LANES <= n.
        top = s.max(top, unsafe { s.load(x.add(i)) });
    }
    let max = scores[whole..].iter().fold(s.reduce_max(top), |max, &score| max.max(score));
    let (mut sum, x) = (s.zero(), scores.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n. Unused lanes are not stored, and read back as zeros.
        unsafe {
            s.store_partial(x.add(i), m, exp2_negative(s, s.sub(s.load_partial(x.add(i), m), s.splat(max))));
            sum = s.add(sum, s.load_partial(x.add(i), m));
        }
    });
    (max, s.reduce_sum(sum))
}

/// `acc[g] += Σ weights[g * DECODE_PIECE + j] · v[j]` for all heads of the group over `n` rows of values.
///
/// # Safety
/// `v` must be readable for `n` rows of `dim` elements, `stride` apart, `weights` at those places; `acc` is `[group][dim]`.
#[inline(always)]
unsafe fn group_values<S: Simd, const F16: bool>(
    s: S,
    group: usize,
    (dim, stride): (usize, usize),
    v: *const u8,
    n: usize,
    weights: *const f32,
    acc: *mut f32,
) {
    let mut g = 0;
    while g < group {
        // SAFETY: heads g.. of `group`.
        unsafe {
            let (weights, acc) = (weights.add(g * DECODE_PIECE), acc.add(g * dim));
            g += match group - g {
                1 => head_values::<S, F16, 1>(s, (dim, stride), v, n, weights, acc),
                2 => head_values::<S, F16, 2>(s, (dim, stride), v, n, weights, acc),
                3 => head_values::<S, F16, 3>(s, (dim, stride), v, n, weights, acc),
                _ => head_values::<S, F16, 4>(s, (dim, stride), v, n, weights, acc),
            };
        }
    }
}

/// [`group_values`] for `G` heads; returns `G`. Blocks of columns: four vectors, or two where registers are few.
///
/// # Safety
/// As [`group_values`].
#[inline(always)]
unsafe fn head_values<S: Simd, const F16: bool, const G: usize>(
    s: S,
    (dim, stride): (usize, usize),
    v: *const u8,
    n: usize,
    weights: *const f32,
    acc: *mut f32,
) -> usize {
    let mut i = 0;
    // SAFETY: each call covers columns below `dim`.
    unsafe {
        while S::LANES != 8 && i + 4 * S::LANES <= dim {
            value_block::<S, F16, G, 4>(s, (dim, stride), i, S::LANES, v, n, weights, acc);
            i += 4 * S::LANES;
        }
        while i + 2 * S::LANES <= dim {
            value_block::<S, F16, G, 2>(s, (dim, stride), i, S::LANES, v, n, weights, acc);
            i += 2 * S::LANES;
        }
        while i < dim {
            value_block::<S, F16, G, 1>(s, (dim, stride), i, S::LANES.min(dim - i), v, n, weights, acc);
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
#[allow(clippy::too_many_arguments)]
unsafe fn value_block<S: Simd, const F16: bool, const G: usize, const C: usize>(
    s: S,
    (dim, stride): (usize, usize),
    i: usize,
    m: usize,
    v: *const u8,
    n: usize,
    weights: *const f32,
    acc: *mut f32,
) {
    let mut sums = [[s.zero(); C]; G];
    // SAFETY: columns i..i + C · m are below `dim`.
    unsafe {
        for (g, sums) in sums.iter_mut().enumerate() {
            for (c, sum) in sums.iter_mut().enumerate() {
                *sum = s.load_partial(acc.add(g * dim + i + c * S::LANES), m);
            }
        }
        for j in 0..n {
            let mut values = [s.zero(); C];
            for (c, value) in values.iter_mut().enumerate() {
                *value = load_kv::<S, F16>(s, v, j * stride + i + c * S::LANES, m);
            }
            for (g, sums) in sums.iter_mut().enumerate() {
                let weight = s.splat(*weights.add(g * DECODE_PIECE + j));
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

#[inline(always)]
fn join_impl<S: Simd>(s: S, params: &AttentionParams<'_>, partial: &[f32], joined: &mut [f32]) {
    let (group, dim) = (params.group(), params.v_dim);
    assert!(partial.len() == params.partial_len() && joined.len() == params.partial_len());
    for g in 0..group {
        let max = partial[g].max(joined[g]);
        let (new, old) = ((partial[g] - max).exp2(), (joined[g] - max).exp2());
        joined[g] = max;
        joined[group + g] = joined[group + g] * old + partial[group + g] * new;
        let first = 2 * group + g * dim;
        let (from, to) = (partial[first..][..dim].as_ptr(), joined[first..][..dim].as_mut_ptr());
        by_lanes!(dim, i, m => {
            // SAFETY: i + m <= dim, the length of both.
            unsafe {
                let before = s.mul(s.splat(old), s.load_partial(to.add(i), m));
                s.store_partial(to.add(i), m, s.mul_add(s.splat(new), s.load_partial(from.add(i), m), before));
            }
        });
    }
}

#[inline(always)]
fn merge_impl<S: Simd>(s: S, params: &AttentionParams<'_>, kv_head: usize, partials: &[f32], out: &mut [f32]) {
    let (group, dim) = (params.group(), params.v_dim);
    assert_eq!(out.len(), group * dim);
    assert!(!partials.is_empty() && partials.len().is_multiple_of(params.partial_len()));
    for (g, out) in out.chunks_exact_mut(dim).enumerate() {
        let (mut max, mut sum) = (NO_SCORE, 0.0);
        for partial in partials.chunks_exact(params.partial_len()) {
            max = partial[g].max(max);
        }
        for partial in partials.chunks_exact(params.partial_len()) {
            sum += partial[group + g] * (partial[g] - max).exp2();
        }
        let normaliser = normaliser(max, sum, params.sinks.map(|sinks| sinks[kv_head * group + g]));
        for (index, partial) in partials.chunks_exact(params.partial_len()).enumerate() {
            let factor = s.splat((partial[g] - max).exp2() * normaliser);
            let (acc, out) = (partial[2 * group + g * dim..][..dim].as_ptr(), out.as_mut_ptr());
            by_lanes!(dim, i, m => {
                // SAFETY: i + m <= dim, the length of both.
                unsafe {
                    let before = if index == 0 { s.zero() } else { s.load_partial(out.add(i), m) };
                    s.store_partial(out.add(i), m, s.mul_add(factor, s.load_partial(acc.add(i), m), before));
                }
            });
        }
    }
}
