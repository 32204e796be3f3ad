//! Prefixes of sequences that are gone or have moved on, kept for sequences that begin alike.
//!
//! Prefixes form a tree. A *piece* is a page of [`PAGE_TOKENS`] tokens behind its parent, with what the backend cached
//! for them: by group of layers the pages that hold them, and the state behind the last token where one was kept. A
//! piece is found by a hash over its tokens, its parent's hash and the caller's salt, and its tokens are compared,
//! because hashes may collide. A *tail* is a shorter piece at the end of a sequence; it has no children.
//!
//! Pieces are users of pages and states like sequences ([`PageBook`] counts them), so whoever writes behind a prefix
//! copies the page that it shares. Where a group's pages hold more tokens than a piece, several pieces use the same
//! page; the last of them on the way has all entries.
//!
//! A sequence can begin with a prefix of a length where
//!
//! - each sliding window finds the pages that the next token sees, and
//! - the state was kept, where the graph has states.
//!
//! So prefixes of such graphs are found at lengths at which [`Prefixes::insert`] was called: a caller inserts a prompt
//! after each of its parts. [`evict`] has the rules by which prefixes go.

mod evict;
#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    sync::Arc,
};

use evict::{STATES, Uses};

use super::{
    PAGE_TOKENS, PageBook, Pages, SequenceKv, StepError,
    pages::Group,
    sequence::{Held, Returns},
    slots::StateAt,
};

/// Bounds of what prefixes keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PrefixLimits {
    /// Tokens.
    pub tokens: usize,
    /// States: each takes [`Pages::bytes_per_sequence`] bytes.
    pub states: usize,
}

/// Counts since the prefixes were made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PrefixStats {
    /// Calls of [`Prefixes::longest`].
    pub lookups: u64,
    /// Those that found a prefix.
    pub hits: u64,
    /// Tokens of the prefixes found.
    pub reused_tokens: u64,
    /// Tokens of evicted pieces.
    pub evicted_tokens: u64,
    /// Evicted states.
    pub evicted_states: u64,
}

/// The prefixes that one backend keeps. Dropping them gives their pages and states back.
#[derive(Debug)]
pub struct Prefixes {
    limits: PrefixLimits,
    /// The list that pages go back to; none before the first prefix.
    home: Option<Arc<Returns>>,
    /// By number; none where a number is free.
    pieces: Vec<Option<Piece>>,
    vacant: Vec<usize>,
    /// Whole pieces by hash.
    index: HashMap<u64, usize>,
    /// First pieces by salt.
    roots: HashMap<u64, Vec<usize>>,
    /// Counts lookups and insertions: the time by which pieces are old.
    clock: u64,
    uses: Uses,
    tokens: usize,
    states: usize,
    stats: PrefixStats,
}

#[derive(Debug)]
struct Piece {
    salt: u64,
    parent: Option<usize>,
    children: Vec<usize>,
    hash: u64,
    /// Tokens before it.
    start: usize,
    tokens: Box<[u32]>,
    /// By group: the pages with its tokens; none where a window had passed them, or where they were evicted.
    pages: Vec<Vec<u32>>,
    /// The slot of the state behind its last token.
    state: Option<u32>,
    /// When a sequence last ran through it.
    used: u64,
    /// When a sequence last began or ended so near behind it that windows and states of this piece mattered.
    resumed: u64,
}

impl Piece {
    fn end(&self) -> usize {
        self.start + self.tokens.len()
    }

    /// The numbers of the pages, within a sequence, that hold its tokens in `group`.
    fn range(&self, group: &Group) -> Range<usize> {
        let page_tokens = group.spec.page_tokens();
        self.start / page_tokens..self.end().div_ceil(page_tokens)
    }
}

/// The way from a first piece to a later one.
#[derive(Clone, Copy)]
struct Place {
    salt: u64,
    piece: Option<usize>,
    hash: u64,
}

impl Place {
    fn root(salt: u64) -> Self {
        Self { salt, piece: None, hash: salt }
    }

    /// The hash of a piece with these tokens here.
    fn hash_of(self, tokens: &[u32]) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.hash, tokens).hash(&mut hasher);
        hasher.finish()
    }
}

impl Prefixes {
    /// No prefixes yet.
    pub fn new(limits: PrefixLimits) -> Self {
        Self {
            limits,
            home: None,
            pieces: Vec::new(),
            vacant: Vec::new(),
            index: HashMap::new(),
            roots: HashMap::new(),
            clock: 0,
            uses: Uses::default(),
            tokens: 0,
            states: 0,
            stats: PrefixStats::default(),
        }
    }

    /// Tokens kept.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// States kept.
    pub fn states(&self) -> usize {
        self.states
    }

    /// Counts since the start.
    pub fn stats(&self) -> PrefixStats {
        self.stats
    }

