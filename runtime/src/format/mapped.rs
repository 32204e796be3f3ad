//! The list of mapped files, which a signal handler may read.
//!
//! Reading a page of a map whose file has been cut short raises SIGBUS, or an exception on Windows, which ends a
//! process without a message. A program that wants to print one has its handler ask [`mapped_file_at`], which takes no
//! lock and allocates nothing.

use std::{
    ops::Range,
    path::Path,
    sync::{
        OnceLock,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

/// Bytes of a path that are kept for [`mapped_file_at`]: the last bytes of longer paths.
pub const MAPPED_NAME_BYTES: usize = 256;

/// Writes the path of the file that is mapped at `address` to `name` (the last bytes of a longer path) and returns the
/// number of bytes written; `None` where this crate has mapped no file there. May be called from a signal handler.
pub fn mapped_file_at(address: usize, name: &mut [u8; MAPPED_NAME_BYTES]) -> Option<usize> {
    let mut chunk = Some(&FIRST);
    while let Some(Chunk { slots, next }) = chunk {
        // Reads the end first: it is 0 while a slot is being filled or given back.
        let here =
            |slot: &&Slot| address < slot.end.load(Ordering::Acquire) && slot.start.load(Ordering::Acquire) <= address;
        if let Some(slot) = slots.iter().find(here) {
            let len = slot.len.load(Ordering::Acquire).min(MAPPED_NAME_BYTES);
            for (to, from) in name[..len].iter_mut().zip(&slot.name) {
                *to = from.load(Ordering::Relaxed);
            }
            return Some(len);
        }
        chunk = next.get().copied();
    }
    None
}

/// Maps in a chunk of the list; a process with more maps adds another chunk.
const SLOTS: usize = 16;

static FIRST: Chunk = Chunk::new();

/// A part of the list. Chunks are never freed, so a handler can read them at any time; free slots are used again.
struct Chunk {
    slots: [Slot; SLOTS],
    next: OnceLock<&'static Chunk>,
}

/// One map; free where `start` is 0.
struct Slot {
    start: AtomicUsize,
    end: AtomicUsize,
    len: AtomicUsize,
    name: [AtomicU8; MAPPED_NAME_BYTES],
}

impl Chunk {
    const fn new() -> Self {
        Self { slots: [const { Slot::new() }; SLOTS], next: OnceLock::new() }
    }
}

impl Slot {
    const fn new() -> Self {
        Self {
            start: AtomicUsize::new(0),
            end: AtomicUsize::new(0),
            len: AtomicUsize::new(0),
            name: [const { AtomicU8::new(0) }; MAPPED_NAME_BYTES],
        }
    }
}

/// A map's place in the list. It is dropped before the memory is unmapped, so that no later map at the address is
/// mistaken for this one.
pub(super) struct Listed(&'static Slot);

impl std::fmt::Debug for Listed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}..{:#x}", self.0.start.load(Ordering::Relaxed), self.0.end.load(Ordering::Relaxed))
    }
}

impl Listed {
    /// Lists that `path` is mapped at the addresses `at`, up to the end of their last page.
    pub fn new(at: Range<usize>, path: &Path) -> Self {
        let slot = Self::claim(at.start.max(1));
        let name = path.as_os_str().as_encoded_bytes();
        let name = &name[name.len().saturating_sub(MAPPED_NAME_BYTES)..];
        for (to, from) in slot.name.iter().zip(name) {
            to.store(*from, Ordering::Relaxed);
        }
        slot.len.store(name.len(), Ordering::Release);
        // 4096 is the smallest page size.
        slot.end.store(at.end.next_multiple_of(4096), Ordering::Release);
        Self(slot)
    }

    fn claim(start: usize) -> &'static Slot {
        let mut chunk = &FIRST;
        loop {
            let claimed =
                |slot: &&Slot| slot.start.compare_exchange(0, start, Ordering::AcqRel, Ordering::Relaxed).is_ok();
            if let Some(slot) = chunk.slots.iter().find(claimed) {
                return slot;
            }
            chunk = chunk.next.get_or_init(|| Box::leak(Box::new(Chunk::new())));
        }
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.0.end.store(0, Ordering::Release);
        self.0.start.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: usize) -> Option<String> {
        let mut name = [0; MAPPED_NAME_BYTES];
        mapped_file_at(address, &mut name).map(|n| String::from_utf8_lossy(&name[..n]).into_owned())
    }

    #[test]
    fn maps_are_found_by_any_of_their_addresses() {
        // Addresses that no system maps a file at.
        let base = usize::MAX / 2;
        let base = base - base % 4096;
        let page = 4096;
        // More than a chunk has.
        let mut all: Vec<_> = (0..3 * SLOTS)
            .map(|i| Listed::new(base + 4 * i * page..base + (4 * i + 1) * page + 5, Path::new(&format!("dir/{i}"))))
            .collect();
        for i in 0..all.len() {
            let first = base + 4 * i * page;
            for (address, inside) in
                [(first - 1, false), (first, true), (first + 2 * page - 1, true), (first + 2 * page, false)]
            {
                assert_eq!(at(address), inside.then(|| format!("dir/{i}")), "{i}");
            }
        }
        all.remove(1);
        assert_eq!((at(base + 4 * page), at(base + 8 * page)), (None, Some("dir/2".into())));
        // A place that was given back is used again.
        let again = Listed::new(base + 4 * page..base + 5 * page, Path::new(&"x".repeat(1000)));
        assert_eq!(at(base + 4 * page), Some("x".repeat(MAPPED_NAME_BYTES)));
        drop((all, again));
        assert_eq!(at(base), None);
    }
}
