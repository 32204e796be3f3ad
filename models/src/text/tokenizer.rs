//! The tokenizer: one type for all kinds of file.

use std::{collections::HashSet, ops::Range, path::Path};

use handmill_runtime::format::{Checkpoint, Gguf, Kind};

use super::added::SideFiles;
use super::decode::{DecodeState, Decoding};
use super::ends::end_of_turn_markers;
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts};
use super::source::TextSource;
use super::vocab::{TokenKind, Vocab};
use super::{folder, gguf, hf, sentencepiece, tekken};

/// Turns text into token ids and back.
///
/// It comes out of a GGUF file (also one with a vocabulary only), a `tokenizer.json`, a sentencepiece
/// `tokenizer.model`, a `tekken.json`, or a folder with one of these or with `vocab.json` and `merges.txt`.
#[derive(Debug)]
pub struct Tokenizer {
    encoder: Encoder,
    vocab: Vocab,
    decoding: Decoding,
    prefix: Vec<u32>,
    suffix: Vec<u32>,
    bos: Option<u32>,
    eos: Option<u32>,
    end_of_turn: Vec<u32>,
    warnings: Vec<String>,
}

impl From<Parts> for Tokenizer {
    fn from(parts: Parts) -> Self {
        let Parts { encoder, vocab, decoding, prefix, suffix, bos, eos, ends, mut warnings } = parts;
        let mut end_of_turn = ends;
        end_of_turn.extend(end_of_turn_markers(&vocab));
        let mut seen = HashSet::new();
        end_of_turn.retain(|&id| seen.insert(id));
        let mut seen = HashSet::new();
        warnings.retain(|warning| seen.insert(warning.clone()));
        Self { encoder, vocab, decoding, prefix, suffix, bos, eos, end_of_turn, warnings }
    }
}

