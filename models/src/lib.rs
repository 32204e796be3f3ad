//! Models on the runtime: families, tokenizers, sampling and sessions.
//!
//! [`Model`] is an opened checkpoint, [`Engine`] runs it:
//!
//! ```no_run
//! use std::ops::ControlFlow;
//! use handmill_models::{Engine, EngineOptions, GenerateOptions, Model};
//!
//! let model = Model::open("model.gguf".as_ref())?;
//! let prompt = model.tokenizer()?.encode("The capital of France is", true, false)?;
//! let mut engine = Engine::new(&model, &EngineOptions::default())?;
//! engine.generate(&prompt, &GenerateOptions::default(), |text| {
//!     print!("{text}");
//!     ControlFlow::Continue(())
//! })?;
//! # Ok::<(), handmill_models::Error>(())
//! ```

pub mod blocks;
pub mod config;
pub mod engine;
mod error;
pub mod families;
mod model;
pub mod synthetic;
pub mod text;

pub use engine::{Chat, Engine, EngineOptions, GenerateOptions, GenerateStats, KvChoice, Reply, StopReason, ToolCall};
pub use error::Error;
pub use model::{Model, ModelInfo};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
