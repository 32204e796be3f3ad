//! Steps that were submitted and are not collected yet.

use std::{
    collections::VecDeque,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{SequenceStep, StepError, Tokens};

/// Steps that may be under way: submitted and not collected yet.
pub const MOST_UNDER_WAY: usize = 4;

/// A step that was submitted. No two steps of a process have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ticket(u64);

impl Ticket {
    fn new() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// A choice of a step: the step, and which of its choices.
pub(crate) type ChoiceRef = (Ticket, usize);

/// The steps under way of a backend, the earliest first, each with what the backend keeps of it.
#[derive(Debug)]
pub(crate) struct UnderWay<T>(VecDeque<Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    ticket: Ticket,
    /// By choice: the choice that the row's own token is, where it is one.
    inputs: Vec<Option<ChoiceRef>>,
    data: T,
}

impl<T> Default for UnderWay<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}

impl<T> UnderWay<T> {
    /// Whether another step may be submitted with these inputs.
    ///
    /// # Errors
    /// Too many steps under way; choices that are none, or of steps that are collected.
    pub fn check(&self, steps: &[SequenceStep<'_>]) -> Result<(), StepError> {
        if self.0.len() >= MOST_UNDER_WAY {
            return Err(StepError::TooManyUnderWay { limit: MOST_UNDER_WAY });
        }
        let known = |(ticket, choice): ChoiceRef| self.0.iter().any(|e| e.ticket == ticket && choice < e.inputs.len());
        let mut inputs = steps.iter().filter_map(|s| s.tokens.chosen());
        if inputs.all(known) { Ok(()) } else { Err(StepError::NotUnderWay) }
    }

    /// Adds a step.
    pub fn push(&mut self, steps: &[SequenceStep<'_>], data: T) -> Ticket {
        let ticket = Ticket::new();
        let inputs = steps.iter().filter(|s| s.choice.is_some()).map(|s| s.tokens.chosen()).collect();
        self.0.push_back(Entry { ticket, inputs, data });
        ticket
    }

    /// What the backend keeps of a step.
    pub fn get(&self, ticket: Ticket) -> Option<&T> {
        self.0.iter().find(|e| e.ticket == ticket).map(|e| &e.data)
    }

    /// The same to be changed.
    #[cfg(feature = "gpu")]
    pub fn get_mut(&mut self, ticket: Ticket) -> Option<&mut T> {
        self.0.iter_mut().find(|e| e.ticket == ticket).map(|e| &mut e.data)
    }

    /// Takes a step out.
    ///
    /// # Errors
    /// [`StepError::NotUnderWay`].
    pub fn take(&mut self, ticket: Ticket) -> Result<T, StepError> {
        let at = self.0.iter().position(|e| e.ticket == ticket);
        at.and_then(|at| self.0.remove(at)).map(|e| e.data).ok_or(StepError::NotUnderWay)
    }

    /// All steps, the earliest first.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.0.iter_mut().map(|e| &mut e.data)
    }

    /// The tokens behind those that the caller knows, of which the last is `input`: all that steps under way have chosen
    /// for its sequence, the earliest first.
    pub fn chain(&self, input: ChoiceRef) -> Vec<ChoiceRef> {
        let mut chain = Vec::new();
        let mut next = Some(input);
        while let Some((ticket, choice)) = next
            && let Some(entry) = self.0.iter().find(|e| e.ticket == ticket)
        {
            chain.push((ticket, choice));
            next = entry.inputs.get(choice).copied().flatten();
        }
        chain.reverse();
        chain
    }
}

impl Tokens<'_> {
    /// The choice that stands for the token, where there is one.
    pub(crate) fn chosen(self) -> Option<ChoiceRef> {
        match self {
            Tokens::Ids(_) => None,
            Tokens::Chosen(ticket, choice) => Some((ticket, choice)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        sample::{Choice, SamplingParams},
        step::{Outputs, SequenceKv},
    };

    #[test]
    fn chains_end_where_a_step_is_collected() {
        let mut all = UnderWay::default();
        let greedy = SamplingParams::greedy();
        let mut kv = SequenceKv::default();
        let mut next = |all: &mut UnderWay<u32>, tokens: Tokens<'_>, data| {
            let step = SequenceStep::new(&mut kv, tokens, Outputs::None).choosing(Choice::new(&greedy));
            all.check(std::slice::from_ref(&step))?;
            Ok::<_, StepError>(all.push(&[step], data))
        };
        let a = next(&mut all, Tokens::Ids(&[1, 2]), 7).unwrap();
        let b = next(&mut all, Tokens::Chosen(a, 0), 8).unwrap();
        assert!(matches!(next(&mut all, Tokens::Chosen(b, 1), 0), Err(StepError::NotUnderWay)), "no such choice");
        let c = next(&mut all, Tokens::Chosen(b, 0), 9).unwrap();
        assert_eq!(all.chain((c, 0)), [(a, 0), (b, 0), (c, 0)]);
        assert_eq!(all.take(a).unwrap(), 7);
        assert!(matches!(all.take(a), Err(StepError::NotUnderWay)));
        assert!(matches!(next(&mut all, Tokens::Chosen(a, 0), 0), Err(StepError::NotUnderWay)), "it is collected");
        assert_eq!(all.chain((c, 0)), [(b, 0), (c, 0)]);
        next(&mut all, Tokens::Chosen(c, 0), 10).unwrap();
        next(&mut all, Tokens::Ids(&[3]), 11).unwrap();
        assert!(matches!(next(&mut all, Tokens::Ids(&[3]), 0), Err(StepError::TooManyUnderWay { .. })));
        assert_eq!(all.iter_mut().map(|x| *x).collect::<Vec<_>>(), [8, 9, 10, 11]);
        assert_eq!(all.get(b), Some(&8));
    }
}
