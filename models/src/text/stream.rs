//! From token ids back to text, one token at a time, in whole characters.

use std::borrow::Borrow;

use super::decode::DecodeState;
use super::tokenizer::Tokenizer;

/// Turns a stream of ids into text that grows by whole characters.
///
/// The results of all calls of [`push`](Self::push) and the last [`finish`](Self::finish), joined, equal
/// [`Tokenizer::decode`] of all ids at once. The tokenizer may be borrowed or shared (`Arc<Tokenizer>`).
#[derive(Clone, Debug)]
pub struct StreamDecoder<T: Borrow<Tokenizer>> {
    tokenizer: T,
    state: DecodeState,
    skip_special: bool,
    text: String,
}

impl<T: Borrow<Tokenizer>> StreamDecoder<T> {
    /// A decoder at the start of a text: the space that sentencepiece puts in front of a text is taken away again.
    /// With `skip_special` control tokens give no text.
    pub fn new(tokenizer: T, skip_special: bool) -> Self {
        let state = DecodeState::new(tokenizer.borrow().decoding());
        Self { tokenizer, state, skip_special, text: String::new() }
    }

    /// A decoder in the middle of a text, for tokens that continue a prompt: a leading space belongs to the text.
    pub fn continuing(tokenizer: T, skip_special: bool) -> Self {
        let mut decoder = Self::new(tokenizer, skip_special);
        decoder.state.at_start = false;
        decoder
    }

    /// Takes the next token; returns the text that it completes, `None` if there is none yet. Ids beyond the vocabulary
    /// give no text.
    pub fn push(&mut self, id: u32) -> Option<&str> {
        self.text.clear();
        self.tokenizer.borrow().push_token(&mut self.state, id, self.skip_special, &mut self.text);
        (!self.text.is_empty()).then_some(self.text.as_str())
    }

    /// Ends the text: bytes of an unfinished character come out as U+FFFD. The decoder is then at the start of a new
    /// text.
    pub fn finish(&mut self) -> Option<&str> {
        self.text.clear();
        self.state.finish(&mut self.text);
        (!self.text.is_empty()).then_some(self.text.as_str())
    }
}
