//! Sources in Direct3D's and Metal's languages as wgpu-hal 30 makes them for a pipeline of ours (`load_shader` and
//! `create_pipeline_layout` in its `dx12/device.rs` and `metal/device.rs`): one bind group, no immediates, no dynamic
//! offsets, workgroup memory not zeroed.

use naga::{
    Module, ResourceBinding, ShaderStage, back,
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::ModuleInfo,
};

use crate::gpu::{Access, Kernel};

/// A source, and what its entry point is called there.
pub(super) struct Source {
    pub text: String,
    pub entry: String,
}

fn entry() -> (ShaderStage, String) {
    (ShaderStage::Compute, "main".to_owned())
}

fn resource(i: usize) -> ResourceBinding {
    ResourceBinding { group: 0, binding: i as u32 }
}

/// HLSL. Constant buffers, views and writable views are numbered apart from each other, in the order of the bindings;
/// behind the constant buffers come wgpu's own constants, among them the number of workgroups.
pub(super) fn hlsl(
    kernel: &Kernel,
    module: &Module,
    info: &ModuleInfo,
    shader_model: back::hlsl::ShaderModel,
    checked: bool,
) -> Result<Source, String> {
    let mut options = back::hlsl::Options {
        shader_model,
        fake_missing_bindings: false,
        zero_initialize_workgroup_memory: false,
        restrict_indexing: checked,
        force_loop_bounding: checked,
        mesh_shader_primitive_indices_clamp: checked,
        ray_query_initialization_tracking: checked,
        ..Default::default()
    };
    let (mut constants, mut views, mut writable) = (0, 0, 0);
    for (i, access) in kernel.bindings.iter().enumerate() {
        let register = match access {
            Access::Uniform => &mut constants,
            Access::Read => &mut views,
            Access::ReadWrite => &mut writable,
        };
        options.binding_map.insert(resource(i), back::hlsl::BindTarget { register: *register, ..Default::default() });
        *register += 1;
    }
    options.special_constants_binding = Some(back::hlsl::BindTarget { register: constants, ..Default::default() });
    let pipeline = back::hlsl::PipelineOptions { entry_point: Some(entry()) };
    let mut text = String::new();
    let reflection =
        back::hlsl::Writer::new(&mut text, &options, &pipeline).write(module, info, None).map_err(|e| e.to_string())?;
    Ok(Source { text, entry: only(reflection.entry_point_names)? })
}

/// MSL for macOS 14. Bindings are buffers by their numbers; behind them comes one with the sizes of all.
pub(super) fn msl(kernel: &Kernel, module: &Module, info: &ModuleInfo, checked: bool) -> Result<Source, String> {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let mut resources = back::msl::EntryPointResources::default();
    for (i, access) in kernel.bindings.iter().enumerate() {
        let mutable = *access == Access::ReadWrite;
        let target = back::msl::BindTarget { buffer: Some(i as back::msl::Slot), mutable, ..Default::default() };
        resources.resources.insert(resource(i), target);
    }
    resources.sizes_buffer = Some(kernel.bindings.len() as back::msl::Slot);
    let options = back::msl::Options {
        lang_version: (3, 1),
        per_entry_point_map: [("main".to_owned(), resources)].into(),
        fake_missing_bindings: false,
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: false,
        force_loop_bounding: checked,
        mesh_shader_primitive_indices_clamp: checked,
        emit_int_div_checks: checked,
        ray_query_initialization_tracking: checked,
        ..Default::default()
    };
    let pipeline =
        back::msl::PipelineOptions { entry_point: Some(entry()), vertex_pulling_transform: true, ..Default::default() };
    let (text, info) = back::msl::write_string(module, info, &options, &pipeline).map_err(|e| e.to_string())?;
    Ok(Source { text, entry: only(info.entry_point_names)? })
}

/// The name of the one entry point.
fn only<E: ToString>(names: Vec<Result<String, E>>) -> Result<String, String> {
    match <[_; 1]>::try_from(names) {
        Ok([name]) => name.map_err(|e| e.to_string()),
        Err(names) => Err(format!("{} entry points", names.len())),
    }
}
