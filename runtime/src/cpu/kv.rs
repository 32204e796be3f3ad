//! Pages of cached keys and values.
//!
//! Layers that cache alike (same heads, same dimensions, same window) form a *group*. A page of a group holds
//! [`PAGE_TOKENS`] tokens of all its layers: for each layer the keys `[n_kv_heads][PAGE_TOKENS][head_dim]`, then the
//! values `[n_kv_heads][PAGE_TOKENS][v_dim]`. A sequence is, per group, a list of page numbers, so that a fork copies
//! lists, a sliding window drops pages, and a batch mixes sequences freely. Pages are counted: a shared page is copied
//! before the first write to it.
//!
//! The memory of a group is reserved as address space and becomes real when it is first written.

use super::{
    CpuError,
    ops::attention::{KvPages, KvType},
};
use crate::graph::{CacheId, CacheSpec};

/// Tokens in a page.
pub const PAGE_TOKENS: usize = 64;

/// One group of layers that cache alike.
#[derive(Debug)]
struct Group {
    spec: CacheSpec,
    /// Bytes of one layer within a page.
    layer_bytes: usize,
    page_bytes: usize,
    memory: memmap2::MmapRaw,
    /// Users of each page ever handed out.
    counts: Vec<u32>,
    free: Vec<u32>,
    capacity: usize,
}

/// All pages of a backend.
#[derive(Debug)]
pub struct KvPool {
    kv_type: KvType,
    groups: Vec<Group>,
    /// Group and layer within it, by [`CacheId`].
    places: Vec<(usize, usize)>,
}

/// What one sequence has cached.
#[derive(Debug, Default)]
pub struct SequenceKv {
    /// By group: page numbers, oldest first.
    pages: Vec<Vec<u32>>,
    /// By group: pages dropped from the front because a window has passed them.
    dropped: Vec<usize>,
    /// Tokens cached.
    len: usize,
}

impl SequenceKv {
    /// Tokens cached.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing is cached.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// Where the writer of keys and values finds its rows.
pub(crate) struct KvRows<'a> {
    pages: KvPages<'a>,
    spec: CacheSpec,
}

impl KvRows<'_> {
    /// Address of the key of `head` at `position`: `head_dim` elements.
    pub fn key(&self, head: usize, position: usize) -> *mut u8 {
        self.row(self.pages.k_offset, self.spec.head_dim, head, position)
    }

    /// Address of the value of `head` at `position`: `v_dim` elements.
    pub fn value(&self, head: usize, position: usize) -> *mut u8 {
        self.row(self.pages.v_offset, self.spec.v_dim, head, position)
    }

    fn row(&self, offset: usize, dim: usize, head: usize, position: usize) -> *mut u8 {
        let page = self.pages.pages[position / PAGE_TOKENS - self.pages.first_page] as usize;
        let row = head * PAGE_TOKENS + position % PAGE_TOKENS;
        let at = page * self.pages.page_bytes + offset + row * dim * self.pages.kv.bytes();
        // The pages come from `MmapRaw::as_mut_ptr`, so they may be written through.
        self.pages.base.cast_mut().wrapping_add(at)
    }
}

impl KvPool {
    /// Pages for the caches of a graph. `max_tokens` bounds the tokens that all sequences together may hold.
    ///
    /// # Errors
    /// Where the address space cannot be reserved.
    pub fn new(caches: &[CacheSpec], kv_type: KvType, max_tokens: usize) -> Result<Self, CpuError> {
        let mut groups: Vec<(CacheSpec, usize)> = Vec::new();
        let mut places = Vec::new();
        for spec in caches {
            let group = groups.iter().position(|(s, _)| s == spec).unwrap_or_else(|| {
                groups.push((*spec, 0));
                groups.len() - 1
            });
            places.push((group, groups[group].1));
            groups[group].1 += 1;
        }
        let groups = groups
            .into_iter()
            .map(|(spec, layers)| {
                let row = spec.n_kv_heads * (spec.head_dim + spec.v_dim) * kv_type.bytes();
                let layer_bytes = row * PAGE_TOKENS;
                let page_bytes = layer_bytes * layers;
                // Half a page a sequence is lost to rounding; a few sequences more than one must fit.
                let capacity = max_tokens.div_ceil(PAGE_TOKENS) + 8;
                let bytes = page_bytes.saturating_mul(capacity);
                let memory = memmap2::MmapOptions::new().len(bytes).no_reserve_swap().map_anon();
                let memory = memory.map_err(|_| CpuError::OutOfMemory { what: "the key/value pages", bytes })?;
                Ok(Group {
                    spec,
                    layer_bytes,
                    page_bytes,
                    memory: memory.into(),
                    counts: Vec::new(),
                    free: Vec::new(),
                    capacity,
                })
            })
            .collect::<Result<_, CpuError>>()?;
        Ok(Self { kv_type, groups, places })
    }

