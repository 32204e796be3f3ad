//! Calls of the system that Rust calls unsafe: only this folder of the command has any. Each system has a file of its
//! own, and answers here: the memory and the CPU's name are `None` where it does not tell.
//!
//! A model file that is cut short while it is mapped, or whose disk fails, cannot be read any more, which systems
//! report as a signal or an exception in the thread that reads. The handlers here turn that into a message and exit
//! code 1, for addresses in maps of the runtime only.

#[cfg(unix)]
mod posix;
#[cfg(unix)]
pub use posix::{exit_now, explain_cut_files, remove_if_cut};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub use windows::{
    available_memory, cpu_name, exit_now, explain_cut_files, obeys_escapes, open_device, peak_memory, remove_if_cut,
    total_memory,
};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub use linux::{available_memory, cpu_name, peak_memory, total_memory};

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub use macos::{available_memory, cpu_name, peak_memory, total_memory};

#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "macos")))]
mod unknown;
#[cfg(not(any(windows, target_os = "linux", target_os = "android", target_os = "macos")))]
pub use unknown::{available_memory, cpu_name, peak_memory, total_memory};

use crate::terminal::is_obeyed;
use handmill_runtime::format::MAPPED_NAME_BYTES;
use std::path::Path;

/// Keeps notes of Vulkan's loader and layers off standard error, where they look like errors of this command. Call it
/// before there is any other thread. Variables that the user has set stay.
pub fn silence_drivers() {
    let set = |name: &str| std::env::var_os(name).is_some();
    let mut quiet = vec![("VK_LOADER_DEBUG", "none")];
    // Mesa's layer that puts the desktop's GPU first asks Wayland for it, whose library complains where there is no
    // desktop. This command orders GPUs itself. The layer stays on where the user names a GPU to it.
    let desktop = std::env::var_os("XDG_RUNTIME_DIR").is_some_and(|dir| Path::new(&dir).is_absolute());
    if !desktop && !set("MESA_VK_DEVICE_SELECT") && !set("DRI_PRIME") {
        quiet.push(("NODEVICE_SELECT", "1"));
    }
    for (name, value) in quiet.into_iter().filter(|(name, _)| !set(name)) {
        // SAFETY: no other thread reads or writes the environment, for there is none yet.
        unsafe { std::env::set_var(name, value) };
    }
}

const BEFORE_NAME: &str = "error: ";
const BEHIND_NAME: &str = ": the file was cut short, or its disk failed, while it was in use; fetch or copy it anew and \
                           run the command again\n";

/// Whether the terminal behind standard error obeys escape sequences.
#[cfg(not(windows))]
pub fn obeys_escapes() -> bool {
    true
}

/// Room for the line about a file that cannot be read any more.
type CutLine = [u8; BEFORE_NAME.len() + MAPPED_NAME_BYTES + BEHIND_NAME.len()];

const EMPTY_LINE: CutLine = [0; size_of::<CutLine>()];

/// Makes the line about the file `name`, with control characters replaced. Takes no lock and allocates nothing, as the
/// handlers that call it must.
fn cut_line<'a>(name: &[u8], line: &'a mut CutLine) -> &'a str {
    let mut len = 0;
    let mut add = |text: &str| {
        if let Some(room) = line.get_mut(len..len + text.len()) {
            room.copy_from_slice(text.as_bytes());
            len += text.len();
        }
    };
    add(BEFORE_NAME);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            let shown = if is_obeyed(c) { '?' } else { c };
            add(shown.encode_utf8(&mut [0; 4]));
        }
        if !chunk.invalid().is_empty() {
            add("?");
        }
    }
    add(BEHIND_NAME);
    str::from_utf8(&line[..len]).unwrap_or(BEHIND_NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_about_a_cut_file_has_room_for_every_name() {
        let line = |name: &[u8]| {
            let mut line = EMPTY_LINE;
            cut_line(name, &mut line).to_owned()
        };
        assert_eq!(line("mo\u{1b}d é.gguf".as_bytes()), format!("{BEFORE_NAME}mo?d é.gguf{BEHIND_NAME}"));
        assert_eq!(line(b"\xe9.gguf"), format!("{BEFORE_NAME}?.gguf{BEHIND_NAME}"));
        let longest = "é".repeat(MAPPED_NAME_BYTES / 2);
        assert_eq!(line(longest.as_bytes()), format!("{BEFORE_NAME}{longest}{BEHIND_NAME}"));
    }

    #[test]
    fn this_system_tells_its_memory() {
        let (Some(total), Some(available)) = (total_memory(), available_memory()) else { return };
        assert!(available > 0 && available <= total, "{available} of {total}");
        assert!(peak_memory().is_some_and(|peak| peak > 1 << 20 && peak <= total), "{:?}", peak_memory());
        assert!(cpu_name().is_none_or(|name| !name.is_empty()));
    }
}
