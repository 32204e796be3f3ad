//! Choosing on the device against the same steps over a sorted list in f64.

use super::{
    Place,
    sample::{LISTED, RESULT_WORDS, Records, chunks_len, dispatches},
    step_tests::{Sequence, TestStep},
};
use crate::{
    cases::{argmax::argmaxes, random},
    gpu::{Gpu, testing},
    graph::Rows,
    sample::{Choice, Sampler, SamplingParams, pcg},
};

/// What a device made of some choices.
struct Made {
    tokens: Vec<u32>,
    /// By choice.
    results: Vec<Vec<u32>>,
    /// The rows of logits afterwards.
    rows: Vec<Vec<f32>>,
}

/// The words before the chosen tokens, of which the first stand for tokens that steps under way have chosen.
const PLACES: [u32; 3] = [2, 7, 2];

/// Chooses from rows of logits at the positions 9, 10, …, in this order; between them lie rows that nothing is chosen from.
fn make(gpu: &Gpu, rows: &[Vec<f32>], choices: &[(Choice<'_>, &[u32], &[u32])]) -> Made {
    let n = 2 * rows.len();
    let vocab = rows[0].len();
    let sequence = Sequence { rows: n, cached: 9 + n, dropped_pages: 0 };
    // Output rows stand in another order than token rows: row r of the choices is token row r.
    let outputs: Vec<u32> = (0..n as u32).map(|o| if o % 2 == 1 { o / 2 } else { n as u32 - 1 - o / 2 }).collect();
    let mut step = TestStep::new(&[sequence], &outputs, &[]);
    step.batch[11] = 3;
    step.choices = rows.len();
    let mut records = Records::default();
    for (i, (choice, more, places)) in choices.iter().enumerate() {
        records.push(choice, 2 * i + 1, more, places);
    }
    records.pack(&mut step.batch);
    let place = Place { base: 4, offset: 1, stride: vocab as u32 + 3, rows: Rows::Output };
    let mut arena = vec![1e30; 4 + n + n * place.stride as usize];
    let at = |i: usize| 4 + n + (2 * i + 1) * place.stride as usize;
    for (i, row) in rows.iter().enumerate() {
        arena[at(i)..][..vocab].copy_from_slice(row);
    }
    let d = dispatches(gpu.caps(), place, vocab);
    let bytes = |words: Vec<u32>| bytemuck::cast_slice(&words).to_vec();
    let mut chunks = bytes(vec![u32::MAX; chunks_len(vocab, rows.len())]);
    let mut tokens = bytes([&PLACES[..], &vec![77; rows.len() + 1]].concat());
    let mut originals = bytes(vec![77; records.originals]);
    let mut results = bytes(vec![77; RESULT_WORDS * rows.len()]);
    step.run(gpu, &d.adjust, &mut arena, &[], &mut [&mut tokens, &mut originals]);
    step.run(gpu, &d.chunks, &mut arena, &[], &mut [&mut chunks]);
    step.run(gpu, &d.choose, &mut arena, &[], &mut [&mut chunks, &mut tokens]);
    step.run(gpu, &d.restore, &mut arena, &[], &mut [&mut originals]);
    step.run(gpu, &d.log_probabilities, &mut arena, &[], &mut [&mut tokens, &mut results]);
    let words = |b: &[u8]| bytemuck::pod_collect_to_vec::<u8, u32>(b);
    let tokens = words(&tokens);
    assert_eq!((&tokens[..3], tokens[3 + rows.len()]), (&PLACES[..], 77));
    Made {
        tokens: tokens[3..3 + rows.len()].to_vec(),
        results: words(&results).chunks_exact(RESULT_WORDS).map(<[u32]>::to_vec).collect(),
        rows: (0..rows.len()).map(|i| arena[at(i)..][..vocab].to_vec()).collect(),
    }
}

/// The tokens that a device chooses.
fn choose(gpu: &Gpu, rows: &[Vec<f32>], params: &[SamplingParams]) -> Vec<u32> {
    let choices: Vec<_> = params.iter().map(|p| (Choice::new(p), &[][..], &[][..])).collect();
    make(gpu, rows, &choices).tokens
}

/// The ids that are kept, with their scores in the race.
fn race(logits: &[f32], choice: &SamplingParams, position: u32) -> Vec<(u32, f64)> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|i| logits[*i as usize] > f32::NEG_INFINITY).collect();
    ids.sort_by(|a, b| logits[*b as usize].total_cmp(&logits[*a as usize]).then(a.cmp(b)));
    let logit = |i: u32| f64::from(logits[i as usize]);
    let top = logit(ids[0]);
    if choice.top_k > 0 {
        ids.truncate(choice.top_k);
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

/// The plain distribution at temperature 1.
fn plain() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 5, ..SamplingParams::default() }
}

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
            let greedy = vec![SamplingParams::greedy(); rows.len()];
            assert_eq!(choose(gpu, &rows, &greedy), expected, "{} {}", gpu.name(), case.n);
        }
    }
}

