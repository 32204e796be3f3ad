//! What a server tells of its work. Prompts and answers are no part of it.

use std::{fmt, sync::Arc, time::Duration};

/// An event for whoever runs the server.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Log {
    /// The head of a response was sent; of a stream more follows.
    Responded {
        /// The request's method.
        method: String,
        /// Its path, without the query.
        path: String,
        /// The status.
        status: u16,
        /// Time since the request's head had come.
        after: Duration,
    },
    /// No more requests are taken; those under way go on.
    Draining,
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Responded { method, path, status, after } => {
                write!(f, "{method} {path} {status} after {:.1} ms", after.as_secs_f64() * 1e3)
            }
            Self::Draining => f.write_str("stopping: requests under way are answered, new ones refused"),
        }
    }
}

/// Hears of events, in any thread.
pub type Logger = Arc<dyn Fn(&Log) + Send + Sync>;
