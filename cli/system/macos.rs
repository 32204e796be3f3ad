//! Memory and CPU by macOS's `sysctl`.

use std::{ffi::CStr, mem, ptr};

/// Peak resident memory of this process in bytes.
pub fn peak_memory() -> Option<u64> {
    // SAFETY: zeros are a valid record, and the call overwrites it.
    let (told, usage) = unsafe {
        let mut usage: libc::rusage = mem::zeroed();
        (libc::getrusage(libc::RUSAGE_SELF, &mut usage), usage)
    };
    // Bytes, where other systems count KiB.
    if told == 0 { usage.ru_maxrss.try_into().ok() } else { None }
}

/// Memory of the machine in bytes.
pub fn total_memory() -> Option<u64> {
    number(c"hw.memsize")
}

/// Memory in bytes that could be used without evicting anything: free pages, those that cache files, and those that
/// programs have given up.
pub fn available_memory() -> Option<u64> {
    let pages = number(c"vm.page_free_count")?
        + number(c"vm.page_pageable_external_count").unwrap_or(0)
        + number(c"vm.page_purgeable_count").unwrap_or(0);
    Some((pages * number(c"vm.pagesize")?).min(total_memory()?))
}

/// The CPU's name.
pub fn cpu_name() -> Option<String> {
    let mut bytes = [0; 256];
    let len = ask(c"machdep.cpu.brand_string", &mut bytes)?;
    let name = CStr::from_bytes_until_nul(bytes.get(..len)?).ok()?;
    Some(name.to_str().ok()?.trim().to_owned())
}

/// A number of four or of eight bytes.
fn number(name: &CStr) -> Option<u64> {
    let mut bytes = [0; 8];
    // Both kinds of Mac are little-endian, so four bytes are the lower half.
    ask(name, &mut bytes).map(|_| u64::from_le_bytes(bytes))
}

/// Asks for a value, and returns its length.
fn ask(name: &CStr, value: &mut [u8]) -> Option<usize> {
    let mut len = value.len();
    // SAFETY: the name ends with a zero, and there is room for `len` bytes.
    let told = unsafe { libc::sysctlbyname(name.as_ptr(), value.as_mut_ptr().cast(), &mut len, ptr::null_mut(), 0) };
    (told == 0).then_some(len)
}