    /// Element type of keys and values.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes that one more token takes, over all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.groups.iter().map(|g| g.page_bytes / PAGE_TOKENS).sum()
    }

    /// Bytes of the pages in use.
    pub fn bytes_in_use(&self) -> usize {
        self.groups.iter().map(|g| (g.counts.len() - g.free.len()) * g.page_bytes).sum()
    }

    /// Makes room for `n` more tokens at the end of `seq`.
    ///
    /// # Errors
    /// Where the pages run out; the sequence is then unchanged.
    pub fn extend(&mut self, seq: &mut SequenceKv, n: usize) -> Result<(), CpuError> {
        seq.pages.resize_with(self.groups.len(), Vec::new);
        seq.dropped.resize(self.groups.len(), 0);
        let need = (seq.len + n).div_ceil(PAGE_TOKENS);
        for (g, group) in self.groups.iter().enumerate() {
            let shared_tail = !seq.len.is_multiple_of(PAGE_TOKENS)
                && seq.pages[g].last().is_some_and(|p| group.counts[*p as usize] > 1);
            let more = need.saturating_sub(seq.dropped[g] + seq.pages[g].len()) + usize::from(shared_tail);
            if group.free.len() + (group.capacity - group.counts.len()) < more {
                return Err(CpuError::CacheFull { tokens: group.capacity * PAGE_TOKENS });
            }
        }
        for (g, group) in self.groups.iter_mut().enumerate() {
            if !seq.len.is_multiple_of(PAGE_TOKENS)
                && let Some(tail) = seq.pages[g].last_mut()
                && group.counts[*tail as usize] > 1
            {
                *tail = group.copy_of(*tail);
            }
            while seq.dropped[g] + seq.pages[g].len() < need {
                seq.pages[g].push(group.take());
            }
        }
        seq.len += n;
        Ok(())
    }

    /// Forgets all but the first `len` tokens of `seq`. Returns false, and changes nothing, where a sliding window
    /// has already dropped keys that a continuation from there would read.
    pub fn truncate(&mut self, seq: &mut SequenceKv, len: usize) -> bool {
        if len >= seq.len {
            return true;
        }
        let reaches = |(g, group): (usize, &Group)| {
            let needed = group.spec.window.map_or(0, |w| (len + 1).saturating_sub(w));
            seq.dropped.get(g).is_none_or(|d| d * PAGE_TOKENS <= needed)
        };
        if len > 0 && !self.groups.iter().enumerate().all(reaches) {
            return false;
        }
        for (g, group) in self.groups.iter_mut().enumerate() {
            if len == 0 {
                seq.dropped[g] = 0;
            }
            let keep = len.div_ceil(PAGE_TOKENS).saturating_sub(seq.dropped[g]);
            while seq.pages[g].len() > keep
                && let Some(page) = seq.pages[g].pop()
            {
                group.give_back(page);
            }
        }
        seq.len = len;
        true
    }

    /// Drops the pages that no later token of `seq` can see through its layers' windows.
    pub fn drop_passed(&mut self, seq: &mut SequenceKv) {
        for (g, group) in self.groups.iter_mut().enumerate() {
            let Some(window) = group.spec.window else { continue };
            // The next token stands at `len` and sees keys above `len - window`.
            let first_needed = (seq.len + 1).saturating_sub(window) / PAGE_TOKENS;
            let n = first_needed.saturating_sub(seq.dropped[g]).min(seq.pages[g].len());
            for page in seq.pages[g].drain(..n) {
                group.give_back(page);
            }
            seq.dropped[g] += n;
        }
    }

    /// Another sequence with the same tokens, sharing all pages.
    pub fn fork(&mut self, seq: &SequenceKv) -> SequenceKv {
        for (group, pages) in self.groups.iter_mut().zip(&seq.pages) {
            pages.iter().for_each(|p| group.counts[*p as usize] += 1);
        }
        SequenceKv { pages: seq.pages.clone(), dropped: seq.dropped.clone(), len: seq.len }
    }

    /// Gives all pages of `seq` back.
    pub fn release(&mut self, mut seq: SequenceKv) {
        for (group, pages) in self.groups.iter_mut().zip(&mut seq.pages) {
            pages.drain(..).for_each(|p| group.give_back(p));
        }
    }

    /// Where `cache`'s layer of `seq` lies.
    pub(crate) fn pages<'a>(&'a self, cache: CacheId, seq: &'a SequenceKv) -> KvPages<'a> {
        let (g, layer) = self.places[cache.0 as usize];
        let group = &self.groups[g];
        let k_offset = layer * group.layer_bytes;
        let keys = group.spec.n_kv_heads * PAGE_TOKENS * group.spec.head_dim * self.kv_type.bytes();
        KvPages {
            base: group.memory.as_mut_ptr(),
            pages: &seq.pages[g],
            page_bytes: group.page_bytes,
            page_tokens: PAGE_TOKENS,
            k_offset,
            v_offset: k_offset + keys,
            kv: self.kv_type,
            first_page: seq.dropped[g],
            len: seq.len,
        }
    }

    /// The rows of `cache`'s layer of `seq`, for writing.
    pub(crate) fn rows<'a>(&'a self, cache: CacheId, seq: &'a SequenceKv) -> KvRows<'a> {
        let spec = self.groups[self.places[cache.0 as usize].0].spec;
        KvRows { pages: self.pages(cache, seq), spec }
    }
}

