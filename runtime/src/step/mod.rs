//! A step of a model, for all backends: new tokens of one or more sequences.

mod batch;
mod kv_type;
mod pages;
mod prefix;
#[cfg(feature = "gpu")]
mod roles;
mod room;
mod sequence;
mod slots;
mod stats;
mod tickets;

#[cfg(feature = "gpu")]
pub(crate) use batch::AT_PLACE;
pub(crate) use batch::{Batch, ChoiceRow, SequenceRows, check_results};
pub use batch::{Outputs, SequenceStep, Tokens};
pub use kv_type::KvType;
pub(crate) use kv_type::{KV_BLOCK, turn_block, turn_key};
pub(crate) use pages::{Group, PageBook, PageCopy};
pub use pages::{PAGE_BLOCKS, PAGE_TOKENS, Pages};
pub use prefix::{PrefixLimits, PrefixStats, Prefixes};
#[cfg(feature = "gpu")]
pub(crate) use roles::Role;
pub use room::{Missing, Room};
pub use sequence::SequenceKv;
pub(crate) use slots::StateStep;
pub use stats::GpuStats;
pub(crate) use tickets::{ChoiceRef, UnderWay};
pub use tickets::{MOST_UNDER_WAY, Ticket};

/// Reasons why a step cannot run. The sequences are then unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// More tokens than the key/value pages have room for.
    #[error(
        "the key/value cache is full: sequence {sequence} of the step has {cached} tokens and {wanted} more to come, and of \
         the {tokens} tokens that all sequences together may hold there is room for {free}; release a sequence, or ask for \
         a larger cache"
    )]
    CacheFull {
        /// The sequence that found no room, from 0 in the order of the step.
        sequence: usize,
        /// Its tokens.
        cached: usize,
        /// Its tokens in this step.
        wanted: usize,
        /// Tokens that the pages hold, for all sequences together.
        tokens: usize,
        /// Those of them whose pages are free.
        free: usize,
    },
    /// Keys or values that blocks of 32 elements do not divide.
    #[error(
        "keys or values of {elements} elements cannot be cached in q8_0, whose blocks are 32 elements long: cache them in f16"
    )]
    CacheRows {
        /// Elements of a key or a value of one head.
        elements: usize,
    },
    /// More sequences than there are states for.
    #[error(
        "sequence {sequence} of the step finds no room for its state: all {slots} are in use; release a sequence, or ask \
         for a larger cache"
    )]
    StatesFull {
        /// The sequence, from 0 in the order of the step.
        sequence: usize,
        /// The most states that there may be.
        slots: usize,
    },
    /// A sequence whose pages belong to another backend.
    #[error(
        "the {tokens} tokens of this sequence are cached by another engine: continue it there, or run its tokens here in a new sequence"
    )]
    OtherBackend {
        /// Tokens of the sequence.
        tokens: usize,
    },
    /// A step with more output rows than the backend has room for.
    #[error("a step of {rows} output rows; this backend takes at most {limit}")]
    TooManyOutputs {
        /// Rows asked for.
        rows: usize,
        /// The limit.
        limit: usize,
    },
    /// A step with more tokens than the backend was made for.
    #[error("a step of {tokens} tokens; this backend takes at most {limit}")]
    TooLong {
        /// Tokens asked for.
        tokens: usize,
        /// The limit.
        limit: usize,
    },
    /// Hidden states of a plan that does not have them as a result.
    #[error("hidden states are wanted of a model that was loaded without them; load it for embeddings")]
    NoHidden,
    /// A choice for a sequence without new tokens.
    #[error("a token is to be chosen for a sequence that has no new tokens in this step")]
    NothingToChooseFrom,
    /// More steps than may be under way.
    #[error("{limit} steps are under way, which is the most; collect one before the next is submitted")]
    TooManyUnderWay {
        /// The limit.
        limit: usize,
    },
    /// A ticket of a step that was collected before, or of another backend, or a choice that the step does not have.
    #[error("the step that is asked for is not under way here: each is collected once, by the backend that has it")]
    NotUnderWay,
    /// A token id outside the embedding table.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the table.
        vocab: usize,
    },
}

impl StepError {
    /// The same error, about the sequence `i` of the step.
    fn of_sequence(mut self, i: usize) -> Self {
        if let Self::CacheFull { sequence, .. } | Self::StatesFull { sequence, .. } = &mut self {
            *sequence = i;
        }
        self
    }
}
