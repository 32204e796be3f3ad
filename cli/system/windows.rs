//! Windows: memory and CPU, an end at once, devices, and mapped files that cannot be read any more.
//!
//! Windows lets no program cut a mapped file short, but a file server's other clients can, and disks are unplugged or
//! fail. Reading a page of such a map raises EXCEPTION_IN_PAGE_ERROR.

use super::{EMPTY_LINE, cut_line};
use handmill_runtime::format::{MAPPED_NAME_BYTES, mapped_file_at};
use std::{
    fs::{self, File},
    os::windows::{ffi::OsStrExt, io::AsRawHandle},
    path::Path,
    ptr,
    sync::atomic::{AtomicBool, AtomicPtr, Ordering},
};
use windows_sys::{
    Win32::{
        Foundation::{ERROR_SUCCESS, EXCEPTION_IN_PAGE_ERROR},
        Storage::FileSystem::{DeleteFileW, FILE_TYPE_DISK, GetFileType, WriteFile},
        System::{
            Console::{
                ENABLE_VIRTUAL_TERMINAL_PROCESSING, GetConsoleMode, GetStdHandle, STD_ERROR_HANDLE, SetConsoleMode,
                WriteConsoleW,
            },
            Diagnostics::Debug::{
                AddVectoredExceptionHandler, EXCEPTION_CONTINUE_SEARCH, EXCEPTION_POINTERS, EXCEPTION_RECORD,
            },
            JobObjects::{
                JOB_OBJECT_LIMIT_JOB_MEMORY, JOB_OBJECT_LIMIT_PROCESS_MEMORY, JOBOBJECT_EXTENDED_LIMIT_INFORMATION,
                JobObjectExtendedLimitInformation, QueryInformationJobObject,
            },
            ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS},
            Registry::{HKEY_LOCAL_MACHINE, RRF_RT_REG_SZ, RegGetValueW},
            SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX},
            Threading::{GetCurrentProcess, INFINITE, Sleep, TerminateProcess},
        },
    },
    w,
};

/// Whether a thread writes the message about a file.
static SPEAKING: AtomicBool = AtomicBool::new(false);

/// A file to remove where an exception ends the process, as a string that ends with a zero; null where there is none.
static UNFINISHED: AtomicPtr<u16> = AtomicPtr::new(ptr::null_mut());

/// Ends the process without the exit functions of libraries: drivers wait for devices in theirs, or for threads that
/// the system has ended by then.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: may be called at any time; the handle of this process is always valid.
    unsafe { TerminateProcess(GetCurrentProcess(), code.into()) };
    // It returns only where it fails.
    std::process::exit(code.into())
}

/// Makes a read of a mapped model file that cannot be read any more end the command with a message.
pub fn explain_cut_files() {
    // SAFETY: the handler has the type asked for, and stays for as long as the process lives.
    unsafe { AddVectoredExceptionHandler(0, Some(on_exception)) };
}

/// The file to remove where such a read ends the process.
pub fn remove_if_cut(path: Option<&Path>) {
    let wide = path.map(|path| {
        // The full form may be longer than 260 characters. Some file systems do not tell it.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let wide: Vec<u16> = path.as_os_str().encode_wide().chain([0]).collect();
        // Never freed, because the handler may be reading it.
        wide.leak().as_mut_ptr()
    });
    UNFINISHED.store(wide.unwrap_or(ptr::null_mut()), Ordering::Release);
}

/// Windows calls it for every exception of every thread, in that thread and before all other handlers.
unsafe extern "system" fn on_exception(exception: *mut EXCEPTION_POINTERS) -> i32 {
    // SAFETY: Windows passes valid pointers.
    let record = unsafe { &*(*exception).ExceptionRecord };
    if let Some(address) = unread_page(record) {
        let mut name = [0; MAPPED_NAME_BYTES];
        if let Some(len) = mapped_file_at(address, &mut name) {
            end_over(&name[..len]);
        }
    }
    EXCEPTION_CONTINUE_SEARCH
}

/// The address that a thread could not read, where that is what happened.
fn unread_page(record: &EXCEPTION_RECORD) -> Option<usize> {
    // How it was accessed, and the address.
    let told = record.ExceptionCode == EXCEPTION_IN_PAGE_ERROR && record.NumberParameters >= 2;
    told.then_some(record.ExceptionInformation[1])
}

