//! Sequences and their parts in a step.

use handmill_runtime::{
    sample::Choice,
    step::{Outputs, SequenceKv, SequenceStep, Tokens},
};

/// One sequence of tokens and its cache, in the engine that ran its first step; no other engine continues it. Dropping
/// it, in any thread, gives the cache back.
#[derive(Debug, Default)]
pub struct Sequence {
    pub(super) kv: SequenceKv,
    /// Those of its tokens that will not be taken back.
    pub(super) tokens: Vec<u32>,
    /// Whether its pages are kept for other sequences while it runs.
    pub(super) shared: bool,
    /// The greatest length by which tokens of it were turned.
    pub(super) longest: usize,
}

impl Sequence {
    /// Tokens that the sequence holds.
    pub fn len(&self) -> usize {
        self.kv.len()
    }

    /// Whether the sequence holds no tokens.
    pub fn is_empty(&self) -> bool {
        self.kv.is_empty()
    }

    /// Counts `token`, which a step that was collected chose and on which a step under way already runs.
    /// [`Engine::take_back`](super::Engine::take_back) then leaves it.
    pub fn confirm(&mut self, token: u32) {
        if self.tokens.len() < self.kv.len() {
            self.tokens.push(token);
        }
    }

    /// Announces a prompt: after the next steps the sequence will hold `tokens`. All of its parts are then computed as one
    /// prompt: rotations that depend on the length take that length, and a part of one token counts as one of the prompt,
    /// not as one that was chosen. [`Engine::begin`](super::Engine::begin) and
    /// [`Engine::prefill`](super::Engine::prefill) do so themselves. It ends when the sequence is longer.
    pub fn expect(&mut self, tokens: usize) {
        self.kv.expect(tokens);
        self.longest = self.longest.max(tokens);
    }

    /// Keeps what going back by up to `tokens` tokens needs, from the next step on; see [`SequenceKv::keep_back`]. Each
    /// step back takes the memory of a state, where the model has recurrent ones.
    pub fn keep_back(&mut self, tokens: usize) {
        self.kv.keep_back(tokens);
    }
}

/// New tokens of one sequence for [`Engine::submit`](super::Engine::submit) and [`Engine::step`](super::Engine::step).
#[derive(Debug)]
#[non_exhaustive]
pub struct Step<'a> {
    /// The sequence that they continue.
    pub sequence: &'a mut Sequence,
    /// The tokens.
    pub tokens: Tokens<'a>,
    /// Those that get logits.
    pub outputs: Outputs,
    /// Those whose hidden states behind the last norm are handed out; [`EngineOptions::hidden`](super::EngineOptions::hidden) must be set.
    pub hidden: Outputs,
    /// How the token behind the last one is chosen. The engine fills in [`Choice::recent`].
    pub choice: Option<Choice<'a>>,
}

impl<'a> Step<'a> {
    /// A step that chooses nothing.
    pub fn new(sequence: &'a mut Sequence, tokens: impl Into<Tokens<'a>>, outputs: Outputs) -> Self {
        Self { sequence, tokens: tokens.into(), outputs, hidden: Outputs::None, choice: None }
    }

    /// The same with a choice of the next token.
    #[must_use]
    pub fn choosing(mut self, choice: Choice<'a>) -> Self {
        self.choice = Some(choice);
        self
    }

    /// The same with hidden states.
    #[must_use]
    pub fn with_hidden(mut self, hidden: Outputs) -> Self {
        self.hidden = hidden;
        self
    }

    pub(super) fn of_backend(&mut self) -> SequenceStep<'_> {
        let Sequence { kv, tokens, .. } = &mut *self.sequence;
        let step = SequenceStep::new(kv, self.tokens, self.outputs).with_hidden(self.hidden);
        match self.choice {
            Some(mut choice) => {
                choice.recent = tokens;
                step.choosing(choice)
            }
            None => step,
        }
    }
}
