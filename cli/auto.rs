//! `--backend auto`: the CPU or a GPU, by measurement.

use crate::{
    args::{Backend, Global},
    terminal::note,
};
use handmill_models::engine::DeviceChoice;
use handmill_runtime::{
    cpu::{Isa, Pool},
    gpu::{Gpu, GpuError, GpuOptions},
    profile::ReadBandwidth,
};

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
pub fn choose(global: &Global, options: &GpuOptions) -> Result<DeviceChoice, GpuError> {
    let (found, gpu) = look(global, options)?;
    let (take, why) = decide(&found);
    note(&why);
    Ok(gpu.filter(|_| take).map_or(DeviceChoice::Cpu, |gpu| DeviceChoice::Gpu(gpu.into())))
}

/// Whether the options leave the choice of the device to this module.
pub fn is_free(global: &Global) -> bool {
    global.backend == Backend::Auto && global.device.is_none() && global.gpu_layers.is_none()
}

/// Looks no further than needed: findings that cost time or memory come last.
fn look(global: &Global, options: &GpuOptions) -> Result<(Found, Option<Gpu>), GpuError> {
    if global.gpu_layers == Some(0) {
        return Ok((Found::NoLayers, None));
    }
    if !is_free(global) {
        let gpu = Gpu::open(options)?;
        return Ok((Found::Asked(gpu.name().to_owned()), Some(gpu)));
    }
    if !hardware_may_be_there() {
        return Ok((Found::NoNode, None));
    }
    match Gpu::adapters().into_iter().next() {
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
    use super::{Found, decide, is_nvidia};

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
    fn any_of_several_gpus_will_do() {
        assert!(is_nvidia("nvidia0") && is_nvidia("nvidia7") && is_nvidia("nvidia12"));
        assert!(!is_nvidia("nvidia") && !is_nvidia("nvidiactl") && !is_nvidia("nvidia-uvm") && !is_nvidia("sda"));
    }
}
