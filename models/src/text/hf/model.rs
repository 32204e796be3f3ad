//! The `model` of a `tokenizer.json`: BPE by merges.

use super::super::added::MAX_IDS;
use super::super::bpe::{Bpe, Chars, Units};
use super::super::byte_level;
use super::super::error::{Result, TextError};
use super::super::merge::MergeTable;
use super::super::vocab::{NONE, TextIndex, TokenKind, Vocab};
use super::added::AddedTokens;
use super::file::{Merge, Model, Text};
use super::unsupported;

/// Refuses models other than BPE, by name.
pub(super) fn check_kind(what: &str, model: &Model<'_>) -> Result<()> {
    // Files older than the key are told apart by what else they have.
    let kind = model.kind.as_deref().unwrap_or(if model.merges.is_some() { "BPE" } else { "" });
    if kind != "BPE" {
        return Err(unsupported(what, "model", kind, "BPE"));
    }
    if model.dropout.is_some_and(|p| p != 0.0) {
        return Err(unsupported(what, "model", "BPE with dropout", "BPE without dropout, as models are used"));
    }
    if model.vocab.entries.is_empty() || model.merges.is_none() {
        return Err(TextError::broken(what, "its model has no vocab or no merges"));
    }
    Ok(())
}

/// The tokens of the model by their names in the file.
#[derive(Debug)]
pub(super) struct Names {
    /// Free ids are [`TokenKind::Unused`], all others [`TokenKind::Normal`].
    vocab: Vocab,
    index: TextIndex,
    /// Tokens without the free ids.
    pub(super) count: usize,
}

