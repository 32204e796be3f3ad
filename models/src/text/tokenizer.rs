//! The tokenizer: one type whatever file it came from.

use std::path::Path;

use handmill_runtime::format::{Checkpoint, Gguf, Kind, read_json_object, refuse_lfs_pointer};
use serde_json::Value;

use super::bpe::BytePairs;
use super::error::{Result, TextError};
use super::gguf::{self, push_piece};
use super::hf::{self, Pipeline, byte_token};
use super::merge::Merger;
use super::sentencepiece;
use super::special::{Fragment, SpecialSplit, end_of_turn_markers};
use super::spm::{PieceTable, SpacePrefix};
use super::stream::{DecodeState, Decoding};
use super::vocab::{NONE, TokenKind, Vocab};

/// Turns text into token ids and back.
///
/// It comes out of a GGUF file (also one with a vocabulary only), a `tokenizer.json`, a sentencepiece
/// `tokenizer.model`, or a folder with one of the latter two.
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
}

/// The ways to encode.
#[derive(Debug)]
pub(crate) enum Encoder {
    Pipeline(Box<Pipeline>),
    BytePairs(BytePairs, SpecialSplit),
    Pieces(PieceTable, SpecialSplit),
}

/// What a loader finds in a file.
pub(crate) struct Parts {
    pub(crate) encoder: Encoder,
    pub(crate) vocab: Vocab,
    pub(crate) decoding: Decoding,
    /// Ids that go before and after a text when special tokens are added.
    pub(crate) prefix: Vec<u32>,
    pub(crate) suffix: Vec<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// The ids that end an answer by the file's own words.
    pub(crate) ends: Vec<u32>,
}

impl From<Parts> for Tokenizer {
    fn from(parts: Parts) -> Self {
        let Parts { encoder, vocab, decoding, prefix, suffix, bos, eos, ends } = parts;
        let mut end_of_turn = ends;
        end_of_turn.extend(end_of_turn_markers(&vocab));
        let mut seen = std::collections::HashSet::new();
        end_of_turn.retain(|&id| (id as usize) < vocab.len() && seen.insert(id));
        Self { encoder, vocab, decoding, prefix, suffix, bos, eos, end_of_turn }
    }
}

