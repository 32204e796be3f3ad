//! The CPU backend: a thread pool, SIMD kernels for each instruction set, and the ops over them.

pub mod arch;
mod buffer;
mod error;
mod exec;
mod kv;
pub mod ops;
pub mod pool;
mod states;

pub use arch::{Isa, IsaError};
pub use error::CpuError;
pub use exec::{CpuBackend, CpuOptions};
#[cfg(feature = "gpu")]
pub(crate) use exec::{Finished, Logits, choose};
pub use pool::Pool;
