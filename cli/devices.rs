//! `handmill devices`: the devices that models can run on here.

use crate::{args::Output, error::CliError, out, system};
use handmill_runtime::cpu::{Pool, arch::Isa};
use serde_json::{Value, json};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let isa = Isa::from_env().map_err(|e| CliError::because("the CPU cannot be used as asked", e))?;
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let logical = Pool::hardware_threads();
    let name = system::cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = system::total_memory();
    let free = system::available_memory();
    let gpus = Gpu::all();
    if args.output.json {
        return out::json(&json!({
            "cpu": {
                "name": name,
                "logical_cores": logical,
                "isa": isa.name(),
                "isas": available,
                "memory_bytes": memory,
                "memory_available_bytes": free,
            },
            "gpus": gpus.iter().map(Gpu::json).collect::<Vec<_>>(),
        }));
    }
    let mut text = format!("cpu     {name}\n        {logical} logical cores for this process\n");
    text += &format!("        instruction set {} (of {}; HANDMILL_CPU chooses)\n", isa.name(), available.join(", "));
    if let (Some(memory), Some(free)) = (memory, free) {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        text += &format!("        {:.1} GiB of memory, {:.1} GiB of it available\n", gib(memory), gib(free));
    }
    for gpu in &gpus {
        text += &gpu.text();
    }
    if gpus.is_empty() {
        text += if cfg!(feature = "gpu") {
            "gpu     none: no Vulkan, Metal or DX12 driver lists one\n"
        } else {
            "gpu     none: this build has no GPU backend\n"
        };
    }
    out::text(&text)
}

#[cfg(not(feature = "gpu"))]
struct Gpu;

/// An adapter, as this command and `verify` show it.
#[cfg(feature = "gpu")]
pub struct Gpu(pub handmill_runtime::gpu::AdapterSummary);

#[cfg(not(feature = "gpu"))]
impl Gpu {
    fn all() -> Vec<Self> {
        Vec::new()
    }

    fn json(&self) -> Value {
        Value::Null
    }

    fn text(&self) -> String {
        String::new()
    }
}

#[cfg(feature = "gpu")]
impl Gpu {
    fn all() -> Vec<Self> {
        let dxc = crate::auto::dxcompiler();
        handmill_runtime::gpu::Gpu::adapters(dxc.as_deref()).into_iter().map(Self).collect()
    }

    fn features(&self) -> Vec<String> {
        let caps = &self.0.caps;
        let mut names: Vec<String> = [
            ("f16", caps.f16),
            ("cooperative matrices", caps.cooperative),
            ("int8 products", caps.int8_dot),
            ("timestamps", caps.timestamps),
            ("pipeline cache", caps.pipeline_cache),
            ("host memory import", caps.host_import),
        ]
        .into_iter()
        .filter(|(_, has)| *has)
        .map(|(name, _)| name.to_owned())
        .collect();
        if let Some((least, most)) = caps.subgroups {
            names.push(if least == most {
                format!("subgroups of {least}")
            } else {
                format!("subgroups of {least} to {most}")
            });
        }
        names
    }

    /// All capabilities that kernels are chosen by.
    pub fn json(&self) -> Value {
        let Self(gpu) = self;
        json!({
            "index": gpu.index,
            "name": gpu.name,
            "kind": gpu.kind,
            "api": gpu.api,
            "compiler": gpu.compiler,
            "driver": gpu.driver,
            "features": self.features(),
            "limits": {
                "storage_binding_bytes": gpu.caps.max_binding,
                "buffer_bytes": gpu.caps.max_buffer,
                "workgroup_invocations": gpu.caps.max_invocations,
                "workgroup_memory_bytes": gpu.caps.max_workgroup_memory,
                "storage_buffers": gpu.caps.max_storage_buffers,
                // Least and most.
                "subgroup_sizes": gpu.caps.subgroups,
            },
        })
    }

    /// The same as lines for people.
    pub fn text(&self) -> String {
        let Self(gpu) = self;
        let mib = |bytes: u64| bytes >> 20;
        format!(
            "gpu {}   {} ({}, {}{})\n        driver {}\n        {}\n        buffers up to {} MiB, bindings {} MiB, \
             workgroups of {}, {} KiB of workgroup memory, {} storage buffers\n",
            gpu.index,
            gpu.name,
            gpu.kind,
            gpu.api,
            gpu.compiler.map_or(String::new(), |compiler| format!(" compiled by {compiler}")),
            gpu.driver,
            self.features().join(", "),
            mib(gpu.caps.max_buffer),
            mib(gpu.caps.max_binding),
            gpu.caps.max_invocations,
            gpu.caps.max_workgroup_memory >> 10,
            gpu.caps.max_storage_buffers,
        )
    }
}