    /// A sequence with the longest prefix of `tokens` that is kept, of all but the last token, which must be run for
    /// its logits. It is empty where there is none. Prefixes are found under the `salt` under which they were
    /// inserted: a number for what else keys and values depend on.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where the prefixes are another backend's.
    pub fn longest(&mut self, pages: &mut Pages<'_>, tokens: &[u32], salt: u64) -> Result<SequenceKv, StepError> {
        let book = &mut *pages.0;
        self.check(book)?;
        self.stats.lookups += 1;
        let tokens = &tokens[..tokens.len().saturating_sub(1)];
        let mut path = Vec::new();
        let mut place = Place::root(salt);
        for page in tokens.chunks_exact(PAGE_TOKENS) {
            let hash = place.hash_of(page);
            let Some(id) = self.find(place, hash, page) else { break };
            path.push(id);
            place = Place { salt, piece: Some(id), hash };
        }
        let Some(len) = self.resumable(book, &mut path, place, tokens) else { return Ok(SequenceKv::default()) };
        self.clock += 1;
        self.touch(book, &path, len);
        self.stats.hits += 1;
        self.stats.reused_tokens += len as u64;
        Ok(self.begin(book, &path, len))
    }

    /// Keeps the whole pages of `tokens`, which are the sequence's, and the state behind them where the sequence has it.
    /// With `tail` also the tokens of its last page, for a sequence that goes no further: else its next step would
    /// have to copy that page.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where another backend has the sequence or the prefixes.
    pub fn insert(
        &mut self,
        pages: &mut Pages<'_>,
        seq: &SequenceKv,
        tokens: &[u32],
        salt: u64,
        tail: bool,
    ) -> Result<(), StepError> {
        let book = &mut *pages.0;
        self.check(book)?;
        book.check(seq)?;
        if seq.is_empty() {
            return Ok(());
        }
        self.home.get_or_insert_with(|| book.returns.clone());
        self.clock += 1;
        let tokens = &tokens[..tokens.len().min(seq.len)];
        let mut place = Place::root(salt);
        let mut path = Vec::new();
        for page in tokens.chunks(PAGE_TOKENS) {
            let whole = page.len() == PAGE_TOKENS;
            if !whole && !tail {
                break;
            }
            let hash = place.hash_of(page);
            let found = if whole { self.find(place, hash, page) } else { self.find_tail(place, page) };
            let id = match found {
                Some(id) => id,
                // Another piece has the same hash: this prefix cannot be found from here on.
                None if whole && self.index.contains_key(&hash) => break,
                None => self.add(place, hash, page, path.len() * PAGE_TOKENS),
            };
            self.fill(book, id, seq);
            path.push(id);
            place = Place { salt, piece: Some(id), hash };
        }
        if let Some(&last) = path.last() {
            self.touch(book, &path, tokens.len().min(path.len() * PAGE_TOKENS));
            self.prune(book, last);
        }
        self.keep_limits(book);
        Ok(())
    }

    fn check(&self, book: &PageBook) -> Result<(), StepError> {
        match &self.home {
            Some(home) if !Arc::ptr_eq(home, &book.returns) => Err(StepError::OtherBackend { tokens: self.tokens }),
            _ => Ok(()),
        }
    }

    fn children(&self, place: Place) -> &[usize] {
        match place.piece {
            Some(id) => self.pieces[id].as_ref().map_or(&[], |piece| &piece.children),
            None => self.roots.get(&place.salt).map_or(&[], Vec::as_slice),
        }
    }

    /// The whole piece with these tokens at `place`.
    fn find(&self, place: Place, hash: u64, tokens: &[u32]) -> Option<usize> {
        let id = *self.index.get(&hash)?;
        let piece = self.pieces[id].as_ref()?;
        (piece.salt == place.salt && piece.parent == place.piece && *piece.tokens == *tokens).then_some(id)
    }

    fn find_tail(&self, place: Place, tokens: &[u32]) -> Option<usize> {
        let is = |id: &usize| self.pieces[*id].as_ref().is_some_and(|piece| *piece.tokens == *tokens);
        self.children(place).iter().copied().find(is)
    }

    /// The greatest length at which a sequence of `tokens` can begin. `path` has the whole pieces that it begins with,
    /// up to `place`, and afterwards those that it needs.
    fn resumable(&self, book: &PageBook, path: &mut Vec<usize>, place: Place, tokens: &[u32]) -> Option<usize> {
        // A part of one more piece first.
        let len = path.len() * PAGE_TOKENS;
        let mut best = None;
        for &child in self.children(place) {
            let Some(piece) = &self.pieces[child] else { continue };
            let same = piece.tokens.iter().zip(&tokens[len..]).take_while(|(a, b)| a == b).count();
            path.push(child);
            if same > best.map_or(0, |(most, _)| most) && self.can_begin(book, path, len + same) {
                best = Some((same, child));
            }
            path.pop();
        }
        if let Some((same, child)) = best {
            path.push(child);
            return Some(len + same);
        }
        while !path.is_empty() {
            let len = path.len() * PAGE_TOKENS;
            if self.can_begin(book, path, len) {
                return Some(len);
            }
            path.pop();
        }
        None
    }

