//! The CPU backend: a thread pool, SIMD kernels for each instruction set, and the ops over them.

pub mod arch;
mod buffer;
mod error;
mod exec;
mod kv;
pub mod ops;
pub mod pool;

pub use arch::{Isa, IsaError};
pub use error::CpuError;
pub use exec::{CpuBackend, CpuOptions, Outputs, SequenceStep};
pub use kv::{KvPool, PAGE_TOKENS, SequenceKv};
pub use ops::attention::KvType;
pub use pool::Pool;
