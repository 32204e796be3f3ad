//! Requests on one engine: each has the answer that it would have alone, and what it took is given back.

use std::{path::PathBuf, time::Duration};

use handmill_models::{
    Engine, EngineOptions, Model, StopReason,
    engine::{Pooling, sampling::SamplingParams},
};
use handmill_server::{
    Limits, Scheduler,
    scheduler::{AnswerOptions, Event, Request, RequestError, Scored, Usage, Work},
};
use tokio::sync::mpsc::UnboundedReceiver;

fn model(name: &str) -> Model {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../tests/fixtures/families", name].iter().collect();
    Model::open(&path).unwrap()
}

fn engine(name: &str, cache_tokens: usize) -> Engine {
    let n_ctx = Some(256);
    let cache_tokens = Some(cache_tokens);
    Engine::new(&model(name), &EngineOptions { n_ctx, cache_tokens, hidden: true, ..EngineOptions::default() }).unwrap()
}

fn prompt(seed: usize, len: usize) -> Vec<u32> {
    (0..len).map(|i| ((i * 7919 + seed * 104_729 + i * i * 31) % 280 + 3) as u32).collect()
}

fn sampled(seed: u64) -> SamplingParams {
    SamplingParams { seed, presence_penalty: 0.5, repetition_penalty: 1.1, ..SamplingParams::default() }
}

fn request(prompt: Vec<u32>, sampling: SamplingParams, n: usize) -> Request {
    let options = AnswerOptions { sampling, max_tokens: Some(n), ignore_eos: true, ..AnswerOptions::default() };
    Request::new(prompt, Work::Answer(options))
}

/// All that came of a request.
#[derive(Debug, Default)]
struct Heard {
    ids: Vec<u32>,
    scores: Vec<Scored>,
    vector: Vec<f32>,
    usage: Usage,
    reason: Option<StopReason>,
    error: Option<RequestError>,
}

fn hear(mut events: UnboundedReceiver<Event>) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = events.blocking_recv() {
        match event {
            Event::Token { scored, .. } => heard.ids.push(scored.id),
            Event::Prompt(scores) => heard.scores = scores,
            Event::Embedding(vector) => heard.vector = vector,
            Event::Finished { reason, usage, .. } => (heard.reason, heard.usage) = (Some(reason), usage),
            Event::Failed(error) => heard.error = Some(error),
            _ => {}
        }
    }
    heard
}

/// The engine of a scheduler that has nothing to do any more.
fn drained(scheduler: &Scheduler) -> Engine {
    scheduler.drain(Duration::from_secs(20));
    scheduler.join().expect("the thread ends well")
}

/// Runs all at once, and compares each with what it has alone. Returns how often one was set aside.
fn compare(name: &str, cache_tokens: usize, wanted: &[(Vec<u32>, SamplingParams, usize)]) -> u64 {
    let mut alone = engine(name, 2048);
    let alone: Vec<_> = wanted.iter().map(|(p, s, n)| alone.generate_ids(p, s, *n).unwrap()).collect();
    let scheduler = Scheduler::start(engine(name, cache_tokens), Limits::default()).unwrap();
    let events = wanted.iter().map(|(p, s, n)| scheduler.submit(request(p.clone(), s.clone(), *n)).unwrap());
    let together: Vec<_> = events.collect::<Vec<_>>().into_iter().map(hear).collect();
    for (i, (alone, together)) in alone.iter().zip(&together).enumerate() {
        assert_eq!(together.error, None, "{name}, request {i}");
        assert_eq!(&together.ids, alone, "{name} with {cache_tokens} tokens of cache, request {i}");
        assert_eq!(together.reason, Some(StopReason::MaxTokens));
        assert_eq!(together.usage.completion_tokens, alone.len());
    }
    scheduler.status().set_aside
}

