//! A rendered conversation: the template's text and the user's.

use std::ops::Range;

use super::super::error::Result;
use super::super::tokenizer::Tokenizer;

/// A rendered conversation. It knows which of its text the user gave, so that no control token comes out of that.
#[derive(Clone, Debug, PartialEq)]
pub struct Prompt {
    text: String,
    /// Byte ranges of the user's text, in order and apart.
    user: Vec<Range<usize>>,
}

impl Prompt {
    pub(super) fn new(text: String, user: Vec<Range<usize>>) -> Self {
        Self { text, user }
    }

    /// The whole text, as transformers renders it.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The ids of the text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        tokenizer.encode(&self.text, false, true)
    }

    /// The prompt without the text that it begins with; `None` if it begins otherwise.
    pub fn after(&self, begin: &str) -> Option<Self> {
        let text = self.text.strip_prefix(begin)?.to_owned();
        let n = begin.len();
        let behind = self.user.iter().filter(|user| user.end > n);
        let user = behind.map(|user| user.start.saturating_sub(n)..user.end - n).collect();
        Some(Self { text, user })
    }
}
