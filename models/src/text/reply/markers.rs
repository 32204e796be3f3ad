//! The markers that a reply is searched for, and what they mean.

use super::call::NewGrammar;

/// Where a marker counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// At the reply's start and after reasoning or a call: text may well speak of the marker later.
    Start,
    /// Everywhere in the answer.
    Text,
    /// Everywhere in the answer, and in reasoning, which it ends.
    Anywhere,
    /// In reasoning.
    Reasoning,
}

/// What a marker does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Action {
    BeginReasoning,
    EndReasoning,
    /// It only wraps the answer.
    Drop,
    /// It opens what this grammar reads.
    Open(NewGrammar),
}

/// A text that means something in a reply.
#[derive(Clone, Copy, Debug)]
pub(super) struct Marker {
    pub text: &'static str,
    pub place: Place,
    pub action: Action,
}

impl Marker {
    pub const fn new(text: &'static str, place: Place, action: Action) -> Self {
        Self { text, place, action }
    }
}
