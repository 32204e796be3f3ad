//! The merge loop that both kinds of BPE share: join the best adjacent pair until none is left.
//!
//! Symbols form a linked list and candidate pairs a heap, so a run of n bytes costs O(n log n) however long it is. Words
//! are short, though, and a look at all pairs of a short one is faster than a heap.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::vocab::{NONE, TextIndex, Vocab, mix};

/// Decides which pairs may be joined, and in which order.
pub(crate) trait Merges {
    /// The rank (lower goes first; on a tie the pair further left does) and the id of the joined token.
    fn rank(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)>;
}

/// A published list of merges: (left id, right id) → (rank, joined id), open addressing with linear probing.
#[derive(Debug)]
pub(crate) struct MergeTable {
    slots: Vec<MergeSlot>,
}

#[derive(Clone, Copy, Debug)]
struct MergeSlot {
    left: u32,
    right: u32,
    rank: u32,
    /// The joined token, [`NONE`] where the slot is free.
    id: u32,
}

impl MergeTable {
    /// A table for at most `merges` merges.
    pub(crate) fn with_capacity(merges: usize) -> Self {
        let free = MergeSlot { left: NONE, right: NONE, rank: 0, id: NONE };
        // At least a third more slots than merges, so the table never fills.
        Self { slots: vec![free; (merges + merges / 2).max(2).next_power_of_two()] }
    }

    /// `merges` are pairs in order of rank, written `left right`; `push` appends the bytes of one side. A pair can
    /// never be joined where a side or the result is not a text token; such pairs are left out.
    pub(crate) fn new<S: AsRef<str>>(
        vocab: &Vocab,
        index: &TextIndex,
        merges: impl ExactSizeIterator<Item = S>,
        push: impl Fn(&str, &mut Vec<u8>),
    ) -> Self {
        let mut table = Self::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (rank, merge) in merges.enumerate() {
            let merge = merge.as_ref();
            // In vocabularies that are not entirely byte-level a side may itself start with a space.
            let Some(space) = merge.as_bytes().iter().skip(1).position(|&b| b == b' ') else { continue };
            joined.clear();
            push(&merge[..space + 1], &mut joined);
            let middle = joined.len();
            push(&merge[space + 2..], &mut joined);
            let left = index.get(vocab, &joined[..middle]);
            let right = index.get(vocab, &joined[middle..]);
            let id = index.get(vocab, &joined);
            if left != NONE && right != NONE && id != NONE {
                table.insert(left, right, rank as u32, id);
            }
        }
        table
    }

    #[inline]
    fn slot(&self, left: u32, right: u32) -> usize {
        let mask = self.slots.len() - 1;
        let mut at = mix((left as u64) << 32 | right as u64) as usize & mask;
        loop {
            let s = &self.slots[at];
            if s.id == NONE || (s.left == left && s.right == right) {
                return at;
            }
            at = (at + 1) & mask;
        }
    }

    /// Adds a pair, the ids of its sides and of the joined token. Of two equal pairs the one added first counts.
    pub(crate) fn insert(&mut self, left: u32, right: u32, rank: u32, id: u32) {
        let at = self.slot(left, right);
        if self.slots[at].id == NONE {
            self.slots[at] = MergeSlot { left, right, rank, id };
        }
    }

    /// Rank and id of the joined token, as [`Merges::rank`] gives them.
    #[inline]
    pub(crate) fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let slot = &self.slots[self.slot(left, right)];
        (slot.id != NONE).then_some((slot.rank, slot.id))
    }
}

/// A part of the text that is one token so far.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// Its id, or [`NONE`] while it is a character without a token.
    pub(crate) id: u32,
    /// Where it starts in the text, and its bytes. A symbol of no bytes has been joined to the one on its left.
    pub(crate) start: u32,
    pub(crate) len: u32,
    prev: u32,
    next: u32,
}

impl Symbol {
    /// The bytes it covers together with its right neighbour.
    pub(crate) fn joined<'t>(&self, right: &Symbol, text: &'t [u8]) -> &'t [u8] {
        &text[self.start as usize..(right.start + right.len) as usize]
    }
}

/// Ordered by rank, then position. `len` shows whether the pair is unchanged since it was ranked: its sides can only
/// have grown.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: u32,
    left: u32,
    len: u32,
    id: u32,
}

/// The working memory of one encoding, reused from word to word.
#[derive(Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<Candidate>>,
    /// Of a short word: for each symbol but the last, rank and id of it joined to its right neighbour.
    pairs: Vec<(u64, u32)>,
}

