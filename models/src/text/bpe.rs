//! Byte-pair encoding of one word: its bytes or characters are joined by published merges (GPT-2) or by the ids of the
//! joined tokens (tiktoken).

use super::byte_level;
use super::merge::{MergeTable, Merger, Merges, Symbol};
use super::vocab::{NONE, TextIndex, Vocab};

/// The model of a tokenizer.
#[derive(Debug)]
pub(crate) struct Bpe {
    index: TextIndex,
    /// `None` where any two tokens join whose bytes together are a token; the lowest id is joined first.
    merges: Option<MergeTable>,
    units: Units,
    /// A word that is a token is taken whole, without looking at merges.
    ignore_merges: bool,
}

/// The smallest parts of a word.
#[derive(Debug)]
pub(crate) enum Units {
    /// The token of each byte. A vocabulary without a byte cannot spell it, so the byte is left out, as elsewhere.
    Bytes(Box<[u32; 256]>),
    Chars(Chars),
}

/// Words are spelled in characters, as the keys of a `tokenizer.json`'s model say.
#[derive(Debug)]
pub(crate) struct Chars {
    /// Words are first written in the printable alphabet of bytes.
    pub(crate) alphabet: bool,
    /// The tokens `<0x00>` to `<0xFF>` that spell characters without a token, [`NONE`] where the vocabulary has none;
    /// `None` without `byte_fallback`.
    pub(crate) byte_ids: Option<Box<[u32; 256]>>,
    /// The token of characters that cannot be spelled, which are left out without one.
    pub(crate) unknown: Option<u32>,
    /// Neighbouring unknown characters are one token.
    pub(crate) fuse_unknown: bool,
    /// `continuing_subword_prefix`: goes before all characters of a word but the first.
    pub(crate) prefix: String,
    /// `end_of_word_suffix`: goes behind the last character of a word.
    pub(crate) suffix: String,
}

impl Bpe {
    /// The model by published merges, `left right` in the printable alphabet, in order of rank.
    pub(crate) fn new<S: AsRef<str>>(
        vocab: &Vocab,
        merges: impl ExactSizeIterator<Item = S>,
        ignore_merges: bool,
    ) -> Self {
        let index = TextIndex::new(vocab);
        let merges = MergeTable::new(vocab, &index, merges, byte_level::push_bytes);
        let units = Units::Bytes(byte_ids(vocab, &index));
        Self { index, merges: Some(merges), units, ignore_merges }
    }

    /// The model by ids, as tiktoken works: its vocabularies are in order of rank and have no list of merges.
    pub(crate) fn by_ids(vocab: &Vocab) -> Self {
        let index = TextIndex::new(vocab);
        let units = Units::Bytes(byte_ids(vocab, &index));
        Self { index, merges: None, units, ignore_merges: true }
    }

    /// The model of parts; `index` finds words and units.
    pub(crate) fn of_parts(index: TextIndex, merges: MergeTable, units: Units, ignore_merges: bool) -> Self {
        Self { index, merges: Some(merges), units, ignore_merges }
    }

    /// Appends the ids of a word. `vocab` is the one that the model was made with.
    pub(crate) fn word(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        match &self.units {
            Units::Chars(chars) if chars.alphabet => {
                let word: String = word.bytes().map(|byte| byte_level::ALPHABET[usize::from(byte)]).collect();
                self.spell(vocab, &word, merger, out);
            }
            _ => self.spell(vocab, word, merger, out),
        }
    }

    fn spell(&self, vocab: &Vocab, word: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        if let (Units::Bytes(ids), [byte]) = (&self.units, word.as_bytes()) {
            out.extend(Some(ids[usize::from(*byte)]).filter(|&id| id != NONE));
            return;
        }
        if self.ignore_merges {
            let id = self.index.get(vocab, word.as_bytes());
            if id != NONE {
                out.push(id);
                return;
            }
        }
        merger.clear();
        match &self.units {
            Units::Bytes(ids) => {
                for (at, byte) in word.bytes().enumerate() {
                    let id = ids[usize::from(byte)];
                    if id != NONE {
                        merger.push(id, at, 1);
                    }
                }
            }
            Units::Chars(chars) => self.push_chars(vocab, chars, word, merger),
        }
        merger.run(&Pairs { bpe: self, vocab }, word.as_bytes(), |symbol| out.push(symbol.id));
    }

    fn push_chars(&self, vocab: &Vocab, chars: &Chars, word: &str, merger: &mut Merger) {
        // The unknown token that waits for more unknown characters: where it starts, and its bytes.
        let mut waiting: Option<(u32, usize, usize)> = None;
        let mut affixed = String::new();
        for (at, c) in word.char_indices() {
            let len = c.len_utf8();
            let front = if at > 0 { chars.prefix.as_str() } else { "" };
            let back = if at + len == word.len() { chars.suffix.as_str() } else { "" };
            let unit = if front.is_empty() && back.is_empty() {
                &word[at..at + len]
            } else {
                affixed.clear();
                affixed.extend([front, &word[at..at + len], back]);
                &affixed
            };
            let id = self.index.get(vocab, unit.as_bytes());
            if id != NONE {
                if let Some((unknown, start, len)) = waiting.take() {
                    merger.push(unknown, start, len);
                }
                merger.push(id, at, len);
                continue;
            }
            if let Some(ids) = &chars.byte_ids
                && unit.bytes().all(|byte| ids[usize::from(byte)] != NONE)
            {
                // As in the library behind the format, an unknown token that waits goes behind these bytes.
                unit.bytes().for_each(|byte| merger.push(ids[usize::from(byte)], at, 1));
                continue;
            }
            let Some(unknown) = chars.unknown else { continue };
            waiting = match waiting {
                Some((id, start, before)) if chars.fuse_unknown => Some((id, start, before + len)),
                before => {
                    if let Some((unknown, start, len)) = before {
                        merger.push(unknown, start, len);
                    }
                    Some((unknown, at, len))
                }
            };
        }
        if let Some((unknown, start, len)) = waiting {
            merger.push(unknown, start, len);
        }
    }
}

/// The token of each byte, [`NONE`] where the vocabulary has none.
fn byte_ids(vocab: &Vocab, index: &TextIndex) -> Box<[u32; 256]> {
    Box::new(std::array::from_fn(|byte| index.get(vocab, &[byte as u8])))
}

/// The model with its vocabulary.
struct Pairs<'v> {
    bpe: &'v Bpe,
    vocab: &'v Vocab,
}

impl Merges for Pairs<'_> {
    #[inline]
    fn rank(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        match &self.bpe.merges {
            Some(merges) => merges.get(left.id, right.id),
            // Between the two may lie a byte that the vocabulary lacks.
            None if left.start + left.len != right.start => None,
            None => {
                let id = self.bpe.index.get(self.vocab, left.joined(right, text));
                (id != NONE).then_some((id, id))
            }
        }
    }
}
