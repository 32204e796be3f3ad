//! The tensor runtime: bytes of memory-mapped files become typed views, graphs of ops over them become plans, and a
//! backend executes the plans. Nothing here knows what a language model is.

mod backend;
#[cfg(any(test, feature = "cases"))]
pub mod cases;
pub mod cpu;
mod error;
pub mod format;
#[cfg(feature = "gpu")]
pub mod gpu;
pub mod graph;
mod precision;
pub mod profile;
pub mod quant;
pub mod sample;
#[cfg(feature = "gpu")]
mod split;
pub mod step;

pub use backend::{Backend, Observed, StepOutput};
pub use error::BackendError;
pub use precision::Precision;
#[cfg(feature = "gpu")]
pub use split::SplitBackend;
