//! The arithmetic that every kernel of attention shares: powers of two, the joining of pieces, the division at the end.
//!
//! A row's pieces are joined in order of position. What was joined before and the new piece are both made relative to
//! the greater of their maxima: `joined = joined · 2^(old − max) + partial · 2^(new − max)`.

use super::super::by_lanes;
use super::{AttentionParams, MOST_LANES};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

simd_dispatch!(
    /// Joins the partial result of further keys to that of all before: both [`AttentionParams::partial_len`] floats.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attention_join(params: &AttentionParams<'_>, partial: &[f32], joined: &mut [f32]) = join_impl
);
simd_dispatch!(
    /// Joins the partial results of consecutive pieces (`[pieces][partial_len]`, at least one) of a kv head into `out`,
    /// the `[group][v_dim]` results of its query heads; sinks join last.
    ///
    /// # Panics
    /// If the lengths do not fit.
    pub fn attention_merge(params: &AttentionParams<'_>, kv_head: usize, partials: &[f32], out: &mut [f32]) = merge_impl
);

/// 2ˣ for x ≤ 0 within about 2 ulp; exactly 0 below −127. NaN for NaN.
///
/// n = round(x) leaves |x − n| ≤ ½, where the series' first missing term is 1.2e-7. Inputs are clamped to a power whose
/// exponent field is 0, which is zero.
#[inline(always)]
pub(super) fn exp2_negative<S: Simd>(s: S, x: S::F) -> S::F {
    let x = s.max(s.splat(-127.0), x);
    let n = s.round_to_i32(x);
    let r = s.sub(x, s.i32_to_f32(n));
    let mut p = s.splat(1.540_353_1e-4);
    p = s.mul_add(p, r, s.splat(1.333_355_8e-3));
    p = s.mul_add(p, r, s.splat(9.618_129e-3));
    p = s.mul_add(p, r, s.splat(5.550_411e-2));
    p = s.mul_add(p, r, s.splat(2.402_265e-1));
    p = s.mul_add(p, r, s.splat(std::f32::consts::LN_2));
    p = s.mul_add(p, r, s.splat(1.0));
    s.mul(p, s.f32_from_bits(s.shl_i32(s.add_i32(n, s.splat_i32(127)), 23)))
}

/// The joined maximum, and the factors on what was joined before and on the new piece.
#[inline(always)]
pub(super) fn join_factors<S: Simd>(s: S, before: S::F, max: S::F) -> (S::F, S::F, S::F) {
    let top = s.max(before, max);
    (top, exp2_negative(s, s.sub(before, top)), exp2_negative(s, s.sub(max, top)))
}

/// A sum or weighted values with those of a further piece.
#[inline(always)]
pub(super) fn join<S: Simd>(s: S, (before, old): (S::F, S::F), (partial, new): (S::F, S::F)) -> S::F {
    s.mul_add(new, partial, s.mul(old, before))
}

/// The factor on weighted values that divides them by the softmax's denominator, with the logits of sinks, if any.
/// 0 for rows that see nothing.
#[inline(always)]
pub(super) fn normaliser<S: Simd>(s: S, max: S::F, sum: S::F, sinks: Option<S::F>) -> S::F {
    let Some(sinks) = sinks else {
        // The greatest score weighs 1, so a sum that is not 0 is far from it.
        let none = s.lt(sum, s.splat(f32::MIN_POSITIVE));
        return s.select(none, s.zero(), s.div(s.splat(1.0), sum));
    };
    let (_, own, sink) = join_factors(s, max, s.mul(sinks, s.splat(std::f32::consts::LOG2_E)));
    s.div(own, join(s, (sum, own), (s.splat(1.0), sink)))
}

/// A result from weighted values. A zero is positive: keys that a row does not see may change a zero's sign.
#[inline(always)]
pub(super) fn finish<S: Simd>(s: S, values: S::F, normaliser: S::F) -> S::F {
    s.add(s.mul(values, normaliser), s.zero())
}

/// The first `m` elements.
#[inline(always)]
fn load<S: Simd>(s: S, x: &[f32], m: usize) -> S::F {
    let x = &x[..m];
    // SAFETY: `m` elements.
    unsafe { s.load_partial(x.as_ptr(), m) }
}

/// Joins one head's values.
#[inline(always)]
fn join_values<S: Simd>(s: S, from: &[f32], to: &mut [f32], old: f32, new: f32) {
    assert_eq!(from.len(), to.len());
    let (n, from, to) = (from.len(), from.as_ptr(), to.as_mut_ptr());
    by_lanes!(n, i, m => {
        // SAFETY: i + m <= n, the length of both.
        unsafe {
            let (before, partial) = (s.load_partial(to.add(i), m), s.load_partial(from.add(i), m));
            s.store_partial(to.add(i), m, join(s, (before, s.splat(old)), (partial, s.splat(new))));
        }
    });
}

#[inline(always)]
fn join_impl<S: Simd>(s: S, params: &AttentionParams<'_>, partial: &[f32], joined: &mut [f32]) {
    let (group, dim) = (params.group(), params.v_dim);
    assert!(partial.len() == params.partial_len() && joined.len() == params.partial_len());
    by_lanes!(group, first, m => {
        let [mut old, mut new] = [[0.0; MOST_LANES]; 2];
        // SAFETY: heads first..first + m of `group`, which both have maxima and sums of.
        unsafe {
            let (from, to) = (partial.as_ptr().add(first), joined.as_mut_ptr().add(first));
            let (top, o, n) = join_factors(s, s.load_partial(to, m), s.load_partial(from, m));
            s.store_partial(to, m, top);
            let (from, to) = (from.add(group), to.add(group));
            s.store_partial(to, m, join(s, (s.load_partial(to, m), o), (s.load_partial(from, m), n)));
            s.store(old.as_mut_ptr(), o);
            s.store(new.as_mut_ptr(), n);
        }
        for (i, (old, new)) in old.into_iter().zip(new).take(m).enumerate() {
            let values = 2 * group + (first + i) * dim..2 * group + (first + i + 1) * dim;
            join_values(s, &partial[values.clone()], &mut joined[values], old, new);
        }
    });
}

#[inline(always)]
fn merge_impl<S: Simd>(s: S, params: &AttentionParams<'_>, kv_head: usize, partials: &[f32], out: &mut [f32]) {
    let (group, dim, len) = (params.group(), params.v_dim, params.partial_len());
    assert_eq!(out.len(), group * dim);
    assert!(!partials.is_empty() && partials.len().is_multiple_of(len));
    out.copy_from_slice(&partials[2 * group..len]);
    let sinks = params.sinks.map(|sinks| &sinks[kv_head * group..][..group]);
    by_lanes!(group, first, m => {
        let [mut old, mut new] = [[0.0; MOST_LANES]; 2];
        let (mut max, mut sum) = (load(s, &partials[first..], m), load(s, &partials[group + first..], m));
        for partial in partials.chunks_exact(len).skip(1) {
            let (top, o, n) = join_factors(s, max, load(s, &partial[first..], m));
            max = top;
            sum = join(s, (sum, o), (load(s, &partial[group + first..], m), n));
            // SAFETY: both are as long as any vector.
            unsafe {
                s.store(old.as_mut_ptr(), o);
                s.store(new.as_mut_ptr(), n);
            }
            for (i, (old, new)) in old.into_iter().zip(new).take(m).enumerate() {
                let head = (first + i) * dim;
                join_values(s, &partial[2 * group + head..][..dim], &mut out[head..][..dim], old, new);
            }
        }
        // Not `map`: a closure over vectors may be compiled without the instruction set.
        let mut logits = s.zero();
        if let Some(sinks) = sinks {
            logits = load(s, &sinks[first..], m);
        }
        // SAFETY: as above.
        unsafe { s.store(new.as_mut_ptr(), normaliser(s, max, sum, sinks.is_some().then_some(logits))) };
        for (i, factor) in new.into_iter().take(m).enumerate() {
            let out = out[(first + i) * dim..][..dim].as_mut_ptr();
            by_lanes!(dim, i, m => {
                // SAFETY: i + m <= dim, the length of the head's result.
                unsafe { s.store_partial(out.add(i), m, finish(s, s.load_partial(out.add(i), m), s.splat(factor))) };
            });
        }
    });
}
