//! Ops over a sequence's past: states, pooled blocks and the choice of keys.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use handmill_runtime::cases::{
    pool::pools,
    recurrent::{Before, gated_deltas, short_convs},
    select::{CHOICES, scores, selects},
};
use handmill_runtime::cpu::ops::attention::select::choose;

use super::{isa, kernels};

/// Tokens of a step.
const STEPS: [usize; 2] = [1, 64];

/// Bytes of inputs, results, weights, and of the state read and written.
pub fn short_conv(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("short_conv, {}", isa().name()));
    for case in short_convs().into_iter().filter(|case| case.speed) {
        for n in STEPS {
            let (weight, x) = (case.turned_weight(), case.inputs(n));
            let (mut state, mut out) = (vec![0.0; case.state_len()], vec![0.0; x.len()]);
            let bytes = 4 * (2 * x.len() + weight.len() + 2 * state.len());
            group.throughput(Throughput::Bytes(bytes as u64));
            group.bench_function(format!("{}, {n} tokens", case.name()), |b| {
                b.iter(|| case.run(kernels(), &weight, &x, Before::InPlace, &mut state, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

/// Bytes of the state, read and written once a step.
pub fn gated_delta(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("gated_delta, {}", isa().name()));
    for case in gated_deltas().into_iter().filter(|case| case.speed) {
        for n in STEPS {
            let x = case.inputs(n);
            let (mut state, mut out) = (vec![0.0; case.state_len()], vec![0.0; n * case.widths()[2]]);
            group.throughput(Throughput::Bytes(8 * state.len() as u64));
            group.bench_function(format!("{}, {n} tokens", case.name()), |b| {
                b.iter(|| case.run(kernels(), &x, 0..n, Before::InPlace, &mut state, black_box(&mut out)));
            });
        }
    }
    group.finish();
}

/// Bytes of the rows and gates that a block is made of.
pub fn pool(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("pool, {}", isa().name()));
    for case in pools().into_iter().filter(|case| case.speed) {
        let rows = case.rows(2 * case.op.block);
        let (cache, bias) = (case.cache(&rows), case.bias());
        let (mut scratch, mut out) = (vec![0.0; case.scratch_len()], vec![0.0; case.op.width]);
        group.throughput(Throughput::Bytes((2 * case.op.reach() * case.kv.row_bytes(case.op.width)) as u64));
        group.bench_function(case.name(), |b| {
            b.iter(|| case.run(kernels(), &cache, &bias, 1, &mut scratch, black_box(&mut out)));
        });
    }
    group.finish();
}

/// Flops of the scores of all keys; the choice among given ones reads their bytes.
pub fn select(c: &mut Criterion) {
    const KEYS: usize = 4096;
    let mut group = c.benchmark_group(format!("select, {}", isa().name()));
    for case in selects().into_iter().filter(|case| case.speed) {
        let (cache, query) = (case.cache(&case.keys(KEYS)), case.query());
        let mut scores = vec![0.0; KEYS];
        group.throughput(Throughput::Elements((2 * KEYS * case.op.n_heads * case.op.head_dim) as u64));
        group.bench_function(format!("scores, {}", case.name()), |b| {
            b.iter(|| case.run(kernels(), &cache, &query, black_box(&mut scores)));
        });
    }
    for case in CHOICES.into_iter().filter(|case| case.speed) {
        // Spread over all exponents, as row 2 has them.
        let scores = scores(2, case.longest());
        let (mut order, mut out) = (vec![0; scores.len()], vec![0.0; case.k]);
        group.throughput(Throughput::Bytes(4 * scores.len() as u64));
        group.bench_function(format!("the best {} of {}", case.k, scores.len()), |b| {
            b.iter(|| choose(&scores, &mut order, black_box(&mut out)));
        });
    }
    group.finish();
}
