//! Every kernel that the host side can ask for, on adapters of many kinds, validated and translated for Vulkan, Metal
//! and DX12. No device is needed, and none of those systems: this shows that naga takes the kernels and that they keep
//! to what the adapter they were made for has, not that a driver compiles them.
//!
//! With `HANDMILL_SHADER_DUMP=DIR` in the environment the kernels are also written there, for tools that know more: as
//! naga reads them (`native/`), as browsers do (`browser/`), and as release builds hand them to drivers and compilers:
//! in SPIR-V (`spv/`), in Metal's language (`msl/`), in HLSL for adapters of shader model 6.6 (`hlsl/`) and, as far as
//! those get them, of 5.1 (`hlsl51/`). A file of HLSL begins with the target and the entry point for its compiler.

mod adapters;
mod experts;
mod hal;
mod select;
mod variants;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use naga::{
    AddressSpace, Binding, BuiltIn, Module, ShaderStage, StorageAccess, TypeInner,
    back::{self, hlsl::ShaderModel},
    proc::{BoundsCheckPolicies, BoundsCheckPolicy},
    valid::{Capabilities, ModuleInfo, ValidationFlags, Validator},
};

use crate::gpu::{Access, Caps, Kernel};

/// What all adapters that a kernel was made for have in common.
#[derive(Clone, Copy, Debug)]
struct Common {
    /// Whether one of them may be Direct3D's of shader model 5.1. Limits are the same on all of Direct3D.
    shader_model_5: bool,
    f16: bool,
    subgroups: bool,
    cooperative: bool,
    max_invocations: u32,
    max_workgroup_memory: u32,
}

impl Common {
    fn of(caps: &Caps) -> Self {
        let bare = !caps.f16 && caps.subgroups.is_none() && !caps.cooperative && !caps.int8_dot && !caps.software;
        Self {
            shader_model_5: bare && (caps.max_invocations, caps.max_workgroup_memory) == (1024, 32768),
            f16: caps.f16,
            subgroups: caps.subgroups.is_some(),
            cooperative: caps.cooperative,
            max_invocations: caps.max_invocations,
            max_workgroup_memory: caps.max_workgroup_memory,
        }
    }

    fn and(self, other: Self) -> Self {
        Self {
            shader_model_5: self.shader_model_5 || other.shader_model_5,
            f16: self.f16 && other.f16,
            subgroups: self.subgroups && other.subgroups,
            cooperative: self.cooperative && other.cooperative,
            max_invocations: self.max_invocations.min(other.max_invocations),
            max_workgroup_memory: self.max_workgroup_memory.min(other.max_workgroup_memory),
        }
    }

    /// naga's name for all this.
    fn capabilities(self) -> Capabilities {
        let mut all = Capabilities::all();
        all.set(Capabilities::SHADER_FLOAT16, self.f16);
        all.set(Capabilities::SUBGROUP | Capabilities::SUBGROUP_BARRIER, self.subgroups);
        all.set(Capabilities::COOPERATIVE_MATRIX, self.cooperative);
        all
    }
}

/// A module that some adapter gets.
struct Shader {
    /// The first kernel that is composed to it.
    kernel: Kernel,
    text: String,
    common: Common,
}

impl Shader {
    /// Kernel and defines on one line.
    fn title(&self) -> String {
        let constants: String = self.kernel.constants.iter().map(|(n, v)| format!(" {n}={v}")).collect();
        format!("{} {:?}{constants}", self.kernel.name, self.kernel.defines)
    }

    /// No browser has cooperative matrices, and HLSL and Debian's validator of SPIR-V do not know them either.
    fn cooperative(&self) -> bool {
        self.kernel.defines.get("COOPERATIVE").is_some()
    }
}

/// All different modules, in an order that does not change.
fn shaders() -> Vec<Shader> {
    let mut kernels: HashMap<Kernel, Common> = HashMap::new();
    variants::all(&mut |caps, kernel| {
        let common = Common::of(caps);
        match kernels.get_mut(kernel) {
            Some(known) => *known = known.and(common),
            None => drop(kernels.insert(kernel.clone(), common)),
        }
    });
    let mut kernels: Vec<_> = kernels.into_iter().collect();
    kernels.sort_by(|(a, _), (b, _)| (a.name, &a.defines, &a.constants).cmp(&(b.name, &b.defines, &b.constants)));
    let mut shaders: Vec<Shader> = Vec::new();
    let mut seen = HashMap::new();
    for (kernel, common) in kernels {
        let text = handmill_shaders::compose(kernel.name, &kernel.defines).unwrap();
        let i = *seen.entry((text.clone(), kernel.constants.clone(), kernel.bindings.clone())).or_insert(shaders.len());
        match shaders.get_mut(i) {
            Some(same) => same.common = same.common.and(common),
            None => shaders.push(Shader { kernel, text, common }),
        }
    }
    shaders
}

