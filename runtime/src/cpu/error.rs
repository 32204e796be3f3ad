//! What can go wrong on the CPU.

/// An error of the CPU backend.
#[derive(Debug, thiserror::Error)]
pub enum CpuError {
    /// No memory for a buffer.
    #[error("no memory for {what} ({} MiB): close other programs or ask for a shorter context", bytes >> 20)]
    OutOfMemory {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// More tokens than the key/value pages hold.
    #[error("the key/value cache is full: it holds {tokens} tokens; ask for a longer context")]
    CacheFull {
        /// Its capacity.
        tokens: usize,
    },
    /// A step with more tokens than the backend was made for.
    #[error("a step of {tokens} tokens; this backend takes at most {limit}")]
    StepTooLong {
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
    /// A thread could not be started.
    #[error("cannot start {threads} threads: {source}")]
    Threads {
        /// Threads asked for.
        threads: usize,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The instruction set that was asked for.
    #[error("{0}")]
    Isa(String),
    /// A weight whose bytes are not whole rows.
    #[error("a weight cannot be decoded: {0}")]
    Weight(#[from] crate::quant::RowError),
}
