//! Choosing on the device against the same steps over a sorted list in f64.

use super::{
    Place,
    sample::{Choice, chunks_len, dispatches},
    step_tests::{Sequence, TestStep},
};
use crate::{
    cases::{argmax::argmaxes, random},
    gpu::testing,
    graph::Rows,
};

/// Chooses for rows of logits at the positions 9, 10, …; every row has its `Choice`.
fn choose(gpu: &crate::gpu::Gpu, rows: &[Vec<f32>], choices: &[Choice]) -> (Vec<u32>, Vec<u32>) {
    let n = rows.len();
    let vocab = rows[0].len();
    let sequence = Sequence { rows: n, cached: 9 + n, dropped_pages: 0 };
    let mut step = TestStep::new(&[sequence], &(0..n as u32).collect::<Vec<_>>(), &[], 1);
    step.batch[11] = 3;
    let place = Place { base: 4, offset: 1, stride: vocab as u32 + 3, rows: Rows::Output };
    let mut arena = vec![1e30; 4 + n + n * place.stride as usize];
    for (i, row) in rows.iter().enumerate() {
        arena[4 + n + i * place.stride as usize..][..vocab].copy_from_slice(row);
    }
    let d = dispatches(gpu.caps(), place, vocab);
    let bytes = |words: Vec<u32>| bytemuck::cast_slice(&words).to_vec();
    let mut chunks = bytes(vec![u32::MAX; chunks_len(vocab, n)]);
    let mut samplers = bytes(choices.iter().flat_map(Choice::words).collect());
    let (mut tokens, mut chosen) = (bytes(vec![77; n + 1]), bytes(vec![77; n + 4]));
    step.run(gpu, &d.chunks, &mut arena, &[], &mut [&mut chunks]);
    step.run(gpu, &d.choose, &mut arena, &[], &mut [&mut chunks, &mut samplers, &mut tokens, &mut chosen]);
    let words = |b: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(b);
    let chosen = words(&chosen);
    assert_eq!((&chosen[..3], chosen[3 + n]), (&[77; 3][..], 77));
    (chosen[3..3 + n].to_vec(), words(&tokens))
}

fn pcg(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// The ids that are kept, with their scores in the race.
fn race(logits: &[f32], choice: &Choice, position: u32) -> Vec<(u32, f64)> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|i| logits[*i as usize] > f32::NEG_INFINITY).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let logit = |i: u32| f64::from(logits[i as usize]);
    let top = logit(ids[0]);
    if choice.top_k > 0 {
        ids.truncate(choice.top_k as usize);
    }
    let weight = |i: u32| (logit(i) - top).exp();
    if choice.top_p < 1.0 {
        let total: f64 = ids.iter().map(|i| weight(*i)).sum();
        let mut sum = 0.0;
        let kept = ids.iter().take_while(|i| {
            let more = sum < f64::from(choice.top_p) * total;
            sum += weight(**i);
            more
        });
        ids = kept.copied().collect();
    }
    ids.retain(|i| weight(*i) >= f64::from(choice.min_p));
    let seed = pcg(choice.seed as u32 ^ pcg((choice.seed >> 32) as u32 ^ pcg(position)));
    let score = |i: u32| {
        let u = (f64::from(pcg(seed ^ pcg(i))) + 0.5) / 4_294_967_296.0;
        (logit(i) - top) / f64::from(choice.temperature) - (-(1.0 - u).ln()).ln()
    };
    ids.into_iter().map(|i| (i, score(i))).collect()
}

const PLAIN: Choice = Choice { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, token_row: None };

