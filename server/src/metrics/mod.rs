//! Counts and times of a scheduler, and their text in Prometheus' format.
//!
//! Whoever counts adds to atomics and never waits, so that a step costs no more for being counted. A reader may therefore see a
//! request in one counter and not yet in another.

mod histogram;
mod text;

use std::sync::atomic::{AtomicU64, Ordering};

pub(crate) use histogram::Histogram;
use text::Text;

use crate::scheduler::Status;

/// The type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Seconds of waits: from a step of a small model to a long prompt on a slow machine.
const WAITS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0];
/// Seconds between tokens.
const GAPS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that was asked for was told.
    Finished,
    /// Its client left.
    Cancelled,
    /// It ended with an error.
    Failed,
    /// It was never taken.
    Refused,
}

impl Outcome {
    const ALL: [Self; 4] = [Self::Finished, Self::Cancelled, Self::Failed, Self::Refused];

    fn name(self) -> &'static str {
        match self {
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
            Self::Refused => "refused",
        }
    }
}

/// A number that only grows.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// All that a scheduler counts.
#[derive(Debug)]
pub(crate) struct Metrics {
    requests: [Counter; 4],
    /// Tokens of prompts that steps have run, each once: tokens that are run again, because their answer was set aside, are
    /// not counted again.
    pub prompt_tokens: Counter,
    /// Tokens of prompts that were in the cache.
    pub cached_tokens: Counter,
    pub generated_tokens: Counter,
    steps: Counter,
    step_rows: AtomicU64,
    pub time_to_first_token: Histogram,
    pub inter_token: Histogram,
    pub queue: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        Self {
            requests: Default::default(),
            prompt_tokens: Counter::default(),
            cached_tokens: Counter::default(),
            generated_tokens: Counter::default(),
            steps: Counter::default(),
            step_rows: AtomicU64::new(0),
            time_to_first_token: Histogram::new(WAITS),
            inter_token: Histogram::new(GAPS),
            queue: Histogram::new(WAITS),
        }
    }
}

impl Metrics {
    /// Counts a request that has ended.
    pub fn request(&self, outcome: Outcome) {
        self.requests[outcome as usize].add(1);
    }

    /// Counts a step with so many rows.
    pub fn step(&self, rows: usize) {
        self.steps.add(1);
        self.step_rows.store(rows as u64, Ordering::Relaxed);
    }

    /// The text of all, with what `status` says of the present, for the server of a model of that name.
    pub fn text(&self, model: &str, status: &Status) -> String {
        let mut text = Text::default();
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("model", model)];
        text.family("handmill_info", "gauge", "The program's version and the model's name; always 1.");
        text.sample("handmill_info", &labels, 1);

        text.gauge("handmill_requests_running", "Requests that run.", status.running);
        text.gauge("handmill_requests_queued", "Requests that wait for their turn.", status.waiting);
        let rows = self.step_rows.load(Ordering::Relaxed);
        text.gauge("handmill_step_rows", "Rows of the last step: tokens of answers and of prompts.", rows);
        let name = "handmill_requests_total";
        text.family(name, "counter", "Requests that have ended, by what became of them.");
        for outcome in Outcome::ALL {
            text.sample(name, &[("outcome", outcome.name())], self.requests[outcome as usize].get());
        }
        let set_aside = "Times that an answer was set aside, because the cache was full.";
        text.counter("handmill_requests_set_aside_total", set_aside, status.set_aside);

        let run = "Tokens of prompts that were run; those that were in the cache are not among them.";
        text.counter("handmill_prompt_tokens_total", run, self.prompt_tokens.get());
        let cached = "Tokens of prompts that were in the cache, and so were not run.";
        text.counter("handmill_prompt_tokens_cached_total", cached, self.cached_tokens.get());
        let generated = "Tokens generated, those that end a turn included.";
        text.counter("handmill_generated_tokens_total", generated, self.generated_tokens.get());
        text.counter("handmill_steps_total", "Steps of the engine.", self.steps.get());

        let first = "Seconds from a request's arrival to its first token.";
        text.histogram("handmill_time_to_first_token_seconds", first, &self.time_to_first_token);
        let gap = "Seconds between two tokens of an answer.";
        text.histogram("handmill_inter_token_seconds", gap, &self.inter_token);
        text.histogram("handmill_queue_seconds", "Seconds from a request's arrival to its beginning.", &self.queue);

        let tokens = "Tokens that the cache's pages hold for all requests and kept prefixes together.";
        text.gauge("handmill_cache_tokens", tokens, status.cache_tokens);
        let free = "Tokens of the cache that neither a request nor a kept prefix has.";
        text.gauge("handmill_cache_tokens_free", free, status.free_tokens);
        let kept = "Tokens of the cache that are kept for prompts to come.";
        text.gauge("handmill_cache_tokens_kept", kept, status.kept_tokens);
        text.finish()
    }
}