impl Group {
    /// A page with one user. The caller has checked that there is one.
    fn take(&mut self) -> u32 {
        if let Some(page) = self.free.pop() {
            self.counts[page as usize] = 1;
            return page;
        }
        self.counts.push(1);
        self.counts.len() as u32 - 1
    }

    fn give_back(&mut self, page: u32) {
        let count = &mut self.counts[page as usize];
        *count -= 1;
        if *count == 0 {
            self.free.push(page);
        }
    }

    /// A page of one's own with the contents of `page`.
    fn copy_of(&mut self, page: u32) -> u32 {
        let copy = self.take();
        let base = self.memory.as_mut_ptr();
        // SAFETY: both pages lie within the reservation and differ; no step runs while the pool is borrowed mutably.
        unsafe {
            let from = base.add(page as usize * self.page_bytes);
            std::ptr::copy_nonoverlapping(from, base.add(copy as usize * self.page_bytes), self.page_bytes);
        }
        self.give_back(page);
        copy
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(window: Option<usize>, tokens: usize) -> KvPool {
        let spec = CacheSpec { n_kv_heads: 2, head_dim: 4, v_dim: 4, window };
        KvPool::new(&[spec, spec], KvType::F32, tokens).unwrap()
    }

    #[test]
    fn pages_come_with_use_and_return() {
        let mut kv = pool(None, 1000);
        let mut seq = SequenceKv::default();
        kv.extend(&mut seq, 1).unwrap();
        assert_eq!(seq.pages[0].len(), 1);
        kv.extend(&mut seq, PAGE_TOKENS).unwrap();
        assert_eq!((seq.len(), seq.pages[0].len()), (PAGE_TOKENS + 1, 2));
        assert!(kv.truncate(&mut seq, PAGE_TOKENS));
        assert_eq!(seq.pages[0].len(), 1);
        kv.release(seq);
        assert_eq!(kv.bytes_in_use(), 0);
    }

    #[test]
    fn a_full_cache_leaves_the_sequence_as_it_was() {
        let mut kv = pool(None, 64);
        let mut seq = SequenceKv::default();
        kv.extend(&mut seq, 500).unwrap();
        let before = seq.pages.clone();
        assert!(matches!(kv.extend(&mut seq, 10_000), Err(CpuError::CacheFull { .. })));
        assert_eq!((seq.len(), &seq.pages), (500, &before));
    }

    #[test]
    fn windows_drop_pages_and_refuse_to_go_back() {
        let mut kv = pool(Some(10), 10_000);
        let mut seq = SequenceKv::default();
        kv.extend(&mut seq, 1000).unwrap();
        kv.drop_passed(&mut seq);
        // Token 1000 sees keys 991..=1000, which begin in page 15.
        assert_eq!((seq.dropped[0], seq.pages[0].len()), (15, 1));
        assert!(!kv.truncate(&mut seq, 500));
        assert!(kv.truncate(&mut seq, 998));
        assert!(kv.truncate(&mut seq, 0));
        assert_eq!(kv.bytes_in_use(), 0);
    }

    #[test]
    fn forks_share_pages_until_one_writes() {
        let mut kv = pool(None, 1000);
        let mut a = SequenceKv::default();
        kv.extend(&mut a, 70).unwrap();
        let row = |kv: &KvPool, s: &SequenceKv| kv.rows(CacheId(1), s).value(1, 69);
        // SAFETY: the row was just made and is four f32 long.
        unsafe { row(&kv, &a).cast::<[f32; 4]>().write_unaligned([1.0, 2.0, 3.0, 4.0]) };
        let mut b = kv.fork(&a);
        assert_eq!(row(&kv, &a), row(&kv, &b));
        kv.extend(&mut b, 1).unwrap();
        assert_ne!(row(&kv, &a), row(&kv, &b));
        // SAFETY: as above.
        assert_eq!(unsafe { row(&kv, &b).cast::<[f32; 4]>().read_unaligned() }, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(a.pages[0][0], b.pages[0][0]);
        kv.release(a);
        kv.release(b);
        assert_eq!(kv.bytes_in_use(), 0);
    }
}
