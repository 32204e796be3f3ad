//! A checkpoint folder as `transformers` writes it: safetensors, in one file or in parts that an index names, beside JSON
//! files that describe them.

use super::{FormatError, SafeTensors, Tensor, fp8, json, safetensors};
use serde_json::{Map, Value};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The index of a checkpoint in parts.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// A checkpoint in one file.
const WHOLE: &str = "model.safetensors";

/// An open folder.
#[derive(Debug)]
pub struct HfFolder {
    dir: PathBuf,
    weights: SafeTensors,
    /// `config.json`, an object.
    pub config: Value,
    /// `generation_config.json`, where there is one.
    pub generation_config: Option<Value>,
    /// `tokenizer_config.json`, where there is one.
    pub tokenizer_config: Option<Value>,
}

impl HfFolder {
    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The path of a further file of the folder (`tokenizer.json`, `tokenizer.model`, `special_tokens_map.json`,
    /// `chat_template.jinja`, …), where there is one of that name.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let path = self.dir.join(name);
        path.is_file().then_some(path)
    }

    /// The safetensors files.
    pub fn weights(&self) -> &SafeTensors {
        &self.weights
    }

    /// The tensor of that name; FP8 and FP4 with the scales that stand beside it.
    pub(super) fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        fp8::find(&self.dir, &self.weights, name, self.scaled_block())
    }

    /// `quantization_config.weight_block_size`: rows and columns that share a scale.
    fn scaled_block(&self) -> Option<[usize; 2]> {
        let size = self.config.get("quantization_config")?.get("weight_block_size")?.as_array()?;
        let numbers: Vec<usize> = size.iter().filter_map(Value::as_u64).filter_map(|n| n.try_into().ok()).collect();
        numbers.try_into().ok()
    }

    /// The folder `dir` under the names that `transformers` gives its weights; `None` where it has none of those.
    ///
    /// The index is taken before a whole file, since a stale whole file is not complete; but where the index names what is
    /// not there, a whole file stands in for all parts.
    pub(super) fn find_in(dir: &Path) -> Result<Option<Self>, FormatError> {
        let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
        let weights = match (index.is_file(), whole.is_file()) {
            (false, false) => return Ok(None),
            (false, true) => SafeTensors::open(&whole)?,
            (true, false) => SafeTensors::open_index(&index)?,
            (true, true) => match SafeTensors::open_index(&index) {
                Ok(parts) if !parts.is_empty() => parts,
                stale => match (SafeTensors::open_beside_index(&whole, &index), stale) {
                    (Ok(whole), _) => whole,
                    (Err(pointer @ FormatError::LfsPointer { .. }), _) => return Err(pointer),
                    (Err(_), Err(stale)) => return Err(stale),
                    (Err(error), Ok(_)) => return Err(error),
                },
            },
        };
        Self::open(dir, weights).map(Some)
    }

    /// The checkpoint that the safetensors file `path` is, or is a part of.
    pub(super) fn of_file(path: &Path) -> Result<Self, FormatError> {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let index = dir.join(INDEX);
        // An index that cannot be read matters to parts alone.
        let object = match json::read_object(&index) {
            Err(_) if path.file_name() == Some(OsStr::new(WHOLE)) => None,
            object => object?,
        };
        // A part stands for all of the checkpoint.
        let named = object.is_some_and(|object| {
            let map = safetensors::weight_map(&index, &object).unwrap_or_default();
            map.values().any(|shard| path.file_name() == Some(OsStr::new(shard)))
        });
        let weights = if named { SafeTensors::open_index(&index)? } else { SafeTensors::open(path)? };
        Self::open(dir, weights)
    }

    /// A folder that holds nothing but the configuration `config`, read at `path`.
    pub(super) fn without_files(path: &Path, config: Map<String, Value>) -> Self {
        Self {
            dir: path.into(),
            weights: SafeTensors::default(),
            config: Value::Object(config),
            generation_config: None,
            tokenizer_config: None,
        }
    }

    fn open(dir: &Path, weights: SafeTensors) -> Result<Self, FormatError> {
        let config = json::read_object(&dir.join("config.json"))?.ok_or_else(|| FormatError::Folder {
            path: dir.into(),
            what: "it has no config.json, which says what model the safetensors hold; fetch the whole repository"
                .into(),
        })?;
        Ok(Self {
            config: Value::Object(config),
            generation_config: json::read_object(&dir.join("generation_config.json"))?.map(Value::Object),
            tokenizer_config: json::read_object(&dir.join("tokenizer_config.json"))?.map(Value::Object),
            dir: dir.into(),
            weights,
        })
    }
}
