//! The peak memory of this process, and the machine's memory.

/// Peak resident memory in bytes; `None` on systems without a file for it.
pub fn peak() -> Option<u64> {
    field("/proc/self/status", "VmHWM:")
}

/// Memory of the machine in bytes; `None` on systems without a file for it.
pub fn total() -> Option<u64> {
    field("/proc/meminfo", "MemTotal:")
}

/// Memory in bytes that could be used without evicting anything; `None` on systems without a file for it.
pub fn available() -> Option<u64> {
    field("/proc/meminfo", "MemAvailable:")
}

/// The number of KiB behind `name` in a file of Linux, in bytes.
fn field(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
}
