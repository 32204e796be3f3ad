//! Tests of sampling: each filter against its definition, distributions, determinism.

use super::{host::edits, random::pcg, *};

/// The token chosen at `position`, with no tokens before.
fn token(params: &SamplingParams, logits: &[f32], position: usize) -> Option<u32> {
    Sampler::default().choose(logits, &Choice::new(params), &[], position).token
}

/// Everything off: the plain distribution at temperature 1.
fn plain() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingParams::default() }
}

fn logits_of(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// Draws `n` tokens from the same logits and returns how often each came.
fn frequencies(params: SamplingParams, logits: &[f32], n: usize) -> Vec<f64> {
    let mut counts = vec![0.0; logits.len()];
    for position in 0..n {
        counts[token(&params, logits, position).unwrap() as usize] += 1.0 / n as f64;
    }
    counts
}

#[track_caller]
fn assert_distribution(got: &[f64], want: &[f64]) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(if *w == 0.0 { *g == 0.0 } else { (g - w).abs() < 0.015 }, "token {i}: {g} where {w} is due");
    }
}

fn pseudo_random_logits(n: usize, seed: u32) -> Vec<f32> {
    let unit = |i: u32| pcg(i ^ pcg(seed)) as f32 / u32::MAX as f32;
    (0..n as u32).map(|i| (0..4).map(|j| unit(4 * i + j) * 6.0 - 3.0).sum()).collect()
}

#[test]
fn draws_follow_the_distribution() {
    let p = [0.5, 0.2, 0.2, 0.1];
    assert_distribution(&frequencies(plain(), &logits_of(&p), 20_000), &[0.5, 0.2, 0.2, 0.1]);
    // Temperature 1/2 squares the probabilities: 25 + 4 + 4 + 1 parts.
    let cold = SamplingParams { temperature: 0.5, ..plain() };
    let want = [25.0 / 34.0, 4.0 / 34.0, 4.0 / 34.0, 1.0 / 34.0];
    assert_distribution(&frequencies(cold, &logits_of(&p), 20_000), &want);
}

#[test]
fn each_filter_keeps_what_its_definition_says() {
    let p = [0.1, 0.4, 0.05, 0.3, 0.15];
    let logits = logits_of(&p);
    let draw = |params| frequencies(params, &logits, 10_000);
    let top_k = SamplingParams { top_k: 2, ..plain() };
    assert_distribution(&draw(top_k), &[0.0, 4.0 / 7.0, 0.0, 3.0 / 7.0, 0.0]);
    // 0.4 + 0.3 < 0.75 ≤ 0.4 + 0.3 + 0.15
    let top_p = SamplingParams { top_p: 0.75, ..plain() };
    assert_distribution(&draw(top_p), &[0.0, 0.4 / 0.85, 0.0, 0.3 / 0.85, 0.15 / 0.85]);
    // Among the two of top-k the first has 4/7 > 0.5.
    let both = SamplingParams { top_k: 2, top_p: 0.5, ..plain() };
    assert_distribution(&draw(both), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    let min_p = SamplingParams { min_p: 0.3, ..plain() };
    assert_distribution(&draw(min_p), &[0.0, 0.4 / 0.85, 0.0, 0.3 / 0.85, 0.15 / 0.85]);
    let tiny = SamplingParams { top_p: 1e-6, ..plain() };
    assert_distribution(&draw(tiny), &[0.0, 1.0, 0.0, 0.0, 0.0]);
    let strict = SamplingParams { min_p: 1.0, ..plain() };
    assert_distribution(&draw(strict), &[0.0, 1.0, 0.0, 0.0, 0.0]);
}

/// The set of tokens that the filters leave, by sorting everything.
fn naive_kept(logits: &[f32], k: usize, top_p: f64) -> Vec<u32> {
    let mut ids: Vec<u32> = (0..logits.len() as u32).collect();
    ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).unwrap().then(a.cmp(&b)));
    if k > 0 {
        ids.truncate(k);
    }
    let max = logits[ids[0] as usize] as f64;
    let weight = |id: u32| (logits[id as usize] as f64 - max).exp();
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
    let mut sum = 0.0;
    let keep = ids.iter().position(|&id| {
        sum += weight(id);
        sum >= top_p * total
    });
    ids.truncate(keep.map_or(ids.len(), |i| i + 1));
    ids
}