impl Tokenizer {
    /// Loads the tokenizer at `path`: a `tokenizer.json` (any name that ends in `.json`), a sentencepiece `.model`, a
    /// folder with `tokenizer.json` or `tokenizer.model`, or anything that [`Checkpoint::open`] opens; of a GGUF file
    /// the vocabulary is enough. In a folder `tokenizer_config.json`, `generation_config.json` and `config.json` say
    /// which tokens start and end a text.
    ///
    /// # Errors
    /// Files that cannot be read or are broken; kinds that are not supported, by name.
    pub fn from_path(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default().to_ascii_lowercase();
        match extension.as_str() {
            _ if path.is_dir() && has_tokenizer(path) => Self::from_folder(path),
            "json" => Self::from_tokenizer_json(&path.display().to_string(), &read(path)?),
            "model" => Self::from_sentencepiece(&read(path)?),
            _ => Self::from_checkpoint(&Checkpoint::open(path)?),
        }
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
    /// Text that is no `tokenizer.json`, or one whose decoder is not supported.
    pub fn from_tokenizer_json(what: &str, json: &[u8]) -> Result<Self> {
        Ok(json_parts(what, json)?.into())
    }

    /// The tokenizer of a sentencepiece `tokenizer.model` of type BPE. Adds BOS and no EOS, as Llama and Mistral do.
    ///
    /// # Errors
    /// Bytes that are no such model; other model types and normalizers, by name.
    pub fn from_sentencepiece(model: &[u8]) -> Result<Self> {
        Ok(sentencepiece_parts(model)?.into())
    }

    /// The tokenizer of a checkpoint folder, from its `tokenizer.json` or else its `tokenizer.model`.
    ///
    /// # Errors
    /// [`TextError::NoTokenizer`] if it has neither; else as [`from_path`](Self::from_path).
    pub fn from_folder(folder: &Path) -> Result<Self> {
        let json = folder.join("tokenizer.json");
        let model = folder.join("tokenizer.model");
        let mut parts = if json.is_file() {
            json_parts(&json.display().to_string(), &read(&json)?)?
        } else if model.is_file() {
            sentencepiece_parts(&read(&model)?)?
        } else {
            return Err(TextError::NoTokenizer { path: folder.to_owned() });
        };
        let config = read_json(&folder.join("tokenizer_config.json"))?;
        let named = |key: &str| {
            let text = config[key].as_str().or(config[key]["content"].as_str())?;
            parts.vocab.kinds().find(|&(id, k)| k != TokenKind::Normal && parts.vocab.bytes(id) == text.as_bytes())
        };
        let (bos, eos) = (named("bos_token").map(|t| t.0), named("eos_token").map(|t| t.0));
        let model_config = read_json(&folder.join("config.json"))?;
        let generation = read_json(&folder.join("generation_config.json"))?;
        let ends =
            [&generation["eos_token_id"], &model_config["eos_token_id"], &model_config["text_config"]["eos_token_id"]]
                .into_iter()
                .map(hf::ids)
                .find(|ids| !ids.is_empty());
        let config_bos = || hf::ids(&model_config["bos_token_id"]).first().copied();
        parts.bos = bos.or(parts.bos).or_else(config_bos);
        parts.ends.extend(eos.into_iter().chain(ends.into_iter().flatten()));
        parts.eos = eos.or(parts.eos).or(parts.ends.first().copied());
        match (config["add_bos_token"].as_bool(), parts.bos) {
            (Some(true), Some(bos)) if parts.prefix.first() != Some(&bos) => parts.prefix.insert(0, bos),
            (Some(false), Some(bos)) => parts.prefix.retain(|&id| id != bos),
            _ => {}
        }
        Ok(parts.into())
    }

    /// The ids of `text`.
    ///
    /// `add_special` puts around it what the file asks for (mostly BOS in front). With `parse_special` the names of
    /// control tokens in the text (`<|im_end|>`) become those tokens; without they stay text, so that a user cannot
    /// write them. User-defined tokens are text and always matched.
    ///
    /// # Errors
    /// A text of 4 GiB or more, or one that the pipeline of a `tokenizer.json` refuses.
    pub fn encode(&self, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>> {
        if u32::try_from(text.len()).is_err() {
            return Err(TextError::Encode(format!("{} bytes are more than 4 GiB", text.len())));
        }
        let mut out = Vec::with_capacity(text.len() / 3 + 2);
        if add_special {
            out.extend_from_slice(&self.prefix);
        }
        let mut merger = Merger::default();
        match &self.encoder {
            Encoder::Pipeline(pipeline) => pipeline.encode(text, parse_special, &mut out)?,
            Encoder::BytePairs(pairs, special) => special.split(text, parse_special, |fragment| match fragment {
                Fragment::Token(id) => out.push(id),
                Fragment::Text(text) => pairs.encode(&self.vocab, text, &mut merger, &mut out),
            }),
            Encoder::Pieces(pieces, special) => {
                let mut space_next = pieces.prefix != SpacePrefix::Never;
                special.split(text, parse_special, |fragment| match fragment {
                    Fragment::Token(id) => {
                        let control = self.vocab.kind(id) != Some(TokenKind::UserDefined);
                        if space_next && !control && pieces.prefix == SpacePrefix::AfterControl {
                            // The prefix goes in front of the whole text, even where that starts with a token.
                            pieces.encode(&self.vocab, "", true, &mut merger, &mut out);
                        }
                        space_next = match pieces.prefix {
                            SpacePrefix::Never => false,
                            SpacePrefix::AfterEveryToken => true,
                            SpacePrefix::AfterControl => control,
                        };
                        out.push(id);
                    }
                    Fragment::Text(text) => {
                        pieces.encode(&self.vocab, text, std::mem::take(&mut space_next), &mut merger, &mut out);
                    }
                });
            }
        }
        if add_special {
            out.extend_from_slice(&self.suffix);
        }
        Ok(out)
    }

    /// The text of `ids`, as a text of its own: the space that sentencepiece puts in front is taken away. Bytes that
    /// are no UTF-8 read as U+FFFD, ids the vocabulary does not have as nothing. With `skip_special` control tokens
    /// give no text.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut out = String::new();
        let mut state = DecodeState::new(self.decoding);
        for &id in ids {
            self.push_token(&mut state, id, skip_special, &mut out);
        }
        state.finish(&mut out);
        out
    }

    /// One step of decoding: appends what is complete with token `id`.
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

    /// What token `id` is for. `None` if there is no such id.
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

    /// Whether `encode` with `add_special` puts BOS in front.
    pub fn add_bos_default(&self) -> bool {
        self.bos.is_some_and(|bos| self.prefix.first() == Some(&bos))
    }
}

fn json_parts(what: &str, json: &[u8]) -> Result<Parts> {
    let hf::Loaded { pipeline, vocab, decoding, prefix, suffix } = hf::load(what, json)?;
    let bos = prefix.first().copied();
    let eos = suffix.first().copied();
    let ends = suffix.clone();
    Ok(Parts { encoder: Encoder::Pipeline(Box::new(pipeline)), vocab, decoding, prefix, suffix, bos, eos, ends })
}

fn sentencepiece_parts(model: &[u8]) -> Result<Parts> {
    let model = sentencepiece::Model::parse(model)?;
    let mut vocab = Vocab::with_capacity(model.pieces.len());
    let mut special = Vec::new();
    for (id, piece) in model.pieces.iter().enumerate() {
        let kind = TokenKind::from_number(piece.kind);
        if matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined) {
            special.push((id as u32, kind, piece.text.to_owned()));
        }
        let pushed = vocab.push(kind, |out| match byte_token(piece.text) {
            Some(byte) if kind == TokenKind::Byte => out.push(byte),
            _ => push_piece(piece.text, out),
        });
        if !pushed {
            return Err(TextError::broken("sentencepiece model", "more than 4 GiB of pieces"));
        }
    }
    let prefix = if model.add_dummy_prefix { SpacePrefix::AfterControl } else { SpacePrefix::Never };
    let scores = model.pieces.iter().map(|p| p.score);
    let table = PieceTable::new(&vocab, scores, model.unknown.unwrap_or(NONE), prefix);
    Ok(Parts {
        encoder: Encoder::Pieces(table, SpecialSplit::new(&special)?),
        vocab,
        decoding: Decoding { byte_level: false, strip_leading_space: model.add_dummy_prefix },
        prefix: model.bos.into_iter().collect(),
        suffix: Vec::new(),
        bos: model.bos,
        eos: model.eos,
        ends: model.eos.into_iter().collect(),
    })
}

fn has_tokenizer(folder: &Path) -> bool {
    folder.join("tokenizer.json").is_file() || folder.join("tokenizer.model").is_file()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    refuse_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}

/// The JSON file at `path`, [`Value::Null`] if there is none.
fn read_json(path: &Path) -> Result<Value> {
    Ok(read_json_object(path)?.map_or(Value::Null, Value::Object))
}

#[cfg(test)]
#[path = "tokenizer_tests.rs"]
mod tests;
