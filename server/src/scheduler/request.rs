//! What a scheduler is asked for, and what it tells meanwhile.

use handmill_models::{
    StopReason,
    engine::{
        Pooling,
        sampling::{SamplingError, SamplingParams},
    },
    runtime::sample::Choice,
};

use crate::constrain::{ConstraintError, Mask};

/// One prompt and what is wanted of it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// What is wanted.
    pub work: Work,
    /// Of requests that wait, those with a higher number begin first; among equals the earliest.
    pub priority: i64,
}

/// What is wanted of a prompt.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Work {
    /// Its continuation.
    Answer(AnswerOptions),
    /// A vector that stands for it. The engine must have hidden states.
    Embed(Pooling),
}

impl Request {
    /// A request of priority 0.
    pub fn new(prompt: Vec<u32>, work: Work) -> Self {
        Self { prompt, work, priority: 0 }
    }
}

/// How a prompt is continued.
#[derive(Clone, Debug, Default)]
pub struct AnswerOptions {
    /// How tokens are chosen.
    pub sampling: SamplingParams,
    /// Most tokens of the answer; none means as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to go on where the model ends its turn.
    pub ignore_eos: bool,
    /// Whether the names of control tokens are part of the text.
    pub show_special: bool,
    /// Asks for the log-probability of each token, and of as many of the likeliest in its place.
    pub log_probabilities: Option<usize>,
    /// The form that the answer must have. It then ends where that is complete, whatever
    /// [`AnswerOptions::ignore_eos`] says.
    pub mask: Option<Box<Mask>>,
    /// Whether the prompt's tokens get theirs as well: [`Event::Prompt`]. Such a prompt is run from its first token on, and
    /// nothing of it is taken from the cache.
    pub of_prompt: bool,
}

impl AnswerOptions {
    /// How the next token is chosen.
    pub(super) fn choice(&self) -> Choice<'_> {
        let mut choice = Choice::new(&self.sampling);
        choice.log_probabilities = self.log_probabilities;
        choice.allowed = self.mask.as_ref().and_then(|mask| mask.allowed());
        choice
    }

    /// Makes the mask of the next token.
    pub(super) fn prepare(&mut self) -> Result<(), RequestError> {
        Ok(self.mask.as_mut().map_or(Ok(()), |mask| mask.prepare())?)
    }
}

/// A token and how likely it was.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Scored {
    /// The token.
    pub id: u32,
    /// Its log-probability (natural logarithm), where it was asked for and is one. Where the token is among
    /// [`Scored::likeliest`], the two numbers are the same.
    pub log_probability: Option<f32>,
    /// The likeliest tokens in its place, likeliest first.
    pub likeliest: Vec<(u32, f32)>,
}

/// News of a request, in this order: `Started`, perhaps `Prompt`, any number of `Token`, `Finished`. An embedding has
/// `Started`, `Embedding`, `Finished`. `Failed` ends a request at any time.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Event {
    /// It has begun.
    Started(Usage),
    /// The prompt's tokens but for the first, which nothing predicts.
    Prompt(Vec<Scored>),
    /// One more token of the answer; a token that only ends the turn is none.
    Token {
        /// The token.
        scored: Scored,
        /// The text that is known with it: whole characters, which may be those of tokens before, or none yet.
        text: String,
    },
    /// The vector, of length 1.
    Embedding(Vec<f32>),
    /// It is over.
    Finished {
        /// Why.
        reason: StopReason,
        /// The stop text that ended it.
        stop: Option<String>,
        /// Text that was held back, because it might have become a stop text or a character.
        text: String,
        /// Tokens in all.
        usage: Usage,
    },
    /// It failed.
    Failed(RequestError),
}

/// Token counts of a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Usage {
    /// Tokens of the prompt.
    pub prompt_tokens: usize,
    /// Those of them that were in the cache and were not run.
    pub cached_tokens: usize,
    /// Tokens generated, one that ends the turn included.
    pub completion_tokens: usize,
}

/// Reasons why a request is refused or fails.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A prompt without tokens.
    #[error("the prompt has no tokens")]
    EmptyPrompt,
    /// A prompt that leaves no room for a token behind it.
    #[error("the prompt has {tokens} tokens, and the context holds {n_ctx}")]
    PromptTooLong {
        /// Tokens of the prompt.
        tokens: usize,
        /// Tokens that fit.
        n_ctx: usize,
    },
    /// A token that the model does not have.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The token.
        id: u32,
        /// Tokens of the vocabulary.
        vocab: usize,
    },
    /// Sampling parameters out of range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// An answer that cannot go on in the form that was asked for.
    #[error(transparent)]
    Constraint(#[from] ConstraintError),
    /// A vector of a model that was loaded without hidden states.
    #[error("the model was loaded without hidden states, which embeddings are made of")]
    NoHidden,
    /// As many requests wait as may.
    #[error("{limit} requests wait already, which is the most; try again later")]
    QueueFull {
        /// The limit.
        limit: usize,
    },
    /// No more requests are taken, or this one did not end in the time that was left.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// No token can be chosen.
    #[error(
        "no token can be chosen: the model's values are no longer finite numbers, or logit_bias forbids every token"
    )]
    NoToken,
    /// A vector with elements that are no numbers.
    #[error("the model's values are no longer finite numbers")]
    NotFinite,
    /// A step of the engine failed; other requests of that step failed with it.
    #[error("the model failed: {0}")]
    Engine(String),
}
