//! What runs on the runtime: model families, tokenizers, sampling and sessions.

pub mod engine;
pub mod text;
