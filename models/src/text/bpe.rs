//! Byte-level BPE: words are cut by a [`PreSplit`], and the bytes of a word are joined by published merges (GPT-2) or by
//! the ids of the joined tokens (tiktoken).

use tokenizers::NormalizedString;

use super::byte_level;
use super::merge::{MergeTable, Merger, Merges, Symbol};
use super::pre_split::PreSplit;
use super::vocab::{NONE, TextIndex, Vocab};

/// Rules by which words are prepared and looked up.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WordRules {
    /// The text is composed (NFC) first.
    pub(crate) nfc: bool,
    /// A word that is a token is taken whole, without looking at merges.
    pub(crate) ignore_merges: bool,
    /// A text that does not start with a space is given one.
    pub(crate) add_space: bool,
}

/// The encoder.
#[derive(Debug)]
pub(crate) struct BytePairs {
    pre: PreSplit,
    rules: WordRules,
    index: TextIndex,
    /// `None` where any two tokens join whose bytes together are a token; the lowest id is joined first.
    merges: Option<MergeTable>,
    byte_ids: [u32; 256],
}

impl BytePairs {
    /// The encoder by published merges, `left right` in the printable alphabet, in order of rank.
    pub(crate) fn new<S: AsRef<str>>(
        vocab: &Vocab,
        merges: impl ExactSizeIterator<Item = S>,
        pre: PreSplit,
        rules: WordRules,
    ) -> Self {
        let index = TextIndex::new(vocab);
        let merges = MergeTable::new(vocab, &index, merges, byte_level::push_bytes);
        Self::with(vocab, index, Some(merges), pre, rules)
    }

    /// The encoder by ids, as tiktoken works: its vocabularies are in order of rank and have no list of merges.
    pub(crate) fn by_ids(vocab: &Vocab, pre: PreSplit) -> Self {
        let rules = WordRules { ignore_merges: true, ..WordRules::default() };
        Self::with(vocab, TextIndex::new(vocab), None, pre, rules)
    }

    fn with(vocab: &Vocab, index: TextIndex, merges: Option<MergeTable>, pre: PreSplit, rules: WordRules) -> Self {
        let byte_ids = std::array::from_fn(|b| index.get(vocab, &[b as u8]));
        Self { pre, rules, index, merges, byte_ids }
    }

    /// Appends the ids of `text`, which holds no special tokens.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, merger: &mut Merger, out: &mut Vec<u32>) {
        let spaced = (self.rules.add_space && !text.starts_with(' ')).then(|| format!(" {text}"));
        let text = spaced.as_deref().unwrap_or(text);
        let composed = self.compose(text);
        let text = composed.as_deref().unwrap_or(text);
        self.pre.words(text, |word| self.word(vocab, word.as_bytes(), merger, out));
    }

    /// The text in NFC, `None` where nothing changes. No character below U+0300 is changed by NFC.
    fn compose(&self, text: &str) -> Option<String> {
        if !self.rules.nfc || text.chars().all(|c| c < '\u{300}') {
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
        if self.rules.ignore_merges {
            let id = self.index.get(vocab, word);
            if id != NONE {
                out.push(id);
                return;
            }
        }
        merger.clear();
        for (at, &byte) in word.iter().enumerate() {
            let id = self.byte_ids[byte as usize];
            // A vocabulary without this byte cannot spell it, so the byte is left out, as elsewhere.
            if id != NONE {
                merger.push(id, at, 1);
            }
        }
        merger.run(&Pairs { pairs: self, vocab }, word, |symbol| out.push(symbol.id));
    }
}

/// The encoder with its vocabulary.
struct Pairs<'v> {
    pairs: &'v BytePairs,
    vocab: &'v Vocab,
}

impl Merges for Pairs<'_> {
    #[inline]
    fn rank(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        match &self.pairs.merges {
            Some(merges) => merges.get(left.id, right.id),
            // Between the two may lie a byte that the vocabulary lacks.
            None if left.start + left.len != right.start => None,
            None => {
                let id = self.pairs.index.get(self.vocab, left.joined(right, text));
                (id != NONE).then_some((id, id))
            }
        }
    }
}
