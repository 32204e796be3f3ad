//! When the parts of an answer began.

use std::time::{Duration, Instant};

/// When the parts of an answer began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    asked: Instant,
    started: Option<Instant>,
    first: Option<Instant>,
}

/// How long the parts of an answer took.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Durations {
    pub total: Duration,
    /// Until the prompt's turn came.
    pub waited: Duration,
    pub prompt: Duration,
    pub answer: Duration,
}

impl Times {
    pub fn new() -> Self {
        Self { asked: Instant::now(), started: None, first: None }
    }

    /// The prompt is read from now on.
    pub fn start(&mut self) {
        self.started.get_or_insert_with(Instant::now);
    }

    /// A token came.
    pub fn token(&mut self) {
        self.first.get_or_insert_with(Instant::now);
    }

    /// Those of an answer that has ended.
    pub fn end(&self) -> Durations {
        let end = Instant::now();
        let first = self.first.unwrap_or(end);
        let started = self.started.unwrap_or(first);
        Durations {
            total: end - self.asked,
            waited: started - self.asked,
            prompt: first - started,
            answer: end - first,
        }
    }
}
