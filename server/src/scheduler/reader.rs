//! A prompt that is read for results of its own tokens: their log-probabilities, or a vector. It shares nothing with
//! others, because tokens that are in the cache already have no results.

use handmill_models::{
    engine::{Pooling, Sequence, sampling::SamplingParams},
    runtime::{
        sample::{Choice, Chosen, Sampler},
        step::Outputs,
    },
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    progress::Progress,
    request::{AnswerOptions, Event, RequestError, Scored},
};
use crate::metrics::Outcome;

/// A prompt that is read.
#[derive(Debug)]
pub(super) struct Reader {
    pub turn: u64,
    pub prompt: Vec<u32>,
    pub sequence: Sequence,
    pub goal: Goal,
    pub events: UnboundedSender<Event>,
    pub progress: Progress,
    pub failed: bool,
    /// Set while it waits for room that answers had: their number then. It begins anew where there are fewer.
    pub waits: Option<usize>,
}

/// What a prompt is read for.
#[derive(Debug)]
pub(super) enum Goal {
    /// Log-probabilities, and the token behind them.
    Score { options: AnswerOptions, scores: Box<Scores> },
    /// A vector.
    Embed { pooling: Pooling, sums: Vec<f64> },
}

/// The log-probabilities of a prompt so far.
#[derive(Debug)]
pub(super) struct Scores {
    found: Vec<Scored>,
    sampler: Sampler,
    params: SamplingParams,
    allowed: Vec<u32>,
}

impl Scores {
    pub fn new() -> Self {
        let params = SamplingParams::greedy();
        Self { found: Vec::new(), sampler: Sampler::default(), params, allowed: Vec::new() }
    }

    /// The log-probability of `token` by the row of logits in front of it: by the same code as those of chosen tokens, so
    /// that the numbers are the same.
    fn add(&mut self, logits: &[f32], token: u32, n: usize) {
        self.allowed.clear();
        self.allowed.resize(logits.len().div_ceil(32), 0);
        if let Some(word) = self.allowed.get_mut(token as usize / 32) {
            *word = 1 << (token % 32);
        }
        let mut choice = Choice::new(&self.params);
        (choice.allowed, choice.log_probabilities) = (Some(&self.allowed[..]), Some(n));
        let Chosen { log_probability, likeliest, .. } = self.sampler.choose(logits, &choice, &[], 0);
        self.found.push(Scored { id: token, log_probability, likeliest });
    }
}

impl Reader {
    /// Tokens that have yet to be read.
    pub fn rest(&self) -> &[u32] {
        self.prompt.get(self.sequence.len()..).unwrap_or_default()
    }

    /// Begins anew.
    pub fn restart(&mut self, answers: usize) {
        self.sequence = Sequence::default();
        self.waits = Some(answers);
        match &mut self.goal {
            Goal::Score { scores, .. } => scores.found.clear(),
            Goal::Embed { sums, .. } => sums.fill(0.0),
        }
    }

    /// Makes ready what the choice of the token behind it needs.
    pub fn prepare(&mut self) {
        if let Goal::Score { options, .. } = &mut self.goal
            && let Err(error) = options.prepare()
        {
            self.fail(error);
        }
    }

    pub fn fail(&mut self, error: RequestError) {
        self.progress.end(Outcome::Failed);
        // A client that has left hears nothing.
        let _ = self.events.send(Event::Failed(error));
        self.failed = true;
    }

    /// The rows that have logits, and those that have hidden states, in a step of its next tokens, the last ones among
    /// them or not.
    pub fn outputs(&self, last: bool) -> (Outputs, Outputs) {
        match &self.goal {
            Goal::Score { .. } => (Outputs::All, Outputs::None),
            Goal::Embed { pooling: Pooling::Mean, .. } => (Outputs::None, Outputs::All),
            Goal::Embed { .. } if last => (Outputs::None, Outputs::Last),
            Goal::Embed { .. } => (Outputs::None, Outputs::None),
        }
    }

    /// Takes the logits `[n, vocab]` of the last `n` tokens of the sequence.
    pub fn take_logits(&mut self, n: usize, logits: &[f32], vocab: usize) {
        let Goal::Score { options, scores } = &mut self.goal else { return };
        let from = self.sequence.len().saturating_sub(n);
        let next = self.prompt.iter().skip(from + 1).take(n);
        for (row, &token) in logits.chunks_exact(vocab.max(1)).zip(next) {
            scores.add(row, token, options.log_probabilities.unwrap_or(0));
        }
    }

    /// Takes hidden states `[rows, width]`.
    pub fn take_hidden(&mut self, hidden: &[f32]) {
        let Goal::Embed { sums, .. } = &mut self.goal else { return };
        for row in hidden.chunks_exact(sums.len().max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, x)| *sum += f64::from(*x));
        }
    }

    /// The result of an embedding: the vector, made as long as 1. A mean points where its sum does.
    pub fn vector(sums: &[f64]) -> Option<Vec<f32>> {
        let length = sums.iter().map(|x| x * x).sum::<f64>().sqrt();
        let vector: Vec<f32> = sums.iter().map(|x| (x / length) as f32).collect();
        vector.iter().all(|x| x.is_finite()).then_some(vector)
    }
}

impl Goal {
    /// The log-probabilities that were found.
    pub fn found(&mut self) -> Vec<Scored> {
        match self {
            Self::Score { scores, .. } => std::mem::take(&mut scores.found),
            Self::Embed { .. } => Vec::new(),
        }
    }
}
