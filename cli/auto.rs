//! `--backend auto`: the CPU or a GPU, by measurement; and the API through which a GPU is used.

use crate::{
    args::{Backend, Compute},
    terminal::note,
};
use handmill_models::engine::DeviceChoice;
use handmill_runtime::{
    cpu::{Isa, Pool},
    gpu::{ApiChoice, Gpu, GpuError, GpuOptions},
    profile::ReadBandwidth,
};
use std::{env, path::PathBuf};

/// The findings that decide the choice.
#[derive(Debug)]
enum Found {
    /// The options leave a GPU no layers.
    NoLayers,
    /// The options ask for a GPU; its name.
    Asked(String),
    /// The system shows no graphics device.
    NoNode,
    /// No driver lists an adapter.
    NoAdapter,
    /// The best adapter is a software device; its name.
    Software(String),
    /// The best adapter cannot be opened or measured; the reason.
    Unusable(String),
    /// Read bandwidths in bytes a second. The CPU's may be unknown.
    Measured { gpu: String, there: f64, here: Option<f64> },
}

/// Chooses the device whose memory is read faster, unless the options ask for a GPU or for none. A software device is
/// taken only on request. Prints the choice and its reason.
///
/// # Errors
/// The GPU that the options ask for cannot be opened.
pub fn choose(compute: &Compute, options: &GpuOptions) -> Result<DeviceChoice, GpuError> {
    let (found, gpu) = look(compute, options)?;
    let (take, why) = decide(&found);
    note(&why);
    Ok(gpu.filter(|_| take).map_or(DeviceChoice::Cpu, taken))
}

/// Takes `gpu`. Prints through which API where there was a choice, and that FXC compiles where it does.
pub fn taken(gpu: Gpu) -> DeviceChoice {
    let summary = gpu.summary();
    about_api(&summary.name, &summary.api, gpu.api_choice()).iter().for_each(|line| note(line));
    about_compiler(summary.compiler, dxcompiler().is_some()).iter().for_each(|line| note(line));
    DeviceChoice::Gpu(gpu.into())
}

/// A line about the API through which a device is used, where others could be.
fn about_api(name: &str, api: &str, choice: &ApiChoice) -> Option<String> {
    if let Some((other, reason)) = choice.failed.last() {
        return Some(format!("using {name} through {api}: {} cannot open it ({reason})", other.api));
    }
    let other = choice.others.first()?;
    let why = match (api, &other.api[..]) {
        ("vulkan", _) => "it tells more about the device and keeps compiled kernels",
        (_, "vulkan") => "vulkan is a layer over it here",
        _ => "it is the system's own",
    };
    Some(format!("using {name} through {api}: {why}; --device {} is the same GPU through {}", other.index, other.api))
}

/// A line where FXC compiles the kernels; `dll` says whether there is a dxcompiler.dll.
fn about_compiler(compiler: Option<&str>, dll: bool) -> Option<String> {
    let what = "FXC compiles the kernels, which takes long, and they do without f16, subgroups and products of bytes";
    match (compiler?, dll) {
        ("FXC", false) => Some(format!("{what}; a dxcompiler.dll beside the command is used instead (see README)")),
        ("FXC", true) => {
            Some(format!("{what}: dxcompiler.dll does not load, or this driver has no shader model 6 for it"))
        }
        _ => None,
    }
}

/// Microsoft's compiler for DX12, where it lies beside the command. No other folder is searched: a library of that name
/// may lie in any.
pub fn dxcompiler() -> Option<PathBuf> {
    let path = env::current_exe().ok()?.with_file_name("dxcompiler.dll");
    (cfg!(windows) && path.is_file()).then_some(path)
}

/// Whether the options leave the choice of the device to this module.
pub fn is_free(compute: &Compute) -> bool {
    let machine = &compute.machine;
    compute.backend == Backend::Auto && machine.device.is_none() && machine.gpu_layers.is_none()
}

/// Looks no further than needed: findings that cost time or memory come last.
fn look(compute: &Compute, options: &GpuOptions) -> Result<(Found, Option<Gpu>), GpuError> {
    if compute.machine.gpu_layers == Some(0) {
        return Ok((Found::NoLayers, None));
    }
    if !is_free(compute) {
        let gpu = Gpu::open(options)?;
        return Ok((Found::Asked(gpu.name().to_owned()), Some(gpu)));
    }
    if !hardware_may_be_there() {
        return Ok((Found::NoNode, None));
    }
    match Gpu::adapters(options.dxc.as_deref()).into_iter().next() {
        None => return Ok((Found::NoAdapter, None)),
        Some(best) if best.kind == "software" => return Ok((Found::Software(best.name), None)),
        Some(_) => {}
    }
    let measured = Gpu::open(options).and_then(|gpu| Ok((gpu.read_bandwidth()?, gpu)));
    Ok(match measured {
        Err(e) => (Found::Unusable(e.to_string()), None),
        Ok((there, gpu)) => (Found::Measured { gpu: gpu.name().to_owned(), there, here: cpu_bandwidth() }, Some(gpu)),
    })
}