#[test]
fn draws_follow_the_seed_and_keep_what_the_host_keeps() {
    let settings = [
        plain(),
        SamplingParams { temperature: 0.3, min_p: 0.05, ..plain() },
        SamplingParams { top_k: 2, ..plain() },
        SamplingParams { top_k: 40, top_p: 0.95, min_p: 0.05, temperature: 0.8, ..plain() },
        SamplingParams { top_k: 40, top_p: 0.5, ..plain() },
        SamplingParams { top_p: 0.7, ..plain() },
        SamplingParams { top_p: 1e-6, ..plain() },
        SamplingParams { top_p: 0.9, min_p: 0.2, temperature: 2.0, seed: 7 << 40, ..plain() },
        SamplingParams { top_k: 3, temperature: 5.0, min_p: 0.9, ..plain() },
        // A share that is nothing on a device without denormal numbers keeps the likeliest, the first of equals.
        SamplingParams { top_p: 1e-44, ..plain() },
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
            let chosen = choose(gpu, &rows, &settings);
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
    let choices: Vec<SamplingParams> =
        (0..n).map(|i| SamplingParams { seed: i, temperature: 0.7, ..plain() }).collect();
    let chosen = choose(gpu, &vec![logits.to_vec(); n as usize], &choices);
    let total: f64 = logits.iter().map(|x| f64::from(x / 0.7).exp()).sum();
    for (i, x) in logits.iter().enumerate() {
        let p = f64::from(x / 0.7).exp() / total;
        let seen = chosen.iter().filter(|c| **c == i as u32).count() as f64 / n as f64;
        assert!((seen - p).abs() < 4.0 * (p * (1.0 - p) / n as f64).sqrt(), "{i}: {seen} for {p}");
    }
}

/// Devices and the host draw the same tokens.
#[test]
fn a_seed_draws_the_same_on_host_and_device() {
    for gpu in testing::gpus() {
        let rows: Vec<Vec<f32>> = (0..40).map(|r| random(r + 300, 3000).iter().map(|x| x * 6.0).collect()).collect();
        let settings: Vec<SamplingParams> = (0..40)
            .map(|r| match r % 4 {
                0 => SamplingParams { seed: r, ..plain() },
                1 => SamplingParams { seed: r << 33, top_k: 40, top_p: 0.95, min_p: 0.05, temperature: 0.8, ..plain() },
                2 => SamplingParams { seed: 1, top_p: 0.9, temperature: 1.3, ..plain() },
                _ => SamplingParams { seed: r, min_p: 0.02, temperature: 2.0, ..plain() },
            })
            .collect();
        let chosen = choose(gpu, &rows, &settings);
        for (i, params) in settings.iter().enumerate() {
            let own = Sampler::default().choose(&rows[i], &Choice::new(params), &[], 9 + i).token;
            assert_eq!(Some(chosen[i]), own, "{} {i}", gpu.name());
        }
    }
}

/// Biases and penalties change the choice and nothing else; tokens that the device alone knows count.
#[test]
fn penalties_and_log_probabilities_are_the_hosts() {
    let greedy = SamplingParams { penalty_last_n: 8, ..SamplingParams::greedy() };
    let settings = [
        SamplingParams { repetition_penalty: 1.5, ..greedy.clone() },
        SamplingParams { presence_penalty: 2.0, frequency_penalty: 0.7, logit_bias: vec![(3, 4.0)], ..greedy.clone() },
        SamplingParams { logit_bias: vec![(7, 9.5), (2, f32::NEG_INFINITY), (1 << 20, 1.0)], ..greedy.clone() },
        SamplingParams { frequency_penalty: 1.5, penalty_last_n: 2, ..greedy.clone() },
        SamplingParams { repetition_penalty: 0.5, temperature: 0.7, seed: 9, logit_bias: vec![(5, 1.0)], ..plain() },
        greedy,
    ];
    // Those at the places are 2, 7 and 2; the host is told so.
    let recent = [1, 2, 3, 4, 4, 4, 9999];
    for gpu in testing::gpus() {
        for vocab in [11, 2500] {
            for places in [&[][..], &[0], &[0, 1], &[0, 1, 2]] {
                let rows: Vec<Vec<f32>> = (0..settings.len() as u64)
                    .map(|r| random(r + 77 + vocab as u64, vocab).iter().map(|x| x * 3.0).collect())
                    .collect();
                let choice = |i: usize| Choice {
                    recent: &recent,
                    log_probabilities: [Some(0), Some(4), None, Some(LISTED), Some(1), Some(2)][i],
                    ..Choice::new(&settings[i])
                };
                let choices: Vec<_> = (0..settings.len()).map(|i| (choice(i), &[6, 6][..], places)).collect();
                let made = make(gpu, &rows, &choices);
                assert_eq!(made.rows, rows, "the model's logits are as they were");
                let more: Vec<u32> = [6, 6].into_iter().chain(places.iter().map(|p| PLACES[*p as usize])).collect();
                for (i, row) in rows.iter().enumerate() {
                    let want = Sampler::default().choose(row, &choice(i), &more, 9 + i);
                    let what = format!("{} {vocab} {places:?} {i}: {want:?}", gpu.name());
                    assert_eq!(Some(made.tokens[i]), want.token, "{what}");
                    let pairs: Vec<(u32, f32)> =
                        made.results[i].chunks_exact(2).map(|p| (p[0], f32::from_bits(p[1]))).collect();
                    let Some(own) = want.log_probability else {
                        assert_eq!(made.results[i], [77; RESULT_WORDS], "{what}");
                        continue;
                    };
                    assert!(pairs[0].0 == made.tokens[i] && (pairs[0].1 - own).abs() < 1e-5, "{what} {pairs:?}");
                    for (got, want) in pairs[1..].iter().zip(&want.likeliest) {
                        assert!(got.0 == want.0 && (got.1 - want.1).abs() < 1e-5, "{what} {pairs:?}");
                    }
                }
            }
        }
    }
}
