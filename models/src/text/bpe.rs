//! Byte-level BPE from a vocabulary and a list of merges, as GGUF's `gpt2` tokenizer has them.

use tokenizers::NormalizedString;

use super::byte_level;
use super::merge::{Merger, Merges, Symbol};
use super::pre_split::PreSplit;
use super::vocab::{NONE, TextIndex, Vocab, mix};

/// (left id, right id) → (rank, joined id), open addressing with linear probing.
#[derive(Debug)]
struct MergeTable {
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
    fn with_capacity(merges: usize) -> Self {
        let free = MergeSlot { left: NONE, right: NONE, rank: 0, id: NONE };
        Self { slots: vec![free; (merges + merges / 2).max(2).next_power_of_two()] }
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

    /// The first of two equal pairs counts. The table never fills: it has a third more slots than merges.
    fn insert(&mut self, left: u32, right: u32, rank: u32, id: u32) {
        let at = self.slot(left, right);
        if self.slots[at].id == NONE {
            self.slots[at] = MergeSlot { left, right, rank, id };
        }
    }
}

/// The encoder.
#[derive(Debug)]
pub(crate) struct BytePairs {
    pre: PreSplit,
    nfc: bool,
    /// A word that is a token needs no merging.
    ignore_merges: bool,
    index: TextIndex,
    merges: MergeTable,
    byte_ids: [u32; 256],
}

impl BytePairs {
    /// `merges` are pairs in order of rank, written `left right` in the printable alphabet. A pair whose parts or
    /// whose result are not text tokens can never be joined and is left out.
    pub(crate) fn new<S: AsRef<str>>(
        vocab: &Vocab,
        merges: impl ExactSizeIterator<Item = S>,
        pre: PreSplit,
        nfc: bool,
        ignore_merges: bool,
    ) -> Self {
        let index = TextIndex::new(vocab);
        let mut table = MergeTable::with_capacity(merges.len());
        let mut joined = Vec::new();
        for (rank, merge) in merges.enumerate() {
            let merge = merge.as_ref();
            // A part may itself start with a space in vocabularies that are not byte-level through and through.
            let Some(space) = merge.as_bytes().iter().skip(1).position(|&b| b == b' ') else { continue };
            joined.clear();
            byte_level::push_bytes(&merge[..space + 1], &mut joined);
            let middle = joined.len();
            byte_level::push_bytes(&merge[space + 2..], &mut joined);
            let left = index.get(vocab, &joined[..middle]);
            let right = index.get(vocab, &joined[middle..]);
            let id = index.get(vocab, &joined);
            if left != NONE && right != NONE && id != NONE {
                table.insert(left, right, rank as u32, id);
            }
        }
        let byte_ids = std::array::from_fn(|b| index.get(vocab, &[b as u8]));
        Self { pre, nfc, ignore_merges, index, merges: table, byte_ids }
    }

    /// Appends the ids of `text`, which holds no special tokens.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let composed = self.compose(text);
        let text = composed.as_deref().unwrap_or(text);
        self.pre.words(text, |word| self.word(vocab, word.as_bytes(), merger, out));
    }

    /// The text in NFC, `None` where nothing changes. No character below U+0300 is changed by NFC.
    fn compose(&self, text: &str) -> Option<String> {
        if !self.nfc || text.chars().all(|c| c < '\u{300}') {
            return None;
        }
        let mut normalized = NormalizedString::from(text);
        normalized.nfc();
        Some(normalized.get().to_owned())
    }

    fn word(&self, vocab: &Vocab, word: &[u8], merger: &mut Merger, out: &mut Vec<u32>) {
        if let [byte] = word {
            out.extend(Some(self.byte_ids[*byte as usize]).filter(|&id| id != NONE));
            return;
        }
        if self.ignore_merges {
            let id = self.index.get(vocab, word);
            if id != NONE {
                out.push(id);
                return;
            }
        }
        merger.clear();
        for (at, &byte) in word.iter().enumerate() {
            let id = self.byte_ids[byte as usize];
            // A vocabulary without this byte cannot spell it: like everywhere, it is left out.
            if id != NONE {
                merger.push(id, at, 1);
            }
        }
        merger.run(self, word, |symbol| out.push(symbol.id));
    }
}

impl Merges for BytePairs {
    #[inline]
    fn rank(&self, _text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let slot = &self.merges.slots[self.merges.slot(left.id, right.id)];
        (slot.id != NONE).then_some((slot.rank, slot.id))
    }
}
