//! Bytes of tokens to text: whole characters only, and U+FFFD for broken ones.

use super::vocab::TokenKind;

/// The decoder's treatment of bytes that are not UTF-8, and of the space at the start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Decoding {
    /// Byte-level BPE: any token may end inside of a character, and each longest broken piece of a character reads as
    /// one U+FFFD. Otherwise only byte tokens may end there, and each broken byte reads as one U+FFFD.
    pub(crate) byte_level: bool,
    pub(crate) leading_space: LeadingSpace,
}

/// The spaces that are taken away at the start of a text, where the encoder may have put one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeadingSpace {
    Kept,
    /// One, of the first piece that is text (sentencepiece). A byte is no such piece: its space stays.
    OfFirstPiece,
    /// One, if the whole text starts with it (`Strip` of a `tokenizer.json`).
    OfText,
    /// All in the first token, unless it is an added one (`Metaspace` of a `tokenizer.json`).
    InFirstToken,
}

impl LeadingSpace {
    /// Sentencepiece's rule, where its encoder puts a space in front.
    pub(crate) fn of_pieces(prefixed: bool) -> Self {
        if prefixed { LeadingSpace::OfFirstPiece } else { LeadingSpace::Kept }
    }
}

/// Text waits for the end of its last character for at most this many bytes, so that a model that emits endless broken
/// bytes cannot delay it for ever.
const MAX_WAIT: usize = 64;

/// The state of a decoding, apart from its tokenizer.
#[derive(Clone, Debug)]
pub(crate) struct DecodeState {
    decoding: Decoding,
    /// Text that ends with the start of a character whose end has not come yet.
    pending: Vec<u8>,
    /// No text has come yet.
    pub(crate) at_start: bool,
}

impl DecodeState {
    pub(crate) fn new(decoding: Decoding) -> Self {
        Self { decoding, pending: Vec::new(), at_start: true }
    }

    /// Appends the whole characters that the next token completes.
    pub(crate) fn push(&mut self, bytes: &[u8], kind: TokenKind, out: &mut String) {
        let text_piece = !matches!(kind, TokenKind::Control | TokenKind::Unknown);
        let bytes = match self.decoding.leading_space {
            LeadingSpace::OfFirstPiece if !text_piece || bytes.is_empty() => bytes,
            LeadingSpace::OfText if bytes.is_empty() => bytes,
            _ if !std::mem::take(&mut self.at_start) => bytes,
            LeadingSpace::OfFirstPiece if kind != TokenKind::Byte => bytes.strip_prefix(b" ").unwrap_or(bytes),
            LeadingSpace::OfText => bytes.strip_prefix(b" ").unwrap_or(bytes),
            LeadingSpace::InFirstToken if kind == TokenKind::Normal => {
                self.pending.extend(bytes.iter().filter(|&&byte| byte != b' '));
                &[]
            }
            _ => bytes,
        };
        self.pending.extend_from_slice(bytes);
        self.take_whole(out);
    }

