//! The blocks that [`prompt`](super::prompt) is made of. Lanes are query rows, so every operation is vertical: no
//! horizontal sums, no shuffles, one maximum a lane.

use std::ops::Range;

use super::join::{exp2_negative, join, join_factors};
use super::{NO_SCORE, SCORE_CHAINS, SUM_CHAINS};
use crate::cpu::arch::Simd;

/// `p[j][lanes] = Σ_d k[j][d] · q[d][lanes]` for `KB` keys, one chain after the other.
///
/// # Safety
/// `k` is `[KB][dim]`, `q` `[dim][RV * LANES]`, `p` `[KB][RV * LANES]`.
#[inline(always)]
pub(super) unsafe fn score_block<S: Simd, const KB: usize, const RV: usize>(
    s: S,
    dim: usize,
    k: *const f32,
    q: *const f32,
    p: *mut f32,
) {
    // Sums of 1, 2 and 4 chains that wait for their neighbours.
    let mut waiting = [[[s.zero(); RV]; KB]; SCORE_CHAINS.ilog2() as usize];
    for chain in 0..SCORE_CHAINS {
        let mut sums = [[s.zero(); RV]; KB];
        for d in (chain..dim).step_by(SCORE_CHAINS) {
            let mut query = [s.zero(); RV];
            for (v, query) in query.iter_mut().enumerate() {
                // SAFETY: by the operands' sizes.
                *query = unsafe { s.load(q.add((d * RV + v) * S::LANES)) };
            }
            for (j, sums) in sums.iter_mut().enumerate() {
                // SAFETY: as above.
                let key = s.splat(unsafe { *k.add(j * dim + d) });
                for (sum, &query) in sums.iter_mut().zip(&query) {
                    *sum = s.mul_add(key, query, *sum);
                }
            }
        }
        let joins = chain.trailing_ones() as usize;
        for before in &waiting[..joins] {
            for (sums, before) in sums.iter_mut().zip(before) {
                for (sum, &before) in sums.iter_mut().zip(before) {
                    *sum = s.add(before, *sum);
                }
            }
        }
        match waiting.get_mut(joins) {
            Some(waiting) => *waiting = sums,
            None => {
                for (j, sums) in sums.iter().enumerate() {
                    for (v, &sum) in sums.iter().enumerate() {
                        // SAFETY: as above.
                        unsafe { s.store(p.add((j * RV + v) * S::LANES), sum) };
                    }
                }
            }
        }
    }
}

/// What is known of a strip's rows.
#[derive(Clone, Copy)]
pub(super) struct StripRows {
    /// Greatest scores of the pieces before.
    pub max: *mut f32,
    /// Sums of probabilities of the pieces before.
    pub sum: *mut f32,
    /// The first key that a row sees.
    pub from: *const f32,
    /// The first key beyond those that it sees.
    pub to: *const f32,
}

/// Factors on the values of the pieces before, and on those of this piece.
pub(super) type Factors<F, const RV: usize> = [(F, F); RV];