    /// Whether a sequence can begin with the first `len` tokens of `path`, which end in its last piece.
    fn can_begin(&self, book: &PageBook, path: &[usize], len: usize) -> bool {
        let Some(last) = path.last().and_then(|id| self.pieces[*id].as_ref()) else { return false };
        if !book.slots.is_empty() && (last.state.is_none() || last.end() != len) {
            return false;
        }
        // The latest pages are the likeliest to be there, so the first ones are looked at first.
        let mut groups = book.groups.iter().enumerate();
        groups.all(|(g, group)| {
            let mut needed = group.first_needed(len, 0)..len.div_ceil(group.spec.page_tokens());
            needed.all(|page| self.page(group, g, path, page).is_some())
        })
    }

    /// The sequence's page of number `page` in `group`, the book's `g`th.
    fn page(&self, group: &Group, g: usize, path: &[usize], page: usize) -> Option<u32> {
        // The last piece with tokens in the page has all entries.
        let last = ((page + 1) * group.spec.page_tokens() - 1) / PAGE_TOKENS;
        let piece = self.pieces[*path.get(last.min(path.len().checked_sub(1)?))?].as_ref()?;
        piece.pages[g].get(page.checked_sub(piece.range(group).start)?).copied()
    }

    /// A sequence of the first `len` tokens of `path`, which can begin there.
    fn begin(&self, book: &mut PageBook, path: &[usize], len: usize) -> SequenceKv {
        let mut seq = SequenceKv::default();
        (seq.home, seq.len) = (self.home.clone(), len);
        for (g, group) in book.groups.iter_mut().enumerate() {
            let first = group.first_needed(len, 0);
            let needed = first..len.div_ceil(group.spec.page_tokens());
            let pages: Vec<u32> = needed.filter_map(|page| self.page(group, g, path, page)).collect();
            pages.iter().for_each(|page| group.share(*page));
            seq.held.pages.push(pages);
            seq.dropped.push(first);
        }
        let last = path.last().and_then(|id| self.pieces[*id].as_ref());
        if let Some(slot) = last.and_then(|piece| piece.state) {
            book.slots.share(slot);
            seq.held.states.push(StateAt { len, slot });
        }
        seq
    }

    fn add(&mut self, place: Place, hash: u64, tokens: &[u32], start: usize) -> usize {
        let piece = Piece {
            salt: place.salt,
            parent: place.piece,
            children: Vec::new(),
            hash,
            start,
            tokens: tokens.into(),
            pages: Vec::new(),
            state: None,
            used: 0,
            resumed: 0,
        };
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.pieces.push(None);
            self.pieces.len() - 1
        });
        self.pieces[id] = Some(piece);
        self.tokens += tokens.len();
        if tokens.len() == PAGE_TOKENS {
            self.index.insert(hash, id);
        }
        match place.piece.and_then(|parent| self.pieces[parent].as_mut()) {
            Some(parent) => parent.children.push(id),
            None => self.roots.entry(place.salt).or_default().push(id),
        }
        id
    }

    /// Adds to a piece what it has not and `seq`, which has its tokens, has.
    fn fill(&mut self, book: &mut PageBook, id: usize, seq: &SequenceKv) {
        let Some(piece) = &mut self.pieces[id] else { return };
        piece.pages.resize(book.groups.len(), Vec::new());
        for (g, group) in book.groups.iter_mut().enumerate() {
            if !piece.pages[g].is_empty() {
                continue;
            }
            let Range { start, end } = piece.range(group);
            let dropped = seq.dropped[g];
            let Some(pages) = start.checked_sub(dropped).and_then(|s| seq.held.pages[g].get(s..end - dropped)) else {
                continue;
            };
            for page in pages {
                group.share(*page);
                self.uses.add(g, *page);
            }
            piece.pages[g] = pages.to_vec();
        }
        let end = piece.end();
        if piece.state.is_none()
            && let Some(state) = seq.held.states.iter().find(|s| s.len == end)
        {
            book.slots.share(state.slot);
            self.uses.add(STATES, state.slot);
            piece.state = Some(state.slot);
            self.states += 1;
        }
    }

    /// Notes that a sequence of `len` tokens has run along `path`.
    fn touch(&mut self, book: &PageBook, path: &[usize], len: usize) {
        let window = book.groups.iter().filter_map(|group| group.spec.window).max().unwrap_or(0);
        for &id in path {
            let Some(piece) = &mut self.pieces[id] else { continue };
            piece.used = self.clock;
            if piece.end() + window >= len {
                piece.resumed = self.clock;
            }
        }
    }

    /// Forgets all pieces and leaves what they hold to the book.
    fn leave(&mut self) {
        for piece in self.pieces.drain(..).flatten() {
            let states = piece.state.iter().map(|slot| StateAt { len: piece.end(), slot: *slot }).collect();
            if let Some(home) = &self.home {
                home.put(Held { pages: piece.pages, states });
            }
        }
        self.vacant.clear();
        self.index.clear();
        self.roots.clear();
        self.uses = Uses::default();
        (self.tokens, self.states) = (0, 0);
    }
}

impl Drop for Prefixes {
    fn drop(&mut self) {
        self.leave();
    }
}
