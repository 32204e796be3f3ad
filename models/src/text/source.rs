//! The files at a path that a tokenizer and a chat template are read from. They are opened once for both.

use std::path::{Path, PathBuf};

use handmill_runtime::format::Checkpoint;

use super::error::Result;
use super::template::ChatTemplate;
use super::tokenizer::Tokenizer;
use super::{file, folder, vocab_files};

/// A model or a bare tokenizer, opened for its text alone: what it has of tokenizer and chat template.
#[derive(Debug)]
pub struct TextSource(Found);

#[derive(Debug)]
enum Found {
    Folder(PathBuf),
    Checkpoint(Box<Checkpoint>),
    Bare(Bare),
}

/// A tokenizer's file without a model.
#[derive(Debug)]
pub(super) struct Bare {
    pub(super) kind: BareKind,
    /// The file in errors.
    pub(super) what: String,
    /// The file's name in lower case.
    pub(super) name: String,
    pub(super) bytes: Vec<u8>,
}

/// The kinds of a tokenizer's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BareKind {
    /// A `tokenizer.json`.
    Json,
    Tekken,
    Sentencepiece,
}

impl TextSource {
    /// Opens `path`: a `tokenizer.json` (any name that ends in `.json`), a `tekken.json` (any such name with `tekken` in
    /// it), a sentencepiece `.model` (or `.model.v3` and the like), the `vocab.json` of a pair, a folder with a tokenizer,
    /// or anything that [`Checkpoint::open`] opens; of a GGUF file the vocabulary is enough.
    ///
    /// # Errors
    /// Files that cannot be read; paths that hold nothing of these.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        if path.is_dir() {
            if folder::has_tokenizer(path) {
                return Ok(Self(Found::Folder(path.to_owned())));
            }
            return match Checkpoint::open(path) {
                Ok(checkpoint) => Ok(Self(Found::Checkpoint(Box::new(checkpoint)))),
                // Only files of a tokenizer of an unknown kind: the tokenizer's error names them.
                Err(_) if !folder::unread(path).is_empty() => Ok(Self(Found::Folder(path.to_owned()))),
                Err(error) => Err(error.into()),
            };
        }
        // The end of a name that is not Unicode says as much as any other's.
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if name == vocab_files::VOCAB {
            return Ok(Self(Found::Folder(path.parent().unwrap_or_else(|| Path::new("")).to_owned())));
        }
        let kind = if folder::is_tekken(&name) {
            BareKind::Tekken
        } else if name.ends_with(".json") {
            BareKind::Json
        } else if name.ends_with(".model") || name.contains(".model.") {
            BareKind::Sentencepiece
        } else {
            return Ok(Self(Found::Checkpoint(Box::new(Checkpoint::open(path)?))));
        };
        let what = path.display().to_string();
        Ok(Self(Found::Bare(Bare { kind, what, name, bytes: file::read(path)? })))
    }

    /// The tokenizer. In a folder the small JSON files say which tokens are special, which start a text, and which end it.
    ///
    /// # Errors
    /// Files that are broken; kinds that are not supported, by name.
    pub fn tokenizer(&self) -> Result<Tokenizer> {
        match &self.0 {
            Found::Folder(folder) => Tokenizer::from_folder(folder),
            Found::Checkpoint(checkpoint) => Tokenizer::from_checkpoint(checkpoint),
            Found::Bare(bare) => bare.tokenizer(),
        }
    }

    /// The chat template, as [`ChatTemplate::from_checkpoint`] finds it; `None` where there is none.
    ///
    /// # Errors
    /// As [`ChatTemplate::from_checkpoint`].
    pub fn template(&self) -> Result<Option<ChatTemplate>> {
        match &self.0 {
            Found::Folder(folder) => ChatTemplate::from_folder(folder),
            Found::Checkpoint(checkpoint) => ChatTemplate::from_checkpoint(checkpoint),
            Found::Bare(bare) => ChatTemplate::of_bare(bare),
        }
    }
}

impl Bare {
    pub(super) fn tokenizer(&self) -> Result<Tokenizer> {
        match self.kind {
            BareKind::Json => Tokenizer::from_tokenizer_json(&self.what, &self.bytes),
            BareKind::Tekken => Tokenizer::from_tekken(&self.what, &self.bytes),
            BareKind::Sentencepiece => Tokenizer::from_sentencepiece(&self.bytes),
        }
    }
}
