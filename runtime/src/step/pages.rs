//! Pages of cached keys and values: who uses which. The memory itself belongs to the backend.
//!
//! Layers that cache alike (same heads, same dimensions, same window) form a *group*. A page of a group holds
//! [`PAGE_TOKENS`] tokens of all its layers: for each layer the keys `[n_kv_heads][PAGE_TOKENS][head_dim]`, then the
//! values `[n_kv_heads][PAGE_TOKENS][v_dim]`. Where an entry stands for a block of tokens, a page holds [`PAGE_BLOCKS`]
//! of them instead. See [`kv_type`](super::kv_type) for the rows. A sequence is, per group, a list of page numbers, so that a fork copies
//! lists, a sliding window drops pages, and a batch mixes sequences freely. Pages are counted: a shared page is copied
//! before the first write to it.
//!
//! Page numbers of another book would address rows of other sequences, so every entry point refuses such sequences. See
//! [`sequence`](super::sequence).
//!
//! Layers without keys and values keep a state a sequence instead; see [`slots`](super::slots).

use std::sync::Arc;

use super::{
    KvType, MOST_UNDER_WAY, StepError,
    sequence::{Held, Returns, SequenceKv},
    slots::{Slots, StateStep},
};
use crate::graph::{CacheId, CacheSpec, StateSpec};

/// Tokens in a page.
pub const PAGE_TOKENS: usize = 64;

/// Entries in a page where each stands for a block of tokens.
pub const PAGE_BLOCKS: usize = 16;

impl CacheSpec {
    /// Entries in a page.
    pub const fn page_entries(&self) -> usize {
        if self.every == 1 { PAGE_TOKENS } else { PAGE_BLOCKS }
    }

    /// Tokens that a page's entries stand for.
    pub const fn page_tokens(&self) -> usize {
        self.page_entries() * self.every
    }
}

/// One group of layers that cache alike.
#[derive(Debug)]
pub(crate) struct Group {
    pub spec: CacheSpec,
    pub layers: usize,
    /// Users of each page that was ever handed out.
    counts: Vec<u32>,
    free: Vec<u32>,
    /// The most pages that there may be.
    pub capacity: usize,
}

/// A page that must be copied before the step that was admitted runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PageCopy {
    pub group: usize,
    pub from: u32,
    pub to: u32,
}

/// The users of all pages of a backend. Other crates see it through [`Pages`].
#[derive(Debug)]
pub(crate) struct PageBook {
    /// Pages and states that dropped sequences have given back.
    pub(super) returns: Arc<Returns>,
    kv_type: KvType,
    pub(crate) groups: Vec<Group>,
    /// Group and layer within it, by [`CacheId`].
    places: Vec<(usize, usize)>,
    pub(crate) slots: Slots,
}