#[test]
fn partial_selection_equals_sorting_everything() {
    for (seed, n) in [(1, 5), (2, 700), (3, 5000), (4, 40_000)] {
        let mut logits = pseudo_random_logits(n, seed);
        // Equal logits must rank by id.
        for i in (0..n).step_by(7) {
            logits[i] = (logits[i] * 4.0).round() / 4.0;
        }
        for (k, p) in [(1, 1.0), (3, 1.0), (40, 0.95), (600, 0.9), (0, 0.5), (0, 0.95), (0, 0.999), (n - 1, 1.0)] {
            let mut sampler = Sampler::default();
            let params = SamplingParams { top_k: k, top_p: p, ..plain() };
            sampler.choose(&logits, &Choice::new(&params), &[], 0).token.unwrap();
            let kept: Vec<u32> = sampler.kept().collect();
            assert!(kept == naive_kept(&logits, k, p as f64), "n {n}, k {k}, p {p}");
        }
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let greedy = SamplingParams::greedy();
    let inf = f32::INFINITY;
    assert_eq!(token(&greedy, &[1.0, 3.0, 3.0, -inf], 0), Some(1));
    assert_eq!(token(&greedy, &[-0.0, 0.0], 0), Some(0));
    assert_eq!(token(&greedy, &[-inf, -1e30], 0), Some(1));
    for nothing in [&[][..], &[-inf, -inf], &[0.0, inf], &[f32::NAN, 1.0]] {
        assert_eq!(token(&greedy, nothing, 0), None, "{nothing:?}");
        assert_eq!(token(&plain(), nothing, 0), None, "{nothing:?}");
    }
}

#[test]
fn odd_logits_do_not_stop_sampling() {
    let inf = f32::INFINITY;
    for top_k in [0, 2] {
        for top_p in [0.9, 1.0] {
            let params = SamplingParams { top_k, top_p, ..plain() };
            for position in 0..50 {
                assert_eq!(token(&params, &[-inf, -inf, -3.0, -inf], position), Some(2));
                assert!(token(&params, &[1e30, -inf, 1e30, -1e30], position).is_some_and(|id| id == 0 || id == 2));
            }
        }
    }
}

#[test]
fn a_draw_depends_on_seed_and_position_alone() {
    let logits = pseudo_random_logits(50, 9);
    let run = |seed, positions: std::ops::Range<usize>| {
        let params = SamplingParams { seed, temperature: 1.5, ..plain() };
        // One sampler for all, and for each one of its own.
        let mut sampler = Sampler::default();
        let shared: Vec<_> = positions
            .clone()
            .map(|position| sampler.choose(&logits, &Choice::new(&params), &[], position).token)
            .collect();
        let own: Vec<_> = positions.map(|position| token(&params, &logits, position)).collect();
        assert_eq!(shared, own);
        own
    };
    assert_eq!(run(7, 0..24), [run(7, 0..9), run(7, 9..24)].concat());
    assert_ne!(run(7, 0..24), run(8, 0..24));
    assert_ne!(run(7, 0..24), run(7 << 32, 0..24));
}

#[test]
fn penalties_look_at_the_last_tokens() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        penalty_last_n: 3,
        ..SamplingParams::greedy()
    };
    // 3 is further back than three tokens. 0: 4/2 − 0.25 − 0.5 = 1.25; 1: −1·2 − 2·0.25 − 0.5 = −3.
    let logits = [4.0, -1.0, 1.0, 1.5];
    for (recent, more) in [(&[3, 0, 1, 1][..], &[][..]), (&[3, 0], &[1, 1]), (&[], &[3, 0, 1, 1])] {
        let choice = Choice { recent, log_probabilities: Some(1), ..Choice::new(&params) };
        let chosen = Sampler::default().choose(&logits, &choice, more, 0);
        assert_eq!(chosen.token, Some(3), "{recent:?} {more:?}");
        // The model's own opinion has no penalties.
        assert_eq!(chosen.likeliest[0].0, 0);
        let mut list = Vec::new();
        edits(&choice, more, 0, &mut list);
        let list: Vec<(u32, u32)> = list.iter().map(|e| (e.id, e.count)).collect();
        assert_eq!(list, [(0, 1), (1, 2)]);
    }
    assert_eq!([(4.0, 1), (-1.0, 2)].map(|(logit, n)| params.adjusted(logit, 0.0, n)), [1.25, -3.0]);
    // Ids that the logits do not have are no trouble.
    let choice = Choice { recent: &[1000], ..Choice::new(&params) };
    assert!(Sampler::default().choose(&[0.0; 4], &choice, &[], 0).token.is_some());
}

#[test]
fn logit_bias_forbids_and_forces() {
    let params = SamplingParams { logit_bias: vec![(1, f32::NEG_INFINITY), (9, 1.0)], ..SamplingParams::greedy() };
    assert_eq!(token(&params, &[1.0, 9.0, 2.0], 0), Some(2));
    let params = SamplingParams { logit_bias: vec![(0, 60.0), (0, 40.0)], ..plain() };
    assert_eq!(token(&params, &[1.0, 9.0, 2.0], 0), Some(0));
}

#[test]
fn a_mask_allows_what_its_bits_say() {
    let logits = pseudo_random_logits(70, 4);
    let allowed = [0x8000_0001, 0, 0x8]; // 0, 31 and 67; the vocabulary ends in the last word.
    let mut seen = [0; 70];
    for position in 0..400 {
        let params = SamplingParams { temperature: 3.0, ..plain() };
        let choice = Choice { allowed: Some(&allowed), ..Choice::new(&params) };
        let chosen = Sampler::default().choose(&logits, &choice, &[], position);
        seen[chosen.token.unwrap() as usize] += 1;
    }
    let ids: Vec<usize> = (0..70).filter(|i| seen[*i] > 0).collect();
    assert_eq!(ids, [0, 31, 67]);
    let greedy = SamplingParams::greedy();
    for nothing in [&[][..], &[0, 0, 0], &[0, 0, 0xffff_ff80 << 6]] {
        let choice = Choice { allowed: Some(nothing), ..Choice::new(&greedy) };
        assert_eq!(Sampler::default().choose(&logits, &choice, &[], 0).token, None);
    }
}

