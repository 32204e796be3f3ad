//! Replaces `import.rs` where wgpu has no Vulkan: nothing is imported there, and weights are copied.

use super::Gpu;

/// Always `None`: no driver imports host memory.
pub(super) fn alignment(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}

/// Always `None`: no API reports it.
pub(super) fn byte_products(_adapter: &wgpu::Adapter) -> Option<bool> {
    None
}

/// Always `None`: only Windows numbers devices.
pub(super) fn luid(_adapter: &wgpu::Adapter) -> Option<[u8; 8]> {
    None
}

/// Always `false`: Metal's drivers are the system's own.
pub(super) fn is_layered(_adapter: &wgpu::Adapter) -> bool {
    false
}

/// Always `None`: there is no Vulkan adapter.
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
    /// Any arguments are allowed here; `import.rs` states the contract of the other version.
    pub(super) unsafe fn import(&self, _address: *mut u8, _bytes: u64) -> Option<wgpu::Buffer> {
        None
    }
}
