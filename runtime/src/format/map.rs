//! A read-only memory map that many tensor views share.

use std::{
    fs::File,
    io,
    ops::{Deref, Range},
    path::Path,
    sync::{Arc, OnceLock},
    time::Instant,
};

use super::{Paging, mapped::Listed};

/// A file mapped read-only into memory. Where the file is cut short meanwhile, or its disk fails, reading it raises
/// SIGBUS (on Windows the exception EXCEPTION_IN_PAGE_ERROR); [`mapped_file_at`](super::mapped_file_at) tells a program
/// that such a signal came from this map.
#[derive(Debug)]
pub struct Mapping {
    /// Dropped before the map is.
    _listed: Listed,
    map: memmap2::Mmap,
    file: File,
    /// The same bytes in anonymous memory, once [`Mapping::prepare`] has copied them.
    copy: OnceLock<memmap2::Mmap>,
    #[cfg(feature = "gpu")]
    path: Box<Path>,
}

/// A file mapped once more, see [`Mapping::private_copy`].
#[cfg(feature = "gpu")]
pub(crate) struct PrivateCopy {
    _listed: Listed,
    map: memmap2::MmapMut,
}

#[cfg(feature = "gpu")]
impl PrivateCopy {
    /// Its first byte.
    pub fn as_mut_ptr(&mut self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let Range { start, end } = bytes.as_ptr_range();
    start.addr()..end.addr()
}

impl Mapping {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> std::io::Result<Arc<Self>> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this process. A writer that truncates the file while it is mapped
        // cannot be guarded against here; the command has a handler for the signal.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        // Only a hint. Where the page cache can hold a file in huge pages, a file that is read for the first time
        // through this map lies in them, and its weights need far fewer address translations a token.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Arc::new(Self {
            _listed: Listed::new(addresses(&map), path),
            map,
            file,
            copy: OnceLock::new(),
            #[cfg(feature = "gpu")]
            path: path.into(),
        }))
    }

    /// The file, for a second map or for advice to the kernel.
    #[cfg(any(feature = "gpu", target_os = "linux"))]
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Copies the file into anonymous memory. All views read the copy from then on; addresses taken before stay valid.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn copy_to_memory(&self) -> io::Result<Paging> {
        let start = Instant::now();
        if self.copy.get().is_none() {
            let pages = anonymous(self.map.len(), |pages| pages.copy_from_slice(&self.map))?;
            // Where two threads copy at once, the first copy is kept.
            let _ = self.copy.set(pages);
        }
        Ok(Paging::Copied { bytes: self.map.len() as u64, took: start.elapsed() })
    }

    /// The same file mapped once more, writable and private (copied on write), for devices that import host memory.
    /// Nothing is read until it is used.
    ///
    /// # Errors
    /// No address space.
    #[cfg(feature = "gpu")]
    pub(crate) fn private_copy(&self) -> std::io::Result<PrivateCopy> {
        // SAFETY: as in `open`. Nothing writes to the map; a write would stay in this process.
        let map = unsafe { memmap2::MmapOptions::new().map_copy(self.file())? };
        Ok(PrivateCopy { _listed: Listed::new(addresses(&map), &self.path), map })
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.copy.get().unwrap_or(&self.map)
    }
}

/// `len` bytes of anonymous memory, zeros before `fill` writes them.
fn anonymous(len: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<memmap2::Mmap> {
    let mut pages = memmap2::MmapMut::map_anon(len)?;
    // Only a hint, as for files.
    #[cfg(target_os = "linux")]
    let _ = pages.advise(memmap2::Advice::HugePage);
    fill(&mut pages);
    pages.make_read_only()
}

#[derive(Clone, Debug)]
enum Owner {
    Mapped(Arc<Mapping>),
    Heap(Arc<[u8]>),
    Anonymous(Arc<memmap2::Mmap>),
}

/// A shared range of bytes in a [`Mapping`], on the heap (tests, small derived tensors) or in anonymous memory.
#[derive(Clone, Debug)]
pub struct Bytes {
    owner: Owner,
    range: Range<usize>,
}

impl Bytes {
    /// The bytes `range` of `map`; `None` where the range leaves the map.
    pub fn mapped(map: &Arc<Mapping>, range: Range<usize>) -> Option<Self> {
        map.get(range.clone())?;
        Some(Self { owner: Owner::Mapped(map.clone()), range })
    }

    /// A part of the bytes, which keeps the same memory alive; `None` where the range leaves them.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        self.get(range.clone())?;
        let range = self.range.start + range.start..self.range.start + range.end;
        Some(Self { owner: self.owner.clone(), range })
    }

    /// The map that the bytes lie in, and their offset there; `None` for other memory.
    pub fn mapping(&self) -> Option<(&Arc<Mapping>, usize)> {
        match &self.owner {
            Owner::Mapped(map) => Some((map, self.range.start)),
            Owner::Heap(_) | Owner::Anonymous(_) => None,
        }
    }

    /// Bytes on the heap.
    pub fn heap(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Heap(bytes.into()), range }
    }

    /// `len` bytes of anonymous memory, zeros before `fill` writes them. Pages that `fill` does not touch take no
    /// memory.
    ///
    /// # Errors
    /// No memory.
    pub fn anonymous(len: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<Self> {
        Ok(Self { owner: Owner::Anonymous(Arc::new(anonymous(len, fill)?)), range: 0..len })
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Mapped(map) => map,
            Owner::Heap(heap) => heap,
            Owner::Anonymous(pages) => pages,
        };
        &all[self.range.clone()]
    }
}
