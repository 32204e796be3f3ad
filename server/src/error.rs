//! Errors that keep a server from running. Those of single requests are [`RequestError`](crate::scheduler::RequestError).

use std::io;

/// Reasons why a server cannot run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// Host and port.
        address: String,
        /// The system's error.
        source: io::Error,
    },
    /// Threads, or what they wait with, cannot be had.
    #[error("the server's threads cannot start: {0}")]
    Threads(#[source] io::Error),
    /// The model has no tokenizer, or one that cannot be read.
    #[error(transparent)]
    Model(#[from] handmill_models::Error),
}
