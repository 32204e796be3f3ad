//! Steps of attention alone: a row's result has the same bits whatever company it has.

use super::{CpuBackend, CpuOptions};
use crate::{
    Backend, Precision,
    cases::{attention::BASE, random, relative_error},
    format::Tensor,
    graph::{AttentionOp, CacheSpec, Device, GraphBuilder, Op, Plan, RopeFreqs, RopeLayout, RopeSpec},
    step::{KvType, Outputs, SequenceKv, SequenceStep},
};

const VOCABULARY: usize = 50;

/// Queries, keys and values are rows of three tables.
fn plan(n_heads: usize, dim: usize, window: Option<usize>) -> Plan {
    let n_kv_heads = 2;
    let mut b = GraphBuilder::new();
    let cache = b.cache(CacheSpec { window, ..CacheSpec::new(n_kv_heads, dim, dim) });
    let inputs = [(n_heads, 1), (n_kv_heads, 2), (n_kv_heads, 3)].map(|(heads, seed)| {
        let table: Vec<f32> = random(seed, VOCABULARY * heads * dim).into_iter().map(|x| 2.0 * x).collect();
        let table = b.weight(&format!("w{seed}"), Tensor::from_f32(vec![VOCABULARY, heads * dim], &table).unwrap());
        b.embed(&format!("e{seed}"), table, 1.0).unwrap()
    });
    let op = AttentionOp { cache, n_heads, n_kv_heads, head_dim: dim, v_dim: dim, window, ..BASE };
    let out = b.attention("attention", inputs, op).unwrap();
    let out = b.op("select", Op::SelectOutputs, &[out]).unwrap();
    Plan::new(b.finish(out), |_, _, _| Ok(Device::Cpu)).unwrap()
}

fn tokens(sequence: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7 + i * i / 3 + sequence * 11) % VOCABULARY) as u32).collect()
}