impl PageBook {
    /// Pages for the caches of a graph. `max_tokens` bounds the tokens that all sequences together may hold.
    pub fn new(caches: &[CacheSpec], kv_type: KvType, max_tokens: usize) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        let mut places = Vec::new();
        for spec in caches {
            // The last page of a sequence is half empty on average; eight more leave room for a few sequences.
            let capacity = max_tokens.div_ceil(spec.page_tokens()) + 8;
            let group = groups.iter().position(|g| g.spec == *spec).unwrap_or_else(|| {
                groups.push(Group { spec: *spec, layers: 0, counts: Vec::new(), free: Vec::new(), capacity });
                groups.len() - 1
            });
            places.push((group, groups[group].layers));
            groups[group].layers += 1;
        }
        Self { returns: Arc::default(), kv_type, groups, places, slots: Slots::default() }
    }

    /// Adds slots for the states of a graph.
    pub fn with_states(mut self, states: &[StateSpec], max_tokens: usize) -> Self {
        // As many sequences as pages; each has a state to read, and one to write for every step that may be under way.
        let slots = (1 + MOST_UNDER_WAY) * (max_tokens.div_ceil(PAGE_TOKENS) + 8);
        self.slots = Slots::new(states, slots);
        self
    }

    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.kv_type
    }

    /// Bytes that one more token takes, over all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.groups.iter().map(|g| g.page_bytes(self.kv_type) / g.spec.page_tokens()).sum()
    }

    /// Bytes of the pages and states in use.
    pub fn bytes_in_use(&mut self) -> usize {
        self.take_returned();
        let pages = |g: &Group| (g.counts.len() - g.free.len()) * g.page_bytes(self.kv_type);
        self.groups.iter().map(pages).sum::<usize>() + self.slots.in_use() * self.slots.bytes()
    }

    /// Group of `cache`, and which of the group's layers it is.
    pub(crate) fn place(&self, cache: CacheId) -> (usize, usize) {
        self.places[cache.0 as usize]
    }

    /// Refuses a sequence whose pages belong to another book.
    pub(super) fn check(&self, seq: &SequenceKv) -> Result<(), StepError> {
        if seq.is_empty() || seq.is_of(&self.returns) {
            Ok(())
        } else {
            Err(StepError::OtherBackend { tokens: seq.len })
        }
    }

    /// Takes in the pages and states of dropped sequences, before pages are handed out or counted.
    pub(crate) fn take_returned(&mut self) {
        for mut held in self.returns.take() {
            self.slots.truncate(&mut held.states, 0);
            for (group, pages) in self.groups.iter_mut().zip(held.pages) {
                pages.into_iter().for_each(|p| group.give_back(p));
            }
        }
    }

    /// Makes room for `n` more tokens at the end of `seq`. Pages that the backend must copy first are added to
    /// `copies`. With `keep` the present state stays, so that the sequence can be truncated to this length; pages allow
    /// that anyway.
    ///
    /// # Errors
    /// Where pages or states run out, and sequences of another book. The sequence is then unchanged.
    pub(crate) fn extend(
        &mut self,
        seq: &mut SequenceKv,
        n: usize,
        keep: bool,
        copies: &mut Vec<PageCopy>,
    ) -> Result<StateStep, StepError> {
        self.check(seq)?;
        let keep = keep || seq.back > 0;
        if !seq.is_of(&self.returns) {
            // The sequence holds nothing, but its lists may have the length of another book's groups.
            seq.held = Held { pages: vec![Vec::new(); self.groups.len()], states: Vec::new() };
            seq.dropped = vec![0; self.groups.len()];
            seq.home = Some(self.returns.clone());
        }
        if let Some((_, full)) =
            self.groups.iter().enumerate().find(|(g, group)| group.wanted(*g, seq, n) > group.free_pages())
        {
            return Err(StepError::CacheFull {
                sequence: 0,
                cached: seq.len,
                wanted: n,
                tokens: full.capacity * full.spec.page_tokens(),
                free: full.free_pages() * full.spec.page_tokens(),
            });
        }
        let state = self.slots.extend(&mut seq.held.states, seq.len + n, keep)?;
        for (g, group) in self.groups.iter_mut().enumerate() {
            let page_tokens = group.spec.page_tokens();
            if n > 0
                && !seq.len.is_multiple_of(page_tokens)
                && let Some(tail) = seq.held.pages[g].last_mut()
                && group.counts[*tail as usize] > 1
            {
                let to = group.take();
                copies.push(PageCopy { group: g, from: *tail, to });
                group.give_back(*tail);
                *tail = to;
            }
            while seq.dropped[g] + seq.held.pages[g].len() < (seq.len + n).div_ceil(page_tokens) {
                seq.held.pages[g].push(group.take());
            }
        }
        seq.len += n;
        Ok(state)
    }

    /// Forgets the last pages and slots that were ever handed out and have no user, so that the backend makes no room
    /// for them.
    pub(crate) fn forget_unused(&mut self) {
        self.slots.forget_unused();
        for group in &mut self.groups {
            while group.counts.last() == Some(&0) {
                group.counts.pop();
            }
            let made = group.counts.len();
            group.free.retain(|page| (*page as usize) < made);
        }
    }

    /// Undoes the last [`PageBook::extend`] of `seq` by `n` tokens, which added `copies` and returned `state`. Pages
    /// are as before, even where kernels have copied or written some; a state that kernels worked on in place is not.
    pub(crate) fn take_back(&mut self, seq: &mut SequenceKv, n: usize, copies: &[PageCopy], state: StateStep) {
        let len = seq.len - n;
        self.slots.take_back(&mut seq.held.states, len, state);
        self.keep_pages(seq, len);
        for copy in copies {
            if let Some(tail) = seq.held.pages[copy.group].last_mut()
                && *tail == copy.to
            {
                *tail = copy.from;
                self.groups[copy.group].counts[copy.from as usize] += 1;
                self.groups[copy.group].give_back(copy.to);
            }
        }
    }

    /// See [`Pages::truncate`].
    pub fn truncate(&mut self, seq: &mut SequenceKv, len: usize) -> Result<bool, StepError> {
        self.check(seq)?;
        if len >= seq.len {
            return Ok(true);
        }
        if !self.reaches(seq, len) {
            return Ok(false);
        }
        self.slots.truncate(&mut seq.held.states, len);
        self.keep_pages(seq, len);
        // What was announced is no longer so.
        seq.expected = 0;
        Ok(true)
    }

    /// Whether a step can continue from the first `len` tokens of `seq`, which has at least as many: no window has
    /// dropped a key that it would read, and the state there was kept.
    fn reaches(&self, seq: &SequenceKv, len: usize) -> bool {
        let reaches = |(g, group): (usize, &Group)| seq.dropped.get(g).is_none_or(|d| *d <= group.first_needed(len, 0));
        (len == 0 || self.groups.iter().enumerate().all(reaches)) && self.slots.can_truncate(&seq.held.states, len)
    }

    /// Gives back the pages of `seq` beyond its first `len` tokens.
    fn keep_pages(&mut self, seq: &mut SequenceKv, len: usize) {
        for (g, group) in self.groups.iter_mut().enumerate() {
            if len == 0 {
                seq.dropped[g] = 0;
            }
            let keep = len.div_ceil(group.spec.page_tokens()).saturating_sub(seq.dropped[g]);
            while seq.held.pages[g].len() > keep
                && let Some(page) = seq.held.pages[g].pop()
            {
                group.give_back(page);
            }
        }
        seq.len = len;
    }

    /// Gives back all that `seq` holds: its state is lost, and no step can continue from here.
    pub(crate) fn empty(&mut self, seq: &mut SequenceKv) {
        self.slots.truncate(&mut seq.held.states, 0);
        self.keep_pages(seq, 0);
    }

    /// Drops the pages that no later token of `seq` sees through its layers' windows, and the states from which it
    /// cannot continue even after its last `back` tokens are taken back, or as many as its owner wants to go back.
    pub(crate) fn drop_passed(&mut self, seq: &mut SequenceKv, back: usize) {
        let back = back.max(seq.back);
        self.slots.drop_passed(&mut seq.held.states, back);
        for (g, group) in self.groups.iter_mut().enumerate() {
            let n = group.first_needed(seq.len, back).saturating_sub(seq.dropped[g]).min(seq.held.pages[g].len());
            for page in seq.held.pages[g].drain(..n) {
                group.give_back(page);
            }
            seq.dropped[g] += n;
        }
    }

    /// See [`Pages::fork`].
    pub fn fork(&mut self, seq: &SequenceKv) -> Result<SequenceKv, StepError> {
        // A sequence can always go on from where it is.
        Ok(self.fork_at(seq, seq.len)?.unwrap_or_default())
    }

    /// See [`Pages::fork_at`].
    pub fn fork_at(&mut self, seq: &SequenceKv, len: usize) -> Result<Option<SequenceKv>, StepError> {
        self.check(seq)?;
        let len = len.min(seq.len);
        if len == 0 {
            return Ok(Some(SequenceKv::default()));
        }
        if !self.reaches(seq, len) {
            return Ok(None);
        }
        let mut held = Held { pages: Vec::new(), states: self.slots.fork(&seq.held.states, len) };
        for (g, group) in self.groups.iter_mut().enumerate() {
            let n = len.div_ceil(group.spec.page_tokens()) - seq.dropped[g];
            let pages = seq.held.pages[g][..n].to_vec();
            pages.iter().for_each(|page| group.share(*page));
            held.pages.push(pages);
        }
        let (home, dropped) = (seq.home.clone(), seq.dropped.clone());
        Ok(Some(SequenceKv { held, home, dropped, len, expected: 0, back: 0 }))
    }

    /// Pages of `group` that were ever in use: the backend's memory must hold them.
    #[cfg(feature = "gpu")]
    pub(crate) fn pages_made(&self, group: usize) -> usize {
        self.groups[group].counts.len()
    }
}

