//! Errors between a vocabulary file or a conversation and a list of token ids.

use std::path::PathBuf;

/// Errors of loading a tokenizer or template, rendering a conversation or encoding a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// The file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A checkpoint folder without a tokenizer that can be read.
    #[error("{}: the folder has no tokenizer.json, tokenizer.model, tekken.json, or vocab.json with merges.txt; {}", path.display(), other(unread))]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// Its files that look like a tokenizer's, by name.
        unread: Vec<String>,
    },
    /// The file is a tokenizer's, but its content is broken.
    #[error("{what}: {reason}")]
    Broken {
        /// The file or the part of it.
        what: String,
        /// The fault.
        reason: String,
    },
    /// A kind of tokenizer that is not implemented.
    #[error("{what} `{name}` is not supported; supported: {supported}")]
    Unsupported {
        /// The setting that names the kind, as `tokenizer.ggml.pre`.
        what: &'static str,
        /// The kind the file asks for.
        name: String,
        /// The kinds that work.
        supported: &'static str,
    },
    /// The GGUF container itself is broken.
    #[error(transparent)]
    Format(#[from] handmill_runtime::format::FormatError),
    /// A conversation that no template can render.
    #[error("{0}")]
    Conversation(String),
    /// The template raised an exception of its own, as most do at roles in a wrong order.
    #[error("{what} refuses the conversation: {message}")]
    Refused {
        /// The template.
        what: String,
        /// Its message.
        message: String,
    },
    /// The template is broken, or fails at this conversation.
    #[error("{what}: {reason}")]
    Template {
        /// The template.
        what: String,
        /// The fault, with its line.
        reason: String,
    },
    /// The text could not be turned into tokens.
    #[error("cannot encode the text: {0}")]
    Encode(String),
}

/// Advice where no tokenizer can be read.
fn other(unread: &[String]) -> String {
    if unread.is_empty() {
        return "fetch the whole repository, or give the path of one of them".to_owned();
    }
    let files = unread.join(", ");
    format!("it has {files}, which is not read alone: convert it to a tokenizer.json, as transformers saves it")
}

impl TextError {
    /// A [`TextError::Broken`] about `what`.
    pub(crate) fn broken(what: impl Into<String>, reason: impl Into<String>) -> Self {
        TextError::Broken { what: what.into(), reason: reason.into() }
    }
}

/// The result of everything in [`crate::text`].
pub type Result<T, E = TextError> = std::result::Result<T, E>;
