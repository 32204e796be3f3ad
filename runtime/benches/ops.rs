//! One thread's speed at each op: `cargo bench -p handmill-runtime --bench ops [filter]`.
//!
//! `HANDMILL_CPU` chooses the instruction set. Elementwise ops count bytes read and written, attention counts flops
//! (multiplications and additions of visible pairs of query and key only), to be held against `fma_peak` of the same run.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use handmill_runtime::cpu::arch::{Isa, Simd};
use handmill_runtime::cpu::ops::attention::{AttentionParams, DecodeItem, KvPages, PromptItem};
use handmill_runtime::cpu::ops::columns::{columns, join};
use handmill_runtime::cpu::ops::{OpKernels, op_kernels, rope_cos_sin};
use handmill_runtime::graph::{Act, RopeLayout};
use handmill_runtime::simd_dispatch;
use handmill_runtime::step::KvType;

/// A row of the size of small models' MLPs.
const ROW: usize = 1536;

fn isa() -> Isa {
    Isa::from_env().unwrap_or(Isa::Generic)
}

fn kernels() -> &'static OpKernels {
    op_kernels(isa())
}

/// Numbers of the size that activations have.
fn numbers(n: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 7919) % 1000) as f32 / 500.0 - 1.0).collect()
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

fn elementwise(c: &mut Criterion) {
    let k = kernels();
    let (mut x, y, weight) = (numbers(ROW), numbers(ROW), numbers(ROW));
    let mut halves = vec![0u16; ROW];
    let (mut out, mut joined) = (vec![0.0; ROW], vec![0.0; ROW]);
    let mut group = c.benchmark_group(format!("elementwise of {ROW}, {}", isa().name()));
    let bytes = |n: usize| Throughput::Bytes((n * ROW) as u64);
    group.throughput(bytes(12));
    group.bench_function("rms_norm", |b| b.iter(|| (k.rms_norm)(&y, Some(&weight), 0.0, 1e-5, black_box(&mut out))));
    group.bench_function("layer_norm", |b| {
        b.iter(|| (k.layer_norm)(&y, Some(&weight), 0.0, None, 1e-5, black_box(&mut out)))
    });
    group.bench_function("add_assign", |b| b.iter(|| (k.add_assign)(black_box(&mut x), &y)));
    group.bench_function("add_scaled", |b| b.iter(|| (k.add_scaled)(black_box(&mut x), &y, 1e-3)));
    group.bench_function("mul_assign", |b| b.iter(|| (k.mul_assign)(black_box(&mut out), &weight)));
    let oss = Act::SwigluOss { alpha: 1.702, limit: 7.0 };
    for act in [Act::Silu, Act::GeluTanh, oss] {
        let name = format!("gated_act {}", act.name());
        group.bench_function(name, |b| b.iter(|| (k.gated_act)(act, &y, &weight, black_box(&mut out))));
    }
    group.throughput(bytes(8));
    for act in [Act::Sigmoid, Act::Tanh] {
        let name = format!("act {}", act.name());
        group.bench_function(name, |b| b.iter(|| (k.act)(act, &y, black_box(&mut out))));
    }
    let half = ROW / 2;
    group.bench_function("columns and join", |b| {
        b.iter(|| {
            columns(&y, [64, 0, 32], &mut out[..half]);
            columns(&y, [64, 32, 32], &mut x[..half]);
            join(&out[..half], &x[..half], [32, 32], black_box(&mut joined));
        })
    });
    group.bench_function("scale", |b| b.iter(|| (k.scale)(black_box(&mut x), 1.0)));
    group.bench_function("softcap", |b| b.iter(|| (k.softcap)(black_box(&mut x), 30.0)));
    group.throughput(bytes(6));
    group.bench_function("f32_to_f16", |b| b.iter(|| (k.f32_to_f16)(&y, black_box(&mut halves))));
    group.bench_function("f16_to_f32", |b| b.iter(|| (k.f16_to_f32)(&halves, black_box(&mut out))));
    group.bench_function("bf16_to_f32", |b| b.iter(|| (k.bf16_to_f32)(&halves, black_box(&mut out))));
    group.throughput(bytes(4));
    group.bench_function("argmax", |b| b.iter(|| (k.argmax)(black_box(&y))));
    group.throughput(bytes(8));
    let (mut cos, mut sin) = (vec![0.0; 32], vec![0.0; 32]);
    let inv_freq: Vec<f32> = (0..32).map(|i| 10000f32.powf(-(i as f32) / 32.0)).collect();
    rope_cos_sin(&inv_freq, 1.0, 1000, &mut cos, &mut sin);
    for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
        let name = format!("rope_heads {layout:?}");
        group.bench_function(name, |b| b.iter(|| (k.rope_heads)(black_box(&mut x), 64, 0, &cos, &sin, layout)));
    }
    group.finish();
    c.bench_function("rope_cos_sin of 32", |b| {
        b.iter(|| rope_cos_sin(&inv_freq, 1.0, black_box(1000), &mut cos, &mut sin));
    });
}

