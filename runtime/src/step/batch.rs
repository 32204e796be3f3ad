//! The rows of a step.

use super::{KvType, PageBook, PageCopy, SequenceKv, StateStep, StepError, Ticket, tickets::MOST_UNDER_WAY};
use crate::{
    graph::{Load, Op, Plan, Rows},
    sample::Choice,
};

/// Which tokens of a step get an output row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outputs {
    /// None: the step only fills the cache.
    None,
    /// The last.
    Last,
    /// Every token.
    All,
}

impl Outputs {
    /// Their number among `tokens`.
    pub(crate) fn count(self, tokens: usize) -> usize {
        match self {
            Outputs::None => 0,
            Outputs::Last => tokens.min(1),
            Outputs::All => tokens,
        }
    }
}

/// The new tokens of a sequence.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Tokens<'a> {
    /// Numbers.
    Ids(&'a [u32]),
    /// The token that a step under way chooses, whatever it will be: the step, and which of its choices, counted from 0
    /// over the sequences that had one. Where that step can choose nothing, this one runs on token 0 and its results
    /// mean nothing.
    Chosen(Ticket, usize),
}

impl Tokens<'_> {
    /// Their number.
    pub fn len(&self) -> usize {
        match self {
            Tokens::Ids(ids) => ids.len(),
            Tokens::Chosen(..) => 1,
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> From<&'a [u32]> for Tokens<'a> {
    fn from(ids: &'a [u32]) -> Self {
        Self::Ids(ids)
    }
}

impl<'a, const N: usize> From<&'a [u32; N]> for Tokens<'a> {
    fn from(ids: &'a [u32; N]) -> Self {
        Self::Ids(ids)
    }
}

impl<'a> From<&'a Vec<u32>> for Tokens<'a> {
    fn from(ids: &'a Vec<u32>) -> Self {
        Self::Ids(ids)
    }
}

/// New tokens of one sequence, and what is wanted of them.
#[derive(Debug)]
#[non_exhaustive]
pub struct SequenceStep<'a> {
    /// The sequence's cache; the tokens continue it.
    pub kv: &'a mut SequenceKv,
    /// The new tokens.
    pub tokens: Tokens<'a>,
    /// Those whose logits are handed out.
    pub outputs: Outputs,
    /// Those whose hidden states are; the plan must have them as a result
    /// ([`Plan::with_hidden`](crate::graph::Plan::with_hidden)).
    pub hidden: Outputs,
    /// How the token behind the last one is chosen; none where no token is wanted. Without tokens there is no choice.
    pub choice: Option<Choice<'a>>,
}

impl<'a> SequenceStep<'a> {
    /// A step that chooses nothing.
    pub fn new(kv: &'a mut SequenceKv, tokens: impl Into<Tokens<'a>>, outputs: Outputs) -> Self {
        Self { kv, tokens: tokens.into(), outputs, hidden: Outputs::None, choice: None }
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

    /// Output rows that the sequence wants or needs.
    pub(crate) fn n_outputs(&self) -> usize {
        let n = self.tokens.len();
        let chosen = n.min(usize::from(self.choice.is_some()));
        self.outputs.count(n).max(self.hidden.count(n)).max(chosen)
    }
}

/// Refuses steps that want what `plan` does not have.
///
/// # Errors
/// [`StepError::NoHidden`].
pub(crate) fn check_results(steps: &[SequenceStep<'_>], plan: &Plan) -> Result<(), StepError> {
    let hidden = steps.iter().any(|s| s.hidden != Outputs::None);
    if hidden && plan.hidden.is_none() { Err(StepError::NoHidden) } else { Ok(()) }
}

/// Marks a token that a device knows alone: the other bits are its place there.
pub(crate) const AT_PLACE: u32 = 1 << 31;

/// A choice of the step under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChoiceRow {
    /// Which of the step's sequences it is for.
    pub step: usize,
    /// The output row with its logits.
    pub output: usize,
    /// That row's position in its sequence.
    pub position: usize,
}

/// The rows of the current step. Kept from step to step, so that nothing is allocated.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub tokens: Vec<u32>,
    pub positions: Vec<u32>,
    pub sequences: Vec<SequenceRows>,
    /// Tokens cached by all sequences together, this step's included.
    pub cached: usize,
    /// Token rows that have an output.
    pub outputs: Vec<u32>,
    /// Output rows whose logits are handed out, and those whose hidden states are.
    pub wanted: Vec<u32>,
    pub hidden: Vec<u32>,
    /// The choices, in the order of their sequences.
    pub choices: Vec<ChoiceRow>,
    /// Pages to copy before the step runs.
    pub copies: Vec<PageCopy>,
    /// States read and written, by sequence.
    states: Vec<StateStep>,
    /// Whether kernels may have run: states that they work on in place have then changed.
    begun: bool,
}