/// The pages and states of a backend, for owners of sequences. A caller cannot swap the book behind it, as it could
/// behind a `&mut PageBook`: the book stays with the backend's memory.
#[derive(Debug)]
pub struct Pages<'a>(pub(crate) &'a mut PageBook);

impl Pages<'_> {
    /// How keys and values are stored.
    pub fn kv_type(&self) -> KvType {
        self.0.kv_type
    }

    /// Bytes that one more token takes, over all layers.
    pub fn bytes_per_token(&self) -> usize {
        self.0.bytes_per_token()
    }

    /// Bytes of a sequence's states, the same at every length.
    pub fn bytes_per_sequence(&self) -> usize {
        self.0.slots.bytes()
    }

    /// Bytes of the pages and states in use.
    pub fn bytes_in_use(&mut self) -> usize {
        self.0.bytes_in_use()
    }

    /// Keeps the first `len` tokens of `seq` and forgets the rest. Returns false, and changes nothing, where a sliding
    /// window has already dropped keys that a continuation from there would read, or where the graph has states and the
    /// state at `len` was not kept.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where another backend has the sequence.
    pub fn truncate(&mut self, seq: &mut SequenceKv, len: usize) -> Result<bool, StepError> {
        self.0.truncate(seq, len)
    }

    /// Another sequence with the same tokens, sharing all pages and the state.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where another backend has the sequence.
    pub fn fork(&mut self, seq: &SequenceKv) -> Result<SequenceKv, StepError> {
        self.0.fork(seq)
    }

    /// Another sequence with the first `len` tokens of `seq`, or with all where it has fewer, sharing their pages and
    /// the state there. None where [`Pages::truncate`] would refuse to go back to that length.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where another backend has the sequence.
    pub fn fork_at(&mut self, seq: &SequenceKv, len: usize) -> Result<Option<SequenceKv>, StepError> {
        self.0.fork_at(seq, len)
    }
}

