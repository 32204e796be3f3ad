//! Reasons that end a command early, each with its exit code and its line.

use crate::{fetch::FetchError, terminal::harmless_line};

/// Reasons why a command ended before it was done.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The arguments do not fit together; exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The model named on the command line could not be brought here.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// Something failed while the command worked; exit code 1.
    #[error("{what}")]
    Failed {
        /// The action, in words that name the file or option.
        what: String,
        /// The error underneath.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The reader of standard output went away (`handmill … | head`): no error, and no more output.
    #[error("standard output was closed")]
    ClosedPipe,
    /// Ctrl-C; exit code 130 as shells expect.
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// A failure without a deeper cause.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed { what: what.into(), source: None }
    }

    /// A failure that `source` caused.
    pub fn because(what: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::Failed { what: what.into(), source: Some(source.into()) }
    }

    /// The same error after Ctrl-C.
    pub fn or_interrupted(self) -> Self {
        match self {
            Self::Fetch(FetchError::Interrupted { .. }) => self,
            _ => Self::Interrupted,
        }
    }

    /// A failure of an engine, with the option that may help against it.
    pub fn of_engine(what: impl Into<String>, error: handmill_models::Error) -> Self {
        let mut what = what.into();
        if let handmill_models::Error::NotFinite { beyond_f16: true, .. } = error {
            what += " (--kv-type f32 may help)";
        }
        Self::because(what, error)
    }

    /// The process's exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::ClosedPipe => 0,
            Self::Interrupted | Self::Fetch(FetchError::Interrupted { .. }) => 130,
            Self::Fetch(FetchError::Spelling { .. }) => 2,
            Self::Fetch(_) | Self::Failed { .. } => 1,
        }
    }
}

/// The error and its causes in one line, each cause once, with text from files made harmless for a terminal.
pub fn one_line(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let text = inner.to_string();
        // Many errors repeat their cause in their own text.
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = inner.source();
    }
    harmless_line(&line.replace('\n', " ")).into_owned()
}
