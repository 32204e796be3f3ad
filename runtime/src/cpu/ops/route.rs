//! The choice of experts: for each row of logits the `k` experts with the best scores, and their weights.
//!
//! Logits `[n_experts]` f32; the result is `[2 k]` f32: the experts' numbers, best first (the lower number of equals),
//! then their weights. A row takes about `n_experts` exponentials and `k · n_experts` comparisons: little beside the
//! linears of one expert, so this is plain scalar code.

use crate::graph::{GroupScore, RouteOp, RouteScore, RouteWeight};

/// Floats of scratch that [`route`] needs: the scores, and the same with the bias of the choice.
pub fn scratch_len(op: &RouteOp) -> usize {
    2 * op.n_experts
}

/// Vectors of a [`RouteOp`] that are read by expert.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteVectors<'a> {
    /// Added to scores for the choice.
    pub bias: Option<&'a [f32]>,
    /// Factors on weights.
    pub expert_scale: Option<&'a [f32]>,
    /// The experts that the row's token always has.
    pub fixed: Option<&'a [f32]>,
}

/// Chooses `op.k` experts by `logits`. Their numbers are below `n_experts` for any logits, NaN included.
///
/// # Panics
/// If a slice is shorter than the op says, or `scratch` than [`scratch_len`].
pub fn route(op: &RouteOp, vectors: RouteVectors<'_>, logits: &[f32], scratch: &mut [f32], out: &mut [f32]) {
    let (n, k) = (op.n_experts, op.k);
    let (scores, choice) = scratch[..2 * n].split_at_mut(n);
    let (ids, weights) = out[..2 * k].split_at_mut(k);
    score(op.score, &logits[..n], scores);
    choice.copy_from_slice(scores);
    if let Some(bias) = vectors.bias {
        choice.iter_mut().zip(bias).for_each(|(c, b)| *c += b);
    }
    if let Some(groups) = op.groups {
        keep_groups(groups.score, groups.keep, n / groups.n, choice);
    }
    for slot in 0..k {
        let id = match vectors.fixed {
            Some(fixed) => (fixed[slot] as usize).min(n - 1),
            None => best(choice),
        };
        ids[slot] = id as f32;
        weights[slot] = match op.score {
            RouteScore::SparseMixer { jitter } => sparse_share(&logits[..n], choice, id, jitter),
            _ => scores[id],
        };
        choice[id] = GONE;
    }
    match op.weight {
        RouteWeight::Score => {}
        RouteWeight::Softmax => softmax(weights),
        RouteWeight::Sigmoid => weights.iter_mut().for_each(|w| *w = sigmoid(*w)),
    }
    if let Some(epsilon) = op.renormalise {
        let sum = weights.iter().sum::<f32>() + epsilon;
        weights.iter_mut().for_each(|w| *w /= sum);
    }
    for (weight, id) in weights.iter_mut().zip(ids) {
        *weight *= op.scale * vectors.expert_scale.map_or(1.0, |s| s[*id as usize]);
    }
}

/// Mark of an expert that can no longer be chosen: below all scores, which are finite in any model that works.
const GONE: f32 = f32::NEG_INFINITY;

fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

fn score(kind: RouteScore, logits: &[f32], scores: &mut [f32]) {
    for (score, &x) in scores.iter_mut().zip(logits) {
        *score = match kind {
            RouteScore::Sigmoid => sigmoid(x),
            // ln(1 + e^x) without overflow.
            RouteScore::SqrtSoftplus => (x.max(0.0) + (-x.abs()).exp().ln_1p()).sqrt(),
            RouteScore::Softmax | RouteScore::Raw | RouteScore::SparseMixer { .. } => x,
        };
    }
    if kind == RouteScore::Softmax {
        softmax(scores);
    }
}

fn softmax(x: &mut [f32]) {
    let max = x.iter().fold(f32::NEG_INFINITY, |m, v| m.max(*v));
    let mut sum = 0.0;
    for v in &mut *x {
        *v = (*v - max).exp();
        sum += *v;
    }
    x.iter_mut().for_each(|v| *v /= sum);
}

/// The index of the greatest element: of equals the first, and 0 where none is above [`GONE`].
fn best(choice: &[f32]) -> usize {
    let mut best = 0;
    for (i, v) in choice.iter().enumerate() {
        if *v > choice[best] {
            best = i;
        }
    }
    best
}

/// Marks all experts outside the `keep` best groups of `size`.
fn keep_groups(by: GroupScore, keep: usize, size: usize, choice: &mut [f32]) {
    let score = |group: &[f32]| {
        let (mut first, mut second) = (GONE, GONE);
        for &v in group {
            if v > first {
                (first, second) = (v, first);
            } else if v > second {
                second = v;
            }
        }
        match by {
            GroupScore::Best => first,
            GroupScore::BestTwo if size > 1 => first + second,
            GroupScore::BestTwo => first,
        }
    };
    let n = choice.len() / size;
    // Walks down from the best group, and so needs no list of groups: `last` is the score of the last group kept, and
    // the least number that a group of equal score must have to come after it.
    let mut last = (f32::INFINITY, 0);
    for _ in 0..keep {
        let mut next: Option<(f32, usize)> = None;
        for g in 0..n {
            let s = score(&choice[g * size..][..size]);
            let after = s < last.0 || s == last.0 && g >= last.1;
            if after && next.is_none_or(|(b, _)| s > b) {
                next = Some((s, g));
            }
        }
        let Some((s, g)) = next else { break };
        last = (s, g + 1);
    }
    for g in 0..n {
        let s = score(&choice[g * size..][..size]);
        if s < last.0 || s == last.0 && g >= last.1 {
            choice[g * size..][..size].fill(GONE);
        }
    }
}

/// The weight of `id` among the experts that are left in `choice` and close to the best of them.
fn sparse_share(logits: &[f32], choice: &[f32], id: usize, jitter: f32) -> f32 {
    let best = logits[id];
    let close = |s: f32| (best - s) / s.abs().max(best) <= 2.0 * jitter;
    let left = logits.iter().zip(choice).filter(|(s, c)| **c > GONE && close(**s));
    1.0 / left.map(|(s, _)| (s - best).exp()).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cases::row_tables::row_cases, graph::RowOp};

    /// With any logits of a broken model experts exist, and a NaN shows in the weights.
    #[test]
    fn numbers_are_always_those_of_experts() {
        for case in row_cases() {
            let RowOp::Route { route: op, .. } = case.op else { continue };
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut out = vec![f32::NAN; 2 * op.k];
                let mut scratch = vec![f32::NAN; scratch_len(&op)];
                route(&op, RouteVectors::default(), &vec![bad; op.n_experts], &mut scratch, &mut out);
                assert!(out[..op.k].iter().all(|id| (0.0..op.n_experts as f32).contains(id)), "{op:?}: {out:?}");
            }
        }
    }
}