#[test]
fn the_largest_logit_is_found_wherever_it_stands() {
    for gpu in testing::gpus() {
        for case in argmaxes().into_iter().filter(|case| case.n > 0) {
            let (mut rows, mut expected) = (Vec::new(), Vec::new());
            for (row, best) in case.rows {
                // The same with finite numbers, then as it is: a device chooses nothing where one is infinite or none.
                let finite: Vec<f32> =
                    row.iter().map(|x| if x.is_nan() { f32::NEG_INFINITY } else { x.min(f32::MAX) }).collect();
                let odd = row.iter().any(|x| x.is_nan() || *x == f32::INFINITY);
                // Nor where all are forbidden.
                let id = best.filter(|i| finite[*i] > f32::NEG_INFINITY).map_or(u32::MAX, |i| i as u32);
                rows.extend([finite, row]);
                expected.extend([id, if odd { u32::MAX } else { id }]);
            }
            let choices: Vec<Choice> = (0..rows.len()).map(|i| Choice::greedy((i != 1).then_some(i as u32))).collect();
            let (chosen, tokens) = choose(gpu, &rows, &choices);
            assert_eq!(chosen, expected, "{} {}", gpu.name(), case.n);
            for (i, token) in tokens.into_iter().enumerate() {
                let written = i != 1 && i < rows.len() && expected[i] != u32::MAX;
                assert_eq!(token, if written { expected[i] } else { 77 });
            }
        }
    }
}

#[test]
fn draws_follow_the_seed_and_keep_what_the_host_keeps() {
    let settings = [
        PLAIN,
        Choice { temperature: 0.3, min_p: 0.05, ..PLAIN },
        Choice { top_k: 2, ..PLAIN },
        Choice { top_k: 40, top_p: 0.95, min_p: 0.05, temperature: 0.8, ..PLAIN },
        Choice { top_k: 40, top_p: 0.5, ..PLAIN },
        Choice { top_p: 0.7, ..PLAIN },
        Choice { top_p: 1e-6, ..PLAIN },
        Choice { top_p: 0.9, min_p: 0.2, temperature: 2.0, seed: 7 << 40, ..PLAIN },
        Choice { top_k: 3, temperature: 5.0, min_p: 0.9, ..PLAIN },
        // A share that is nothing on a device without denormal numbers keeps the likeliest, the first of equals.
        Choice { top_p: 1e-44, ..PLAIN },
    ];
    for gpu in testing::gpus() {
        for (n, sharp) in [(7, 1.0), (700, 3.0), (5000, 8.0), (50_000, 12.0)] {
            let rows: Vec<Vec<f32>> = (0..settings.len())
                .map(|r| {
                    let mut row: Vec<f32> = random(r as u64 + 100, n).iter().map(|x| x * sharp).collect();
                    if r % 2 == 0 && n < 1000 {
                        // Many equals, and some that are forbidden.
                        row.iter_mut().for_each(|x| *x = (*x * 2.0).round() / 2.0 + 0.0);
                        row[n / 2] = f32::NEG_INFINITY;
                    }
                    row
                })
                .collect();
            let (chosen, _) = choose(gpu, &rows, &settings);
            for (r, choice) in settings.iter().enumerate() {
                let race = race(&rows[r], choice, 9 + r as u32);
                let best = race.iter().map(|x| x.1).fold(f64::MIN, f64::max);
                let own = race.iter().find(|x| x.0 == chosen[r]);
                // Rounding may turn a race that is nearly a tie.
                let ok = own.is_some_and(|x| x.1 > best - 1e-4);
                assert!(ok, "{} of {n}, {choice:?}: {} with {own:?}, best {best}", gpu.name(), chosen[r]);
            }
        }
    }
}

#[test]
fn draws_are_as_frequent_as_the_weights_say() {
    let Some(gpu) = testing::gpus().first() else { return };
    let logits = [0.0f32, 1.0, -1.0, 2.0, 0.5];
    let n = 2000;
    let choices: Vec<Choice> = (0..n).map(|i| Choice { seed: i, temperature: 0.7, ..PLAIN }).collect();
    let (chosen, _) = choose(gpu, &vec![logits.to_vec(); n as usize], &choices);
    let total: f64 = logits.iter().map(|x| f64::from(x / 0.7).exp()).sum();
    for (i, x) in logits.iter().enumerate() {
        let p = f64::from(x / 0.7).exp() / total;
        let seen = chosen.iter().filter(|c| **c == i as u32).count() as f64 / n as f64;
        assert!((seen - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "{i}: {seen} for {p}");
    }
}