/// One sequence's part of a step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SequenceRows {
    /// Which of the step's sequences it is.
    #[cfg(feature = "gpu")]
    pub step: usize,
    #[cfg(feature = "gpu")]
    pub role: super::Role,
    /// Its output rows.
    #[cfg(feature = "gpu")]
    pub first_output: usize,
    #[cfg(feature = "gpu")]
    pub n_outputs: usize,
    pub first_row: usize,
    pub n_rows: usize,
    /// Tokens cached, this step's included.
    pub cached: usize,
    /// The length by which dynamic and longrope RoPE turn: `cached`, or more where a longer prompt was announced.
    pub length: usize,
    /// Cached tokens of the sequences before this one.
    pub first_key: usize,
    /// The state that is read and the one that is written.
    pub state: StateStep,
}

impl Batch {
    /// Checks the step, makes room for it in the cache and writes down its rows. `chosen` has a word for each sequence
    /// whose token a step under way chooses: an id, or a place with [`AT_PLACE`]; that sequence's state is kept, because its owner takes the step back where
    /// the answer turns out to have ended.
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than `max_tokens` or the cache takes, sequences of another book.
    /// Nothing has changed then.
    pub fn admit(
        &mut self,
        book: &mut PageBook,
        steps: &mut [SequenceStep<'_>],
        max_tokens: usize,
        vocab: usize,
        chosen: &[Option<u32>],
    ) -> Result<(), StepError> {
        let tokens: usize = steps.iter().map(|s| s.tokens.len()).sum();
        if tokens > max_tokens {
            return Err(StepError::TooLong { tokens, limit: max_tokens });
        }
        let ids = steps.iter().filter_map(|s| if let Tokens::Ids(ids) = s.tokens { Some(ids) } else { None });
        let known = chosen.iter().flatten().filter(|word| **word & AT_PLACE == 0);
        if let Some(&id) = ids.flatten().chain(known).find(|id| **id as usize >= vocab) {
            return Err(StepError::TokenOutOfRange { id, vocab });
        }
        if steps.iter().any(|s| s.choice.is_some() && s.tokens.is_empty()) {
            return Err(StepError::NothingToChooseFrom);
        }
        book.take_returned();
        self.begun = false;
        self.copies.clear();
        self.states.clear();
        for (i, step) in steps.iter_mut().enumerate() {
            let keep = step.tokens.chosen().is_some();
            match book.extend(step.kv, step.tokens.len(), keep, &mut self.copies) {
                Ok(state) => self.states.push(state),
                Err(error) => {
                    self.undo(book, steps);
                    return Err(error.of_sequence(i));
                }
            }
        }
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.wanted.clear();
        self.hidden.clear();
        self.choices.clear();
        self.cached = 0;
        for (i, (step, &state)) in steps.iter_mut().zip(&self.states).enumerate() {
            let (first_row, n_rows, cached) = (self.tokens.len(), step.tokens.len(), step.kv.len());
            match step.tokens {
                Tokens::Ids(ids) => self.tokens.extend_from_slice(ids),
                Tokens::Chosen(..) => self.tokens.push(chosen.get(i).copied().flatten().unwrap_or(0)),
            }
            self.positions.extend((cached - n_rows..cached).map(|p| p as u32));
            let (length, first_key) = (step.kv.length(), self.cached);
            self.sequences.push(SequenceRows {
                #[cfg(feature = "gpu")]
                step: i,
                #[cfg(feature = "gpu")]
                role: super::Role::of(step.kv, n_rows),
                #[cfg(feature = "gpu")]
                first_output: self.outputs.len(),
                #[cfg(feature = "gpu")]
                n_outputs: step.n_outputs(),
                first_row,
                n_rows,
                cached,
                length,
                first_key,
                state,
            });
            self.cached += cached;
            let end = (first_row + n_rows) as u32;
            self.outputs.extend(end - step.n_outputs() as u32..end);
            // Each kind of result is wanted of the last rows.
            let end = self.outputs.len() as u32;
            self.wanted.extend(end - step.outputs.count(n_rows) as u32..end);
            self.hidden.extend(end - step.hidden.count(n_rows) as u32..end);
            if step.choice.is_some() {
                self.choices.push(ChoiceRow { step: i, output: self.outputs.len() - 1, position: cached - 1 });
            }
        }
        Ok(())
    }

    /// From here on kernels may run.
    #[cfg(feature = "gpu")]
    pub fn begin(&mut self) {
        self.begun = true;
    }

    /// Whether kernels may have run.
    #[cfg(feature = "gpu")]
    pub fn has_begun(&self) -> bool {
        self.begun
    }

    /// Takes an admitted step back that the backend cannot run or in which it has failed. Sequences whose state kernels
    /// worked on in place are empty afterwards.
    pub fn undo(&mut self, book: &mut PageBook, steps: &mut [SequenceStep<'_>]) {
        // The latest first: each then finds the pages as it left them.
        for (step, state) in steps.iter_mut().zip(&self.states).rev() {
            book.take_back(step.kv, step.tokens.len(), &self.copies, *state);
            if self.begun && !step.tokens.is_empty() && state.from == Some(state.to) {
                book.empty(step.kv);
            }
        }
        self.copies.clear();
        self.states.clear();
        // The backend may have had no memory for the new pages and slots.
        book.forget_unused();
    }

    /// Whether the logits of all output rows are handed out.
    pub fn wants_all(&self) -> bool {
        self.wanted.len() == self.outputs.len()
    }

    /// The stages of `plan` that the step runs: those of the head only where something needs them.
    pub fn stages(&self, plan: &Plan) -> usize {
        let head = self.hidden.is_empty() || !self.wanted.is_empty() || !self.choices.is_empty();
        if head { plan.stages.len() } else { plan.stages_before_head() }
    }

    /// Ends an admitted step with the outcome `done`: settles it, or takes it back where it has failed.
    #[cfg(feature = "gpu")]
    pub fn finish<T, E>(
        &mut self,
        book: &mut PageBook,
        steps: &mut [SequenceStep<'_>],
        done: Result<T, E>,
    ) -> Result<T, E> {
        match &done {
            Ok(_) => self.settle(book, steps),
            Err(_) => self.undo(book, steps),
        }
        done
    }

    /// Ends an admitted step that has run: drops the pages that its sequences' windows have passed. A sequence whose token
    /// a step under way chooses may be taken back by as many tokens as may be under way.
    pub fn settle(&self, book: &mut PageBook, steps: &mut [SequenceStep<'_>]) {
        for step in steps {
            let back = if step.tokens.chosen().is_some() { MOST_UNDER_WAY } else { 0 };
            book.drop_passed(step.kv, back);
        }
    }

    /// The step's rows and cached tokens, from which its cost follows.
    pub fn load(&self, kv: KvType) -> Load {
        Load {
            tokens: self.tokens.len(),
            outputs: self.outputs.len(),
            sequences: self.sequences.iter().map(|s| (s.cached, s.n_rows)).collect(),
            kv,
        }
    }

    /// Rows of that kind in this step.
    pub fn count(&self, rows: Rows) -> usize {
        match rows {
            Rows::Token => self.tokens.len(),
            Rows::Output => self.outputs.len(),
        }
    }
}

impl Plan {
    /// Rows of the smallest embedding table: token ids must be less.
    pub fn vocab(&self) -> usize {
        let tables = self.graph.nodes().iter().filter_map(|n| match n.op {
            Op::Embed { table, or_first: false, .. } => Some(self.graph.weight(table).rows()),
            _ => None,
        });
        tables.min().unwrap_or(usize::MAX)
    }
}
