//! Slots of per-sequence state, for layers that sum up the past instead of caching keys and values. This file counts
//! who uses which slot; the backend owns the memory.
//!
//! A slot holds the states of all layers for one sequence. Unlike pages, a state keeps nothing of shorter lengths: a
//! step reads the state before it and writes the state behind it. So a [`StateStep`] names two slots. They are the same
//! slot, and the step works in place, unless
//!
//! - the sequence is new: nothing is read, and the state begins as zeroes;
//! - the state is shared with a fork, or must be kept to go back to: the step then writes another slot.
//!
//! Going back ([`Pages::truncate`](super::Pages::truncate)) is possible to lengths whose state was kept: those
//! before steps that were admitted with `keep`, until [`PageBook::drop_passed`](super::PageBook::drop_passed) drops
//! them, and 0. Every other length is refused.

use super::StepError;
use crate::graph::{StateId, StateSpec};

/// The state that a step of one sequence reads and the one that it writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StateStep {
    /// None: zeroes.
    pub from: Option<u32>,
    /// May equal `from`. Unused where the step has no tokens of the sequence.
    pub to: u32,
}

/// A sequence's state after its first `len` tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StateAt {
    pub len: usize,
    pub slot: u32,
}

/// The users of all slots.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    /// First element of each state in a slot.
    offsets: Vec<usize>,
    /// Elements of a slot.
    elements: usize,
    /// Users of each slot that was ever handed out.
    counts: Vec<u32>,
    free: Vec<u32>,
    /// The most slots that there may be.
    capacity: usize,
}

impl Slots {
    /// At most `capacity` slots for `states`.
    pub fn new(states: &[StateSpec], capacity: usize) -> Self {
        let mut slots = Self { capacity, ..Self::default() };
        for state in states {
            slots.offsets.push(slots.elements);
            slots.elements = slots.elements.saturating_add(state.elements.next_multiple_of(16));
        }
        slots
    }

    /// Lowers the capacity to `capacity`, where it is higher.
    #[cfg(feature = "gpu")]
    pub fn bound(&mut self, capacity: usize) {
        self.capacity = self.capacity.min(capacity);
    }

    /// Whether the graph has no state at all.
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty()
    }

    /// First element of a state in its slot.
    pub fn offset(&self, state: StateId) -> usize {
        self.offsets[state.0 as usize]
    }

    /// Bytes of a slot.
    pub fn bytes(&self) -> usize {
        self.elements.saturating_mul(4)
    }

    /// Slots that were ever in use: memory must hold them.
    pub fn made(&self) -> usize {
        self.counts.len()
    }

    /// Slots in use.
    pub fn in_use(&self) -> usize {
        self.counts.len() - self.free.len()
    }

    /// The slots of a step that brings a sequence with these states to `len`. The present last state stays among
    /// `states` where the step does not work in place.
    ///
    /// # Errors
    /// Where no slot is left; nothing has changed then.
    pub fn extend(&mut self, states: &mut Vec<StateAt>, len: usize, keep: bool) -> Result<StateStep, StepError> {
        if self.is_empty() {
            return Ok(StateStep::default());
        }
        if let Some(last) = states.last_mut() {
            if last.len == len {
                return Ok(StateStep { from: Some(last.slot), to: last.slot });
            }
            if !keep && self.counts[last.slot as usize] == 1 {
                last.len = len;
                return Ok(StateStep { from: Some(last.slot), to: last.slot });
            }
        } else if len == 0 {
            return Ok(StateStep::default());
        }
        let from = states.last().map(|s| s.slot);
        let to = match self.free.pop() {
            Some(slot) => {
                self.counts[slot as usize] = 1;
                slot
            }
            None if self.counts.len() < self.capacity => {
                self.counts.push(1);
                self.counts.len() as u32 - 1
            }
            None => return Err(StepError::StatesFull { sequence: 0, slots: self.capacity }),
        };
        states.push(StateAt { len, slot: to });
        Ok(StateStep { from, to })
    }

    /// Undoes the [`Slots::extend`] that returned `step` for states of length `len`.
    pub fn take_back(&mut self, states: &mut Vec<StateAt>, len: usize, step: StateStep) {
        if step.from == Some(step.to) {
            states.iter_mut().next_back().into_iter().for_each(|s| s.len = len);
        } else if let Some(last) = states.pop_if(|s| s.slot == step.to) {
            self.give_back(last.slot);
        }
    }

    /// See [`PageBook::forget_unused`](super::PageBook::forget_unused).
    pub fn forget_unused(&mut self) {
        while self.counts.pop_if(|users| *users == 0).is_some() {}
        let made = self.counts.len();
        self.free.retain(|slot| (*slot as usize) < made);
    }

    /// Whether [`Slots::truncate`] to `len` is possible.
    pub fn can_truncate(&self, states: &[StateAt], len: usize) -> bool {
        self.is_empty() || len == 0 || states.iter().any(|s| s.len == len)
    }

    /// Drops the states beyond `len`.
    pub fn truncate(&mut self, states: &mut Vec<StateAt>, len: usize) {
        while let Some(state) = states.pop_if(|s| s.len > len) {
            self.give_back(state.slot);
        }
    }

    /// Drops all states but the last and those of its last `back` lengths.
    pub fn drop_passed(&mut self, states: &mut Vec<StateAt>, back: usize) {
        let Some(last) = states.last().copied() else { return };
        states.retain(|s| {
            let keep = *s == last || s.len + back >= last.len;
            if !keep {
                self.give_back(s.slot);
            }
            keep
        });
    }

    /// The state at `len`, for another sequence.
    pub fn fork(&mut self, states: &[StateAt], len: usize) -> Vec<StateAt> {
        let state = states.iter().find(|s| s.len == len).copied();
        state.iter().for_each(|s| self.share(s.slot));
        state.into_iter().collect()
    }

    /// Slots that a step of `n` tokens takes which begins with these states.
    pub fn wanted(&self, states: &[StateAt], n: usize, keep: bool) -> usize {
        let in_place = states.last().is_some_and(|s| !keep && self.users(s.slot) == 1);
        usize::from(!self.is_empty() && n > 0 && !in_place)
    }

    /// All slots that there may be, and those that are free.
    pub fn room(&self) -> (usize, usize) {
        (self.capacity, self.free.len() + (self.capacity - self.counts.len()))
    }

    /// Users of `slot`.
    pub fn users(&self, slot: u32) -> u32 {
        self.counts[slot as usize]
    }

    /// Adds a user to `slot`.
    pub fn share(&mut self, slot: u32) {
        self.counts[slot as usize] += 1;
    }

    /// Takes a user from `slot`; without users it is free.
    pub fn give_back(&mut self, slot: u32) {
        let count = &mut self.counts[slot as usize];
        *count -= 1;
        if *count == 0 {
            self.free.push(slot);
        }
    }
}
