//! SIGBUS, which a read of a mapped file raises where the file has been cut short, as a message and exit code 1. Other
//! causes of the signal have the effect that they had before.
//!
//! A thread that blocks the signal never gets to the handler: those of Vulkan drivers that run on the CPU do, and the
//! system ends the process there.

use super::{EMPTY_LINE, cut_line};
use handmill_runtime::format::{MAPPED_NAME_BYTES, mapped_file_at};
use std::{
    ffi::CString,
    mem,
    os::unix::ffi::OsStrExt,
    path::Path,
    ptr,
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicPtr, Ordering},
    },
};

/// Whether a thread writes the message of a SIGBUS.
static SPEAKING: AtomicBool = AtomicBool::new(false);

/// The action of SIGBUS before this handler.
static BEFORE: OnceLock<libc::sigaction> = OnceLock::new();

/// A file to remove where a SIGBUS ends the process, as a C string; null where there is none.
static UNFINISHED: AtomicPtr<libc::c_char> = AtomicPtr::new(ptr::null_mut());

/// Ends the process without the exit functions of libraries: drivers wait for devices in theirs, or unmap memory
/// that their own threads still use.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: may be called at any time.
    unsafe { libc::_exit(code.into()) }
}

/// Makes a read of a mapped model file that has been cut short end the command with a message.
pub fn explain_cut_files() {
    // SAFETY: both actions are whole: zeros are valid, the handler has the type that SA_SIGINFO asks for, and it
    // only does what a signal handler may.
    unsafe {
        let mut before: libc::sigaction = mem::zeroed();
        if libc::sigaction(libc::SIGBUS, ptr::null(), &mut before) != 0 || BEFORE.set(before).is_err() {
            return;
        }
        let mut action: libc::sigaction = mem::zeroed();
        action.sa_sigaction = on_bus_error as *const () as libc::sighandler_t;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        libc::sigaction(libc::SIGBUS, &action, ptr::null_mut());
    }
}

/// The file to remove where a SIGBUS ends the process.
pub fn remove_if_cut(path: Option<&Path>) {
    let path = path.and_then(|path| CString::new(path.as_os_str().as_bytes()).ok());
    // Never freed, because the handler may be reading it.
    UNFINISHED.store(path.map_or(ptr::null_mut(), CString::into_raw), Ordering::Release);
}

/// Takes no lock and allocates nothing, as signal handlers must.
extern "C" fn on_bus_error(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the system passes a valid one, whose address is set where a fault raised the signal.
    let (code, address) = unsafe { ((*info).si_code, (*info).si_addr().addr()) };
    let fault = code > 0;
    let mut name = [0; MAPPED_NAME_BYTES];
    if fault && let Some(len) = mapped_file_at(address, &mut name) {
        // Several threads read the file. The first one speaks, and the others wait for it to end the process.
        if SPEAKING.swap(true, Ordering::AcqRel) {
            loop {
                // SAFETY: no memory is passed.
                unsafe { libc::pause() };
            }
        }
        let unfinished = UNFINISHED.load(Ordering::Acquire);
        if !unfinished.is_null() {
            // SAFETY: a string that is never freed.
            unsafe { libc::unlink(unfinished) };
        }
        let mut line = EMPTY_LINE;
        let line = cut_line(&name[..len], &mut line);
        // SAFETY: the bytes are valid. An incomplete write cannot be mended here.
        unsafe { libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len()) };
        exit_now(1);
    }
    // SAFETY: the action is one that the system gave. Returning repeats the access, which then has its former
    // effect. A signal that another process sent is sent again, and the system's own action ends the process.
    unsafe {
        match BEFORE.get() {
            Some(before) if fault => drop(libc::sigaction(libc::SIGBUS, before, ptr::null_mut())),
            _ => {
                libc::signal(libc::SIGBUS, libc::SIG_DFL);
                libc::raise(libc::SIGBUS);
            }
        }
    }
}
