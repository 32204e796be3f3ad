//! Products with weights. One and four tokens print bytes of weights a second, prompts operations a second; the example
//! `linear_speed` compares with what the memory gives. Embeddings print bytes of the table.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use handmill_runtime::{
    cases::linear::{LinearCase, embeds, model_linears},
    cpu::ops::{LinearKernels, WeightRows, linear_kernels},
    format::{Bytes, Tensor},
    quant::DType,
};

use super::isa;

/// A case's activations in the form that its kernel wants.
fn activations(kernels: &LinearKernels, case: &LinearCase) -> Vec<u8> {
    let form = kernels.act_form(case.dtype, case.tokens);
    let stride = kernels.act_row_bytes(form, case.k);
    let mut acts = vec![0; stride * case.tokens];
    for (x, out) in case.activations().iter().zip(acts.chunks_exact_mut(stride)) {
        kernels.quantize_row(form, x, out);
    }
    acts
}

pub fn linears(c: &mut Criterion) {
    let kernels = linear_kernels(isa());
    let mut group = c.benchmark_group(format!("linear, {}", isa().name()));
    for case in model_linears() {
        let LinearCase { dtype, rows, k, tokens, .. } = case;
        let few = tokens <= LinearKernels::MAT_VEC_TOKENS;
        let mut made = None;
        let bytes = dtype.row_bytes(k).expect("whole blocks");
        group.throughput(match few {
            true => Throughput::Bytes((rows * bytes) as u64),
            false => Throughput::Elements(case.flops() as u64),
        });
        let step = kernels.panel_rows(dtype, k);
        group.bench_function(case.name(), |b| {
            // Made only for cases that the filter lets through.
            let (w, acts) = made.get_or_insert_with(|| (case.weights(), activations(kernels, &case)));
            let mut out = vec![0f32; rows * tokens];
            let mut panel = vec![0; if few { 0 } else { kernels.panel_bytes(dtype, k) }];
            if few {
                // SAFETY: `out` has room for all rows of all tokens.
                b.iter(|| unsafe {
                    kernels.mat_vec(WeightRows::new(dtype, rows, k, w), acts, tokens, out.as_mut_ptr(), rows)
                });
                return;
            }
            b.iter(|| {
                for row in (0..rows).step_by(step) {
                    let (n, w) = (step.min(rows - row), &w[row * bytes..]);
                    // SAFETY: `out` has room for all rows of all tokens.
                    unsafe {
                        let out = out.as_mut_ptr().add(row);
                        kernels.mat_mat(WeightRows::new(dtype, n, k, w), acts, tokens, out, rows, &mut panel);
                    }
                }
            });
        });
    }
    group.finish();
}

/// Making one token's activations into each form.
pub fn quantize(c: &mut Criterion) {
    let kernels = linear_kernels(isa());
    let mut group = c.benchmark_group(format!("quantize, {}", isa().name()));
    for dtype in [DType::Q4_1, DType::Q4_K] {
        let case = LinearCase { dtype, rows: 1, k: 1536, tokens: 1, tiles: false };
        let (form, x) = (kernels.act_form(dtype, 1), case.activations().remove(0));
        let mut out = vec![0; kernels.act_row_bytes(form, x.len())];
        group.throughput(Throughput::Elements(x.len() as u64));
        group.bench_function(format!("{form:?}"), |b| b.iter(|| kernels.quantize_row(form, &x, &mut out)));
    }
    group.finish();
}

/// Rows of a table.
pub fn embed(c: &mut Criterion) {
    let mut group = c.benchmark_group("embed");
    for case in embeds().into_iter().filter(|case| case.speed) {
        let table = Tensor::new(case.dtype, vec![case.rows, case.width], Bytes::heap(case.table()))
            .expect("a table of whole blocks");
        let mut row = vec![0f32; case.width];
        group.throughput(Throughput::Bytes(table.row_bytes() as u64));
        group.bench_function(format!("{} {}", case.dtype, case.width), |b| {
            let mut ids = (0..case.rows).cycle();
            b.iter(|| table.decode_row(ids.next().unwrap_or(0), black_box(&mut row)));
        });
    }
    group.finish();
}
