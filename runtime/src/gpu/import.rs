//! Host memory as a device buffer, without a copy: `VK_EXT_external_memory_host`.

use ash::vk;

use super::Gpu;

impl Gpu {
    /// A storage buffer over `bytes` bytes of host memory at `address`, or `None` where the driver refuses.
    ///
    /// # Safety
    /// `address` must be aligned to [`Caps::host_import_alignment`](super::Caps::host_import_alignment), `bytes` a
    /// multiple of it, and all of the memory mapped, readable and writable, and unchanged, until the buffer is gone and
    /// the device idle.
    pub(super) unsafe fn import(&self, address: *mut u8, bytes: u64) -> Option<wgpu::Buffer> {
        const HOST: vk::ExternalMemoryHandleTypeFlags = vk::ExternalMemoryHandleTypeFlags::HOST_ALLOCATION_EXT;
        if !self.caps().host_import || bytes > self.caps().max_buffer {
            return None;
        }
        // SAFETY: every handle comes from this device, which outlives the calls; what fails is destroyed again. The
        // buffer that is handed over owns both its handle and its memory.
        unsafe {
            let hal = self.device.as_hal::<wgpu::hal::api::Vulkan>()?;
            let raw = hal.raw_device();
            let extension = ash::ext::external_memory_host::Device::new(hal.shared_instance().raw_instance(), raw);
            let mut allowed = vk::MemoryHostPointerPropertiesEXT::default();
            let query = extension.fp().get_memory_host_pointer_properties_ext;
            query(raw.handle(), HOST, address.cast(), &mut allowed).result().ok()?;
            let mut external = vk::ExternalMemoryBufferCreateInfo::default().handle_types(HOST);
            let info = vk::BufferCreateInfo::default()
                .size(bytes)
                .usage(vk::BufferUsageFlags::STORAGE_BUFFER | vk::BufferUsageFlags::TRANSFER_SRC)
                .push_next(&mut external);
            let buffer = raw.create_buffer(&info, None).ok()?;
            let needs = raw.get_buffer_memory_requirements(buffer);
            let kinds = needs.memory_type_bits & allowed.memory_type_bits;
            let mut pointer =
                vk::ImportMemoryHostPointerInfoEXT::default().handle_type(HOST).host_pointer(address.cast());
            let allocation = vk::MemoryAllocateInfo::default()
                .allocation_size(bytes)
                .memory_type_index(kinds.trailing_zeros())
                .push_next(&mut pointer);
            let memory = if kinds == 0 { None } else { raw.allocate_memory(&allocation, None).ok() };
            let Some(memory) = memory else {
                raw.destroy_buffer(buffer, None);
                return None;
            };
            if raw.bind_buffer_memory(buffer, memory, 0).is_err() {
                raw.destroy_buffer(buffer, None);
                raw.free_memory(memory, None);
                return None;
            }
            let buffer = wgpu::hal::vulkan::Buffer::from_raw_managed(buffer, memory, 0, bytes);
            let descriptor = wgpu::BufferDescriptor {
                label: Some("weights"),
                size: bytes,
                usage: wgpu::BufferUsages::STORAGE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            };
            Some(self.device.create_buffer_from_hal::<wgpu::hal::api::Vulkan>(buffer, &descriptor))
        }
    }
}