impl Tokenizer {
    /// Loads the tokenizer at `path`, a model or a bare tokenizer's file: all that [`TextSource::open`] opens.
    ///
    /// # Errors
    /// As [`TextSource::open`] and [`TextSource::tokenizer`].
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        TextSource::open(path)?.tokenizer()
    }

    /// The tokenizer that belongs to an opened checkpoint.
    ///
    /// # Errors
    /// As [`from_gguf`](Self::from_gguf) and [`from_folder`](Self::from_folder).
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Self> {
        match checkpoint.kind() {
            Kind::Gguf(gguf) => Self::from_gguf(gguf),
            Kind::HuggingFace(folder) => Self::from_folder(folder.dir()),
        }
    }

    /// The tokenizer in the metadata of a GGUF file.
    ///
    /// # Errors
    /// Missing or broken `tokenizer.ggml.*` keys; tokenizer models and pre-tokenizers that are not supported, by name.
    pub fn from_gguf(gguf: &Gguf) -> Result<Self> {
        Ok(gguf::load(gguf)?.into())
    }

    /// The tokenizer of a `tokenizer.json`; `what` names it in errors.
    ///
    /// # Errors
    /// Text that is not a `tokenizer.json`, or one whose decoder is not supported.
    pub fn from_tokenizer_json(what: &str, json: &[u8]) -> Result<Self> {
        Ok(hf::load(what, json, &mut SideFiles::default())?.into())
    }

    /// The tokenizer of a sentencepiece `tokenizer.model` of type BPE. Adds BOS and no EOS, as Llama and Mistral do.
    ///
    /// # Errors
    /// Bytes that are not such a model; other model types and normalizers, by name.
    pub fn from_sentencepiece(model: &[u8]) -> Result<Self> {
        Ok(sentencepiece::load(model, &mut SideFiles::default())?.into())
    }

    /// The tokenizer of Mistral's `tekken.json`; `what` names it in errors. Adds BOS and no EOS.
    ///
    /// # Errors
    /// Text that is not a `tekken.json`; an expression for words that the regex engine does not support.
    pub fn from_tekken(what: &str, json: &[u8]) -> Result<Self> {
        Ok(tekken::load(what, json)?.into())
    }

    /// The tokenizer of a checkpoint folder, from the first that it has: `tokenizer.json`, `tokenizer.model`,
    /// `tekken.json`, `vocab.json` with `merges.txt`.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`] if it has none of them; else as [`from_path`](Self::from_path).
    pub fn from_folder(folder: &Path) -> Result<Self> {
        Ok(folder::load(folder)?.into())
    }

    /// The ids of `text`.
    ///
    /// `add_special` adds the tokens that the file asks for (mostly BOS in front). With `parse_special` the names of
    /// control tokens in the text (`<|im_end|>`) become those tokens; without it they stay text, so that a user cannot
    /// write them. User-defined tokens are text and always matched.
    ///
    /// # Errors
    /// A text of 4 GiB or more, or one that the pipeline of a `tokenizer.json` refuses.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        self.encode_literal(text, add_special, parse_special, &[])
    }

    /// As [`encode`](Self::encode); no control token comes out of the `literal` byte ranges of `text`, nor of a text
    /// that touches one of them. The ranges are in order and apart.
    pub(crate) fn encode_literal(
        &self,
        text: &str,
        add_special: bool,
        parse_special: bool,
        literal: &[Range<usize>],
    ) -> Result<Vec<u32>> {
        if u32::try_from(text.len()).is_err() {
            return Err(TextError::Encode(format!("{} bytes are more than 4 GiB", text.len())));
        }
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special {
            out.extend_from_slice(&self.prefix);
        }
        self.encoder.encode(&self.vocab, text, parse_special, literal, &mut out)?;
        if add_special {
            out.extend_from_slice(&self.suffix);
        }
        Ok(out)
    }

    /// The text of `ids`, as a text of its own: the space that sentencepiece puts in front is removed. Bytes that are
    /// not UTF-8 read as U+FFFD; ids beyond the vocabulary give no text. With `skip_special` control tokens give no
    /// text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut out = String::new();
        let mut state = DecodeState::new(self.decoding);
        for &id in ids {
            self.push_token(&mut state, id, skip_special, &mut out);
        }
        state.finish(&mut out);
        out
    }

    /// One token of decoding: appends the text that token `id` completes.
    pub(crate) fn push_token(&self, state: &mut DecodeState, id: u32, skip_special: bool, out: &mut String) {
        let Some(kind) = self.vocab.kind(id) else { return };
        if !(skip_special && matches!(kind, TokenKind::Control | TokenKind::Unknown)) {
            state.push(self.vocab.bytes(id), kind, out);
        }
    }

    pub(crate) fn decoding(&self) -> Decoding {
        self.decoding
    }

    /// The bytes that token `id` adds to a text; they need not be whole characters. `None` if there is no such id.
    pub fn token_bytes(&self, id: u32) -> Option<Vec<u8>> {
        self.vocab.kind(id).map(|_| self.vocab.bytes(id).to_vec())
    }

    /// The kind of token `id`. `None` if there is no such id.
    pub fn token_kind(&self, id: u32) -> Option<TokenKind> {
        self.vocab.kind(id)
    }

    /// One past the highest id. The model's logits may have more rows (padding), never fewer.
    pub fn vocab_size(&self) -> usize {
        self.vocab.len()
    }

    /// The token that starts a text, if the model has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The token that ends a text, if the model has one. An answer may also end otherwise: see
    /// [`end_of_turn_ids`](Self::end_of_turn_ids).
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// All tokens that end an answer: those the file names (eos, eot, eom; one or a list) and the known end-of-turn
    /// markers among its special tokens. Without repetitions.
    pub fn end_of_turn_ids(&self) -> &[u32] {
        &self.end_of_turn
    }

    /// Whether `id` ends an answer.
    pub fn is_end_of_turn(&self, id: u32) -> bool {
        self.end_of_turn.contains(&id)
    }

    /// Whether `id` steers the model and is no part of the text.
    pub fn is_special(&self, id: u32) -> bool {
        matches!(self.vocab.kind(id), Some(TokenKind::Control | TokenKind::Unknown))
    }

    /// Impossible values in the files, such as a special id beyond the vocabulary, and what replaced them: sentences
    /// for people who load the tokenizer.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The name of BOS if `text` begins with it although `encode` with `add_special` puts it in front by itself: most
    /// models answer worse behind two of them.
    pub fn doubled_bos(&self, text: &str) -> Option<String> {
        let bos = self.bos.filter(|_| self.add_bos_default())?;
        let name = String::from_utf8_lossy(self.vocab.bytes(bos)).into_owned();
        (!name.is_empty() && text.starts_with(&name)).then_some(name)
    }

    /// The token of this name, unless plain text can become it. A space counts as `▁`.
    pub(super) fn mark(&self, name: &str) -> Option<u32> {
        let is_name = |bytes: &[u8]| {
            bytes == name.as_bytes()
                || bytes.first() == Some(&b' ')
                    && name.strip_prefix('▁').is_some_and(|rest| rest.as_bytes() == &bytes[1..])
        };
        let kinds = self.vocab.kinds().filter(|(_, kind)| matches!(kind, TokenKind::Control | TokenKind::UserDefined));
        kinds.map(|(id, _)| id).find(|&id| is_name(self.vocab.bytes(id)))
    }

    /// Whether `encode` with `add_special` puts BOS in front.
    pub fn add_bos_default(&self) -> bool {
        self.bos.is_some_and(|bos| self.prefix.first() == Some(&bos))
    }
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
pub(super) mod tests;
