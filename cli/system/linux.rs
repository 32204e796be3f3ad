//! Memory and CPU by the files of Linux.

use std::fs;

/// Peak resident memory of this process in bytes.
pub fn peak_memory() -> Option<u64> {
    bytes("/proc/self/status", "VmHWM:")
}

/// Memory of the machine in bytes.
pub fn total_memory() -> Option<u64> {
    bytes("/proc/meminfo", "MemTotal:")
}

/// Memory in bytes that could be used without evicting anything.
pub fn available_memory() -> Option<u64> {
    bytes("/proc/meminfo", "MemAvailable:")
}

/// The CPU's name.
pub fn cpu_name() -> Option<String> {
    let info = fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = info.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The number of KiB behind `name` in a file, in bytes.
fn bytes(file: &str, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
