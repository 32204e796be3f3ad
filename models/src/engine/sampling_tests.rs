//! Tests of sampling: each filter against its definition, distributions, determinism.

use super::*;

/// Everything off: the plain distribution at temperature 1.
fn plain() -> SamplingParams {
    SamplingParams { temperature: 1.0, top_k: 0, top_p: 1.0, min_p: 0.0, ..SamplingParams::default() }
}

fn logits_of(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

/// Draws `n` tokens from the same logits and returns how often each came.
fn frequencies(params: SamplingParams, logits: &[f32], n: usize) -> Vec<f64> {
    let mut sampler = Sampler::new(params).unwrap();
    let mut counts = vec![0.0; logits.len()];
    for _ in 0..n {
        counts[sampler.sample(&mut logits.to_vec()).unwrap() as usize] += 1.0 / n as f64;
    }
    counts
}

#[track_caller]
fn assert_distribution(got: &[f64], want: &[f64]) {
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(if *w == 0.0 { *g == 0.0 } else { (g - w).abs() < 0.015 }, "token {i}: {g} where {w} is due");
    }
}

fn pseudo_random_logits(n: usize, seed: u64) -> Vec<f32> {
    let mut rng = SplitMix64(seed);
    (0..n).map(|_| (0..4).map(|_| rng.next_unit() as f32 * 6.0 - 3.0).sum()).collect()
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
    ids.sort_by(|&a, &b| logits[b as usize].total_cmp(&logits[a as usize]).then(a.cmp(&b)));
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
            let mut sampler = Sampler::new(SamplingParams { top_k: k, top_p: p, ..plain() }).unwrap();
            sampler.sample(&mut logits.clone()).unwrap();
            let kept: Vec<u32> = sampler.candidates.iter().map(|c| c.id).collect();
            assert_eq!(kept, naive_kept(&logits, k, p as f64), "n {n}, k {k}, p {p}");
        }
    }
}

#[test]
fn greedy_takes_the_first_of_the_largest() {
    let mut sampler = Sampler::new(SamplingParams::greedy()).unwrap();
    assert_eq!(sampler.sample(&mut [1.0, 3.0, 3.0, f32::NAN]), Ok(1));
    assert_eq!(sampler.sample(&mut [f32::NAN, f32::NEG_INFINITY, -1e30]), Ok(2));
    assert_eq!(sampler.sample(&mut [0.0, f32::INFINITY]), Ok(1));
    let none = Err(SamplingError::NoCandidate { n: 2 });
    assert_eq!(sampler.sample(&mut [f32::NEG_INFINITY, f32::NAN]), none);
    assert_eq!(sampler.sample(&mut []), Err(SamplingError::NoCandidate { n: 0 }));
}

#[test]
fn odd_logits_do_not_stop_sampling() {
    let inf = f32::INFINITY;
    for top_k in [0, 2] {
        for top_p in [0.9, 1.0] {
            let mut sampler = Sampler::new(SamplingParams { top_k, top_p, ..plain() }).unwrap();
            for _ in 0..50 {
                assert_eq!(sampler.sample(&mut [f32::NAN, -inf, -3.0, -inf]), Ok(2));
                assert_eq!(sampler.sample(&mut [1.0, inf, f32::NAN, -inf]), Ok(1));
                assert!(sampler.sample(&mut [1e30, f32::NAN, 1e30, -1e30]).is_ok_and(|id| id == 0 || id == 2));
            }
            assert_eq!(sampler.sample(&mut [-inf; 4]), Err(SamplingError::NoCandidate { n: 4 }));
        }
    }
}

#[test]
fn a_seed_gives_the_same_tokens_on_every_machine() {
    let run = |seed| {
        let mut sampler = Sampler::new(SamplingParams { seed, temperature: 1.5, top_k: 0, ..plain() }).unwrap();
        let mut logits = pseudo_random_logits(1000, 9);
        logits.truncate(50);
        (0..12).map(|_| sampler.sample(&mut logits.clone()).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8));
    // The generator's published first numbers for seed 0.
    let mut rng = SplitMix64(0);
    assert_eq!([rng.next(), rng.next()], [0xE220_A839_7B1D_CDAF, 0x6E78_9E6A_A1B9_65F4]);
}

#[test]
fn penalties() {
    let params = SamplingParams {
        repetition_penalty: 2.0,
        presence_penalty: 0.5,
        frequency_penalty: 0.25,
        penalty_last_n: 3,
        ..SamplingParams::greedy()
    };
    let mut sampler = Sampler::new(params).unwrap();
    for token in [3, 0, 1, 1] {
        sampler.accept(token);
    }
    let mut logits = [4.0, -1.0, 1.0, 1.5];
    // 3 is further back than three tokens. 0: 4/2 − 0.25 − 0.5; 1: −1·2 − 2·0.25 − 0.5.
    assert_eq!(sampler.sample(&mut logits), Ok(3));
    assert_eq!(logits, [1.25, -3.0, 1.0, 1.5]);
    // Ids the logits do not have are no trouble.
    sampler.accept(1000);
    assert!(sampler.sample(&mut [0.0; 4]).is_ok());
}

#[test]
fn logit_bias_forbids_and_forces() {
    let params = SamplingParams { logit_bias: vec![(1, f32::NEG_INFINITY), (9, 1.0)], ..SamplingParams::greedy() };
    assert_eq!(Sampler::new(params).unwrap().sample(&mut [1.0, 9.0, 2.0]), Ok(2));
    let params = SamplingParams { logit_bias: vec![(0, 100.0)], ..plain() };
    assert_eq!(Sampler::new(params).unwrap().sample(&mut [1.0, 9.0, 2.0]), Ok(0));
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
        let error = Sampler::new(params).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.starts_with(name), "{name}: {error}");
    }
    assert!(base().validate().is_ok() && SamplingParams::greedy().validate().is_ok());
}

#[test]
fn exponential_is_close_to_the_systems() {
    let mut x = 0.0f32;
    while x > -86.0 {
        let want = (x as f64).exp();
        assert!((exp(x) as f64 - want).abs() <= want * 2.4e-7, "e^{x}: {} where {want} is due", exp(x));
        x -= 0.0137;
    }
    assert_eq!(exp(0.0), 1.0);
    for zero in [-1000.0, f32::NEG_INFINITY, f32::NAN] {
        assert_eq!(exp(zero), 0.0);
    }
}

#[test]
fn nothing_is_allocated_after_the_first_token() {
    let logits = pseudo_random_logits(30_000, 5);
    for (top_k, top_p) in [(40, 0.95), (0, 0.95), (0, 1.0)] {
        let mut sampler = Sampler::new(SamplingParams { top_k, top_p, ..plain() }).unwrap();
        sampler.sample(&mut logits.clone()).unwrap();
        let capacity = sampler.candidates.capacity();
        for _ in 0..5 {
            sampler.sample(&mut logits.clone()).unwrap();
        }
        assert_eq!(sampler.candidates.capacity(), capacity);
    }
}
