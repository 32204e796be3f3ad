//! The tokenizer of a checkpoint folder: the choice of its file, and the facts of the files beside it.

use std::path::{Path, PathBuf};

use super::added::{SaidId, SideFiles};
use super::error::{Result, TextError};
use super::parts::{Parts, in_range};
use super::spm::SPACE;
use super::vocab::{TokenKind, Vocab};
use super::{file, hf, sentencepiece, tekken, vocab_files};

/// A tokenizer file of a known kind.
enum Found {
    Json(PathBuf),
    Sentencepiece(PathBuf),
    Tekken(PathBuf),
    /// `vocab.json` and `merges.txt`.
    VocabFiles,
}

/// The file to read; of several, the one with the most facts.
fn find(folder: &Path) -> Option<Found> {
    let names = names(folder);
    let has = |name: &str| names.iter().any(|n| n == name);
    let first = |fits: fn(&str) -> bool| names.iter().find(|name| fits(name)).map(|name| folder.join(name));
    // Mistral adds versions to both names: `tokenizer.model.v3`, `tekken_240911.json`.
    if has("tokenizer.json") {
        Some(Found::Json(folder.join("tokenizer.json")))
    } else if let Some(path) = first(|name| name.starts_with("tokenizer.model")) {
        Some(Found::Sentencepiece(path))
    } else if let Some(path) = first(is_tekken) {
        Some(Found::Tekken(path))
    } else {
        (has(vocab_files::VOCAB) && has(vocab_files::MERGES)).then_some(Found::VocabFiles)
    }
}

/// Whether mistral-common reads a file of this name as a `tekken.json`.
pub(crate) fn is_tekken(name: &str) -> bool {
    name.contains("tekken") && name.ends_with(".json")
}

/// The names of the files in `folder`, in order; none where it cannot be read.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let files = entries.filter(|entry| entry.path().is_file());
    let mut names: Vec<String> = files.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    names
}

/// Whether `folder` has a tokenizer that can be read.
pub(crate) fn has_tokenizer(folder: &Path) -> bool {
    find(folder).is_some()
}

/// The files that look like a tokenizer's but are of no known kind.
pub(crate) fn unread(folder: &Path) -> Vec<String> {
    const BESIDE: [&str; 3] = ["tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"];
    let looks = |name: &String| {
        let words = ["token", "vocab", "merges", "spiece", "sentencepiece"].iter().any(|word| name.contains(word));
        (words || name.ends_with(".model")) && !BESIDE.contains(&name.as_str())
    };
    names(folder).into_iter().filter(looks).collect()
}

/// Reads the tokenizer of `folder`.
pub(crate) fn load(folder: &Path) -> Result<Parts> {
    let found =
        find(folder).ok_or_else(|| TextError::NoTokenizer { path: folder.to_owned(), unread: unread(folder) })?;
    let mut files = SideFiles::read(folder)?;
    let parts = match found {
        Found::Json(path) => hf::load(&path.display().to_string(), &file::read(&path)?, &mut files)?,
        Found::Sentencepiece(path) => sentencepiece::load(&file::read(&path)?, &mut files)?,
        Found::Tekken(path) => tekken::load(&path.display().to_string(), &file::read(&path)?)?,
        Found::VocabFiles => vocab_files::load(folder, &mut files)?,
    };
    Ok(settle(parts, files))
}

/// Sets BOS and the ends of an answer by all files.
fn settle(mut parts: Parts, files: SideFiles) -> Parts {
    parts.warnings.extend(files.warnings);
    let named = |name: &str| {
        // Vocabularies of pieces store plain spaces.
        let spaced = name.replace(SPACE, " ");
        let fits = |bytes: &[u8]| bytes == name.as_bytes() || bytes == spaced.as_bytes();
        let mut special = parts.vocab.kinds().filter(|(_, kind)| *kind != TokenKind::Normal);
        special.find(|&(id, _)| fits(parts.vocab.bytes(id))).map(|(id, _)| id)
    };
    let keys = std::iter::repeat("bos_token").zip(&files.bos).chain(std::iter::repeat("eos_token").zip(&files.ends));
    for (key, name) in keys.filter(|(_, name)| named(name).is_none()) {
        parts.warnings.push(format!("{key} is `{name}`, which is no token of the vocabulary: it is left out"));
    }
    let bos = files.bos.as_deref().and_then(named);
    let ends: Vec<u32> = files.ends.iter().filter_map(|name| named(name)).collect();
    let said = files.bos_ids.iter().filter_map(|said| in_range(said.id, &parts.vocab, &said.what, &mut parts.warnings));
    let said: Vec<u32> = said.collect();
    parts.bos = bos.or(parts.bos).or(said.first().copied());
    let own = std::mem::take(&mut parts.ends);
    parts.eos = ends.first().copied().or(parts.eos);
    parts.ends = ends.into_iter().chain(own).collect();
    for said in &files.end_ids {
        parts.ends.extend(end(said, &parts.vocab, files.rows, &mut parts.warnings));
    }
    parts.eos = parts.eos.or(parts.ends.first().copied());
    match (files.add_bos, parts.bos) {
        (Some(true), Some(bos)) if parts.prefix.first() != Some(&bos) => parts.prefix.insert(0, bos),
        (Some(false), Some(bos)) => parts.prefix.retain(|&id| id != bos),
        _ => {}
    }
    parts
}

/// The id of a token that ends an answer. The token may have a row in the model and no text.
fn end(said: &SaidId, vocab: &Vocab, rows: Option<usize>, warnings: &mut Vec<String>) -> Option<u32> {
    let row = u32::try_from(said.id).ok().filter(|&id| rows.is_some_and(|rows| (id as usize) < rows));
    match row {
        Some(id) if id as usize >= vocab.len() => {
            let SaidId { what, id: said } = said;
            warnings.push(format!("{what} is {said}, a token that no file names: it ends an answer and has no text"));
            Some(id)
        }
        _ => in_range(said.id, vocab, &said.what, warnings),
    }
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
