//! The CPU backend: a thread pool, SIMD kernels for each instruction set, and the ops over them.

pub mod arch;
pub mod ops;
pub mod pool;
