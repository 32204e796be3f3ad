//! The rules by which prefixes go.
//!
//! The least recently used go first, and only what helps: a page that a sequence uses, too, would not become free. What
//! is wanted decides what goes:
//!
//! - pages of layers without a window: pieces that have no children, so that all others can still be found;
//! - pages of a sliding window: those alone, from any piece. The prefix can then be used up to other lengths only;
//! - states: those alone, from any piece.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
};

use super::{Piece, Prefixes};
use crate::step::{Missing, PageBook, Pages, StepError};

/// In the place of a group's number: the states.
pub(super) const STATES: usize = usize::MAX;

/// Pieces that use a page of a group, or a state.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<(usize, u32), u32>);

impl Uses {
    pub fn add(&mut self, group: usize, number: u32) {
        *self.0.entry((group, number)).or_default() += 1;
    }

    fn take(&mut self, group: usize, number: u32) {
        if let Entry::Occupied(mut uses) = self.0.entry((group, number)) {
            *uses.get_mut() -= 1;
            if *uses.get() == 0 {
                uses.remove();
            }
        }
    }

    /// Whether all of `users` are pieces.
    fn are_all(&self, group: usize, number: u32, users: u32) -> bool {
        self.0.get(&(group, number)) == Some(&users)
    }
}

/// Free pages by group, and free states, at which enough has gone.
struct Goal {
    pages: Vec<usize>,
    states: usize,
}

impl Goal {
    fn new(missing: &Missing, book: &PageBook) -> Self {
        let missing_pages = missing.pages.iter().copied().chain(std::iter::repeat(0));
        let pages = book.groups.iter().zip(missing_pages).map(|(group, n)| group.free_pages().saturating_add(n));
        Self { pages: pages.collect(), states: book.slots.room().1.saturating_add(missing.states) }
    }

    fn lacks_pages(&self, book: &PageBook, g: usize) -> bool {
        book.groups[g].free_pages() < self.pages[g]
    }

    fn lacks_states(&self, book: &PageBook) -> bool {
        book.slots.room().1 < self.states
    }
}

impl Prefixes {
    /// Lets go of prefixes until what is `missing` is free, the least recently used first. Returns whether it is. Where
    /// all prefixes cannot make it free, those that help are gone nevertheless.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where the prefixes are another backend's.
    pub fn evict(&mut self, pages: &mut Pages<'_>, missing: &Missing) -> Result<bool, StepError> {
        let book = &mut *pages.0;
        self.check(book)?;
        // Else pages would count as used that dropped sequences have left.
        book.take_returned();
        let goal = Goal::new(missing, book);
        let groups = 0..book.groups.len();
        let (full, windowed): (Vec<usize>, Vec<usize>) = groups.partition(|g| book.groups[*g].spec.window.is_none());
        self.evict_leaves(book, &goal, &full);
        windowed.iter().for_each(|g| self.evict_window(book, &goal, *g));
        if goal.lacks_states(book) {
            let alone = |slot: u32| self.uses.are_all(STATES, slot, book.slots.users(slot));
            for id in self.oldest(|piece| piece.state.is_some_and(alone)) {
                if !goal.lacks_states(book) {
                    break;
                }
                self.drop_state(book, id);
            }
        }
        Ok(!goal.lacks_states(book) && !(0..book.groups.len()).any(|g| goal.lacks_pages(book, g)))
    }

    /// Lets go of all prefixes.
    ///
    /// # Errors
    /// [`StepError::OtherBackend`] where the prefixes are another backend's.
    pub fn clear(&mut self, pages: &mut Pages<'_>) -> Result<(), StepError> {
        self.check(pages.0)?;
        self.leave();
        pages.0.take_returned();
        Ok(())
    }

    /// Evicts what is beyond the limits, whether or not it makes room.
    pub(super) fn keep_limits(&mut self, book: &mut PageBook) {
        if self.states > self.limits.states {
            for id in self.oldest(|piece| piece.state.is_some()) {
                if self.states <= self.limits.states {
                    break;
                }
                self.drop_state(book, id);
            }
        }
        if self.tokens > self.limits.tokens {
            let mut leaves = self.leaves();
            while self.tokens > self.limits.tokens
                && let Some(Reverse((_, id))) = leaves.pop()
            {
                leaves.extend(self.remove(book, id));
            }
        }
    }