fn backend(plan: &Plan, kv_type: KvType, threads: usize) -> CpuBackend {
    let options = CpuOptions { kv_type, threads, precision: Precision::Exact, ..CpuOptions::default() };
    CpuBackend::new(plan.clone(), &options).unwrap()
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_has_one_result_in_any_company() {
    // Tokens cached before, and rows of the step: short and long sequences that decode beside prompts.
    const SEQUENCES: [(usize, usize); 6] = [(40, 1), (300, 1), (200, 70), (0, 5), (450, 1), (0, 1)];
    for (n_heads, dim, window, kv) in [
        (6, 24, None, KvType::F16),
        (6, 24, Some(150), KvType::F16),
        (18, 24, None, KvType::F32),
        (34, 24, Some(20), KvType::F16),
        (6, 64, None, KvType::Q8_0),
    ] {
        let plan = plan(n_heads, dim, window);
        // Every token in a step of its own.
        let alone: Vec<Vec<u32>> = (0..SEQUENCES.len())
            .map(|s| {
                let (cached, rows) = SEQUENCES[s];
                let (mut backend, mut kv) = (backend(&plan, kv, 1), SequenceKv::default());
                let mut out = Vec::new();
                for token in tokens(s, cached + rows) {
                    let step = SequenceStep::new(&mut kv, std::slice::from_ref(&token), Outputs::All);
                    out.push(bits(backend.forward(&mut [step]).unwrap()));
                }
                out[cached..].concat()
            })
            .collect();
        for threads in 1..=3 {
            for company in [&[0, 1, 2, 3, 4, 5][..], &[0, 1, 4], &[0, 5], &[2, 3], &[3, 0], &[5, 2]] {
                let mut backend = backend(&plan, kv, threads);
                let all: Vec<Vec<u32>> = company.iter().map(|&s| tokens(s, SEQUENCES[s].0 + SEQUENCES[s].1)).collect();
                let mut kvs: Vec<SequenceKv> = company.iter().map(|_| SequenceKv::default()).collect();
                for ((kv, all), &s) in kvs.iter_mut().zip(&all).zip(company) {
                    // Parts whose borders are nobody's borders.
                    for part in all[..SEQUENCES[s].0].chunks(37) {
                        backend.forward(&mut [SequenceStep::new(kv, part, Outputs::All)]).unwrap();
                    }
                }
                let mut steps: Vec<SequenceStep<'_>> = kvs
                    .iter_mut()
                    .zip(&all)
                    .zip(company)
                    .map(|((kv, all), &s)| SequenceStep::new(kv, &all[SEQUENCES[s].0..], Outputs::All))
                    .collect();
                let together = bits(backend.forward(&mut steps).unwrap());
                let expected: Vec<u32> = company.iter().flat_map(|&s| alone[s].clone()).collect();
                assert!(together == expected, "{n_heads} heads, {window:?}, {kv:?}, {company:?}, {threads} threads");
            }
        }
    }
}

/// Attention whose keys have biases, large ones in pairs that hardly turn, as Qwen2.5's have.
fn biased(layout: RopeLayout, rotary_dims: usize, changed: AttentionOp) -> Plan {
    let (n_heads, n_kv_heads, dim) = (4, 2, 64);
    let mut b = GraphBuilder::new();
    let table = Tensor::from_f32(vec![VOCABULARY, 96], &random(1, VOCABULARY * 96)).unwrap();
    let table = b.weight("table", table);
    let x = b.embed("embed", table, 1.0).unwrap();
    let freqs = RopeSpec::base_inv_freq(1e6, rotary_dims.max(2));
    let pair = |j: usize| match layout {
        RopeLayout::Half => [j, j + rotary_dims / 2],
        RopeLayout::Interleaved => [2 * j, 2 * j + 1],
    };
    let mut bias: Vec<f32> = random(2, n_kv_heads * dim).into_iter().map(|x| 200.0 * x).collect();
    for head in bias.chunks_exact_mut(dim) {
        let turning = (0..rotary_dims / 2).filter(|j| freqs[*j] > 3e-5);
        turning.flat_map(pair).for_each(|at| head[at] /= 200.0);
    }
    let mut input = |name: &str, heads: usize, seed: u64, bias: Option<&[f32]>| {
        let w: Vec<f32> = random(seed, heads * dim * 96).into_iter().map(|x| 0.2 * x).collect();
        let w = b.weight(name, Tensor::from_f32(vec![heads * dim, 96], &w).unwrap());
        let bias = bias.map(|x| b.weight("bias", Tensor::from_f32(vec![x.len()], x).unwrap()));
        b.linear(name, x, w, bias).unwrap()
    };
    let [q, k, v] = [("q", n_heads, 3, None), ("k", n_kv_heads, 4, Some(&bias[..])), ("v", n_kv_heads, 5, None)]
        .map(|(name, heads, seed, bias)| input(name, heads, seed, bias));
    let [q, k] = [("q rope", q), ("k rope", k)].map(|(name, x)| match rotary_dims {
        0 => x,
        _ => {
            let plain = RopeSpec::new(layout, rotary_dims, RopeFreqs::Fixed(freqs.clone()));
            let rope = b.rope_spec(RopeSpec { attention_factor: 1.25, ..plain });
            b.rope(name, x, rope, dim).unwrap()
        }
    });
    let cache = b.cache(CacheSpec::new(n_kv_heads, dim, dim));
    let op = AttentionOp { cache, n_heads, n_kv_heads, head_dim: dim, v_dim: dim, scale: 0.125, ..changed };
    let out = b.attention("attention", [q, k, v], op).unwrap();
    let out = b.op("select", Op::SelectOutputs, &[out]).unwrap();
    Plan::new(b.finish(out), |_, _, _| Ok(Device::Cpu)).unwrap()
}

#[test]
fn biases_of_keys_cost_keys_in_blocks_no_bits() {
    for (layout, rotary_dims) in
        [(RopeLayout::Half, 64), (RopeLayout::Interleaved, 64), (RopeLayout::Half, 32), (RopeLayout::Half, 0)]
    {
        // Capped scores may not change by a constant: what was taken from keys would make all of the result wrong.
        let capped = AttentionOp { softcap: Some(50.0), ..BASE };
        for (changed, limit) in [(BASE, 0.02), (capped, 0.4)] {
            let plan = biased(layout, rotary_dims, changed.clone());
            let [exact, blocks] = [KvType::F32, KvType::Q8_0].map(|kv| {
                let (mut backend, mut kv) = (backend(&plan, kv, 2), SequenceKv::default());
                let tokens = tokens(3, 200);
                backend.forward(&mut [SequenceStep::new(&mut kv, &tokens, Outputs::All)]).unwrap().to_vec()
            });
            let exact: Vec<f64> = exact.into_iter().map(f64::from).collect();
            let error = relative_error(&blocks, &exact);
            assert!(error < limit, "{layout:?}, {rotary_dims} turn, {:?}: {error}", changed.softcap);
        }
    }
}