/// SmolLM2-135M, Qwen2.5-0.5B, gemma-3-270m: query heads, kv heads, head_dim.
const MODELS: [(usize, usize, usize); 3] = [(9, 3, 64), (14, 2, 64), (4, 1, 256)];

fn params((n_heads, n_kv_heads, head_dim): (usize, usize, usize)) -> AttentionParams<'static> {
    AttentionParams { n_heads, n_kv_heads, scale: 0.1, ..AttentionParams::one_head(head_dim, head_dim) }
}

const PAGE_TOKENS: usize = 32;

/// A cache of one layer, in one page after the other.
struct Cache {
    halves: Vec<u16>,
    pages: Vec<u32>,
    len: usize,
    half_page: usize,
}

impl Cache {
    fn new(p: &AttentionParams<'_>, len: usize) -> Self {
        let half_page = p.n_kv_heads * PAGE_TOKENS * p.head_dim * 2;
        let pages: Vec<u32> = (0..len.div_ceil(PAGE_TOKENS) as u32).collect();
        let mut halves = vec![0; pages.len() * half_page];
        (kernels().f32_to_f16)(&numbers(halves.len()), &mut halves);
        Cache { halves, pages, len, half_page }
    }

    fn kv(&self) -> KvPages<'_> {
        KvPages {
            base: self.halves.as_ptr().cast(),
            pages: &self.pages,
            page_bytes: 2 * self.half_page,
            page_tokens: PAGE_TOKENS,
            k_offset: 0,
            v_offset: self.half_page,
            kv: KvType::F16,
            first_page: 0,
            len: self.len,
        }
    }
}

fn prompt(c: &mut Criterion) {
    let mut group = c.benchmark_group(format!("attention_prompt of 512, {}", isa().name()));
    for model in MODELS {
        let p = params(model);
        let n_tokens = 512;
        let cache = Cache::new(&p, n_tokens);
        let q = numbers(n_tokens * p.n_heads * p.head_dim);
        let mut out = vec![0.0; n_tokens * p.n_heads * p.v_dim];
        let mut scratch = vec![0.0; p.scratch_len()];
        let visible = n_tokens * (n_tokens + 1) / 2;
        group.throughput(Throughput::Elements((4 * visible * p.n_heads * p.head_dim) as u64));
        group.bench_function(format!("{model:?}"), |b| {
            b.iter(|| {
                let kv = cache.kv();
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
                            first_position: 0,
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

fn decode(c: &mut Criterion) {
    for len in [64, 1024, 8192] {
        let mut group = c.benchmark_group(format!("attention_decode at {len}, {}", isa().name()));
        for model in MODELS {
            let p = params(model);
            let cache = Cache::new(&p, len);
            let q = numbers(p.n_heads * p.head_dim);
            let mut out = vec![0.0; p.n_heads * p.v_dim];
            let mut scratch = vec![0.0; p.scratch_len()];
            let pieces = p.pieces(len - 1, len);
            let mut partials = vec![0.0; pieces.len() * p.partial_len()];
            group.throughput(Throughput::Bytes((4 * len * p.n_kv_heads * p.head_dim) as u64));
            group.bench_function(format!("{model:?}"), |b| {
                b.iter(|| {
                    let kv = cache.kv();
                    for (kv_head, out) in out.chunks_mut(p.group() * p.v_dim).enumerate() {
                        for (piece, partial) in pieces.clone().zip(partials.chunks_mut(p.partial_len())) {
                            let item = DecodeItem {
                                params: &p,
                                kv: &kv,
                                kv_head,
                                q: &q,
                                position: len - 1,
                                piece,
                                keys: None,
                            };
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
}

criterion_group!(benches, peak, elementwise, prompt, decode);
criterion_main!(benches);
