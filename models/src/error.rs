//! Errors of this crate.

use handmill_runtime::{BackendError, format::FormatError, graph::GraphError};

use crate::{engine::sampling::SamplingError, text::TextError};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An error of the file or its contents.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An error of the graph that the file describes.
    #[error("the checkpoint's tensors do not fit its configuration: {0}")]
    Graph(#[from] GraphError),
    /// An error of the backend.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// Device memory ran out while the model was set up.
    #[error("{source}; {}", would_fit(*.fit, *.layers, *.n_ctx))]
    DeviceMemory {
        /// Layers of the model.
        layers: usize,
        /// How many of them would fit.
        fit: usize,
        /// Tokens of context that were asked for.
        n_ctx: usize,
        /// The allocation that failed.
        #[source]
        source: Box<BackendError>,
    },
    /// An error of the tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// Invalid sampling parameters, or logits that cannot be sampled.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// An unknown family.
    #[error("{path}: the architecture `{architecture}` is not supported yet; supported are: {known}")]
    UnknownArchitecture {
        /// The checkpoint.
        path: String,
        /// Its name in the file.
        architecture: String,
        /// The names of known families.
        known: String,
    },
    /// A configuration value that is missing, malformed or not supported.
    #[error("{path}: `{key}`: {what}")]
    Config {
        /// The file.
        path: String,
        /// The key.
        key: String,
        /// The fault.
        what: String,
    },
    /// A tensor whose shape contradicts the configuration.
    #[error("{path}: tensor `{tensor}` has the shape {found:?}, and the configuration makes it {expected:?}")]
    Shape {
        /// The checkpoint.
        path: String,
        /// The tensor's name.
        tensor: String,
        /// The file's shape.
        found: Vec<usize>,
        /// The configuration's.
        expected: Vec<usize>,
    },
    /// More tokens than the context holds.
    #[error("{tokens} tokens do not fit the context of {n_ctx}; ask for a longer one")]
    ContextFull {
        /// Tokens wanted.
        tokens: usize,
        /// Tokens that fit.
        n_ctx: usize,
    },
    /// Numbers behind tokens that steps under way have chosen.
    #[error("{tokens} tokens of the sequence were chosen by steps under way: confirm them or take them back first")]
    Unconfirmed {
        /// Tokens that were neither confirmed nor taken back.
        tokens: usize,
    },
    /// The flag that cancels the engine's work is set.
    #[error("cancelled")]
    Cancelled,
    /// A model that computes infinities or NaN.
    #[error("the model's values are no longer finite numbers, first in the result of `{name}` ({op}){}", why(*.beyond_f16))]
    NotFinite {
        /// The first op of the graph whose result is not finite.
        name: String,
        /// Its kind, for matrices with their format.
        op: String,
        /// Whether it reads keys and values that are cached in fewer than 32 bits and exceed their range: a cache in f32
        /// may help.
        beyond_f16: bool,
    },
    /// A token that cannot be scored.
    #[error(
        "token {token} of the text is beyond the {rows} rows of the model's head: its tokenizer is another model's"
    )]
    TokenBeyondHead {
        /// The token.
        token: u32,
        /// Tokens that have a logit.
        rows: usize,
    },
    /// A token of the text whose logit is -inf.
    #[error(
        "the model forbids token {token} (its logit is -inf) where window {window} of the text has it: the perplexity is infinite"
    )]
    Forbidden {
        /// The token.
        token: u32,
        /// The window, from 1 on.
        window: usize,
    },
    /// A window that scores no token.
    #[error("a window of {window} tokens scores none: perplexity takes windows of at least 3")]
    WindowTooShort {
        /// Its tokens.
        window: usize,
    },
    /// A sequence that another engine began.
    #[error("this answer was begun by another engine, on a GPU: continue it there")]
    OtherEngine,
    /// A prompt without tokens.
    #[error("the prompt has no tokens: give at least one")]
    EmptyPrompt,
    /// Less text than one window of perplexity.
    #[error("the text has {tokens} tokens, fewer than one window of {window}: give more text or a smaller window")]
    TextTooShort {
        /// Tokens of the text.
        tokens: usize,
        /// Tokens of a window.
        window: usize,
    },
}

/// Advice where values are not finite.
fn why(beyond_f16: bool) -> &'static str {
    if beyond_f16 { ": its keys or values exceed the range of 16-bit floats; cached as f32 they may not" } else { "" }
}

/// Advice where a model does not fit a device.
fn would_fit(fit: usize, layers: usize, n_ctx: usize) -> String {
    match fit {
        0 => {
            format!("not even one of the {layers} layers would fit with a context of {n_ctx} tokens: use the CPU")
        }
        _ => format!("{fit} of the {layers} layers would fit with a context of {n_ctx} tokens"),
    }
}
