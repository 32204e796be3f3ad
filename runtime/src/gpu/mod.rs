//! The GPU backend on wgpu: Vulkan, Metal, DX12.
//!
//! [`Gpu`] is an opened device with its limits as [`Caps`]; a kernel is a shader with its defines; pipelines are
//! compiled once and cached. Nothing here asks for a vendor: kernels are chosen by capabilities alone.
//!
//! wgpu's own types, and the kernels that take them, are public with the feature `unstable-wgpu` alone, in `gpu::raw` and
//! `gpu::ops`: they change with each version of wgpu and of the kernels, whatever the version of this crate says.

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
#[cfg(not(feature = "unstable-wgpu"))]
mod ops;
#[cfg(feature = "unstable-wgpu")]
pub mod ops;
#[cfg(feature = "unstable-wgpu")]
pub mod raw;
mod ready;
mod staging;
#[cfg(test)]
pub(crate) mod testing;
mod weights;

pub use caps::{AdapterSummary, Caps, CapsOverride};
pub use device::{ApiChoice, Gpu, GpuOptions, OtherApi};
pub use error::GpuError;
pub use exec::{GpuBackend, GpuBackendOptions};
pub(crate) use kernel::{Access, Binding, Kernel};
