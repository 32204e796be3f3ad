//! Reads `tokenizer.json`: the file of the library `tokenizers`, which transformers saves for every fast tokenizer.
//!
//! A file is a pipeline of named components. Each is read into a step of the one encoder ([`super::pipeline`]) and of the
//! one decoder ([`super::decode`]), and does what version 0.22 of the library does; components that no step stands for are
//! refused by name, since a tokenizer that is nearly right makes every answer slightly wrong. Two things are
//! different on purpose. Added tokens have the ids that the file says, where the library counts on from the vocabulary.
//! And merges never join text to a special token, so that a user who writes its letters does not write the token.
//!
//! `truncation` and `padding` are settings of batches for training, and are ignored.

mod added;
mod decoder;
mod file;
mod model;
mod stages;

use super::added::SideFiles;
use super::decode::Decoding;
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts, in_range};
use super::pipeline::Pipeline;
use super::pre_tokenizers::PreSplit;
use super::special::SpecialSplit;
use super::vocab::{TokenKind, Vocab};
use added::AddedTokens;
use decoder::Decoder;
use file::File;
use model::Names;

/// Reads a `tokenizer.json` and adds the facts of the files beside it; `what` names it in errors.
pub(crate) fn load(what: &str, json: &[u8], files: &mut SideFiles) -> Result<Parts> {
    let broken = |e: serde_json::Error| TextError::broken(what, format!("not a tokenizer.json: {e}"));
    let file: File<'_> = serde_json::from_slice(json).map_err(broken)?;
    model::check_kind(what, &file.model)?;
    let names = Names::new(what, &file.model.vocab.entries)?;
    let added = AddedTokens::new(what, file.added_tokens.unwrap_or_default(), &names, files);
    let decoder = Decoder::new(what, &file.decoder)?;
    let vocab = token_table(what, &names, &added, &decoder)?;
    // They also belong to a file that stands alone.
    let mut warnings = std::mem::take(&mut files.warnings);
    let normalizers = stages::normalizers(what, &file.normalizer)?;
    let pre = stages::pre_tokenizers(what, &file.pre_tokenizer)?;
    let mut special = |ids: Vec<u64>| -> Vec<u32> {
        let of = format!("a special token of the post-processor of {what}");
        ids.into_iter().filter_map(|id| in_range(id.into(), &vocab, &of, &mut warnings)).collect()
    };
    let (prefix, suffix) = decoder::around(what, &file.post_processor)?;
    let (prefix, suffix) = (special(prefix), special(suffix));
    let normalized = added.specials(true, &normalizers)?;
    let added_split = SpecialSplit::hiding(&added.specials(false, &[])?)?;
    let same = pre.bytes && decoder.byte_level;
    let (model, texts) = model::bpe(what, file.model, names, &added, pre.bytes, same.then_some(&vocab), &mut warnings)?;
    let pipeline = Pipeline {
        added: added_split,
        normalizers,
        normalized: SpecialSplit::hiding(&normalized)?,
        pre: PreSplit { stages: pre.stages },
        model,
        texts,
    };
    Ok(Parts {
        encoder: Encoder::Pipeline(Box::new(pipeline)),
        bos: prefix.first().copied(),
        eos: suffix.first().copied(),
        ends: suffix.clone(),
        decoding: Decoding { byte_level: decoder.byte_level, leading_space: decoder.leading_space },
        vocab,
        prefix,
        suffix,
        warnings,
    })
}

/// Bytes and kind of every token.
fn token_table(what: &str, names: &Names, added: &AddedTokens, decoder: &Decoder) -> Result<Vocab> {
    let len = names.len().max(added.end());
    let mut vocab = Vocab::with_capacity(len);
    let mut bytes = Vec::new();
    for id in 0..len as u32 {
        let token = added.get(id);
        let text = token.map(|token| token.text.as_str()).or_else(|| names.text(id));
        bytes.clear();
        let is_byte = match text {
            Some(text) => decoder.push_bytes(text, &mut bytes)?,
            None => false,
        };
        let kind = match token {
            _ if text.is_none() => TokenKind::Unused,
            Some(token) if token.special => TokenKind::Control,
            Some(_) => TokenKind::UserDefined,
            None if is_byte => TokenKind::Byte,
            None => TokenKind::Normal,
        };
        if !vocab.push(kind, |out| out.extend_from_slice(&bytes)) {
            return Err(TextError::broken(what, "more than 4 GiB of tokens"));
        }
    }
    Ok(vocab)
}

/// The error for a component that no step stands for.
fn unsupported(what: &str, part: &str, name: &str, supported: &str) -> TextError {
    let name = if name.is_empty() { "without a type" } else { name };
    TextError::broken(what, format!("its {part} `{name}` is not supported; supported: {supported}"))
}

/// The parts of a component in order: those of a `Sequence`, also of one inside of another.
fn flatten<'v>(value: &'v serde_json::Value, list: &str, out: &mut Vec<&'v serde_json::Value>) {
    // The JSON reader has limited the depth.
    match &value[list] {
        serde_json::Value::Array(parts) if value["type"] == "Sequence" => {
            parts.iter().for_each(|part| flatten(part, list, out));
        }
        _ if value.is_null() => {}
        _ => out.push(value),
    }
}

#[cfg(test)]
mod tests;
