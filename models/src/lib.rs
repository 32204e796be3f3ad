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
//!
//! On a GPU, with the feature `gpu`, which is on by default:
//!
//! ```no_run
//! # #[cfg(feature = "gpu")] {
//! use handmill_models::{
//!     Engine, EngineOptions, Model,
//!     engine::DeviceChoice,
//!     runtime::gpu::{Gpu, GpuOptions},
//! };
//!
//! let model = Model::open("model.gguf".as_ref())?;
//! let gpu = Gpu::open(&GpuOptions::default())?;
//! let options = EngineOptions { device: DeviceChoice::Gpu(gpu.into()), ..EngineOptions::default() };
//! let engine = Engine::new(&model, &options)?;
//! # }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Several sequences at once, each with its own rule; the second step begins before the first one's tokens are known:
//!
//! ```no_run
//! use handmill_models::{
//!     Engine, EngineOptions, Model,
//!     engine::Step,
//!     runtime::{
//!         sample::{Choice, SamplingParams},
//!         step::{Outputs, Tokens},
//!     },
//! };
//!
//! let model = Model::open("model.gguf".as_ref())?;
//! let mut engine = Engine::new(&model, &EngineOptions::default())?;
//! let (mut a, mut b) = (engine.sequence(), engine.sequence());
//! let (greedy, warm) = (SamplingParams::greedy(), SamplingParams { seed: 7, ..SamplingParams::default() });
//! let first = engine.submit(&mut [
//!     Step::new(&mut a, &[1, 504, 260], Outputs::None).choosing(Choice::new(&greedy)),
//!     Step::new(&mut b, &[1, 504], Outputs::None).choosing(Choice::new(&warm)),
//! ])?;
//! let second = engine.submit(&mut [
//!     Step::new(&mut a, Tokens::Chosen(first, 0), Outputs::None).choosing(Choice::new(&greedy)),
//!     Step::new(&mut b, Tokens::Chosen(first, 1), Outputs::None).choosing(Choice::new(&warm)),
//! ])?;
//! for chosen in engine.collect(first)?.chosen {
//!     println!("{:?}", chosen.token);
//! }
//! engine.collect(second)?;
//! # Ok::<(), handmill_models::Error>(())
//! ```

pub mod blocks;
pub mod config;
pub mod engine;
mod error;
pub mod families;
pub mod licence;
mod model;
pub mod synthetic;
pub mod text;

pub use engine::{
    Chat, Engine, EngineOptions, GenerateOptions, GenerateStats, KvChoice, PrecisionChoice, Reply, StopReason, ToolCall,
};
pub use error::Error;
/// The runtime underneath: what a program needs of it, such as [`runtime::gpu::Gpu`] to open a GPU, without a dependency of
/// its own on it.
pub use handmill_runtime as runtime;
pub use model::{Model, ModelInfo};

/// The example of the README, compiled.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