#[test]
fn every_kernel_is_valid_and_translates() {
    let shaders = shaders();
    let reached: BTreeSet<&str> = shaders.iter().map(|s| s.kernel.name).collect();
    let dead: Vec<&str> = handmill_shaders::kernels().filter(|name| !reached.contains(name)).collect();
    let dump = std::env::var_os("HANDMILL_SHADER_DUMP");
    let dump = dump.as_deref().map(Path::new);
    if let Some(dir) = dump {
        for form in ["native", "browser", "spv", "msl", "hlsl", "hlsl51"] {
            fs::create_dir_all(dir.join(form)).unwrap();
        }
    }
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some((i, shader)) = { Some(next.fetch_add(1, Ordering::Relaxed)) }
                    .and_then(|i| shaders.get(i).map(|shader| (i, shader)))
                {
                    // naga panics on some of what it cannot translate.
                    let done = catch_unwind(AssertUnwindSafe(|| {
                        let release = translate(shader)?;
                        dump.map_or(Ok(()), |dir| write(dir, i, shader, &release))
                    }));
                    if let Err(why) = done.unwrap_or_else(|_| Err("naga panicked".to_owned())) {
                        failures.lock().unwrap().push(format!("{}: {why}", shader.title()));
                    }
                }
            });
        }
    });
    let mut failures = failures.into_inner().unwrap();
    failures.sort();
    println!("{} shaders of {} kernels", shaders.len(), reached.len());
    let shown = failures.iter().take(20).cloned().collect::<Vec<_>>().join("\n\n");
    assert!(failures.is_empty(), "{} of {} shaders failed, such as\n{shown}", failures.len(), shaders.len());
    assert!(dead.is_empty(), "no host function asks for {dead:?}");
}

/// A shader as drivers and their compilers get it.
struct Translated {
    spv: Vec<u32>,
    msl: hal::Source,
    /// For shader models 6.6 and 5.1, where adapters of these get the shader.
    hlsl: [Option<hal::Source>; 2],
}

/// Validates a shader and translates it; returns it as release builds have it.
fn translate(shader: &Shader) -> Result<Translated, String> {
    let module = naga::front::wgsl::parse_str(&shader.text).map_err(|e| e.emit_to_string(&shader.text))?;
    let info = Validator::new(ValidationFlags::all(), shader.common.capabilities())
        .validate(&module)
        .map_err(|e| e.emit_to_string(&shader.text))?;
    let constants: back::PipelineConstants =
        shader.kernel.constants.iter().map(|(name, v)| ((*name).to_owned(), f64::from(*v))).collect();
    let entry = Some((ShaderStage::Compute, "main"));
    let (module, info) = back::pipeline_constants::process_overrides(&module, &info, entry, &constants)
        .map_err(|e| format!("overrides: {e}"))?;
    fits(shader, &module, &info)?;
    subgroup_builtins_are_direct(&module)?;
    checked_or_not(shader, &module, &info, true)?;
    checked_or_not(shader, &module, &info, false)
}

/// Translates with or without what wgpu injects: bounds checks and bounds on loops.
fn checked_or_not(shader: &Shader, module: &Module, info: &ModuleInfo, checked: bool) -> Result<Translated, String> {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    let bounds_check_policies =
        BoundsCheckPolicies { index: policy, buffer: policy, image_load: policy, binding_array: policy };
    let options = back::spv::Options {
        // Of Vulkan 1.3.
        lang_version: (1, 6),
        flags: back::spv::WriterFlags::empty(),
        bounds_check_policies,
        zero_initialize_workgroup_memory: back::spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..Default::default()
    };
    let pipeline = back::spv::PipelineOptions { shader_stage: ShaderStage::Compute, entry_point: "main".to_owned() };
    let spv = back::spv::write_vec(module, info, &options, Some(&pipeline)).map_err(|e| format!("SPIR-V: {e}"))?;
    let msl = hal::msl(&shader.kernel, module, info, checked).map_err(|e| format!("MSL: {e}"))?;
    let hlsl = |model| hal::hlsl(&shader.kernel, module, info, model, checked).map_err(|e| format!("HLSL: {e}"));
    let hlsl = match hlsl(ShaderModel::V6_6) {
        Ok(_) if shader.cooperative() => return Err("HLSL has learned of cooperative matrices".to_owned()),
        Err(_) if shader.cooperative() => [None, None],
        newest => [Some(newest?), shader.common.shader_model_5.then(|| hlsl(ShaderModel::V5_1)).transpose()?],
    };
    Ok(Translated { spv, msl, hlsl })
}

