//! A read-only memory map that many tensor views share.

use std::{fs::File, ops::Deref, ops::Range, path::Path, sync::Arc};

/// A file mapped read-only into memory.
#[derive(Debug)]
pub struct Mapping {
    map: memmap2::Mmap,
}

impl Mapping {
    /// Maps the whole of `path`.
    pub fn open(path: &Path) -> std::io::Result<Arc<Self>> {
        let file = File::open(path)?;
        // SAFETY: the map is read-only and private to this process. As with every reader of mapped model files, a
        // writer that truncates the file while it is mapped is outside what can be guarded against.
        let map = unsafe { memmap2::Mmap::map(&file)? };
        // Only a hint: where the page cache can hold a file in huge pages, one that is read for the first time through
        // this map then lies in them, and its weights need far fewer address translations a token.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Arc::new(Self { map }))
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.map
    }
}

#[derive(Clone, Debug)]
enum Owner {
    Mapped(Arc<Mapping>),
    Heap(Arc<[u8]>),
}

/// A shared range of bytes, of a [`Mapping`] or of the heap (tests, small derived tensors).
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

    /// Bytes on the heap.
    pub fn heap(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Self { owner: Owner::Heap(bytes.into()), range }
    }
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        let all: &[u8] = match &self.owner {
            Owner::Mapped(map) => map,
            Owner::Heap(heap) => heap,
        };
        &all[self.range.clone()]
    }
}
