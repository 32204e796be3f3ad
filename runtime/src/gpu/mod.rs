//! The GPU backend on wgpu: Vulkan, Metal, DX12.
//!
//! [`Gpu`] is an opened device with its limits as [`Caps`]; a [`Kernel`] is a shader with its defines; pipelines are
//! compiled once and cached. Nothing here asks for a vendor: kernels are chosen by capabilities alone.

mod adapters;
mod bandwidth;
mod cache;
mod caps;
mod device;
#[cfg(windows)]
mod dx12;
mod error;
mod exec;
// Only where wgpu has Vulkan.
#[cfg(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd"))]
mod import;
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "freebsd")))]
#[path = "no_import.rs"]
mod import;
mod kernel;
pub mod ops;
mod staging;
#[cfg(test)]
pub(crate) mod testing;
mod weights;

pub use caps::{AdapterSummary, Caps, CapsOverride};
pub use device::{ApiChoice, Gpu, GpuOptions, OtherApi};
pub use error::GpuError;
pub use exec::{GpuBackend, GpuBackendOptions};
pub use kernel::{Access, Binding, Kernel, Pipeline};
pub use ops::sample::Choice;