/// Ends the process with a message about the file `name`. Takes no lock and allocates nothing: the thread that reads
/// may hold any.
fn end_over(name: &[u8]) -> ! {
    // Several threads read the file. The first one speaks, and the others wait for it to end the process.
    if SPEAKING.swap(true, Ordering::AcqRel) {
        loop {
            // SAFETY: no memory is passed.
            unsafe { Sleep(INFINITE) };
        }
    }
    let unfinished = UNFINISHED.load(Ordering::Acquire);
    if !unfinished.is_null() {
        // SAFETY: a string that is never freed.
        unsafe { DeleteFileW(unfinished) };
    }
    let mut line = EMPTY_LINE;
    say(cut_line(name, &mut line));
    exit_now(1)
}

/// Writes to standard error past the standard library, which takes locks. An incomplete write cannot be mended here.
fn say(line: &str) {
    let (mut mode, mut written) = (0, 0);
    // SAFETY: the handle is used only where the calls take it, and each pointer is to memory of the length passed
    // along.
    unsafe {
        let stderr = GetStdHandle(STD_ERROR_HANDLE);
        if GetConsoleMode(stderr, &mut mode) == 0 {
            WriteFile(stderr, line.as_ptr(), line.len() as u32, &mut written, ptr::null_mut());
            return;
        }
        // A console shows bytes in a code page that is rarely UTF-8.
        let mut wide = [0; size_of::<super::CutLine>()];
        let len = wide.iter_mut().zip(line.encode_utf16()).map(|(to, from)| *to = from).count();
        WriteConsoleW(stderr, wide.as_ptr(), len as u32, &mut written, ptr::null());
    }
}

/// Whether the console behind standard error obeys escape sequences. One that was opened for a program by itself has to be
/// asked to; consoles before those of Windows 10 cannot.
pub fn obeys_escapes() -> bool {
    let mut mode = 0;
    // SAFETY: the handle is used only where the calls take it, and the mode is written to a variable.
    unsafe {
        let stderr = GetStdHandle(STD_ERROR_HANDLE);
        GetConsoleMode(stderr, &mut mode) != 0 && SetConsoleMode(stderr, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING) != 0
    }
}

/// Opens `path` for writing where it is a device or a pipe (`NUL`, `CON`, `\\.\pipe\…`), which have no metadata.
pub fn open_device(path: &Path) -> Option<File> {
    let file = File::options().write(true).open(path).ok()?;
    // SAFETY: the file is open.
    let kind = unsafe { GetFileType(file.as_raw_handle()) };
    (kind != FILE_TYPE_DISK).then_some(file)
}

/// The most memory that this process had in its working set, in bytes.
pub fn peak_memory() -> Option<u64> {
    let mut counters = PROCESS_MEMORY_COUNTERS::default();
    let size = size_of_val(&counters) as u32;
    // SAFETY: there is room for `size` bytes.
    let told = unsafe { K32GetProcessMemoryInfo(GetCurrentProcess(), &mut counters, size) };
    (told != 0).then_some(counters.PeakWorkingSetSize as u64)
}

/// Memory of the machine in bytes, or what this process's job (a container's, for one) allows of it.
pub fn total_memory() -> Option<u64> {
    Some(status()?.ullTotalPhys.min(job_limit()))
}

/// Memory in bytes that could be used without evicting anything, and that Windows would promise: it promises no more
/// than memory and page file hold together.
pub fn available_memory() -> Option<u64> {
    let status = status()?;
    Some(status.ullAvailPhys.min(status.ullAvailPageFile).min(job_limit()))
}

fn status() -> Option<MEMORYSTATUSEX> {
    let mut status = MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: `dwLength` says how much room there is.
    let told = unsafe { GlobalMemoryStatusEx(&mut status) };
    (told != 0).then_some(status)
}

