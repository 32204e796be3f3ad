//! The choice of the keys that a token attends to: DeepSeek V3.2's lightning indexer (DeepSeek-AI 2025).
//!
//! Small heads of their own score every key that the token sees: `score = Σ_h w_h · max(q_h · k, 0)`, all heads over
//! the same cached key. The best `k` are chosen; of equals the earlier one. A common factor on all scores does not
//! change the choice and is left out. Reads one index key for every cached token; 2 · heads · head_dim flops each.

use super::super::sums::sum_of;
use super::rows::{Rows, by_rows};
use super::{AttentionParams, KvPages};
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

/// One token's choice.
#[derive(Clone, Copy, Debug)]
pub struct SelectItem<'a> {
    /// Index heads and their size; one cached head.
    pub params: &'a AttentionParams<'a>,
    /// The sequence's index keys, this token's included.
    pub kv: &'a KvPages<'a>,
    /// The token's index queries: `[n_heads * head_dim]`.
    pub q: &'a [f32],
    /// The weight of each head.
    pub weights: &'a [f32],
}

simd_dispatch!(
    /// Scores of the first `scores.len()` keys.
    ///
    /// # Safety
    /// Their pages must be readable as [`KvPages`] describes, and not be written meanwhile.
    ///
    /// # Panics
    /// If a slice is too short or a key's page is missing.
    pub unsafe fn select_scores(item: &SelectItem<'_>, scores: &mut [f32]) = scores_impl
);

#[inline(always)]
unsafe fn scores_impl<S: Simd>(s: S, item: &SelectItem<'_>, scores: &mut [f32]) {
    // SAFETY: the caller's promise is passed on; the storage type decides how rows are read.
    by_rows!(item.kv.kv, R => unsafe { scores_typed::<S, R>(s, item, scores) })
}

/// # Safety
/// As [`select_scores`]; `R` must agree with the storage.
#[inline(always)]
unsafe fn scores_typed<S: Simd, R: Rows>(s: S, item: &SelectItem<'_>, scores: &mut [f32]) {
    let (heads, dim) = (item.params.n_heads, item.params.head_dim);
    let row_bytes = item.kv.kv.row_bytes(dim);
    let (q, weights) = (&item.q[..heads * dim], &item.weights[..heads]);
    let mut done = 0;
    while done < scores.len() {
        let run = item.kv.run(item.params, 0, done..scores.len());
        for j in 0..run.n {
            let (row, mut total) = (run.k.wrapping_add(j * row_bytes), 0.0);
            for (h, weight) in weights.iter().enumerate() {
                // SAFETY: i + m <= dim, of a row of this run and of a head.
                let score = sum_of!(s, dim, |i, m, sum| unsafe {
                    let [key] = R::load::<S, 1>(s, row, dim, i, m);
                    s.mul_add(key, s.load_partial(q.as_ptr().add(h * dim + i), m), sum)
                });
                total += weight * score.max(0.0);
            }
            // Adding 0 turns a negative zero into a positive one: the two are equal, but their bits sort apart.
            scores[done + j] = total + 0.0;
        }
        done += run.n;
    }
}

/// Writes the positions of the best `out.len()` of `scores` to `out`, in ascending order, and -1 where there are fewer.
/// `order` is scratch, as long as `scores`.
pub fn choose(scores: &[f32], order: &mut [u32], out: &mut [f32]) {
    let k = out.len().min(scores.len());
    let order = &mut order[..scores.len()];
    order.iter_mut().zip(0..).for_each(|(o, i)| *o = i);
    if k > 0 && k < scores.len() {
        let better = |a: &u32, b: &u32| {
            let (x, y) = (scores[*a as usize], scores[*b as usize]);
            y.total_cmp(&x).then(a.cmp(b))
        };
        order.select_nth_unstable_by(k - 1, better);
        order[..k].sort_unstable();
    }
    out.fill(-1.0);
    // Exact below 2^24 tokens.
    out.iter_mut().zip(&order[..k]).for_each(|(o, i)| *o = *i as f32);
}

#[cfg(test)]
mod tests {
    use super::choose;
    use crate::{
        cases::{
            relative_error,
            select::{CHOICES, best, scores, selects},
        },
        cpu::{arch::Isa, ops::op_kernels},
    };

    #[test]
    fn scores_match_f64() {
        for case in selects() {
            let (keys, query) = (case.keys(75), case.query());
            let cache = case.cache(&keys);
            let [q, weights] = &query;
            let expected: Vec<f64> =
                keys.chunks(case.op.head_dim).map(|key| case.reference([q, weights], key)).collect();
            for isa in Isa::available() {
                let mut scores = vec![f32::NAN; expected.len()];
                case.run(op_kernels(isa), &cache, &query, &mut scores);
                let error = relative_error(&scores, &expected);
                assert!(error < 1e-6, "{} {}: {error:e}", isa.name(), case.name());
            }
        }
    }

    #[test]
    fn the_best_are_chosen_and_of_equals_the_first() {
        for case in CHOICES {
            for row in 0..4 {
                let scores = scores(row, case.longest());
                for k in [1, 2, case.k] {
                    let mut chosen = vec![f32::NAN; k];
                    choose(&scores, &mut vec![9; scores.len()], &mut chosen);
                    assert!(chosen == best(&scores, k), "{k} of {} in row {row}", scores.len());
                }
            }
        }
    }
}
