//! Stands in for `import.rs` where wgpu has no Vulkan: nothing is imported there, and weights are copied.

use super::Gpu;

/// No driver imports host memory.
pub(super) fn alignment(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// No API that tells.
pub(super) fn byte_products(_adapter: &wgpu::Adapter) -> Option<bool> {
    None
}

/// No Vulkan adapter.
pub(super) fn open(
    _adapter: &wgpu::Adapter,
    _descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Result<(wgpu::Device, wgpu::Queue), String>> {
    None
}

impl Gpu {
    /// Always `None`.
    ///
    /// # Safety
    /// None is needed here; `import.rs` says what is elsewhere.
    pub(super) unsafe fn import(&self, _address: *mut u8, _bytes: u64) -> Option<wgpu::Buffer> {
        None
    }
}