/// Whether the GPU is taken, and a line that says so and why.
fn decide(found: &Found) -> (bool, String) {
    let cpu = |why: &str| (false, format!("using the CPU: {why}"));
    let gb = |bytes: f64| bytes / 1e9;
    match found {
        Found::NoLayers => cpu("--gpu-layers 0 leaves a GPU nothing"),
        Found::Asked(name) => (true, format!("using {name}: --device or --gpu-layers asks for a GPU")),
        Found::NoNode => cpu("the system shows no GPU"),
        Found::NoAdapter => cpu("no Vulkan, Metal or DX12 driver lists a GPU"),
        Found::Software(name) => cpu(&format!("{name} is software on it")),
        Found::Unusable(why) => cpu(why),
        Found::Measured { gpu, there, here: None } => {
            (true, format!("using {gpu}: it reads {:.0} GB/s, the CPU could not be measured", gb(*there)))
        }
        Found::Measured { gpu, there, here: Some(here) } if there > here => {
            (true, format!("using {gpu}: it reads {:.0} GB/s, the CPU {:.0}", gb(*there), gb(*here)))
        }
        Found::Measured { gpu, there, here: Some(here) } => {
            cpu(&format!("it reads {:.0} GB/s, {gpu} {:.0}", gb(*here), gb(*there)))
        }
    }
}

/// Whether the system shows a graphics device at all. Asking the drivers would load them, and a software driver brings
/// a compiler: tens of milliseconds and of megabytes that an answer on the CPU need not pay.
fn hardware_may_be_there() -> bool {
    const OTHERS: [&str; 4] = ["/dev/dri", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"];
    let nvidia = || {
        let mut nodes = std::fs::read_dir("/dev").into_iter().flatten().flatten();
        nodes.any(|node| node.file_name().to_str().is_some_and(is_nvidia))
    };
    !cfg!(target_os = "linux") || OTHERS.iter().any(|path| std::path::Path::new(path).exists()) || nvidia()
}

/// Whether a node of that name is a GPU: a container may have any of the machine's, and `nvidiactl` is not one.
fn is_nvidia(node: &str) -> bool {
    node.strip_prefix("nvidia").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()))
}

fn cpu_bandwidth() -> Option<f64> {
    let mut buffer = ReadBandwidth::with_bytes(Pool::default_threads(), 128 << 20, Isa::from_env().ok()?).ok()?;
    Some(buffer.sample())
}

#[cfg(test)]
mod tests {
    use super::{Found, about_api, about_compiler, decide, is_nvidia};
    use handmill_runtime::gpu::{ApiChoice, OtherApi};

    #[test]
    fn each_outcome_says_why() {
        let measured = |there, here| Found::Measured { gpu: "a GPU".to_owned(), there, here };
        for (found, take, why) in [
            (Found::NoLayers, false, "using the CPU: --gpu-layers 0 leaves a GPU nothing"),
            (Found::Asked("a GPU".to_owned()), true, "using a GPU: --device or --gpu-layers asks for a GPU"),
            (Found::NoNode, false, "using the CPU: the system shows no GPU"),
            (Found::NoAdapter, false, "using the CPU: no Vulkan, Metal or DX12 driver lists a GPU"),
            (Found::Software("llvmpipe".to_owned()), false, "using the CPU: llvmpipe is software on it"),
            (Found::Unusable("it was lost".to_owned()), false, "using the CPU: it was lost"),
            (measured(2e11, Some(3e10)), true, "using a GPU: it reads 200 GB/s, the CPU 30"),
            (measured(3e10, Some(3e10)), false, "using the CPU: it reads 30 GB/s, a GPU 30"),
            (measured(2e10, Some(3e10)), false, "using the CPU: it reads 30 GB/s, a GPU 20"),
            (measured(2e11, None), true, "using a GPU: it reads 200 GB/s, the CPU could not be measured"),
        ] {
            assert_eq!(decide(&found), (take, why.to_owned()), "{found:?}");
        }
    }

    #[test]
    fn one_line_says_through_which_api_and_why() {
        let other = |index, api: &str| OtherApi { index, api: api.to_owned() };
        let open = |index, api| ApiChoice { others: vec![other(index, api)], failed: Vec::new() };
        let failed = ApiChoice { others: Vec::new(), failed: vec![(other(0, "vulkan"), "no".to_owned())] };
        for (api, choice, line) in [
            ("vulkan", ApiChoice::default(), None),
            (
                "vulkan",
                open(1, "dx12"),
                Some(
                    "using a GPU through vulkan: it tells more about the device and keeps compiled kernels; --device 1 \
                     is the same GPU through dx12",
                ),
            ),
            (
                "dx12",
                open(3, "vulkan"),
                Some(
                    "using a GPU through dx12: vulkan is a layer over it here; --device 3 is the same GPU through vulkan",
                ),
            ),
            ("dx12", failed, Some("using a GPU through dx12: vulkan cannot open it (no)")),
        ] {
            assert_eq!(about_api("a GPU", api, &choice).as_deref(), line, "{choice:?}");
        }
    }

    #[test]
    fn kernels_that_fxc_compiles_are_mentioned() {
        assert_eq!((about_compiler(None, false), about_compiler(Some("DXC"), true)), (None, None));
        assert!(about_compiler(Some("FXC"), false).unwrap().contains("a dxcompiler.dll beside the command is used"));
        assert!(about_compiler(Some("FXC"), true).unwrap().contains("dxcompiler.dll does not load"));
    }

    #[test]
    fn any_of_several_gpus_will_do() {
        assert!(is_nvidia("nvidia0") && is_nvidia("nvidia7") && is_nvidia("nvidia12"));
        assert!(!is_nvidia("nvidia") && !is_nvidia("nvidiactl") && !is_nvidia("nvidia-uvm") && !is_nvidia("sda"));
    }
}