    /// Moves the text in `pending` to `out` once it ends with a whole character. Text that a token brings together with
    /// the start of a character waits for the rest of it (as Hugging Face's streams do), up to [`MAX_WAIT`].
    fn take_whole(&mut self, out: &mut String) {
        let start = out.len();
        let mut done = 0;
        while done < self.pending.len() {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(text) => {
                    out.push_str(text);
                    done = self.pending.len();
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    out.push_str(std::str::from_utf8(&self.pending[done..valid]).unwrap_or_default());
                    done = valid;
                    let Some(broken) = error.error_len() else { break };
                    out.push(char::REPLACEMENT_CHARACTER);
                    done += if self.decoding.byte_level { broken } else { 1 };
                }
            }
        }
        if done < self.pending.len() && self.pending.len() <= MAX_WAIT {
            out.truncate(start);
        } else {
            self.pending.drain(..done);
        }
    }

    /// Appends the U+FFFD of an unfinished character.
    pub(crate) fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            // A full stop completes the waiting text; without the stop, the result is that text.
            self.pending.push(b'.');
            self.take_whole(out);
            out.pop();
        }
        self.pending.clear();
        self.at_start = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(chunks: &[&[u8]], byte_level: bool) -> (String, Vec<String>) {
        let mut state = DecodeState::new(Decoding { byte_level, leading_space: LeadingSpace::Kept });
        let mut parts = Vec::new();
        for chunk in chunks {
            let mut part = String::new();
            state.push(chunk, TokenKind::Byte, &mut part);
            parts.push(part);
        }
        let mut part = String::new();
        state.finish(&mut part);
        parts.push(part);
        (parts.concat(), parts)
    }

    /// Every byte outside of a character reads as one U+FFFD.
    fn lossy_by_byte(mut bytes: &[u8]) -> String {
        let mut out = String::new();
        while let Some(&first) = bytes.first() {
            let whole = (1..=4.min(bytes.len())).find_map(|n| std::str::from_utf8(&bytes[..n]).ok());
            out.push_str(whole.unwrap_or("\u{FFFD}"));
            bytes = &bytes[whole.map_or(1, |w| w.len())..];
            let _ = first;
        }
        out
    }

    #[test]
    fn a_character_comes_whole_or_not_at_all() {
        let (text, parts) = decode(&[b"\xF0\x9F", b"\x98", b"\x80!"], true);
        assert_eq!(text, "😀!");
        assert_eq!(parts, ["", "", "😀!", ""]);
        assert_eq!(decode(&[b" \xF0\x9F", b"\x98\x80"], true).1, ["", " 😀", ""], "text before it waits with it");
        let long = [vec![b'a'; MAX_WAIT], vec![0xF0]].concat();
        assert_eq!(decode(&[&long], true).1, [&"a".repeat(MAX_WAIT), "\u{FFFD}"], "but not for ever");
    }

    #[test]
    fn broken_bytes() {
        assert_eq!(decode(&[b"\xE4\xBD", b"a"], true).0, "\u{FFFD}a");
        assert_eq!(decode(&[b"\xE4\xBD", b"a"], false).0, "\u{FFFD}\u{FFFD}a");
        assert_eq!(decode(&[b"\xE4\xBD"], true).0, "\u{FFFD}");
        assert_eq!(decode(&[b"\xE4\xBD"], false).0, "\u{FFFD}\u{FFFD}");
    }

    #[test]
    fn leading_space_goes_once() {
        for (leading_space, expected) in [
            (LeadingSpace::Kept, "<s>   a b"),
            (LeadingSpace::OfFirstPiece, "<s>  a b"),
            (LeadingSpace::OfText, "<s>   a b"),
            (LeadingSpace::InFirstToken, "<s>   a b"),
        ] {
            let mut state = DecodeState::new(Decoding { byte_level: false, leading_space });
            let mut out = String::new();
            state.push(b"<s>", TokenKind::Control, &mut out);
            state.push(b"  ", TokenKind::Normal, &mut out);
            state.push(b" a", TokenKind::Normal, &mut out);
            state.push(b" b", TokenKind::Normal, &mut out);
            assert_eq!(out, expected, "{leading_space:?}");
            let mut without = String::new();
            state.finish(&mut without);
            state.push(b"  ", TokenKind::Normal, &mut without);
            state.push(b" a", TokenKind::Normal, &mut without);
            let spaces = match leading_space {
                LeadingSpace::Kept => "   a",
                LeadingSpace::OfFirstPiece | LeadingSpace::OfText => "  a",
                LeadingSpace::InFirstToken => " a",
            };
            assert_eq!(without, spaces, "{leading_space:?}");
        }
    }

    /// Bytes that are often the start or the inside of a character.
    fn bytes() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![any::<u8>(), 0x80..0xC0u8, Just(0xE4), Just(0xF0), Just(0x9F), Just(b'a')];
        proptest::collection::vec(byte, 0..40)
    }

    proptest! {
        #[test]
        fn chunks_do_not_matter(bytes in bytes(), cuts in proptest::collection::vec(0usize..40, 0..8)) {
            let mut cuts: Vec<usize> = cuts.into_iter().map(|c| c.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let chunks: Vec<&[u8]> = cuts.windows(2).map(|w| &bytes[w[0]..w[1]]).collect();
            prop_assert_eq!(decode(&chunks, true).0, String::from_utf8_lossy(&bytes));
            prop_assert_eq!(decode(&chunks, false).0, lossy_by_byte(&bytes));
        }

        #[test]
        fn valid_text_comes_back(text in "\\PC{0,20}") {
            let chunks: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            prop_assert_eq!(&decode(&chunks, true).0, &text);
            prop_assert_eq!(&decode(&chunks, false).0, &text);
        }
    }
}
