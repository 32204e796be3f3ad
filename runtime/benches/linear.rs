//! The linear kernels of every format on the best instruction set of this CPU, or the one in `HANDMILL_CPU`.
//!
//! `cargo bench -p handmill-runtime --bench linear [filter]`. Mat-vec (1 and 4 tokens) streams 4 MiB of weights and
//! prints bytes of weights a second; mat-mat prints operations a second (elements: 2·rows·k·tokens), for the shapes of a
//! model of 135 M parameters. The example `linear_speed` compares with what the memory gives.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use handmill_runtime::cpu::arch::Isa;
use handmill_runtime::cpu::ops::{LinearKernels, WeightRows, linear_kernels};
use handmill_runtime::quant::DType;

/// Bytes whose pairs are ordinary halves wherever a format may look for a scale.
fn weights(n: usize) -> Vec<u8> {
    (0..n as u32).map(|i| 0x20 | (i.wrapping_mul(2_654_435_761) >> 24) as u8 & 0x8f).collect()
}

fn activations(kernels: &LinearKernels, dtype: DType, k: usize, n_tokens: usize) -> Vec<u8> {
    let form = kernels.act_form(dtype, n_tokens);
    let stride = kernels.act_row_bytes(form, k);
    let mut acts = vec![0; stride * n_tokens];
    for (t, out) in acts.chunks_exact_mut(stride).enumerate() {
        let x: Vec<f32> = (0..k).map(|i| ((i * 31 + t * 17) % 61) as f32 / 30.0 - 1.0).collect();
        kernels.quantize_row(form, &x, out);
    }
    acts
}

fn mat_vec(c: &mut Criterion) {
    let kernels = linear_kernels(Isa::from_env().expect("HANDMILL_CPU names what this CPU has"));
    let w = weights(4 << 20);
    let mut group = c.benchmark_group("mat_vec");
    for dtype in DType::ALL {
        let k = 576usize.next_multiple_of(dtype.block_len());
        let n_rows = w.len() / dtype.row_bytes(k).expect("whole blocks");
        for n_tokens in [1, LinearKernels::MAT_VEC_TOKENS] {
            let acts = activations(kernels, dtype, k, n_tokens);
            let mut out = vec![0f32; n_rows * n_tokens];
            group.throughput(Throughput::Bytes(w.len() as u64));
            group.bench_function(BenchmarkId::new(dtype.name(), format!("{n_tokens} tokens")), |b| {
                // SAFETY: `out` has room for all rows of all tokens.
                b.iter(|| unsafe {
                    kernels.mat_vec(WeightRows::new(dtype, n_rows, k, &w), &acts, n_tokens, out.as_mut_ptr(), n_rows)
                });
            });
        }
    }
}

fn mat_mat(c: &mut Criterion) {
    let kernels = linear_kernels(Isa::from_env().expect("HANDMILL_CPU names what this CPU has"));
    let w = weights(8 << 20);
    let mut group = c.benchmark_group("mat_mat");
    for dtype in DType::ALL {
        for (n_rows, k, n_tokens) in [(1536, 576usize, 64), (576, 1536, 256)] {
            let k = k.next_multiple_of(dtype.block_len());
            let row_bytes = dtype.row_bytes(k).expect("whole blocks");
            let acts = activations(kernels, dtype, k, n_tokens);
            let mut out = vec![0f32; n_rows * n_tokens];
            let mut panel = vec![0; kernels.panel_bytes(dtype, k)];
            let step = kernels.panel_rows(dtype, k);
            group.throughput(Throughput::Elements(2 * (n_rows * k * n_tokens) as u64));
            group.bench_function(BenchmarkId::new(dtype.name(), format!("{n_rows}x{k}x{n_tokens}")), |b| {
                b.iter(|| {
                    for row in (0..n_rows).step_by(step) {
                        let (n, w) = (step.min(n_rows - row), &w[row * row_bytes..]);
                        // SAFETY: `out` has room for all rows of all tokens.
                        unsafe {
                            let out = out.as_mut_ptr().add(row);
                            kernels.mat_mat(WeightRows::new(dtype, n, k, w), &acts, n_tokens, out, n_rows, &mut panel);
                        }
                    }
                });
            });
        }
    }
}

/// Making one token's activations into each form.
fn quantize(c: &mut Criterion) {
    let kernels = linear_kernels(Isa::from_env().expect("HANDMILL_CPU names what this CPU has"));
    let x: Vec<f32> = (0..1536).map(|i| (i * 31 % 61) as f32 / 30.0 - 1.0).collect();
    let mut group = c.benchmark_group("quantize");
    for dtype in [DType::Q4_1, DType::Q4_K] {
        let form = kernels.act_form(dtype, 1);
        let mut out = vec![0; kernels.act_row_bytes(form, x.len())];
        group.throughput(Throughput::Elements(x.len() as u64));
        group.bench_function(format!("{form:?}"), |b| b.iter(|| kernels.quantize_row(form, &x, &mut out)));
    }
}

criterion_group!(benches, mat_vec, mat_mat, quantize);
criterion_main!(benches);
