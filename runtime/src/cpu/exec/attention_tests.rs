//! Steps of attention alone: a row's result has the same bits whatever company it has.

use super::{CpuBackend, CpuOptions};
use crate::Backend;
use crate::{
    cases::{attention::BASE, random},
    format::Tensor,
    graph::{AttentionOp, CacheSpec, Device, GraphBuilder, Op, Plan},
    step::{Outputs, SequenceKv, SequenceStep},
};

const VOCABULARY: usize = 50;

/// Queries, keys and values are rows of three tables.
fn plan(n_heads: usize, window: Option<usize>) -> Plan {
    let (n_kv_heads, dim) = (2, 24);
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

fn backend(plan: &Plan, threads: usize) -> CpuBackend {
    let options = CpuOptions { threads, ..CpuOptions::default() };
    CpuBackend::new(plan.clone(), &options).unwrap()
}

fn bits(rows: &[f32]) -> Vec<u32> {
    rows.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn a_row_has_one_result_in_any_company() {
    // Tokens cached before, and rows of the step: short and long sequences that decode beside prompts.
    const SEQUENCES: [(usize, usize); 6] = [(40, 1), (300, 1), (200, 70), (0, 5), (450, 1), (0, 1)];
    for (n_heads, window) in [(6, None), (6, Some(150)), (18, None), (34, Some(20))] {
        let plan = plan(n_heads, window);
        // Every token in a step of its own.
        let alone: Vec<Vec<u32>> = (0..SEQUENCES.len())
            .map(|s| {
                let (cached, rows) = SEQUENCES[s];
                let (mut backend, mut kv) = (backend(&plan, 1), SequenceKv::default());
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
                let mut backend = backend(&plan, threads);
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
                assert!(together == expected, "{n_heads} heads, {window:?}, {company:?}, {threads} threads");
            }
        }
    }
}