impl Group {
    /// Bytes of one layer within a page.
    pub fn layer_bytes(&self, kv: KvType) -> usize {
        self.spec.entry_bytes(kv) * self.spec.page_entries()
    }

    /// Bytes of a page: all layers.
    pub fn page_bytes(&self, kv: KvType) -> usize {
        self.layer_bytes(kv) * self.layers
    }

    /// Bytes of a layer's keys within a page; its values follow.
    pub fn key_bytes(&self, kv: KvType) -> usize {
        self.spec.n_kv_heads * kv.row_bytes(self.spec.head_dim) * self.spec.page_entries()
    }

    /// Pages that are free.
    pub(super) fn free_pages(&self) -> usize {
        self.free.len() + (self.capacity - self.counts.len())
    }

    /// Pages that `n` more tokens of `seq` take in this group, which is its book's `g`th.
    pub(super) fn wanted(&self, g: usize, seq: &SequenceKv, n: usize) -> usize {
        let page_tokens = self.spec.page_tokens();
        let has = seq.dropped.get(g).copied().unwrap_or(0) + seq.held.pages.get(g).map_or(0, Vec::len);
        let tail = seq.held.pages.get(g).and_then(|pages| pages.last());
        let copied = n > 0 && !seq.len.is_multiple_of(page_tokens) && tail.is_some_and(|page| self.users(*page) > 1);
        (seq.len + n).div_ceil(page_tokens).saturating_sub(has) + usize::from(copied)
    }

    /// The first page that a sequence of `len` tokens needs to go on, also after its last `back` tokens are taken back.
    pub(super) fn first_needed(&self, len: usize, back: usize) -> usize {
        // The next token stands at `len` and sees keys above `len - window`.
        let first = self.spec.window.map_or(0, |window| (len + 1).saturating_sub(window + back));
        first / self.spec.page_tokens()
    }

    /// Users of `page`.
    pub(super) fn users(&self, page: u32) -> u32 {
        self.counts[page as usize]
    }

    /// Adds a user to `page`.
    pub(super) fn share(&mut self, page: u32) {
        self.counts[page as usize] += 1;
    }

    /// A page with one user. The caller has checked that a page is left.
    fn take(&mut self) -> u32 {
        if let Some(page) = self.free.pop() {
            self.counts[page as usize] = 1;
            return page;
        }
        self.counts.push(1);
        self.counts.len() as u32 - 1
    }

    /// Takes a user from `page`; without users it is free.
    pub(super) fn give_back(&mut self, page: u32) {
        let count = &mut self.counts[page as usize];
        *count -= 1;
        if *count == 0 {
            self.free.push(page);
        }
    }
}

#[cfg(test)]
mod tests;
