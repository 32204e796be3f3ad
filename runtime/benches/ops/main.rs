//! One thread's speed at each op: `cargo bench -p handmill-runtime --features cases --bench ops [filter]`.
//!
//! It times those of the cases in `cases` that have a model's size. `HANDMILL_CPU` chooses the instruction set. Ops count
//! bytes read and written, prompts' attention counts flops (multiplications and additions of visible pairs of query and key
//! only), to be held against `fma_peak` of the same run.

mod attention;
mod graphs;
mod linear;
mod rows;
mod sequences;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handmill_runtime::cpu::arch::{Isa, Simd};
use handmill_runtime::cpu::ops::{OpKernels, op_kernels};
use handmill_runtime::simd_dispatch;

fn isa() -> Isa {
    Isa::from_env().unwrap_or(Isa::Generic)
}

fn kernels() -> &'static OpKernels {
    op_kernels(isa())
}

simd_dispatch!(fn fma_chain(rounds: usize) -> f32 = fma_chain_impl);

/// Twelve independent chains: enough to cover the latency of two units.
#[inline(always)]
fn fma_chain_impl<S: Simd>(s: S, rounds: usize) -> f32 {
    let (a, b) = (s.splat(black_box(0.999)), s.splat(black_box(0.5)));
    let mut sums = [s.zero(); 12];
    for _ in 0..rounds {
        for sum in &mut sums {
            *sum = s.mul_add(*sum, a, b);
        }
    }
    sums.into_iter().map(|sum| s.reduce_sum(sum)).sum()
}

#[inline(always)]
fn lanes_impl<S: Simd>(_: S) -> usize {
    S::LANES
}
simd_dispatch!(fn lanes() -> usize = lanes_impl);

fn peak(c: &mut Criterion) {
    let mut group = c.benchmark_group("fma_peak");
    let flops = 1000 * 12 * 2 * lanes(isa())();
    group.throughput(Throughput::Elements(flops as u64));
    group.bench_function(isa().name(), |b| b.iter(|| fma_chain(isa())(black_box(1000))));
    group.finish();
}

criterion_group!(
    benches,
    peak,
    rows::rows,
    rows::conversions,
    rows::argmax,
    rows::angles,
    sequences::short_conv,
    sequences::gated_delta,
    sequences::pool,
    sequences::select,
    graphs::experts,
    graphs::head_linear,
    linear::linears,
    linear::quantize,
    linear::embed,
    attention::prompt,
    attention::decode
);
criterion_main!(benches);
