//! Sentencepiece's BPE: the pair whose joined piece has the best score is joined first, or the first one of a list of
//! merges. Text without a piece is spelled in bytes. GGUF calls the model `llama`, with merges `gemma4`.
//!
//! Pieces have plain spaces where the file writes `▁`, and so has the text while it is encoded.

use std::borrow::Cow;

use super::merge::{MergeTable, Merger, Merges, Symbol};
use super::vocab::{NONE, TextIndex, TokenKind, Vocab};

/// The visible space of sentencepiece, U+2581.
pub(crate) const SPACE: &str = "\u{2581}";

/// Places where a space is put in front, so that a word at the start is the same piece as inside of a sentence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SpacePrefix {
    Never,
    /// Where a text starts with plain text (transformers without `legacy`).
    AtStart,
    /// Before the first text and after every token cut out of the text (llama.cpp).
    AfterEveryToken,
    /// Before the first text and after tokens cut out of it: user-defined pieces are part of the text (sentencepiece).
    AfterControl,
}

/// The encoder.
#[derive(Debug)]
pub(crate) struct Pieces<'v> {
    vocab: &'v Vocab,
    table: &'v PieceTable,
}

/// The order in which pairs are joined.
#[derive(Debug)]
enum Order {
    /// Per id: 0 for the best score.
    Ranks(Vec<u32>),
    Merges(MergeTable),
}

/// The encoder's data beside the vocabulary.
#[derive(Debug)]
pub(crate) struct PieceTable {
    index: TextIndex,
    order: Order,
    /// The token of each byte, [`NONE`] if the vocabulary has none.
    byte_ids: [u32; 256],
    unknown: u32,
    /// Ids below this are pieces of the model itself; files beside it add the others.
    n_pieces: usize,
    pub(crate) prefix: SpacePrefix,
}

impl PieceTable {
    /// `scores` has one number a token, `unknown` is [`NONE`] where the vocabulary has no such token.
    pub(crate) fn new(vocab: &Vocab, scores: impl Iterator<Item = f32>, unknown: u32, prefix: SpacePrefix) -> Self {
        let mut ranks: Vec<u32> = scores.map(rank_of).take(vocab.len()).collect();
        let n_pieces = ranks.len();
        ranks.resize(vocab.len(), u32::MAX);
        Self { n_pieces, ..Self::with(vocab, TextIndex::new(vocab), Order::Ranks(ranks), unknown, prefix) }
    }

    /// The encoder by published merges, `left right` with visible spaces, in order of rank.
    pub(crate) fn by_merges<S: AsRef<str>>(
        vocab: &Vocab,
        merges: impl ExactSizeIterator<Item = S>,
        unknown: u32,
        prefix: SpacePrefix,
    ) -> Self {
        let index = TextIndex::new(vocab);
        let merges = MergeTable::new(vocab, &index, merges, push_piece);
        Self::with(vocab, index, Order::Merges(merges), unknown, prefix)
    }

    fn with(vocab: &Vocab, index: TextIndex, order: Order, unknown: u32, prefix: SpacePrefix) -> Self {
        let mut byte_ids = [NONE; 256];
        for (id, kind) in vocab.kinds() {
            if let (TokenKind::Byte, [byte]) = (kind, vocab.bytes(id)) {
                byte_ids[*byte as usize] = id;
            }
        }
        Self { index, order, byte_ids, unknown, n_pieces: vocab.len(), prefix }
    }

    /// Whether sentencepiece sees token `id` as part of the text: user-defined pieces of its own. What files beside the
    /// model add is cut out before.
    pub(crate) fn is_part_of_text(&self, vocab: &Vocab, id: u32) -> bool {
        vocab.kind(id) == Some(TokenKind::UserDefined) && (id as usize) < self.n_pieces
    }

    /// Appends the ids of `text`, which holds no special tokens; `space_first` puts a space in front of it.
    pub(crate) fn encode(&self, vocab: &Vocab, text: &str, space_first: bool, merger: &mut Merger, out: &mut Vec<u32>) {
        let text = plain_spaces(text, space_first);
        let pieces = Pieces { vocab, table: self };
        merger.clear();
        for (at, c) in text.char_indices() {
            let bytes = &text.as_bytes()[at..at + c.len_utf8()];
            merger.push(self.index.get(vocab, bytes), at, bytes.len());
        }
        let mut after_unknown = false;
        merger.run(&pieces, text.as_bytes(), |symbol| {
            let was_unknown = std::mem::take(&mut after_unknown);
            if symbol.id != NONE {
                out.push(symbol.id);
                return;
            }
            let start = symbol.start as usize;
            let ids = text.as_bytes()[start..start + symbol.len as usize].iter().map(|&b| self.byte_ids[b as usize]);
            if ids.clone().all(|id| id != NONE) {
                out.extend(ids);
            } else {
                // A run of unknown characters is one unknown token.
                after_unknown = true;
                if !was_unknown && self.unknown != NONE {
                    out.push(self.unknown);
                }
            }
        });
    }
}

impl Merges for Pieces<'_> {
    #[inline]
    fn rank(&self, text: &[u8], left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        match &self.table.order {
            Order::Merges(merges) => merges.get(left.id, right.id),
            Order::Ranks(ranks) => {
                let id = self.table.index.get(self.vocab, left.joined(right, text));
                (id != NONE).then(|| (ranks[id as usize], id))
            }
        }
    }
}

/// Appends the text of a piece, with plain spaces.
pub(crate) fn push_piece(text: &str, out: &mut Vec<u8>) {
    for (i, part) in text.split(SPACE).enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(crate) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

fn plain_spaces(text: &str, space_first: bool) -> Cow<'_, str> {
    if !space_first && !text.contains(SPACE) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 1);
    if space_first {
        out.push(' ');
    }
    for (i, part) in text.split(SPACE).enumerate() {
        if i > 0 {
            out.push(' ');
        }
        out.push_str(part);
    }
    Cow::Owned(out)
}

/// Maps scores to ranks so that a higher score is a lower rank; NaN goes last.
fn rank_of(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    // After this flip the bits are ordered like the floats. Adding zero makes -0 and 0 equal.
    let bits = (score + 0.0).to_bits();
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_follow_scores() {
        let scores = [f32::INFINITY, 3.5, 0.0, -1e-9, -1.0, -2e9, f32::NEG_INFINITY, f32::NAN];
        assert!(scores.windows(2).all(|w| rank_of(w[0]) < rank_of(w[1])));
        assert_eq!(rank_of(0.0), rank_of(-0.0));
    }

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        assert_eq!(byte_token("<0x+A>"), None);
        assert_eq!(byte_token("<0x0>"), None);
        assert_eq!(byte_token("0x0A"), None);
    }

    #[test]
    fn visible_spaces_become_plain() {
        assert_eq!(plain_spaces("a b", false), "a b");
        assert_eq!(plain_spaces("a▁▁b", true), " a  b");
        assert_eq!(plain_spaces("▁", false), " ");
    }
}
