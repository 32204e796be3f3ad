//! Cases of the choice of experts.

use super::{
    rows::{A, RowCase, vectors},
    sigmoid,
};
use crate::{
    cpu::ops::route::RouteVectors,
    graph::{GroupScore, RouteGroups, RouteOp, RouteScore, RouteWeight, RowOp, WeightId},
};

/// Every kind of score, weight and group, over odd numbers of experts.
pub(super) fn routes() -> Vec<RowCase> {
    let mut cases = Vec::new();
    for (n, k) in [(1, 1), (4, 2), (7, 3), (12, 4), (61, 1), (128, 8), (250, 10)] {
        cases.extend(of_experts(n, k).into_iter().map(|op| case(op, false)));
    }
    // Qwen3-30B-A3B, DeepSeek V3, gpt-oss-120b, Phi-3.5-MoE.
    let groups = Some(RouteGroups { n: 8, keep: 4, score: GroupScore::BestTwo });
    let (score, bias) = (RouteScore::Sigmoid, Some(WeightId(0)));
    let sparse = RouteScore::SparseMixer { jitter: 0.01 };
    cases.extend(
        [
            RouteOp { renormalise: Some(0.0), ..RouteOp::softmax(128, 8) },
            RouteOp { score, bias, groups, renormalise: Some(1e-20), scale: 2.5, ..RouteOp::softmax(256, 8) },
            RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..RouteOp::softmax(128, 4) },
            RouteOp { score: sparse, ..RouteOp::softmax(16, 2) },
        ]
        .map(|op| case(op, true)),
    );
    cases
}

fn of_experts(n: usize, k: usize) -> Vec<RouteOp> {
    let [bias, expert_scale, table] = [0, 1, 2].map(|i| Some(WeightId(i)));
    let plain = RouteOp::softmax(n, k);
    let mut ops = vec![
        plain.clone(),
        RouteOp { renormalise: Some(0.0), expert_scale, ..plain.clone() },
        RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..plain.clone() },
        RouteOp { score: RouteScore::Raw, weight: RouteWeight::Sigmoid, ..plain.clone() },
        RouteOp { score: RouteScore::SparseMixer { jitter: 0.01 }, ..plain.clone() },
        RouteOp { score: RouteScore::SparseMixer { jitter: 0.4 }, ..plain.clone() },
    ];
    for score in [RouteScore::Sigmoid, RouteScore::SqrtSoftplus] {
        let op = RouteOp { score, bias, renormalise: Some(1e-20), scale: 2.5, ..plain.clone() };
        ops.extend([RouteOp { table, ..op.clone() }, op]);
    }
    for (score, groups, keep) in [(GroupScore::Best, 2, 1), (GroupScore::BestTwo, 4, 3), (GroupScore::BestTwo, n, n)] {
        if n.is_multiple_of(groups) && keep * (n / groups) >= k {
            let groups = Some(RouteGroups { n: groups, keep, score });
            ops.push(RouteOp { groups, ..plain.clone() });
            ops.push(RouteOp { groups, bias, score: RouteScore::Sigmoid, ..plain.clone() });
        }
    }
    ops
}

fn case(op: RouteOp, speed: bool) -> RowCase {
    let (n, k) = (op.n_experts, op.k);
    let mut vectors = vectors(&[n, n]);
    // No expert twice for a token.
    vectors.push((0..RowCase::VOCABULARY * k).map(|i| ((i % k + i / k) % n) as f32).collect());
    RowCase { vectors, size: 4.0, speed, ..RowCase::new(RowOp::Route { src: A, route: op }, 2 * k) }
}

/// Why a route is not what the reference says, if so: other experts, or weights that are `tolerance` and more off.
pub fn route_differs(out: &[f32], reference: &[f64], tolerance: f64) -> Option<String> {
    let k = reference.len() / 2;
    (0..k).find_map(|slot| {
        let (id, weight) = (f64::from(out[slot]), f64::from(out[k + slot]));
        let (want_id, want) = (reference[slot], reference[k + slot]);
        let same = id == want_id && (weight - want).abs() <= tolerance * want.abs().max(1e-3);
        (!same).then(|| format!("slot {slot} has expert {id} with {weight}, not {want_id} with {want}"))
    })
}

/// Experts and their weights as the op's documentation says, in f64 and with sorts.
pub(super) fn route_f64(op: &RouteOp, v: RouteVectors<'_>, x: &[f64]) -> Vec<f64> {
    let n = op.n_experts;
    let soft = |x: &[f64]| {
        let sum: f64 = x.iter().map(|v| v.exp()).sum();
        x.iter().map(|v| v.exp() / sum).collect::<Vec<_>>()
    };
    let scores: Vec<f64> = match op.score {
        RouteScore::Softmax => soft(x),
        RouteScore::Sigmoid => x.iter().map(|v| sigmoid(*v)).collect(),
        RouteScore::SqrtSoftplus => x.iter().map(|v| v.exp().ln_1p().sqrt()).collect(),
        RouteScore::Raw | RouteScore::SparseMixer { .. } => x.to_vec(),
    };
    let choice: Vec<f64> = (0..n).map(|e| scores[e] + v.bias.map_or(0.0, |b| f64::from(b[e]))).collect();
    let mut allowed = vec![true; n];
    if let Some(g) = op.groups {
        let size = n / g.n;
        let mut judged: Vec<(f64, usize)> = (0..g.n)
            .map(|i| {
                let mut group = choice[i * size..][..size].to_vec();
                group.sort_by(|a, b| b.total_cmp(a));
                let take = if g.score == GroupScore::Best { 1 } else { 2 };
                (group.iter().take(take).sum(), i)
            })
            .collect();
        judged.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        allowed = vec![false; n];
        judged[..g.keep].iter().for_each(|(_, i)| allowed[i * size..][..size].fill(true));
    }
    let mut order: Vec<usize> = (0..n).filter(|e| allowed[*e]).collect();
    order.sort_by(|a, b| choice[*b].total_cmp(&choice[*a]).then(a.cmp(b)));
    let ids: Vec<usize> = match v.fixed {
        Some(fixed) => fixed.iter().map(|f| *f as usize).collect(),
        None => order[..op.k].to_vec(),
    };
    let mut w: Vec<f64> = ids.iter().map(|e| scores[*e]).collect();
    if let RouteScore::SparseMixer { jitter } = op.score {
        for (slot, id) in ids.iter().enumerate() {
            let close = |e: &usize| (x[*id] - x[*e]) / x[*e].abs().max(x[*id]) <= 2.0 * f64::from(jitter);
            let left = (0..n).filter(|e| !ids[..slot].contains(e)).filter(close);
            w[slot] = 1.0 / left.map(|e| (x[e] - x[*id]).exp()).sum::<f64>();
        }
    }
    match op.weight {
        RouteWeight::Score => {}
        RouteWeight::Softmax => w = soft(&w),
        RouteWeight::Sigmoid => w.iter_mut().for_each(|w| *w = sigmoid(*w)),
    }
    if let Some(epsilon) = op.renormalise {
        let sum: f64 = w.iter().sum::<f64>() + f64::from(epsilon);
        w.iter_mut().for_each(|w| *w /= sum);
    }
    for (w, e) in w.iter_mut().zip(&ids) {
        *w *= f64::from(op.scale) * v.expert_scale.map_or(1.0, |s| f64::from(s[*e]));
    }
    ids.iter().map(|e| *e as f64).chain(w).collect()
}