#[test]
fn tokens_that_a_mask_leaves_out_might_as_well_not_be_there() {
    let logits = pseudo_random_logits(1000, 9);
    let rules = [
        SamplingParams::greedy(),
        plain(),
        SamplingParams { top_k: 20, top_p: 0.9, ..plain() },
        SamplingParams { top_p: 0.8, min_p: 0.01, ..plain() },
        SamplingParams { repetition_penalty: 1.3, logit_bias: vec![(3, 5.0), (64, 4.0), (999, 9.0)], ..plain() },
    ];
    let words = pseudo_random_logits(32 * 30, 5);
    let mut sampler = Sampler::default();
    for (round, words) in words.chunks(32).enumerate() {
        // Masks with many tokens and with few, and words that allow all.
        let sparse = if round % 3 == 0 { 0x0110_0001 } else { u32::MAX };
        let mask: Vec<u32> = words.iter().map(|x| if *x > 2.0 { u32::MAX } else { x.to_bits() & sparse }).collect();
        let mut without = logits.clone();
        for (id, logit) in without.iter_mut().enumerate() {
            if mask[id / 32] >> (id % 32) & 1 == 0 {
                *logit = f32::NEG_INFINITY;
            }
        }
        for params in &rules {
            let choice = Choice { recent: &[3, 70, 999], ..Choice::new(params) };
            let masked = Choice { allowed: Some(&mask), ..choice };
            let token = sampler.choose(&logits, &masked, &[], round).token;
            assert_eq!(token, Sampler::default().choose(&without, &choice, &[], round).token, "{round}: {params:?}");
            assert!(token.is_some_and(|id| mask[id as usize / 32] >> (id % 32) & 1 == 1));
        }
    }
}

#[test]
fn log_probabilities_are_one_number_wherever_they_stand() {
    for n in [5usize, 3000] {
        let logits = pseudo_random_logits(n, 2);
        let max = logits.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
        for asked in [0, 1, 4, n, usize::MAX] {
            let params = SamplingParams { temperature: 0.4, seed: 3, ..plain() };
            let choice = Choice { log_probabilities: Some(asked), ..Choice::new(&params) };
            let chosen = Sampler::default().choose(&logits, &choice, &[], 7);
            let token = chosen.token.unwrap();
            let own = chosen.log_probability.unwrap();
            let want = |id: u32| f64::from(logits[id as usize] - max) - sum.ln();
            assert!((f64::from(own) - want(token)).abs() < 1e-5);
            assert_eq!(chosen.likeliest.len(), asked.min(n));
            // Neighbours may round to one number.
            assert!(chosen.likeliest.is_sorted_by(|a, b| a.1 >= b.1));
            for &(id, p) in &chosen.likeliest {
                assert!((f64::from(p) - want(id)).abs() < 1e-5 && (id != token || p.to_bits() == own.to_bits()));
            }
        }
    }
}

#[test]
fn senseless_values_are_refused_by_name() {
    let base = SamplingParams::default;
    let cases = [
        ("temperature", SamplingParams { temperature: -0.1, ..base() }),
        ("temperature", SamplingParams { temperature: f32::NAN, ..base() }),
        ("temperature", SamplingParams { temperature: f32::INFINITY, ..base() }),
        ("top_p", SamplingParams { top_p: 0.0, ..base() }),
        ("top_p", SamplingParams { top_p: 1.5, ..base() }),
        ("min_p", SamplingParams { min_p: -1.0, ..base() }),
        ("repetition_penalty", SamplingParams { repetition_penalty: 0.0, ..base() }),
        ("presence_penalty", SamplingParams { presence_penalty: f32::NAN, ..base() }),
        ("frequency_penalty", SamplingParams { frequency_penalty: f32::INFINITY, ..base() }),
        ("logit_bias", SamplingParams { logit_bias: vec![(0, f32::NAN)], ..base() }),
    ];
    for (name, params) in cases {
        let error = params.validate().err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with(name), "{name}: {error}");
    }
    assert!(base().validate().is_ok() && SamplingParams::greedy().validate().is_ok());
}

#[test]
fn nothing_is_allocated_after_the_first_token() {
    let logits = pseudo_random_logits(30_000, 5);
    for (top_k, top_p) in [(40, 0.95), (0, 0.95), (0, 1.0)] {
        let params = SamplingParams { top_k, top_p, repetition_penalty: 1.1, ..plain() };
        let choice = Choice { recent: &[5, 6, 7], ..Choice::new(&params) };
        let mut sampler = Sampler::default();
        sampler.choose(&logits, &choice, &[8], 0);
        let capacity = sampler.capacity();
        for position in 0..5 {
            sampler.choose(&logits, &choice, &[9], position);
        }
        assert_eq!(sampler.capacity(), capacity);
    }
}