#[test]
fn answers_are_the_ones_that_each_would_have_alone() {
    // Full attention, windows, recurrent states. Every second prompt begins as the one before.
    for name in ["llama3", "gemma3", "qwen3-next"] {
        let wanted: Vec<_> = (0..12).map(|i| (prompt(i / 2, 5 + 17 * i), sampled(i as u64), 10 + 3 * i)).collect();
        compare(name, 2048, &wanted);
    }
}

#[test]
fn an_answer_that_was_set_aside_goes_on_as_if_it_had_not_been() {
    for name in ["llama3", "gemma3"] {
        let wanted: Vec<_> = (0..4).map(|i| (prompt(i, 60), sampled(i as u64), 150)).collect();
        assert!(compare(name, 256, &wanted) > 0, "{name}");
    }
}

#[test]
fn what_requests_took_is_given_back_whenever_they_leave() {
    let before = engine("llama3", 1024).backend().pages().room();
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    for round in 0..20 {
        let all: Vec<_> = (0..5)
            .map(|i| scheduler.submit(request(prompt(round * 5 + i, 60 + i), sampled(1), 150)).unwrap())
            .collect();
        // Some leave at once, some later, one stays.
        for (i, mut events) in all.into_iter().enumerate() {
            match i {
                4 => assert_eq!(hear(events).ids.len(), 150),
                _ => (0..i * (round % 7)).for_each(|_| drop(events.blocking_recv())),
            }
        }
    }
    let mut engine = drained(&scheduler);
    engine.forget_prefixes().unwrap();
    assert_eq!(engine.backend().pages().room(), before);
}

#[test]
fn a_prompt_is_scored_as_its_logits_say() {
    let mut alone = engine("llama3", 1024);
    let tokens = prompt(3, 150);
    let mut logits = Vec::new();
    alone.logits(&tokens, |rows| logits.extend_from_slice(rows)).unwrap();
    let vocab = alone.model().info().vocab_size;
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    let score = |n: usize, most: usize| {
        let mut request = request(tokens.clone(), SamplingParams::greedy(), most);
        if let Work::Answer(options) = &mut request.work {
            (options.of_prompt, options.log_probabilities) = (true, Some(n));
        }
        hear(scheduler.submit(request).unwrap())
    };
    let company = scheduler.submit(request(prompt(9, 40), sampled(2), 100)).unwrap();
    for (n, most) in [(1, 1), (3, 0), (0, 12)] {
        let heard = score(n, most);
        assert_eq!((heard.error.as_ref(), heard.scores.len()), (None, tokens.len() - 1));
        for (i, scored) in heard.scores.iter().enumerate() {
            let row = &logits[i * vocab..(i + 1) * vocab];
            let max = row.iter().fold(f32::NEG_INFINITY, |a, b| a.max(*b));
            let sum: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
            let expected = f64::from(row[tokens[i + 1] as usize] - max) - sum.ln();
            let found = f64::from(scored.log_probability.unwrap());
            assert!((found - expected).abs() < 1e-4, "token {i}: {found}, not {expected}");
            assert_eq!((scored.id, scored.likeliest.len()), (tokens[i + 1], n));
            let own = scored.likeliest.iter().find(|(id, _)| *id == scored.id);
            assert!(own.is_none_or(|(_, p)| Some(*p) == scored.log_probability));
        }
        assert_eq!(heard.ids, alone.generate_ids(&tokens, &SamplingParams::greedy(), most.max(1)).unwrap()[..most]);
    }
    assert_eq!(hear(company).ids.len(), 100);
}

#[test]
fn a_vector_is_the_engines_own_made_as_long_as_1() {
    let mut alone = engine("qwen3", 1024);
    let scheduler = Scheduler::start(engine("qwen3", 1024), Limits::default()).unwrap();
    let company = scheduler.submit(request(prompt(9, 40), sampled(2), 100)).unwrap();
    for pooling in [Pooling::Last, Pooling::Mean] {
        let tokens = prompt(5, 120);
        let expected = alone.embed(&tokens, pooling).unwrap();
        let length = expected.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        let found = hear(scheduler.submit(Request::new(tokens, Work::Embed(pooling))).unwrap()).vector;
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert!((f64::from(*found) - f64::from(*expected) / length).abs() < 1e-6, "{pooling:?}");
        }
    }
    assert_eq!(hear(company).ids.len(), 100);
}

