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
    /// Whether a tokenizer that begins texts with BOS does so here, where the text has none.
    pub(super) may_add_bos: bool,
}

impl Prompt {
    pub(super) fn new(text: String, user: Vec<Range<usize>>) -> Self {
        Self { text, user, may_add_bos: false }
    }

    /// The whole text, as the model's reference renders it.
    pub fn text(&self) -> String {
        self.text.clone()
    }

    /// The pieces of the text in order, each with whether it is the user's.
    pub fn pieces(&self) -> impl Iterator<Item = (&str, bool)> {
        let borders = self.user.iter().flat_map(|run| [run.start, run.end]).chain([self.text.len()]);
        let starts = std::iter::once(0).chain(borders.clone());
        let pieces = starts.zip(borders).enumerate();
        pieces.map(|(n, (from, to))| (&self.text[from..to], n % 2 == 1)).filter(|(piece, _)| !piece.is_empty())
    }

    /// The ids of the text: as [`Tokenizer::encode`] gives them without adding tokens, with names of control tokens
    /// parsed, except that names which the user wrote, or a part of, stay text.
    ///
    /// A template writes BOS itself where the model wants it. Of a GGUF file, whose key `add_bos_token` llama.cpp
    /// obeys for prompts as well, BOS is added where the text does not begin with it; of other files never, as
    /// transformers does.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode(&self, tokenizer: &Tokenizer) -> Result<Vec<u32>> {
        let mut ids = tokenizer.encode_literal(&self.text, false, true, &self.user)?;
        if let Some(bos) = tokenizer.bos().filter(|bos| ids.first() != Some(bos))
            && self.may_add_bos
            && tokenizer.add_bos_default()
        {
            ids.insert(0, bos);
        }
        Ok(ids)
    }

    /// The prompt without the text that it begins with; `None` if it begins otherwise.
    pub fn after(&self, begin: &str) -> Option<Self> {
        let text = self.text.strip_prefix(begin)?.to_owned();
        let n = begin.len();
        let behind = self.user.iter().filter(|user| user.end > n);
        let user = behind.map(|user| user.start.saturating_sub(n)..user.end - n).collect();
        Some(Self { text, user, may_add_bos: false })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_goes_on_behind_its_begin_with_the_users_text_still_known() {
        let prompt = Prompt::new("abcdef".to_owned(), vec![1..3, 4..6]);
        assert_eq!(prompt.after("ab"), Some(Prompt::new("cdef".to_owned(), vec![0..1, 2..4])));
        assert_eq!(prompt.after("a"), Some(Prompt::new("bcdef".to_owned(), vec![0..2, 3..5])));
        assert_eq!(prompt.after(""), Some(prompt.clone()));
        assert_eq!(prompt.after("b"), None);
    }

    #[test]
    fn pieces_are_the_whole_text() {
        let pieces = |text: &str, user: &[Range<usize>]| {
            let prompt = Prompt::new(text.to_owned(), user.to_vec());
            prompt.pieces().map(|(piece, user)| format!("{}{piece}", if user { "u" } else { "t" })).collect::<Vec<_>>()
        };
        assert_eq!(pieces("abcdef", &[1..3, 4..6]), ["ta", "ubc", "td", "uef"]);
        assert_eq!(pieces("abc", &[0..2, 2..3]), ["uab", "uc"]);
        assert_eq!(pieces("abc", &[]), ["tabc"]);
        assert!(pieces("", &[]).is_empty());
    }
}
