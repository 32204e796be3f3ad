//! What the integration tests share: fixtures, their GGUF twins, comparison with messages that say where, and skips
//! that stay visible.

// Every test file compiles this module for itself and uses a part of it.
#![allow(dead_code, unused_imports)]

mod compare;
mod edit;
mod engine;
mod experts;
mod fixture;
mod gguf;
mod gguf_gemma;
mod gguf_hybrid;
mod gguf_latent;
mod gguf_rope;
mod gguf_v4;
#[cfg(feature = "gpu")]
mod gpu;
mod made_up;
mod models;
mod readme;

pub use compare::{MARGIN, argmax, assert_close, choice, kl_divergence, log_probability, worst};
pub use edit::{GgufEdit, Stored, Tensors};
pub use engine::{DeviceChoice, Greedy, KvChoice, Options, PrecisionChoice, Session, engines};
pub use fixture::{FAMILIES, Fixture, Matrix, NOT_IN_GGUF, NOT_ON_GPU, Spelling, fixtures_dir, why_not};
pub use gguf::write_gguf;
#[cfg(feature = "gpu")]
pub use gpu::open_gpu;
pub use made_up::made_up;
pub use models::{Golden, Skip, full, golden, handmill, is_full, model_path, no_adapter, skip};
pub use readme::family_table;
