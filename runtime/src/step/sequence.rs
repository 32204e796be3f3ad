//! What one sequence holds of a backend's pages and states.
//!
//! A sequence knows the book that its numbers are of. One without tokens is of no book: the first step makes it one's.
//! When a sequence is dropped, in whatever thread, its numbers go to a list that its book takes them from before it hands
//! out others; where the book is gone by then, the list goes with the last of its sequences.

use std::sync::{Arc, Mutex, PoisonError};

use super::slots::StateAt;

/// Page numbers and states that a sequence holds.
#[derive(Debug, Default)]
pub(crate) struct Held {
    /// By group: page numbers, oldest first.
    pub pages: Vec<Vec<u32>>,
    /// States that the sequence may continue from, the current one last; none while it is empty.
    pub states: Vec<StateAt>,
}

/// Where dropped sequences of one book leave what they held. Its address tells books apart.
#[derive(Debug, Default)]
pub(super) struct Returns(Mutex<Vec<Held>>);

impl Returns {
    fn put(&self, held: Held) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    /// All that came since the last time. The lock is open again when the caller goes through it.
    pub fn take(&self) -> Vec<Held> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What one sequence has cached, in pages of the backend that ran its first step; no other one continues it. Dropping it
/// gives the pages back.
#[derive(Debug, Default)]
pub struct SequenceKv {
    pub(crate) held: Held,
    /// Where to give it back; none before the first step.
    pub(super) home: Option<Arc<Returns>>,
    /// By group: pages dropped from the front because a window has passed them.
    pub(crate) dropped: Vec<usize>,
    /// Tokens cached.
    pub(super) len: usize,
    /// Tokens that will be cached once the prompt is in of which this step brings a part.
    pub(super) expected: usize,
}

impl SequenceKv {
    /// Tokens cached.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Announces that the next steps bring the parts of a prompt, `tokens` with what is cached: what depends on the
    /// sequence's length (dynamic and longrope RoPE) takes that length for all parts, as it would for the whole. 0: no more.
    pub fn expect(&mut self, tokens: usize) {
        self.expected = tokens;
    }

    /// Tokens cached, or more where they were announced.
    pub(crate) fn length(&self) -> usize {
        self.len.max(self.expected)
    }

    /// Whether its numbers are of the book with these returns.
    pub(super) fn is_of(&self, book: &Arc<Returns>) -> bool {
        self.home.as_ref().is_some_and(|home| Arc::ptr_eq(home, book))
    }
}

impl Drop for SequenceKv {
    fn drop(&mut self) {
        if let Some(home) = &self.home
            && !self.is_empty()
        {
            home.put(std::mem::take(&mut self.held));
        }
    }
}
