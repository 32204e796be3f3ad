//! Attention over cached keys and values.

use std::hint::black_box;

use criterion::{Criterion, Throughput};
use handmill_runtime::cases::attention::{AttentionCase, models};
use handmill_runtime::cpu::ops::attention::{DecodeItem, PromptItem};

use super::{isa, kernels};

/// Cases of one token, or of several.
fn cases(single: bool) -> impl Iterator<Item = AttentionCase> {
    models().into_iter().filter(move |case| case.speed && (case.sequences[0].0 == 1) == single)
}

fn name(case: &AttentionCase) -> String {
    let (op, (n_tokens, len)) = (&case.op, case.sequences[0]);
    format!("{n_tokens} of {len}, {}/{} heads of {} {:?}", op.n_heads, op.n_kv_heads, op.head_dim, case.kv)
}

pub fn prompt(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("attention_prompt, {}", isa().name()));
    for case in cases(false) {
        let ((n_tokens, len), p) = (case.sequences[0], case.params(&None));
        let (cache, q) = (case.paged(0, &case.cached(0)), case.queries(0));
        let mut out = vec![0.0; n_tokens * p.n_heads * p.v_dim];
        let mut scratch = vec![0.0; p.scratch_len()];
        let visible: usize = (len - n_tokens..len).map(|position| p.visible(position, len).len()).sum();
        group.throughput(Throughput::Elements((4 * visible * p.n_heads * p.head_dim) as u64));
        group.bench_function(name(&case), |b| {
            b.iter(|| {
                let kv = cache.view(len);
                for kv_head in 0..p.n_kv_heads {
                    for tile in 0..p.prompt_tiles(n_tokens) {
                        let item = PromptItem {
                            params: &p,
                            kv: &kv,
                            kv_head,
                            tile,
                            q: &q,
                            q_stride: p.n_heads * p.head_dim,
                            out: out.as_mut_ptr(),
                            out_stride: p.n_heads * p.v_dim,
                            n_tokens,
                            first_position: len - n_tokens,
                        };
                        // SAFETY: `kv` describes the cache, and `out` has a row for every token.
                        unsafe { (kernels().attention_prompt)(&item, &mut scratch) };
                    }
                }
                black_box(&mut out);
            });
        });
    }
    group.finish();
}

pub fn decode(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("attention_decode, {}", isa().name()));
    for case in cases(true) {
        let (len, p) = (case.sequences[0].1, case.params(&None));
        let (cache, q) = (case.paged(0, &case.cached(0)), case.queries(0));
        let mut out = vec![0.0; p.n_heads * p.v_dim];
        let mut scratch = vec![0.0; p.scratch_len()];
        let pieces = p.pieces(len - 1, len);
        let mut partials = vec![0.0; pieces.len() * p.partial_len()];
        group.throughput(Throughput::Bytes((2 * case.kv.row_bytes(p.head_dim) * len * p.n_kv_heads) as u64));
        group.bench_function(name(&case), |b| {
            b.iter(|| {
                let kv = cache.view(len);
                for (kv_head, out) in out.chunks_mut(p.group() * p.v_dim).enumerate() {
                    for (piece, partial) in pieces.clone().zip(partials.chunks_mut(p.partial_len())) {
                        let position = len - 1;
                        let item = DecodeItem { params: &p, kv: &kv, kv_head, q: &q, position, piece, keys: None };
                        // SAFETY: `kv` describes the cache.
                        unsafe { (kernels().attention_decode)(&item, &mut scratch, partial) };
                    }
                    (kernels().attention_merge)(&p, kv_head, &partials, out);
                }
                black_box(&mut out);
            });
        });
    }
    group.finish();
}
