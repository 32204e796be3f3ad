//! What runs on the runtime: model families, tokenizers, sampling and sessions.
