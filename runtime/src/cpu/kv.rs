//! The memory of the CPU's key/value pages; [`PageBook`] counts who uses which page.
//!
//! The memory of a group is reserved as address space; the system backs it with memory when it is first written.

use super::{CpuError, ops::attention::KvPages};
use crate::{
    graph::{CacheId, CacheSpec},
    step::{PageBook, PageCopy, SequenceKv},
};

/// The pages of all groups.
#[derive(Debug)]
pub(crate) struct KvMemory {
    /// By group.
    groups: Vec<memmap2::MmapRaw>,
}

/// Addresses of a sequence's rows in a cache, for writing.
pub(crate) struct KvRows<'a> {
    pages: KvPages<'a>,
    spec: CacheSpec,
}

impl KvRows<'_> {
    /// Address of the key of `head` in entry `entry`: `head_dim` elements.
    pub fn key(&self, head: usize, entry: usize) -> *mut u8 {
        self.row(self.pages.k_offset, self.spec.head_dim, head, entry)
    }

    /// Address of the value of `head` in entry `entry`: `v_dim` elements.
    pub fn value(&self, head: usize, entry: usize) -> *mut u8 {
        self.row(self.pages.v_offset, self.spec.v_dim, head, entry)
    }

    /// The entry that the token at `position` completes, if it completes one.
    pub fn entry(&self, position: usize) -> Option<usize> {
        (position + 1).is_multiple_of(self.spec.every).then_some(position / self.spec.every)
    }

    fn row(&self, offset: usize, dim: usize, head: usize, entry: usize) -> *mut u8 {
        let entries = self.pages.page_tokens;
        let page = self.pages.pages[entry / entries - self.pages.first_page] as usize;
        let row = head * entries + entry % entries;
        let at = page * self.pages.page_bytes + offset + row * self.pages.kv.row_bytes(dim);
        // The pages come from `MmapRaw::as_mut_ptr`, so they may be written through.
        self.pages.base.cast_mut().wrapping_add(at)
    }
}

impl KvMemory {
    /// Address space for all the pages that `book` may hand out.
    ///
    /// # Errors
    /// The address space cannot be reserved.
    pub fn new(book: &PageBook) -> Result<Self, CpuError> {
        let reserve = |group: &crate::step::Group| {
            let bytes = group.page_bytes(book.kv_type()).saturating_mul(group.capacity);
            let memory = memmap2::MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
            let memory = memory.map_err(|_| CpuError::OutOfMemory { what: "the key/value pages", bytes })?;
            Ok(memory.into())
        };
        Ok(Self { groups: book.groups.iter().map(reserve).collect::<Result<_, CpuError>>()? })
    }

    /// Copies pages, before the step that writes to the copies.
    pub fn copy(&mut self, book: &PageBook, copies: &[PageCopy]) {
        for copy in copies {
            let bytes = book.groups[copy.group].page_bytes(book.kv_type());
            let base = self.groups[copy.group].as_mut_ptr();
            // SAFETY: both pages lie within the reservation and differ; no step runs while the memory is borrowed
            // mutably.
            unsafe {
                let from = base.add(copy.from as usize * bytes);
                std::ptr::copy_nonoverlapping(from, base.add(copy.to as usize * bytes), bytes);
            }
        }
    }

    /// The places of `cache`'s layer of `seq`, for reading.
    pub fn pages<'a>(&'a self, book: &'a PageBook, cache: CacheId, seq: &'a SequenceKv) -> KvPages<'a> {
        let (g, layer) = book.place(cache);
        let (group, kv) = (&book.groups[g], book.kv_type());
        let k_offset = layer * group.layer_bytes(kv);
        KvPages {
            base: self.groups[g].as_mut_ptr(),
            pages: &seq.held.pages[g],
            page_bytes: group.page_bytes(kv),
            page_tokens: group.spec.page_entries(),
            k_offset,
            v_offset: if group.spec.v_in_k { k_offset } else { k_offset + group.key_bytes(kv) },
            kv,
            first_page: seq.dropped[g],
            len: seq.len() / group.spec.every,
        }
    }

    /// The rows of `cache`'s layer of `seq`, for writing.
    pub fn rows<'a>(&'a self, book: &'a PageBook, cache: CacheId, seq: &'a SequenceKv) -> KvRows<'a> {
        KvRows { spec: book.groups[book.place(cache).0].spec, pages: self.pages(book, cache, seq) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::step::KvType;

    #[test]
    fn a_copied_page_has_the_rows_of_the_one_before() {
        let spec = CacheSpec::new(2, 4, 4);
        let mut book = PageBook::new(&[spec, spec], KvType::F32, 1000);
        let mut memory = KvMemory::new(&book).unwrap();
        let (mut a, mut copies) = (SequenceKv::default(), Vec::new());
        book.extend(&mut a, 70, false, &mut copies).unwrap();
        // SAFETY: the row was just made and is four f32 long.
        unsafe {
            memory.rows(&book, CacheId(1), &a).value(1, 69).cast::<[f32; 4]>().write_unaligned([1.0, 2.0, 3.0, 4.0])
        };
        let mut b = book.fork(&a).unwrap();
        book.extend(&mut b, 1, false, &mut copies).unwrap();
        memory.copy(&book, &copies);
        let row = |s: &SequenceKv| memory.rows(&book, CacheId(1), s).value(1, 69);
        assert_ne!(row(&a), row(&b));
        // SAFETY: as above.
        assert_eq!(unsafe { row(&b).cast::<[f32; 4]>().read_unaligned() }, [1.0, 2.0, 3.0, 4.0]);
    }
}
