//! One sequence's share of a backend's pages and states.
//!
//! A sequence knows the book that its numbers are of. A sequence without tokens belongs to no book; its first step
//! gives it to one. When a sequence is dropped, in any thread, its numbers go to a list; its book empties the list
//! before it hands out others. Where the book is gone by then, the list goes with the last of its sequences.

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

/// The list where dropped sequences of one book leave their pages and states. Its address tells books apart.
#[derive(Debug, Default)]
pub(super) struct Returns(Mutex<Vec<Held>>);

impl Returns {
    pub fn put(&self, held: Held) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(held);
    }

    /// All entries since the last call. The lock is released on return.
    pub fn take(&self) -> Vec<Held> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// One sequence's cache, in pages of the backend that ran its first step; no other backend continues it. Dropping it
/// gives the pages back.
#[derive(Debug, Default)]
pub struct SequenceKv {
    pub(crate) held: Held,
    /// The list that its pages go back to; none before the first step.
    pub(super) home: Option<Arc<Returns>>,
    /// By group: pages dropped from the front, all of whose keys a window has passed.
    pub(crate) dropped: Vec<usize>,
    /// Tokens cached.
    pub(super) len: usize,
    /// Tokens that will be cached after the whole prompt, of which the next steps bring the parts.
    pub(super) expected: usize,
    /// Tokens that its owner may want to take back.
    pub(super) back: usize,
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

    /// Announces a prompt in parts: after the next steps `tokens` will be cached. Rotations that depend on the
    /// sequence's length (dynamic and longrope RoPE) take that length for all parts, as they would for the whole, and a part
    /// of one token counts as one of the prompt, not as one that was chosen. It ends when the sequence is longer, and 0
    /// ends it at once.
    pub fn expect(&mut self, tokens: usize) {
        self.expected = tokens;
    }

    /// Keeps what going back by up to `tokens` tokens needs: sliding windows keep pages longer, and states before each
    /// later step stay as long. 0, as for a new sequence or a fork, keeps nothing.
    pub fn keep_back(&mut self, tokens: usize) {
        self.back = tokens;
    }

    /// Tokens cached, or the announced number where that is more.
    pub(crate) fn length(&self) -> usize {
        self.len.max(self.expected)
    }

    /// Whether its numbers belong to the book with these returns.
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
