//! A step of a model, for all backends: new tokens of one or more sequences.

mod batch;
mod kv_type;
mod pages;
mod sequence;
mod slots;
mod stats;

pub(crate) use batch::{Batch, SequenceRows};
pub use batch::{Outputs, SequenceStep};
pub(crate) use kv_type::KV_BLOCK;
pub use kv_type::KvType;
pub(crate) use pages::{Group, PageBook, PageCopy};
pub use pages::{PAGE_BLOCKS, PAGE_TOKENS, Pages};
pub use sequence::SequenceKv;
pub(crate) use slots::StateStep;
pub use stats::GpuStats;

/// Reasons why a step cannot run. The sequences are then unchanged.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StepError {
    /// More tokens than the key/value pages hold.
    #[error("the key/value cache is full: it holds {tokens} tokens; ask for a longer context")]
    CacheFull {
        /// Tokens that the pages hold.
        tokens: usize,
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
    #[error("all {slots} states of sequences are in use; release a sequence, or ask for a longer context")]
    StatesFull {
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
    /// A token id outside the embedding table.
    #[error("token id {id} is outside the vocabulary of {vocab}")]
    TokenOutOfRange {
        /// The id.
        id: u32,
        /// Rows of the table.
        vocab: usize,
    },
}
