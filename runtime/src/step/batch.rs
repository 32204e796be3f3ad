//! The rows of a step.

use super::{KvType, PageBook, PageCopy, SequenceKv, StateStep, StepError};
use crate::graph::{Load, Op, Plan, Rows};

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

/// New tokens of one sequence.
#[derive(Debug)]
pub struct SequenceStep<'a> {
    /// The sequence's cache; the tokens continue it.
    pub kv: &'a mut SequenceKv,
    /// The new tokens.
    pub tokens: &'a [u32],
    /// Those that get an output row.
    pub outputs: Outputs,
}

impl SequenceStep<'_> {
    /// Output rows that the sequence wants.
    #[cfg(feature = "gpu")]
    pub(crate) fn n_outputs(&self) -> usize {
        match self.outputs {
            Outputs::None => 0,
            Outputs::Last => self.tokens.len().min(1),
            Outputs::All => self.tokens.len(),
        }
    }
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
    /// Checks the step, makes room for it in the cache and writes down its rows. With `keep` the caller may take the
    /// step back later, so no state is overwritten.
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
        keep: bool,
    ) -> Result<(), StepError> {
        let tokens: usize = steps.iter().map(|s| s.tokens.len()).sum();
        if tokens > max_tokens {
            return Err(StepError::TooLong { tokens, limit: max_tokens });
        }
        if let Some(&id) = steps.iter().flat_map(|s| s.tokens).find(|id| **id as usize >= vocab) {
            return Err(StepError::TokenOutOfRange { id, vocab });
        }
        book.take_returned();
        self.begun = false;
        self.copies.clear();
        self.states.clear();
        for step in steps.iter_mut() {
            match book.extend(step.kv, step.tokens.len(), keep, &mut self.copies) {
                Ok(state) => self.states.push(state),
                Err(error) => {
                    self.undo(book, steps);
                    return Err(error);
                }
            }
        }
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        self.cached = 0;
        for (step, &state) in steps.iter_mut().zip(&self.states) {
            let (first_row, n_rows, cached) = (self.tokens.len(), step.tokens.len(), step.kv.len());
            self.tokens.extend_from_slice(step.tokens);
            self.positions.extend((cached - n_rows..cached).map(|p| p as u32));
            let (length, first_key) = (step.kv.length(), self.cached);
            self.sequences.push(SequenceRows { first_row, n_rows, cached, length, first_key, state });
            self.cached += cached;
            let rows = first_row as u32..(first_row + n_rows) as u32;
            match step.outputs {
                Outputs::None => {}
                Outputs::Last => self.outputs.extend(rows.last()),
                Outputs::All => self.outputs.extend(rows),
            }
        }
        Ok(())
    }

    /// From here on kernels may run.
    #[cfg(feature = "gpu")]
    pub fn begin(&mut self) {
        self.begun = true;
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
    pub(crate) fn vocab(&self) -> usize {
        let tables = self.graph.nodes().iter().filter_map(|n| match n.op {
            Op::Embed { table, or_first: false, .. } => Some(self.graph.weight(table).rows()),
            _ => None,
        });
        tables.min().unwrap_or(usize::MAX)
    }
}