    /// Removes pieces without children until nothing is lacking in the groups `full`.
    fn evict_leaves(&mut self, book: &mut PageBook, goal: &Goal, full: &[usize]) {
        let lacks = |book: &PageBook, g: &&usize| goal.lacks_pages(book, **g);
        if !full.iter().any(|g| lacks(book, &g)) {
            return;
        }
        let mut leaves = self.leaves();
        while full.iter().any(|g| lacks(book, &g))
            && let Some(Reverse((_, id))) = leaves.pop()
        {
            if full.iter().filter(|g| lacks(book, g)).any(|g| self.helps(book, *g, id)) {
                leaves.extend(self.remove(book, id));
            }
        }
        // A piece whose pages a sequence uses may stand behind pieces whose pages nobody does: where two sequences ran the
        // same tokens at once, the pages of the first are kept. Without it those before it can go.
        let mut leaves = self.leaves();
        while full.iter().any(|g| lacks(book, &g))
            && let Some(Reverse((_, id))) = leaves.pop()
        {
            let line = std::iter::successors(Some(id), |id| self.pieces[*id].as_ref()?.parent);
            let wanted: Vec<usize> = full.iter().filter(|g| lacks(book, g)).copied().collect();
            if line.flat_map(|id| wanted.iter().map(move |g| (*g, id))).any(|(g, id)| self.helps(book, g, id)) {
                leaves.extend(self.remove(book, id));
            }
        }
    }

    /// Takes pages of the window of group `g` from pieces until nothing is lacking there.
    fn evict_window(&mut self, book: &mut PageBook, goal: &Goal, g: usize) {
        if !goal.lacks_pages(book, g) {
            return;
        }
        for id in self.oldest(|piece| !piece.pages[g].is_empty()) {
            if !goal.lacks_pages(book, g) {
                break;
            }
            if !self.helps(book, g, id) {
                continue;
            }
            let Some(piece) = &mut self.pieces[id] else { continue };
            for page in std::mem::take(&mut piece.pages[g]) {
                self.uses.take(g, page);
                book.groups[g].give_back(page);
            }
            self.prune(book, id);
        }
    }

    /// Whether the piece has a page of group `g` that only pieces use.
    fn helps(&self, book: &PageBook, g: usize, id: usize) -> bool {
        let Some(piece) = &self.pieces[id] else { return false };
        piece.pages[g].iter().any(|page| self.uses.are_all(g, *page, book.groups[g].users(*page)))
    }

    /// Pieces without children by age, the oldest on top.
    fn leaves(&self) -> BinaryHeap<Reverse<(u64, usize)>> {
        let pieces = self.pieces.iter().enumerate().filter_map(|(id, piece)| Some((id, piece.as_ref()?)));
        pieces.filter(|(_, piece)| piece.children.is_empty()).map(|(id, piece)| Reverse((piece.used, id))).collect()
    }

    /// The pieces that `which` holds for, those first behind which a sequence last began or ended the longest ago.
    fn oldest(&self, which: impl Fn(&Piece) -> bool) -> Vec<usize> {
        let pieces = self.pieces.iter().enumerate().filter_map(|(id, piece)| Some((id, piece.as_ref()?)));
        let mut found: Vec<_> =
            pieces.filter(|(_, piece)| which(piece)).map(|(id, p)| (p.resumed, p.start, id)).collect();
        found.sort_unstable();
        found.into_iter().map(|(.., id)| id).collect()
    }

    fn drop_state(&mut self, book: &mut PageBook, id: usize) {
        let Some(slot) = self.pieces[id].as_mut().and_then(|piece| piece.state.take()) else { return };
        self.uses.take(STATES, slot);
        book.slots.give_back(slot);
        self.states -= 1;
        self.stats.evicted_states += 1;
        self.prune(book, id);
    }

    /// Removes a piece that has no children where no sequence can begin within it or behind it, and then its parents
    /// that are such.
    pub(super) fn prune(&mut self, book: &mut PageBook, mut id: usize) {
        let stateful = !book.slots.is_empty();
        let useless =
            |p: &Piece| p.children.is_empty() && (stateful && p.state.is_none() || p.pages.iter().any(Vec::is_empty));
        while self.pieces[id].as_ref().is_some_and(useless)
            && let Some(Reverse((_, parent))) = self.remove(book, id)
        {
            id = parent;
        }
    }

    /// Removes a piece that has no children, and gives back what it holds. Returns its parent where that now has none.
    fn remove(&mut self, book: &mut PageBook, id: usize) -> Option<Reverse<(u64, usize)>> {
        let piece = self.pieces[id].take()?;
        self.vacant.push(id);
        self.tokens -= piece.tokens.len();
        self.stats.evicted_tokens += piece.tokens.len() as u64;
        if self.index.get(&piece.hash) == Some(&id) {
            self.index.remove(&piece.hash);
        }
        for ((g, group), pages) in book.groups.iter_mut().enumerate().zip(piece.pages) {
            for page in pages {
                self.uses.take(g, page);
                group.give_back(page);
            }
        }
        if let Some(slot) = piece.state {
            self.uses.take(STATES, slot);
            book.slots.give_back(slot);
            self.states -= 1;
            self.stats.evicted_states += 1;
        }
        match piece.parent {
            Some(parent) => {
                let above = self.pieces[parent].as_mut()?;
                above.children.retain(|child| *child != id);
                above.children.is_empty().then_some(Reverse((above.used, parent)))
            }
            None => {
                if let Some(first) = self.roots.get_mut(&piece.salt) {
                    first.retain(|child| *child != id);
                    if first.is_empty() {
                        self.roots.remove(&piece.salt);
                    }
                }
                None
            }
        }
    }
}
