//! `--backend auto`: the CPU or a GPU, by measurement.

use crate::fetch::note;
use handmill_models::engine::DeviceChoice;
use handmill_runtime::{
    cpu::{Isa, Pool},
    gpu::{Gpu, GpuOptions},
    profile::ReadBandwidth,
};

/// The device whose memory is read faster. A GPU that is a CPU in disguise is never taken. Where there is none
/// but such, nothing is said.
pub fn choose(options: &GpuOptions) -> DeviceChoice {
    if !hardware_may_be_there() {
        return DeviceChoice::Cpu;
    }
    let best = Gpu::adapters().into_iter().next();
    if best.is_none_or(|a| a.kind == "software") {
        return DeviceChoice::Cpu;
    }
    let gpu = match Gpu::open(options) {
        Ok(gpu) => gpu,
        Err(e) => {
            note(&format!("using the CPU: {e}"));
            return DeviceChoice::Cpu;
        }
    };
    match (gpu.read_bandwidth(), cpu_bandwidth()) {
        (Ok(there), Some(here)) if there > here => {
            note(&format!("using {}: it reads {:.0} GB/s, the CPU {:.0}", gpu.name(), there / 1e9, here / 1e9));
            DeviceChoice::Gpu(gpu.into())
        }
        (Ok(there), Some(here)) => {
            note(&format!("using the CPU: it reads {:.0} GB/s, {} {:.0}", here / 1e9, gpu.name(), there / 1e9));
            DeviceChoice::Cpu
        }
        (Ok(_), None) => DeviceChoice::Gpu(gpu.into()),
        (Err(e), _) => {
            note(&format!("using the CPU: {e}"));
            DeviceChoice::Cpu
        }
    }
}

/// Whether the system shows a graphics device at all. Asking the drivers would load them, and a software one brings a
/// compiler along: tens of milliseconds and of megabytes that an answer on the CPU need not pay.
fn hardware_may_be_there() -> bool {
    !cfg!(target_os = "linux")
        || ["/dev/dri", "/dev/nvidia0", "/dev/dxg", "/dev/kgsl-3d0", "/dev/mali0"]
            .iter()
            .any(|path| std::path::Path::new(path).exists())
}

fn cpu_bandwidth() -> Option<f64> {
    let mut buffer = ReadBandwidth::with_bytes(Pool::default_threads(), 128 << 20, Isa::from_env().ok()?).ok()?;
    Some(buffer.sample())
}