#[test]
fn what_cannot_be_answered_is_refused() {
    let scheduler = Scheduler::start(engine("llama3", 256), Limits { running: 1, waiting: 2 }).unwrap();
    let refused = |tokens: Vec<u32>, sampling| scheduler.submit(request(tokens, sampling, 1)).unwrap_err();
    assert_eq!(refused(vec![], sampled(0)), RequestError::EmptyPrompt);
    let error = refused(prompt(0, 257), sampled(0));
    assert_eq!(error, RequestError::PromptTooLong { tokens: 257, n_ctx: 256 });
    assert!(error.to_string().contains("257") && error.to_string().contains("256"));
    assert!(matches!(refused(vec![5, 320], sampled(0)), RequestError::TokenOutOfRange { id: 320, vocab: 320 }));
    let hot = SamplingParams { temperature: -1.0, ..SamplingParams::default() };
    assert!(matches!(refused(vec![5], hot), RequestError::Sampling(_)));
    // A prompt that fills the context has one token behind it.
    let full = hear(scheduler.submit(request(prompt(0, 256), sampled(0), 9)).unwrap());
    assert_eq!((full.ids.len(), full.reason), (1, Some(StopReason::ContextFull)));
    // One runs, two wait, the others are refused.
    let all: Vec<_> = (0..8).map(|i| scheduler.submit(request(prompt(i, 20), sampled(0), 200))).collect();
    let full = |result: &&Result<_, _>| matches!(result, Err(RequestError::QueueFull { limit: 2 }));
    assert!((5..=6).contains(&all.iter().filter(full).count()), "{}", all.iter().filter(full).count());
    drop(all);
    drained(&scheduler);
    assert_eq!(refused(vec![5], sampled(0)), RequestError::ShuttingDown);
}

#[test]
fn a_shutdown_answers_what_is_under_way_and_has_an_end() {
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    let events = scheduler.submit(request(prompt(0, 20), sampled(0), 50)).unwrap();
    drained(&scheduler);
    assert_eq!(hear(events).ids.len(), 50);
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    let events: Vec<_> = (0..9).map(|i| scheduler.submit(request(prompt(i, 100), sampled(0), 150)).unwrap()).collect();
    scheduler.drain(Duration::ZERO);
    assert!(scheduler.join().is_some());
    for heard in events.into_iter().map(hear) {
        assert_eq!(heard.error, Some(RequestError::ShuttingDown));
    }
}

#[test]
fn a_second_prompt_begins_with_what_the_first_left() {
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    let tokens = prompt(1, 200);
    let first = hear(scheduler.submit(request(tokens.clone(), sampled(3), 5)).unwrap());
    let second = hear(scheduler.submit(request(tokens, sampled(3), 5)).unwrap());
    assert_eq!((first.usage.cached_tokens, first.ids), (0, second.ids));
    assert!(second.usage.cached_tokens >= 128, "{:?}", second.usage);
}

/// A row of numbers that are none fails its own request; a sequence beside it is not touched.
#[test]
fn an_answer_without_a_token_fails_alone() {
    let mut alone = engine("llama3", 1024);
    let scheduler = Scheduler::start(engine("llama3", 1024), Limits::default()).unwrap();
    let forbidden = (0..320).map(|id| (id, f32::NEG_INFINITY)).collect();
    let bad = SamplingParams { logit_bias: forbidden, ..SamplingParams::default() };
    let good = scheduler.submit(request(prompt(1, 30), sampled(5), 60)).unwrap();
    let bad = scheduler.submit(request(prompt(2, 30), bad, 60)).unwrap();
    assert_eq!(hear(bad).error, Some(RequestError::NoToken));
    assert_eq!(hear(good).ids, alone.generate_ids(&prompt(1, 30), &sampled(5), 60).unwrap());
}
