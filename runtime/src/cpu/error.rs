//! Errors of the CPU backend.

/// An error of the CPU backend.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CpuError {
    /// No memory for a buffer.
    #[error("no memory for {what} ({} MiB): close other programs or ask for a shorter context", bytes >> 20)]
    OutOfMemory {
        /// Which buffer.
        what: &'static str,
        /// Its size.
        bytes: usize,
    },
    /// A step that cannot run.
    #[error(transparent)]
    Step(#[from] crate::step::StepError),
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
