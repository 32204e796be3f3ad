//! The pipeline of a `tokenizer.json`, run by the `tokenizers` crate.

use std::ops::Range;

use tokenizers::{AddedVocabulary, Model, OffsetReferential, OffsetType, PreTokenizer};

use super::error::{Result, TextError};

/// The encoder: the file's own pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    tokenizer: tokenizers::Tokenizer,
    /// The added tokens again, with control tokens left as text.
    literal: AddedVocabulary,
}

impl Pipeline {
    pub(crate) fn new(tokenizer: tokenizers::Tokenizer) -> Self {
        let mut literal = tokenizer.get_added_vocabulary().clone();
        literal.set_encode_special_tokens(true);
        Self { tokenizer, literal }
    }

    /// Appends the ids of `text`. Where it has `literal` ranges, the text between them and each of them is encoded on
    /// its own: the crate has no other way to leave a control token in them as text.
    pub(crate) fn encode(
        &self,
        text: &str,
        parse_special: bool,
        literal: &[Range<usize>],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let mut at = 0;
        for range in literal.iter().filter(|range| self.has_control_token(&text[(*range).clone()])) {
            self.encode_part(&text[at..range.start], parse_special, out)?;
            self.encode_part(&text[range.clone()], false, out)?;
            at = range.end;
        }
        self.encode_part(&text[at..], parse_special, out)
    }

    fn has_control_token(&self, text: &str) -> bool {
        let tokens = self.tokenizer.get_added_vocabulary().get_added_tokens_decoder();
        tokens.values().any(|token| token.special && text.contains(&token.content))
    }

    fn encode_part(&self, text: &str, parse_special: bool, out: &mut Vec<u32>) -> Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        let failed = |e: tokenizers::Error| TextError::Encode(e.to_string());
        let added = if parse_special { self.tokenizer.get_added_vocabulary() } else { &self.literal };
        let mut pieces = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        if let Some(pre) = self.tokenizer.get_pre_tokenizer() {
            pre.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.tokenizer.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            out.extend(tokens.iter().flatten().map(|t| t.id));
        }
        Ok(())
    }
}