/// Symbols of the longest word that is searched pair by pair.
const SHORT: usize = 32;
/// The rank of a pair that cannot be joined, above all others.
const NEVER: (u64, u32) = (u64::MAX, NONE);

impl Merger {
    /// Forgets the last word.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.heap.clear();
    }

    /// Adds a symbol at the right end.
    pub(crate) fn push(&mut self, id: u32, start: usize, len: usize) {
        let at = self.symbols.len() as u32;
        if let Some(last) = self.symbols.last_mut() {
            last.next = at;
        }
        let prev = if at == 0 { NONE } else { at - 1 };
        self.symbols.push(Symbol { id, start: start as u32, len: len as u32, prev, next: NONE });
    }

    /// Joins pairs until none is left, then hands the symbols to `emit` in order.
    pub(crate) fn run(&mut self, merges: &impl Merges, text: &[u8], emit: impl FnMut(&Symbol)) {
        if self.symbols.len() <= SHORT {
            self.run_short(merges, text);
            return self.symbols.iter().for_each(emit);
        }
        self.run_long(merges, text);
        self.symbols.iter().filter(|s| s.len > 0).for_each(emit);
    }

    fn run_long(&mut self, merges: &impl Merges, text: &[u8]) {
        for left in 1..self.symbols.len() {
            self.offer(merges, text, left as u32 - 1);
        }
        while let Some(Reverse(best)) = self.heap.pop() {
            let left = self.symbols[best.left as usize];
            if left.len == 0 || left.next == NONE {
                continue;
            }
            let right = self.symbols[left.next as usize];
            if left.len + right.len != best.len {
                continue;
            }
            self.symbols[left.next as usize].len = 0;
            let joined = &mut self.symbols[best.left as usize];
            joined.id = best.id;
            joined.len = best.len;
            joined.next = right.next;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = best.left;
                self.offer(merges, text, best.left);
            }
            if left.prev != NONE {
                self.offer(merges, text, left.prev);
            }
        }
    }

    /// Joins pairs of a short word until none is left; its symbols then lie next to each other.
    fn run_short(&mut self, merges: &impl Merges, text: &[u8]) {
        let Self { symbols, pairs, .. } = self;
        let pair = |symbols: &[Symbol], left: usize| match symbols.get(left + 1) {
            Some(right) => merges.rank(text, &symbols[left], right).map_or(NEVER, |(rank, id)| (rank.into(), id)),
            None => NEVER,
        };
        pairs.clear();
        pairs.extend((0..symbols.len()).map(|left| pair(symbols, left)));
        loop {
            // The first of equal ranks.
            let best = pairs.iter().enumerate().min_by_key(|(_, pair)| pair.0);
            let Some((at, &(_, id))) = best.filter(|(_, pair)| pair.0 != NEVER.0) else { return };
            symbols[at].id = id;
            symbols[at].len += symbols[at + 1].len;
            symbols.remove(at + 1);
            pairs.remove(at + 1);
            pairs[at] = pair(symbols, at);
            if at > 0 {
                pairs[at - 1] = pair(symbols, at - 1);
            }
        }
    }

    fn offer(&mut self, merges: &impl Merges, text: &[u8], at: u32) {
        let left = &self.symbols[at as usize];
        let right = &self.symbols[left.next as usize];
        if let Some((rank, id)) = merges.rank(text, left, right) {
            self.heap.push(Reverse(Candidate { rank, left: at, len: left.len + right.len, id }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Pairs of equal letters join, and so do neighbours in the alphabet.
    struct Letters;

    impl Merges for Letters {
        fn rank(&self, _: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
            let joins = left.id == right.id || left.id + 1 == right.id;
            joins.then_some((left.id * 7 % 5, left.id / 2 + right.id))
        }
    }

    proptest! {
        #[test]
        fn short_words_are_joined_as_long_ones(ids in proptest::collection::vec(0..6u32, 0..SHORT)) {
            let mut runs = [(); 2].map(|()| Merger::default());
            for merger in &mut runs {
                ids.iter().enumerate().for_each(|(at, &id)| merger.push(id, at, 1));
            }
            let [mut short, mut long] = runs;
            short.run_short(&Letters, b"");
            long.run_long(&Letters, b"");
            let found = |merger: &Merger| -> Vec<(u32, u32, u32)> {
                merger.symbols.iter().filter(|s| s.len > 0).map(|s| (s.id, s.start, s.len)).collect()
            };
            prop_assert_eq!(found(&short), found(&long));
        }
    }
}
