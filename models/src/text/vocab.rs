//! The token table: the bytes and the kind of every id, and a hash table from bytes to id.
//!
//! All tokens lie in one buffer and the hash table holds only ids, so that a vocabulary of 262,144 tokens is built
//! with a handful of allocations in a few milliseconds.

use std::hash::BuildHasher;

/// The role of a token. The numbers are those of `tokenizer.ggml.token_type` and of sentencepiece.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum TokenKind {
    /// A piece of text.
    Normal = 1,
    /// Replaces text that the vocabulary cannot spell.
    Unknown = 2,
    /// Steers the model (`<|im_end|>`); not part of the text.
    Control = 3,
    /// Added by the model's makers; always matched whole, and part of the text (`<tool_call>`).
    UserDefined = 4,
    /// A reserved place.
    Unused = 5,
    /// One raw byte, for text that has no pieces (`<0x0A>`).
    Byte = 6,
}

impl TokenKind {
    /// The kind with this number in a file; numbers out of range read as [`TokenKind::Normal`].
    pub(crate) fn from_number(n: i64) -> Self {
        match n {
            2 => TokenKind::Unknown,
            3 => TokenKind::Control,
            4 => TokenKind::UserDefined,
            5 => TokenKind::Unused,
            6 => TokenKind::Byte,
            _ => TokenKind::Normal,
        }
    }
}

/// No token: ids stay below it.
pub(crate) const NONE: u32 = u32::MAX;

/// Bytes and kind of every token.
#[derive(Debug, Default)]
pub(crate) struct Vocab {
    /// The bytes of all tokens, one after the other.
    bytes: Vec<u8>,
    /// End of each token in `bytes`.
    ends: Vec<u32>,
    kinds: Vec<TokenKind>,
}

impl Vocab {
    pub(crate) fn with_capacity(tokens: usize) -> Self {
        Self {
            bytes: Vec::with_capacity(tokens * 8),
            ends: Vec::with_capacity(tokens),
            kinds: Vec::with_capacity(tokens),
        }
    }

    /// Adds the next id; `fill` appends the token's bytes. False if the table is full (4 GiB of text).
    pub(crate) fn push(&mut self, kind: TokenKind, fill: impl FnOnce(&mut Vec<u8>)) -> bool {
        fill(&mut self.bytes);
        let Ok(end) = u32::try_from(self.bytes.len()) else { return false };
        self.ends.push(end);
        self.kinds.push(kind);
        true
    }

    /// One past the highest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// The bytes token `id` stands for, empty for an id out of range.
    #[inline]
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        let i = id as usize;
        let Some(&end) = self.ends.get(i) else { return &[] };
        let start = if i == 0 { 0 } else { self.ends[i - 1] };
        &self.bytes[start as usize..end as usize]
    }

    pub(crate) fn kind(&self, id: u32) -> Option<TokenKind> {
        self.kinds.get(id as usize).copied()
    }

    /// Ids and kinds in order.
    pub(crate) fn kinds(&self) -> impl Iterator<Item = (u32, TokenKind)> + '_ {
        self.kinds.iter().enumerate().map(|(id, &kind)| (id as u32, kind))
    }
}

/// Bytes → id for the tokens that plain text can become (never `<|im_end|>`, never `<0x0A>`).
#[derive(Debug)]
pub(crate) struct TextIndex {
    /// Open addressing, linear probing, at most half full: (upper half of the hash, id), id [`NONE`] where free.
    slots: Vec<(u32, u32)>,
    seed: u64,
    /// Bytes of the longest token: longer slices are never looked up.
    max_len: usize,
    /// Tokens in it.
    len: usize,
}

impl TextIndex {
    /// The index of all tokens that are text.
    pub(crate) fn new(vocab: &Vocab) -> Self {
        Self::of(vocab, |_, kind| matches!(kind, TokenKind::Normal | TokenKind::UserDefined | TokenKind::Unused))
    }

    /// The index of the tokens of which `is_text` is true. Of two tokens with the same bytes the lower id wins.
    pub(crate) fn of(vocab: &Vocab, is_text: impl Fn(u32, TokenKind) -> bool) -> Self {
        let slots = vec![(0, NONE); (vocab.len() * 2).max(2).next_power_of_two()];
        // A seed per process, so that no file can make all its tokens collide.
        let seed = std::hash::RandomState::new().hash_one(0u8) | 1;
        let mut index = Self { slots, seed, max_len: 0, len: 0 };
        for (id, kind) in vocab.kinds() {
            if !is_text(id, kind) {
                continue;
            }
            let bytes = vocab.bytes(id);
            let (slot, tag) = index.find(vocab, bytes);
            if index.slots[slot].1 == NONE {
                index.slots[slot] = (tag, id);
                index.max_len = index.max_len.max(bytes.len());
                index.len += 1;
            }
        }
        index
    }

    /// Tokens that differ from each other.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The id of the token that is exactly `bytes`, [`NONE`] if there is none.
    #[inline]
    pub(crate) fn get(&self, vocab: &Vocab, bytes: &[u8]) -> u32 {
        if bytes.len() > self.max_len {
            return NONE;
        }
        self.slots[self.find(vocab, bytes).0].1
    }

    /// The slot of `bytes`, or the free slot where it belongs, and the tag to keep there.
    #[inline]
    fn find(&self, vocab: &Vocab, bytes: &[u8]) -> (usize, u32) {
        let hash = self.hash(bytes);
        let tag = (hash >> 32) as u32;
        let mask = self.slots.len() - 1;
        let mut slot = hash as usize & mask;
        loop {
            let (t, id) = self.slots[slot];
            if id == NONE || (t == tag && vocab.bytes(id) == bytes) {
                return (slot, tag);
            }
            slot = (slot + 1) & mask;
        }
    }

    #[inline]
    fn hash(&self, bytes: &[u8]) -> u64 {
        let mut h = mix(self.seed ^ bytes.len() as u64);
        let mut chunks = bytes.chunks_exact(8);
        for chunk in &mut chunks {
            let mut word = [0; 8];
            word.copy_from_slice(chunk);
            h = mix(h ^ u64::from_le_bytes(word));
        }
        let mut word = [0; 8];
        word[..chunks.remainder().len()].copy_from_slice(chunks.remainder());
        mix(h ^ u64::from_le_bytes(word))
    }
}

/// One multiplication that folds its upper half back: every input bit reaches every output bit.
#[inline]
pub(crate) fn mix(x: u64) -> u64 {
    let wide = (x ^ 0x9E37_79B9_7F4A_7C15) as u128 * 0xD6E8_FEB8_6659_FD93;
    (wide >> 64) as u64 ^ wide as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_every_text_token_and_nothing_else() {
        let mut vocab = Vocab::default();
        for i in 0..5000u32 {
            assert!(vocab.push(TokenKind::Normal, |b| b.extend_from_slice(format!("token {i}").as_bytes())));
        }
        assert!(vocab.push(TokenKind::Control, |b| b.extend_from_slice(b"<end>")));
        assert!(vocab.push(TokenKind::Normal, |b| b.extend_from_slice(b"token 7")));
        let index = TextIndex::new(&vocab);
        for i in 0..5000u32 {
            assert_eq!(index.get(&vocab, format!("token {i}").as_bytes()), i);
        }
        assert_eq!(index.get(&vocab, b"<end>"), NONE, "control tokens are not text");
        assert_eq!(index.get(&vocab, b"token 5000"), NONE);
        assert_eq!(index.get(&vocab, b""), NONE);
        assert_eq!(vocab.bytes(5000), b"<end>");
        assert_eq!(vocab.bytes(9999), b"");
    }
}
