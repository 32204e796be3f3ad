//! Host memory as a device buffer, without a copy: `VK_EXT_external_memory_host`.

use std::ffi::CStr;

use ash::vk;

use super::Gpu;

const EXTENSION: &CStr = ash::ext::external_memory_host::NAME;

/// Alignment of host memory that the driver imports, if it imports any.
pub(super) fn alignment(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: the handles are only used for queries while `hal` keeps them alive.
    unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        hal.physical_device_capabilities().supports_extension(EXTENSION).then_some(())?;
    }
    let host: vk::PhysicalDeviceExternalMemoryHostPropertiesEXT = properties(adapter)?;
    Some(host.min_imported_host_pointer_alignment)
}

/// What the driver of a Vulkan adapter writes into a `T`; `None` for other APIs.
fn properties<T: vk::ExtendsPhysicalDeviceProperties2 + Default>(adapter: &wgpu::Adapter) -> Option<T> {
    // SAFETY: the adapter keeps instance and physical device alive, which are only asked. Drivers ignore structures that
    // they do not know.
    unsafe {
        let hal = adapter.as_hal::<wgpu::hal::api::Vulkan>()?;
        let mut asked = T::default();
        let mut properties = vk::PhysicalDeviceProperties2::default().push_next(&mut asked);
        let instance = hal.shared_instance().raw_instance();
        instance.get_physical_device_properties2(hal.raw_physical_device(), &mut properties);
        Some(asked)
    }
}

/// Whether the hardware multiplies and adds four signed bytes at once; `None` where the API does not report it.
pub(super) fn byte_products(adapter: &wgpu::Adapter) -> Option<bool> {
    let dot: vk::PhysicalDeviceShaderIntegerDotProductProperties = properties(adapter)?;
    Some(dot.integer_dot_product4x8_bit_packed_signed_accelerated == vk::TRUE)
}

/// Windows's number of the device, where the API tells it.
pub(super) fn luid(adapter: &wgpu::Adapter) -> Option<[u8; vk::LUID_SIZE]> {
    #[cfg(windows)]
    // SAFETY: the adapter keeps the object alive, which is only asked for its description.
    if let Some(hal) = unsafe { adapter.as_hal::<wgpu::hal::api::Dx12>() } {
        // SAFETY: as above.
        let luid = unsafe { hal.raw_adapter().GetDesc2() }.ok()?.AdapterLuid;
        let number = (i64::from(luid.HighPart) << 32) | i64::from(luid.LowPart);
        return Some(number.to_le_bytes());
    }
    let id: vk::PhysicalDeviceIDProperties = properties(adapter)?;
    (id.device_luid_valid == vk::TRUE).then_some(id.device_luid)
}

/// Whether the driver of a Vulkan adapter translates to another API.
pub(super) fn is_layered(adapter: &wgpu::Adapter) -> bool {
    properties(adapter).is_some_and(|layered: vk::PhysicalDeviceLayeredDriverPropertiesMSFT| {
        layered.underlying_api != vk::LayeredDriverUnderlyingApiMSFT::NONE
    })
}

/// Opens `adapter` with the extension that imports host memory; `None` where it is not a Vulkan adapter.
pub(super) fn open(
    adapter: &wgpu::Adapter,
    descriptor: &wgpu::DeviceDescriptor<'_>,
) -> Option<Result<(wgpu::Device, wgpu::Queue), String>> {
    // SAFETY: the adapter outlives the guard.
    let hal = unsafe { adapter.as_hal::<wgpu::hal::api::Vulkan>() }?;
    // SAFETY: features and limits are the adapter's; the one extension added is one that it supports.
    let opened = unsafe {
        hal.open_with_callback(
            descriptor.required_features,
            &descriptor.required_limits,
            &descriptor.memory_hints,
            Some(Box::new(|args| {
                if !args.extensions.contains(&EXTENSION) {
                    args.extensions.push(EXTENSION);
                }
            })),
        )
    };
    Some(match opened {
        // SAFETY: opened from this adapter with the same features and limits.
        Ok(opened) => unsafe { adapter.create_device_from_hal(opened, descriptor) }.map_err(|e| e.to_string()),
        Err(e) => Err(e.to_string()),
    })
}

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
        // SAFETY: every handle comes from this device, which outlives the calls; on failure the handles are destroyed
        // again. The returned buffer owns both its handle and its memory.
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
