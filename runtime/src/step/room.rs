//! Room for steps: the pages and states that are free, and those that a step lacks.

use super::{PageBook, Pages, SequenceKv, StepError};

/// Pages and states of a backend, in all and free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Room {
    /// Tokens that the pages hold for all sequences together, in the group of layers that holds the fewest. `usize::MAX`
    /// where no layer caches tokens.
    pub tokens: usize,
    /// Those of them whose pages are free, in the group that has the fewest.
    pub free_tokens: usize,
    /// The most states that there may be: 0 where the graph has none.
    pub states: usize,
    /// Those of them that are free.
    pub free_states: usize,
}

/// Pages and states that must be given back before a step can run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// By group.
    pub(super) pages: Vec<usize>,
    pub(super) states: usize,
}

impl Missing {
    /// Whether the step can run as things are.
    pub fn is_none(&self) -> bool {
        self.states == 0 && self.pages.iter().all(|n| *n == 0)
    }

    /// Pages that the group of layers lacks which lacks the most.
    pub fn pages(&self) -> usize {
        self.pages.iter().copied().max().unwrap_or(0)
    }

    /// States.
    pub fn states(&self) -> usize {
        self.states
    }
}

impl PageBook {
    fn room(&mut self) -> Room {
        self.take_returned();
        let tokens = self.groups.iter().map(|g| g.capacity * g.spec.page_tokens()).min();
        let free_tokens = self.groups.iter().map(|g| g.free_pages() * g.spec.page_tokens()).min();
        let (states, free_states) = if self.slots.is_empty() { (0, 0) } else { self.slots.room() };
        Room {
            tokens: tokens.unwrap_or(usize::MAX),
            free_tokens: free_tokens.unwrap_or(usize::MAX),
            states,
            free_states,
        }
    }

    /// See [`Pages::missing`].
    pub(super) fn missing(&mut self, steps: &[(&SequenceKv, usize)], keep: bool) -> Result<Missing, StepError> {
        self.take_returned();
        steps.iter().try_for_each(|(seq, _)| self.check(seq))?;
        let pages = self.groups.iter().enumerate().map(|(g, group)| {
            let wanted: usize = steps.iter().map(|(seq, n)| group.wanted(g, seq, *n)).sum();
            wanted.saturating_sub(group.free_pages())
        });
        let pages = pages.collect();
        let of_states = |(seq, n): &(&SequenceKv, usize)| self.slots.wanted(&seq.held.states, *n, keep || seq.back > 0);
        let states = steps.iter().map(of_states).sum::<usize>().saturating_sub(self.slots.room().1);
        Ok(Missing { pages, states })
    }
}

impl Pages<'_> {
    /// The pages and states that there are, and those that are free.
    pub fn room(&mut self) -> Room {
        self.0.room()
    }

    /// The pages and states that a step lacks which adds so many tokens to each of these sequences; with `keep`, a step
    /// that may be taken back. Sequences that share a page may need one less.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where another backend has a sequence.
    pub fn missing(&mut self, steps: &[(&SequenceKv, usize)], keep: bool) -> Result<Missing, StepError> {
        self.0.missing(steps, keep)
    }
}
