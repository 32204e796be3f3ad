//! Errors on the way from a name to a file; each message says what to do next.

use std::{io, path::Path, path::PathBuf};

/// Reasons why a model could not be found or fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The argument is neither a path, nor `hf:owner/name`, nor an alias.
    #[error("{text}")]
    Spelling {
        /// The whole message.
        text: String,
    },
    /// A path that does not exist.
    #[error("{path} does not exist", path = path.display())]
    Missing {
        /// The path given.
        path: PathBuf,
    },
    /// No connection to the server.
    #[error(
        "could not reach {host} to fetch {what}: {reason}; check the network (HTTPS_PROXY is honoured) and run the \
         command again: what has arrived is kept"
    )]
    Network {
        /// The file or listing to fetch.
        what: String,
        /// The server.
        host: String,
        /// The connection's error.
        reason: String,
    },
    /// The server answered with an error.
    #[error("{host} answered {status} for {what}{hint}")]
    Status {
        /// The file or listing to fetch.
        what: String,
        /// The server.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The usual meaning of that status there, and advice; begins with punctuation.
        hint: String,
    },
    /// The answer has another form than expected.
    #[error("{host} sent something unexpected for {what}: {reason}")]
    Answer {
        /// The file or listing to fetch.
        what: String,
        /// The server.
        host: String,
        /// The fault.
        reason: String,
    },
    /// The bytes that arrived are not the expected ones.
    #[error("{what} arrived damaged: {reason}; it was deleted, nothing of it is used; run the command again")]
    Corrupt {
        /// The fetched file.
        what: String,
        /// The check that failed, with the expected and the found value.
        reason: String,
    },
    /// The disk is full.
    #[error(
        "no space left on the disk of {path}; free {need} or set HANDMILL_CACHE to a folder on another disk, then run \
         the command again: it goes on from what has arrived", path = path.display()
    )]
    DiskFull {
        /// The file being written.
        path: PathBuf,
        /// How much is still needed, in words.
        need: String,
    },
    /// The cache could not be read or written.
    #[error("could not {action} {path}: {source}{hint}", path = path.display())]
    Cache {
        /// The action that failed.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// Advice; begins with punctuation, or is empty.
        hint: &'static str,
        /// The system's error.
        source: io::Error,
    },
    /// The repository has no file that could be run.
    #[error("{text}")]
    Repository {
        /// The whole message.
        text: String,
    },
    /// A model to remove that is being fetched.
    #[error("another process is fetching {name}; nothing of it was removed")]
    Busy {
        /// The model.
        name: String,
    },
    /// Ctrl-C.
    #[error("interrupted{kept}")]
    Interrupted {
        /// The bytes that are kept; begins with punctuation, or is empty.
        kept: String,
    },
}

impl FetchError {
    /// An error of the file system at `path`; a full disk and a folder that cannot be written get their own words.
    pub fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::DiskFull { path: path.to_owned(), need: "some space".to_owned() }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Cache {
                action,
                path: path.to_owned(),
                hint: "; set HANDMILL_CACHE to a folder that you can write to",
                source,
            },
            _ => Self::Cache { action, path: path.to_owned(), hint: "", source },
        }
    }
}