/// Turns a strip's scores of a piece's `keys` into probabilities relative to each row's maximum, in place, and joins
/// maxima and sums to those of the pieces before.
///
/// # Safety
/// `p` is `[keys][RV * LANES]`, the rows' arrays `[RV * LANES]`.
#[inline(always)]
pub(super) unsafe fn softmax<S: Simd, const RV: usize>(
    s: S,
    keys: Range<usize>,
    p: *mut f32,
    rows: &StripRows,
    cap: Option<f32>,
    masked: bool,
) -> Factors<S::F, RV> {
    let n = keys.len();
    let mut factors = [(s.zero(), s.zero()); RV];
    for (v, factors) in factors.iter_mut().enumerate() {
        // SAFETY: by the operands' sizes.
        unsafe {
            let at = v * S::LANES;
            let place = |j: usize| p.add(j * RV * S::LANES + at);
            let (from, to) = (s.load(rows.from.add(at)), s.load(rows.to.add(at)));
            let mut max = s.splat(NO_SCORE);
            for j in 0..n {
                let mut score = s.load(place(j));
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
                    s.store(place(j), score);
                }
                max = s.max(max, score);
            }
            for j in 0..n {
                s.store(place(j), exp2_negative(s, s.sub(s.load(place(j)), max)));
            }
            // Neighbours of the tree one after the other: chains i and i + 8 first, then i + 4, i + 2, i + 1.
            let mut waiting = [s.zero(); SUM_CHAINS.ilog2() as usize + 1];
            for turn in 0..SUM_CHAINS {
                let chain = turn.reverse_bits() >> (usize::BITS - SUM_CHAINS.ilog2());
                let mut sum = s.zero();
                let first = (chain + SUM_CHAINS - keys.start % SUM_CHAINS) % SUM_CHAINS;
                for j in (first..n).step_by(SUM_CHAINS) {
                    sum = s.add(sum, s.load(place(j)));
                }
                let joins = turn.trailing_ones() as usize;
                for &before in &waiting[..joins] {
                    sum = s.add(before, sum);
                }
                waiting[joins] = sum;
            }
            let sum = waiting[SUM_CHAINS.ilog2() as usize];
            let (top, old, new) = join_factors(s, s.load(rows.max.add(at)), max);
            s.store(rows.max.add(at), top);
            s.store(rows.sum.add(at), join(s, (s.load(rows.sum.add(at)), old), (sum, new)));
            *factors = (old, new);
        }
    }
    factors
}

/// Joins `Σ_j v[j][d] · p[j][lanes]` over `n` keys to `ot[d][lanes]`, for `VB` values of a key.
///
/// # Safety
/// `v` is `[n][VB..stride]`, `p` `[n][RV * LANES]`, `ot` `[VB][RV * LANES]`.
#[inline(always)]
pub(super) unsafe fn value_block<S: Simd, const VB: usize, const RV: usize>(
    s: S,
    n: usize,
    (v, stride): (*const f32, usize),
    p: *const f32,
    factors: &Factors<S::F, RV>,
    ot: *mut f32,
) {
    let mut sums = [[s.zero(); RV]; VB];
    // SAFETY: by the operands' sizes.
    unsafe {
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
            join_row(s, sums, factors, ot.add(d * RV * S::LANES));
        }
    }
}

/// [`value_block`] for one value of each of `keys`, where some of them are infinite or no numbers: zero times these is
/// no zero, so rows skip the keys that they do not see.
///
/// # Safety
/// As [`value_block`], with the rows' arrays `[RV * LANES]`.
#[inline(always)]
pub(super) unsafe fn spoiled_value<S: Simd, const RV: usize>(
    s: S,
    keys: Range<usize>,
    (v, stride): (*const f32, usize),
    p: *const f32,
    rows: &StripRows,
    factors: &Factors<S::F, RV>,
    ot: *mut f32,
) {
    let mut sums = [s.zero(); RV];
    // SAFETY: by the operands' sizes.
    unsafe {
        for (r, sum) in sums.iter_mut().enumerate() {
            let (from, to) = (s.load(rows.from.add(r * S::LANES)), s.load(rows.to.add(r * S::LANES)));
            for (j, key) in keys.clone().enumerate() {
                let (key, value) = (s.splat(key as f32), s.splat(*v.add(j * stride)));
                let more = s.mul_add(value, s.load(p.add((j * RV + r) * S::LANES)), *sum);
                let until = s.select(s.lt(key, to), more, *sum);
                *sum = s.select(s.lt(key, from), *sum, until);
            }
        }
        join_row(s, &sums, factors, ot);
    }
}

/// Joins one value of a strip's rows to that of the pieces before.
///
/// # Safety
/// `ot` is `[RV * LANES]`.
#[inline(always)]
unsafe fn join_row<S: Simd, const RV: usize>(s: S, sums: &[S::F; RV], factors: &Factors<S::F, RV>, ot: *mut f32) {
    for (r, (&sum, &(old, new))) in sums.iter().zip(factors).enumerate() {
        // SAFETY: by the operand's size.
        unsafe {
            let place = ot.add(r * S::LANES);
            s.store(place, join(s, (s.load(place), old), (sum, new)));
        }
    }
}