/// naga's HLSL has no meaning for subgroup builtins in a struct (docs/upstream/naga-hlsl-subgroup-builtins.md), and
/// says nothing: only Direct3D's compiler does.
fn subgroup_builtins_are_direct(module: &Module) -> Result<(), String> {
    for argument in module.entry_points.iter().flat_map(|e| &e.function.arguments) {
        let TypeInner::Struct { members, .. } = &module.types[argument.ty].inner else { continue };
        for member in members {
            if let Some(Binding::BuiltIn(
                builtin @ (BuiltIn::SubgroupSize
                | BuiltIn::SubgroupInvocationId
                | BuiltIn::NumSubgroups
                | BuiltIn::SubgroupId),
            )) = member.binding
            {
                return Err(format!("{builtin:?} in a struct: make it an argument of `main`, as lib/reduce.wgsl does"));
            }
        }
    }
    Ok(())
}

/// Whether the module is what the host will bind and dispatch, and within the limits of every adapter that gets it.
fn fits(shader: &Shader, module: &Module, info: &ModuleInfo) -> Result<(), String> {
    let entry = module.entry_points.iter().position(|e| e.name == "main").ok_or("no entry point `main`")?;
    let common = shader.common;
    let invocations: u32 = module.entry_points[entry].workgroup_size.iter().product();
    if invocations == 0 || invocations > common.max_invocations {
        return Err(format!("{invocations} invocations where {} are allowed", common.max_invocations));
    }
    let mut layouts = naga::proc::Layouter::default();
    layouts.update(module.to_ctx()).map_err(|e| e.to_string())?;
    let bindings = &shader.kernel.bindings;
    let mut workgroup_memory = 0;
    for (handle, global) in module.global_variables.iter() {
        if info.get_entry_point(entry)[handle].is_empty() {
            continue;
        }
        let name = global.name.as_deref().unwrap_or_default();
        let access = match global.space {
            AddressSpace::WorkGroup => {
                workgroup_memory += layouts[global.ty].size.next_multiple_of(16);
                continue;
            }
            AddressSpace::Uniform => Access::Uniform,
            AddressSpace::Storage { access } if access.contains(StorageAccess::STORE) => Access::ReadWrite,
            AddressSpace::Storage { .. } => Access::Read,
            _ => continue,
        };
        let binding = global.binding.as_ref().filter(|b| b.group == 0).ok_or(format!("`{name}` has no binding"))?;
        let bound = bindings.get(binding.binding as usize);
        if bound != Some(&access) {
            return Err(format!("binding {} is `{name}`, {access:?}, and the host binds {bound:?}", binding.binding));
        }
    }
    if workgroup_memory > common.max_workgroup_memory {
        return Err(format!("{workgroup_memory} bytes of workgroup memory of {}", common.max_workgroup_memory));
    }
    // WebGPU guarantees eight.
    let storage = bindings.iter().filter(|b| **b != Access::Uniform).count();
    if storage > 8 {
        return Err(format!("{storage} storage buffers"));
    }
    Ok(())
}

/// Writes the `i`-th shader in its forms.
fn write(dir: &Path, i: usize, shader: &Shader, release: &Translated) -> Result<(), String> {
    let stem = format!("{i:05}-{}{}", shader.kernel.name, if shader.cooperative() { "-cooperative" } else { "" });
    let title = shader.title();
    let put = |form: &str, ending: &str, bytes: &[u8]| {
        fs::write(dir.join(form).join(format!("{stem}.{ending}")), bytes).map_err(|e| e.to_string())
    };
    put("native", "wgsl", format!("// {title}\n{}", shader.text).as_bytes())?;
    put("spv", "spv", bytemuck::cast_slice(&release.spv))?;
    put("msl", "metal", format!("// {title}\n{}", release.msl.text).as_bytes())?;
    for ((form, target), hlsl) in [("hlsl", "cs_6_6"), ("hlsl51", "cs_5_1")].into_iter().zip(&release.hlsl) {
        if let Some(hal::Source { text, entry }) = hlsl {
            put(form, "hlsl", format!("// {target} {entry}\n// {title}\n{text}").as_bytes())?;
        }
    }
    if shader.cooperative() {
        return Ok(());
    }
    let defines = shader.kernel.defines.clone().flag("BROWSER", true);
    let text = handmill_shaders::compose(shader.kernel.name, &defines).map_err(|e| e.to_string())?;
    put("browser", "wgsl", format!("// {title}\n{text}").as_bytes())
}
