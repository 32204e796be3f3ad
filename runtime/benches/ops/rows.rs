//! Ops that work row by row: a row of a model's size, which stays in the first-level cache.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use handmill_runtime::cases::{argmax::argmaxes, random, row_tables::row_cases};
use handmill_runtime::cpu::ops::rope_cos_sin;

use super::{isa, kernels};

/// Elements of a row.
const ROW: usize = 1536;

pub fn rows(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("rows, {}", isa().name()));
    for case in row_cases().into_iter().filter(|case| case.speed) {
        let elements = case.input_widths().iter().sum::<usize>() + case.width;
        group.throughput(Throughput::Bytes(4 * elements as u64));
        let mut row = case.cpu_row(0);
        group.bench_function(case.name(), |b| b.iter(|| case.run(kernels(), black_box(&mut row))));
    }
    group.finish();
}

/// Between f32 and the 16-bit floats.
pub fn conversions(c: &mut Criterion) {
    let (k, x) = (kernels(), random(1, ROW));
    let (mut halves, mut out) = (vec![0u16; ROW], vec![0.0; ROW]);
    let mut group = c.benchmark_group(format!("conversions of {ROW}, {}", isa().name()));
    group.throughput(Throughput::Bytes(6 * ROW as u64));
    group.bench_function("f32_to_f16", |b| b.iter(|| (k.f32_to_f16)(&x, black_box(&mut halves))));
    group.bench_function("f16_to_f32", |b| b.iter(|| (k.f16_to_f32)(&halves, black_box(&mut out))));
    group.bench_function("bf16_to_f32", |b| b.iter(|| (k.bf16_to_f32)(&halves, black_box(&mut out))));
    group.finish();
}

pub fn argmax(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("argmax, {}", isa().name()));
    for case in argmaxes().into_iter().filter(|case| case.speed) {
        group.throughput(Throughput::Bytes(4 * case.n as u64));
        let (logits, _) = &case.rows[0];
        group.bench_function(format!("{} logits", case.n), |b| b.iter(|| (kernels().argmax)(black_box(logits))));
    }
    group.finish();
}

/// The angles of a token's rotations.
pub fn angles(c: &mut Criterion) {
    let (mut cos, mut sin) = (vec![0.0; 32], vec![0.0; 32]);
    let inv_freq: Vec<f32> = (0..32).map(|i| 10000f32.powf(-(i as f32) / 32.0)).collect();
    c.bench_function("rope_cos_sin of 32", |b| {
        b.iter(|| rope_cos_sin(&inv_freq, 1.0, black_box(1000), &mut cos, &mut sin));
    });
}
