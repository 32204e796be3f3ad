//! What Direct3D 12 says of an adapter and wgpu does not pass on.

use windows::Win32::Graphics::Direct3D12::{
    D3D_SHADER_MODEL_6_4, D3D12_FEATURE_DATA_SHADER_MODEL, D3D12_FEATURE_SHADER_MODEL,
};

use super::{caps::is_compiled_by_fxc, ready::ready};

/// Whether kernels multiply four bytes at once: they may from shader model 6.4 on. `None` where `adapter` is not
/// Direct3D's.
///
/// wgpu compiles for the newest model that both its compiler and the device know, and does not tell which. Its older
/// compiler, FXC, ends with 5.1, where byte products are emulated by code that it takes minutes for or refuses; DXC's
/// builds since 2019 know 6.4.
pub(super) fn byte_products(adapter: &wgpu::Adapter) -> Option<bool> {
    if adapter.get_info().backend != wgpu::Backend::Dx12 {
        return None;
    }
    Some(!is_compiled_by_fxc(adapter) && has_shader_model_6_4(adapter) == Some(true))
}

/// `None` where the device cannot be asked.
fn has_shader_model_6_4(adapter: &wgpu::Adapter) -> Option<bool> {
    // Only an opened device can be asked.
    let (device, _queue) = ready(adapter.request_device(&wgpu::DeviceDescriptor::default()))?.ok()?;
    let mut model = D3D12_FEATURE_DATA_SHADER_MODEL { HighestShaderModel: D3D_SHADER_MODEL_6_4 };
    let (to, size) = ((&raw mut model).cast(), size_of_val(&model) as u32);
    // SAFETY: `hal` keeps the device while it is asked, `model` outlives the call, and `size` is its size.
    let known = unsafe {
        let hal = device.as_hal::<wgpu::hal::api::Dx12>()?;
        hal.raw_device().CheckFeatureSupport(D3D12_FEATURE_SHADER_MODEL, to, size)
    };
    // A system that is older than the model refuses the question.
    Some(known.is_ok() && model.HighestShaderModel.0 >= D3D_SHADER_MODEL_6_4.0)
}
