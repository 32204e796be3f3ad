//! `handmill devices`: what models can run on here.

use crate::{args::Global, error::CliError, out};
use handmill_runtime::cpu::arch::Isa;
use serde_json::json;
use std::fs;

/// Runs the subcommand.
pub fn run(global: &Global) -> Result<(), CliError> {
    let isa = Isa::from_env().map_err(|e| CliError::because("the CPU cannot be used as asked", e))?;
    let available: Vec<&str> = Isa::available().into_iter().map(Isa::name).collect();
    let logical = std::thread::available_parallelism().map_or(1, usize::from);
    let name = cpu_name().unwrap_or_else(|| std::env::consts::ARCH.to_owned());
    let memory = meminfo("MemTotal");
    let free = meminfo("MemAvailable");
    if global.json {
        return out::json(&json!({
            "cpu": {
                "name": name,
                "logical_cores": logical,
                "isa": isa.name(),
                "isas": available,
                "memory_bytes": memory,
                "memory_available_bytes": free,
            },
            "gpus": [],
        }));
    }
    let mut text = format!("cpu     {name}\n        {logical} logical cores for this process\n");
    text += &format!("        instruction set {} (of {}; HANDMILL_CPU chooses)\n", isa.name(), available.join(", "));
    if let (Some(memory), Some(free)) = (memory, free) {
        let gib = |bytes: u64| bytes as f64 / f64::from(1 << 30);
        text += &format!("        {:.1} GiB of memory, {:.1} GiB of it available\n", gib(memory), gib(free));
    }
    out::text(&(text + "gpu     none: this build has no GPU backend yet\n"))
}

/// What the system calls the CPU, where it says.
fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// A line of `/proc/meminfo` in bytes; `None` on systems without it.
fn meminfo(key: &str) -> Option<u64> {
    let info = fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find(|line| line.split(':').next() == Some(key))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
