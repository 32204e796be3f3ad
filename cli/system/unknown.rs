//! Systems that this command does not know how to ask.

/// Peak resident memory of this process in bytes.
pub fn peak_memory() -> Option<u64> {
    None
}

/// Memory of the machine in bytes.
pub fn total_memory() -> Option<u64> {
    None
}

/// Memory in bytes that could be used without evicting anything.
pub fn available_memory() -> Option<u64> {
    None
}

/// The CPU's name.
pub fn cpu_name() -> Option<String> {
    None
}