/// Bytes that this process's job lets it have; `u64::MAX` without a limit.
fn job_limit() -> u64 {
    let mut limits = JOBOBJECT_EXTENDED_LIMIT_INFORMATION::default();
    let size = size_of_val(&limits) as u32;
    // SAFETY: there is room for `size` bytes; no handle means the job of this process.
    let told = unsafe {
        QueryInformationJobObject(
            ptr::null_mut(),
            JobObjectExtendedLimitInformation,
            ptr::from_mut(&mut limits).cast(),
            size,
            ptr::null_mut(),
        )
    };
    let flags = if told != 0 { limits.BasicLimitInformation.LimitFlags } else { 0 };
    let of = |flag, bytes: usize| if flags & flag != 0 { bytes as u64 } else { u64::MAX };
    of(JOB_OBJECT_LIMIT_PROCESS_MEMORY, limits.ProcessMemoryLimit)
        .min(of(JOB_OBJECT_LIMIT_JOB_MEMORY, limits.JobMemoryLimit))
}

/// The CPU's name.
pub fn cpu_name() -> Option<String> {
    let mut wide = [0u16; 128];
    let mut bytes = size_of_val(&wide) as u32;
    // SAFETY: both names end with a zero, and there is room for `bytes` bytes.
    let told = unsafe {
        RegGetValueW(
            HKEY_LOCAL_MACHINE,
            w!(r"HARDWARE\DESCRIPTION\System\CentralProcessor\0"),
            w!("ProcessorNameString"),
            RRF_RT_REG_SZ,
            ptr::null_mut(),
            wide.as_mut_ptr().cast(),
            &mut bytes,
        )
    };
    let name = String::from_utf16_lossy(wide.get(..bytes as usize / 2)?);
    let name = name.trim_matches(|c: char| c == '\0' || c.is_whitespace());
    (told == ERROR_SUCCESS && !name.is_empty()).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use handmill_runtime::format::Mapping;
    use std::{env, process::Command};
    use windows_sys::Win32::{Foundation::EXCEPTION_ACCESS_VIOLATION, System::Diagnostics::Debug::RaiseException};

    const FILE: &str = "HANDMILL_TEST_UNREADABLE";

    /// In a process of its own, which the test below starts: fails to read a map as Windows does.
    #[test]
    fn a_process_fails_to_read() {
        let Some(path) = env::var_os(FILE) else { return };
        let path = Path::new(&path);
        let map = Mapping::open(path).unwrap();
        explain_cut_files();
        remove_if_cut(Some(&path.with_file_name("half.npy")));
        let parameters = [0, map.as_ptr().addr() + 4096, 0];
        // SAFETY: three parameters are there.
        unsafe { RaiseException(EXCEPTION_IN_PAGE_ERROR as u32, 0, 3, parameters.as_ptr()) };
    }

    #[test]
    fn a_mapped_file_that_cannot_be_read_ends_the_process_with_a_line() {
        let folder = tempfile::tempdir().unwrap();
        let (model, half) = (folder.path().join("m\u{f3}del.gguf"), folder.path().join("half.npy"));
        fs::write(&model, [0; 5000]).unwrap();
        fs::write(&half, "half").unwrap();
        let this = "system::windows::tests::a_process_fails_to_read";
        let mut command = Command::new(env::current_exe().unwrap());
        let out = command.args([this, "--exact", "--nocapture"]).env(FILE, &model).output().unwrap();
        let stderr = String::from_utf8(out.stderr).unwrap();
        assert_eq!(out.status.code(), Some(1), "{stderr}");
        assert!(
            stderr.starts_with("error: ") && stderr.contains("m\u{f3}del.gguf: the file was cut short"),
            "{stderr}"
        );
        assert!(!half.exists());
    }

    #[test]
    fn other_exceptions_are_left_to_others() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), [0; 5000]).unwrap();
        let map = Mapping::open(&folder.path().join("x")).unwrap();
        let (inside, outside) = (map.as_ptr().addr(), ptr::from_ref(&map).addr());
        for (code, address, parameters) in [
            (EXCEPTION_IN_PAGE_ERROR, outside, 3),
            (EXCEPTION_IN_PAGE_ERROR, inside, 0),
            (EXCEPTION_ACCESS_VIOLATION, inside, 2),
        ] {
            let mut record =
                EXCEPTION_RECORD { ExceptionCode: code, NumberParameters: parameters, ..Default::default() };
            record.ExceptionInformation[1] = address;
            let mut exception = EXCEPTION_POINTERS { ExceptionRecord: &mut record, ..Default::default() };
            // SAFETY: the handler reads the record alone.
            assert_eq!(unsafe { on_exception(&mut exception) }, EXCEPTION_CONTINUE_SEARCH, "{code:#x} {address:#x}");
        }
    }
}
