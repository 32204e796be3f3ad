//! A checkpoint folder as `transformers` writes it: safetensors, in one file or in parts that an index names, beside JSON
//! files that describe them.

use super::{FormatError, SafeTensors, Tensor, fp8, json, safetensors};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
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
    /// `chat_template.jinja`, …), where the folder has it.
    pub fn file(&self, name: &str) -> Option<PathBuf> {
        let path = self.dir.join(name);
        path.is_file().then_some(path)
    }

    /// The safetensors files.
    pub fn weights(&self) -> &SafeTensors {
        &self.weights
    }

    /// The tensor of that name; FP8 and FP4 tensors with their scales, which are separate tensors.
    pub(super) fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        fp8::find(&self.dir, &self.weights, name, self.scaled_block())
    }

    /// `quantization_config.weight_block_size`: rows and columns that share a scale.
    fn scaled_block(&self) -> Option<[usize; 2]> {
        let said = |config: &Value| config.get("quantization_config")?.get("weight_block_size").cloned();
        let size = said(&self.config).or_else(|| said(self.config.get("text_config")?))?;
        let size = size.as_array()?;
        let numbers: Vec<usize> = size.iter().filter_map(Value::as_u64).filter_map(|n| n.try_into().ok()).collect();
        numbers.try_into().ok()
    }

    /// The folder `dir`, if it has weights under the names that `transformers` gives them.
    ///
    /// The index takes precedence over a whole file, because a whole file may be stale and incomplete. Where the index
    /// names missing files, a whole file or another complete set of parts takes its place.
    pub(super) fn find_in(dir: &Path) -> Result<Option<Self>, FormatError> {
        let (whole, index) = (dir.join(WHOLE), dir.join(INDEX));
        let stale = match index.is_file().then(|| SafeTensors::open_index(&index)) {
            Some(Ok(parts)) if !parts.is_empty() => return Self::open(dir, parts).map(Some),
            Some(Err(stale)) => Some(stale),
            _ => None,
        };
        let found = match &stale {
            _ if whole.is_file() => Some(SafeTensors::open(&whole)),
            None | Some(FormatError::MissingShard { .. }) => {
                let parts = complete_parts(dir)?;
                let open = || SafeTensors::open_parts(&whole, &names_of(&parts), &BTreeMap::new());
                (!parts.is_empty()).then(open)
            }
            Some(_) => None,
        };
        match (found, stale) {
            (Some(Ok(weights)), _) => Self::open(dir, weights.beside_index(&index)).map(Some),
            (Some(Err(pointer @ FormatError::LfsPointer { .. })), _) => Err(pointer),
            (_, Some(stale)) => Err(stale),
            (Some(Err(error)), None) => Err(error),
            (None, None) => Ok(None),
        }
    }

    /// The checkpoint of the safetensors file `path`, which may be one of its parts.
    pub(super) fn of_file(path: &Path) -> Result<Self, FormatError> {
        let dir = match path.parent() {
            Some(dir) if dir != Path::new("") => dir,
            _ => Path::new("."),
        };
        let index = dir.join(INDEX);
        // Only parts need the index, so its error is kept until the file is known to be a part.
        let object = match json::read_object(&index) {
            Err(_) if path.file_name() == Some(OsStr::new(WHOLE)) => None,
            object => object?,
        };
        // A part opens the whole checkpoint.
        let is_file = |part: &str| path.file_name() == Some(OsStr::new(part));
        let named = object.is_some_and(|object| {
            let map = safetensors::weight_map(&index, &object).unwrap_or_default();
            map.values().any(|shard| is_file(shard))
        });
        let parts = complete_parts(dir)?;
        let weights = match named {
            true => SafeTensors::open_index(&index)?,
            false if parts.iter().any(|part| is_file(part)) => {
                SafeTensors::open_parts(path, &names_of(&parts), &BTreeMap::new())?.beside_index(&index)
            }
            false => SafeTensors::open(path)?,
        };
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

fn names_of(parts: &[String]) -> BTreeSet<&str> {
    parts.iter().map(String::as_str).collect()
}

/// The names `model-00001-of-00003.safetensors` and so on of the only checkpoint in `dir` whose parts are all there;
/// empty where there is no such checkpoint or more than one.
fn complete_parts(dir: &Path) -> Result<Vec<String>, FormatError> {
    let mut sets: BTreeMap<(String, usize), BTreeMap<usize, String>> = BTreeMap::new();
    for name in list(dir)? {
        let numbered = name.strip_suffix(".safetensors").and_then(|stem| {
            let (part, count) = stem.rsplit_once("-of-")?;
            let (stem, part) = part.rsplit_once('-')?;
            Some((stem.to_owned(), part.parse().ok()?, count.parse().ok()?))
        });
        if let Some((stem, part, count)) = numbered
            && (1..=count).contains(&part)
        {
            sets.entry((stem, count)).or_default().insert(part, name);
        }
    }
    let mut complete = sets.into_iter().filter(|((_, count), parts)| parts.len() == *count);
    match (complete.next(), complete.next()) {
        (Some((_, parts)), None) => Ok(parts.into_values().collect()),
        _ => Ok(Vec::new()),
    }
}

/// Names of the files of a folder, sorted. Names that are not UTF-8 are left out: no file of a checkpoint has one.
pub(super) fn list(dir: &Path) -> Result<Vec<String>, FormatError> {
    let io = |source| FormatError::Io { path: dir.into(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