impl Names {
    pub(super) fn new(what: &str, entries: &[(Text<'_>, u32)]) -> Result<Self> {
        let len = entries.iter().map(|(_, id)| *id as usize + 1).max().unwrap_or(0);
        // Ids may have gaps, but a table must not grow to gigabytes for one wrong id.
        if let Some((text, id)) = entries.iter().find(|(_, id)| *id as usize >= MAX_IDS) {
            let text = &text.0;
            return Err(TextError::broken(what, format!("token id {id} of `{text}` is out of any sensible range")));
        }
        let mut by_id: Vec<Option<&str>> = vec![None; len];
        for (Text(text), id) in entries {
            if let Some(other) = by_id[*id as usize].replace(text) {
                return Err(TextError::broken(what, format!("`{other}` and `{text}` both have the id {id}")));
            }
        }
        let mut vocab = Vocab::with_capacity(len);
        for text in by_id {
            let kind = if text.is_some() { TokenKind::Normal } else { TokenKind::Unused };
            if !vocab.push(kind, |out| out.extend_from_slice(text.unwrap_or_default().as_bytes())) {
                return Err(TextError::broken(what, "more than 4 GiB of tokens"));
            }
        }
        let index = TextIndex::of(&vocab, |_, kind| kind == TokenKind::Normal);
        let names = Self { vocab, index, count: entries.len() };
        if names.index.len() == entries.len() {
            return Ok(names);
        }
        let twice = entries.iter().find(|(text, id)| names.id(&text.0) != Some(*id));
        let twice = twice.map_or("", |(text, _)| &text.0);
        Err(TextError::broken(what, format!("`{twice}` stands twice in its vocab")))
    }

    /// One past the highest id.
    pub(super) fn len(&self) -> usize {
        self.vocab.len()
    }

    pub(super) fn id(&self, text: &str) -> Option<u32> {
        Some(self.index.get(&self.vocab, text.as_bytes())).filter(|&id| id != NONE)
    }

    /// As [`id`](Self::id), quicker where the token is `near` or the one before.
    fn id_near(&self, text: &str, near: u32) -> Option<u32> {
        let is = |id: &u32| self.vocab.kind(*id) == Some(TokenKind::Normal) && self.vocab.bytes(*id) == text.as_bytes();
        [near, near.wrapping_sub(1)].into_iter().find(is).or_else(|| self.id(text))
    }

    pub(super) fn text(&self, id: u32) -> Option<&str> {
        self.vocab.kind(id).filter(|&kind| kind == TokenKind::Normal)?;
        std::str::from_utf8(self.vocab.bytes(id)).ok()
    }
}

/// The encoder's model and, unless that is `decoded`, the vocabulary that it looks words up in. `bytes` says whether
/// words are written in the alphabet of bytes; `decoded` has the bytes of that alphabet, where the decoder reads it too.
pub(super) fn bpe(
    what: &str,
    model: Model<'_>,
    names: Names,
    added: &AddedTokens,
    bytes: bool,
    decoded: Option<&Vocab>,
    warnings: &mut Vec<String>,
) -> Result<(Bpe, Option<Vocab>)> {
    let prefix = model.continuing_subword_prefix.unwrap_or_default();
    let suffix = model.end_of_word_suffix.unwrap_or_default();
    let byte_fallback = model.byte_fallback == Some(true);
    let ignore_merges = model.ignore_merges == Some(true);
    let merges = merges(what, &model.merges.unwrap_or_default(), &prefix, &names, added)?;
    let id = |name: &str| names.id(name).unwrap_or(NONE);
    let plain = model.unk_token.is_none() && !byte_fallback && prefix.is_empty() && suffix.is_empty();
    if let Some(vocab) = decoded.filter(|_| plain) {
        let spelled = |id| names.text(id).is_some_and(byte_level::is_spelled);
        let index = TextIndex::of(vocab, |id, kind| kind != TokenKind::Control && spelled(id));
        let units = Units::Bytes(Box::new(byte_level::ALPHABET.map(|c| id(c.encode_utf8(&mut [0; 4])))));
        return Ok((Bpe::of_parts(index, merges, units, ignore_merges), None));
    }
    let unknown = model.unk_token.as_deref().and_then(|name| names.id(name));
    if let (Some(name), None) = (&model.unk_token, unknown) {
        let said = format!("unk_token of {what} is `{name}`, which is no token of its model");
        warnings.push(said + ": characters that it cannot spell are left out");
    }
    let chars = Chars {
        alphabet: bytes,
        byte_ids: byte_fallback.then(|| Box::new(std::array::from_fn(|byte| id(&format!("<0x{byte:02X}>"))))),
        unknown,
        fuse_unknown: model.fuse_unk == Some(true),
        prefix,
        suffix,
    };
    let whole = |id| added.is_special(id) && names.text(id).is_some_and(|text| text.chars().nth(1).is_some());
    let index = TextIndex::of(&names.vocab, |id, kind| kind == TokenKind::Normal && !whole(id));
    Ok((Bpe::of_parts(index, merges, Units::Chars(chars), ignore_merges), Some(names.vocab)))
}

/// The table of merges. A side behind another is written with `prefix`, which the joined token does not have inside.
fn merges(what: &str, merges: &[Merge<'_>], prefix: &str, names: &Names, added: &AddedTokens) -> Result<MergeTable> {
    let broken = |merge: &str, reason: &str| TextError::broken(what, format!("the merge `{merge}` {reason}"));
    let mut table = MergeTable::with_capacity(merges.len());
    let mut joined = String::new();
    // Most vocabularies list the joined tokens in the order of their merges, which may join one in several ways.
    let mut last = NONE;
    // Of two equal pairs the last one counts, and the table keeps the one that it was given first.
    for (rank, merge) in merges.iter().enumerate().rev() {
        let (left, right) = match merge {
            Merge::Pair(left, right) => (left.as_ref(), right.as_ref()),
            Merge::Line(line) if line.starts_with("#version") => continue,
            Merge::Line(line) => match line.split_once(' ').filter(|(_, right)| !right.contains(' ')) {
                Some(sides) => sides,
                None => return Err(broken(line, "is not two tokens with a space between them")),
            },
        };
        let Some(rest) = right.get(prefix.len()..) else {
            return Err(broken(right, &format!("is shorter than the prefix `{prefix}`")));
        };
        joined.clear();
        joined.extend([left, rest]);
        let unknown = |name: &str| broken(&joined, &format!("names the unknown token `{name}`"));
        let side = |name: &str| names.id(name).ok_or_else(|| unknown(name));
        let (left, right) = (side(left)?, side(right)?);
        let id = names.id_near(&joined, last).ok_or_else(|| unknown(&joined))?;
        last = id;
        if !added.is_special(id) {
            table.insert(left, right, rank as u32, id);
        }
    }
    Ok(table)
}
