//! The blocks that [`prompt`](super::prompt) is made of. Lanes are query rows, so every operation is vertical: no
//! horizontal sums, no shuffles, one maximum a lane.

use std::ops::Range;

use super::join::{exp2_negative, join, join_factors};
use super::{NO_SCORE, SCORE_CHAINS, SUM_CHAINS};
use crate::cpu::arch::Simd;

/// A vector for each strip's row and key of a block.
type Block<F, const KB: usize, const RV: usize> = [[F; RV]; KB];

/// `p[j][lanes] = Σ_d k[j][d] · q[d][lanes]` for `KB` keys.
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
    // SAFETY: by the operands' sizes.
    unsafe {
        let (a, b) = (chain_pair(s, dim, 0, k, q), chain_pair(s, dim, 2, k, q));
        let low: Block<S::F, KB, RV> = add_blocks(s, a, b);
        let (a, b) = (chain_pair(s, dim, 4, k, q), chain_pair(s, dim, 6, k, q));
        let sums = add_blocks(s, low, add_blocks(s, a, b));
        for (j, sums) in sums.iter().enumerate() {
            for (v, &sum) in sums.iter().enumerate() {
                s.store(p.add((j * RV + v) * S::LANES), sum);
            }
        }
    }
}

/// The sum of chains `first` and `first + 1`.
///
/// # Safety
/// As [`score_block`].
#[inline(always)]
unsafe fn chain_pair<S: Simd, const KB: usize, const RV: usize>(
    s: S,
    dim: usize,
    first: usize,
    k: *const f32,
    q: *const f32,
) -> Block<S::F, KB, RV> {
    let [mut even, mut odd] = [[[s.zero(); RV]; KB]; 2];
    let mut d = first;
    // SAFETY: elements below `dim`, by the operands' sizes.
    unsafe {
        while d + 1 < dim {
            add_element(s, dim, d, k, q, &mut even);
            add_element(s, dim, d + 1, k, q, &mut odd);
            d += SCORE_CHAINS;
        }
        if d < dim {
            add_element(s, dim, d, k, q, &mut even);
        }
    }
    add_blocks(s, even, odd)
}

/// Adds the products of element `d` to a chain.
///
/// # Safety
/// As [`score_block`]; `d` is below `dim`.
#[inline(always)]
unsafe fn add_element<S: Simd, const KB: usize, const RV: usize>(
    s: S,
    dim: usize,
    d: usize,
    k: *const f32,
    q: *const f32,
    sums: &mut Block<S::F, KB, RV>,
) {
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

#[inline(always)]
fn add_blocks<S: Simd, const KB: usize, const RV: usize>(
    s: S,
    mut a: Block<S::F, KB, RV>,
    b: Block<S::F, KB, RV>,
) -> Block<S::F, KB, RV> {
    for (a, b) in a.iter_mut().zip(&b) {
        for (a, &b) in a.iter_mut().zip(b) {
            *a = s.add(*a, b);
        }
    }
    a
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
            let mut chains = [s.zero(); SUM_CHAINS];
            for j in 0..n {
                let weight = exp2_negative(s, s.sub(s.load(place(j)), max));
                s.store(place(j), weight);
                let chain = &mut chains[(keys.start + j) % SUM_CHAINS];
                *chain = s.add(*chain, weight);
            }
            let mut half = SUM_CHAINS / 2;
            while half > 0 {
                for i in 0..half {
                    chains[i] = s.add(chains[i], chains[i + half]);
                }
                half /= 2;
            }
            let sum = chains[0];
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
