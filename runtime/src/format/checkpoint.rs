//! A checkpoint of any kind by its path: a GGUF file, or a Hugging Face folder with safetensors and JSON files. And
//! one without tensors, which are made up instead.

use super::{
    Bytes, FormatError, Gguf, SafeTensors, Tensor, TensorInfo, TensorSource, fp8, gguf, json, safetensors,
    table::MappedFile,
};
use crate::quant::DType;
use serde_json::{Map, Value};
use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
};

const INDEX: &str = "model.safetensors.index.json";

/// An open model: its tensors by name and, by [`Checkpoint::kind`], what describes it.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Gguf(Gguf),
    HuggingFace(HfFolder),
    /// A configuration, and tensors that are made up.
    Synthetic(HfFolder, Box<dyn TensorSource>),
}

/// What a checkpoint is made of.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// One or more GGUF files, with metadata in them.
    Gguf(&'a Gguf),
    /// Safetensors beside JSON files.
    HuggingFace(&'a HfFolder),
}

/// A folder as `transformers` writes it.
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
    fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        if let Some(tensor) = fp8::fp4(self, name)? {
            return Ok(Some(tensor));
        }
        match self.weights.find(name)? {
            Some(tensor) if tensor.dtype() == DType::F8_E4M3 => fp8::with_scales(self, name, tensor).map(Some),
            tensor => Ok(tensor),
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

/// Shape and values of a tensor of whole numbers.
pub type Integers = (Vec<usize>, Vec<i64>);

impl Checkpoint {
    /// Opens a `.gguf` file (any part of a split one), a `.safetensors` file beside its `config.json`, or a folder
    /// that holds one or the other. What a file is decides its content, not its name.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let source = if path.is_dir() { open_folder(path)? } else { open_file(path)? };
        Ok(Self { path: path.into(), source })
    }

    /// A checkpoint of the configuration `config`, read at `path`, whose tensors `source` supplies to those who know
    /// the shapes they want ([`Checkpoint::shaped`]). No file and no iterator holds them.
    pub fn synthetic(path: &Path, config: Map<String, Value>, source: Box<dyn TensorSource>) -> Self {
        let folder = HfFolder {
            // Nothing lies beside it that belongs to it.
            dir: path.into(),
            weights: SafeTensors::default(),
            config: Value::Object(config),
            generation_config: None,
            tokenizer_config: None,
        };
        Self { path: path.into(), source: Source::Synthetic(folder, source) }
    }

    /// Whether the tensors are made up.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.source, Source::Synthetic(..))
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the checkpoint is made of.
    pub fn kind(&self) -> Kind<'_> {
        match &self.source {
            Source::Gguf(gguf) => Kind::Gguf(gguf),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => Kind::HuggingFace(folder),
        }
    }

    /// Bytes of all files that hold tensors.
    pub fn file_size(&self) -> u64 {
        match &self.source {
            Source::Gguf(gguf) => gguf.file_size(),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => folder.weights.file_size(),
        }
    }

    /// What the files say about their tensors, in file order; also those that have no kernels.
    pub fn tensors(&self) -> Box<dyn ExactSizeIterator<Item = TensorInfo<'_>> + '_> {
        match &self.source {
            Source::Gguf(gguf) => Box::new(gguf.tensors()),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => Box::new(folder.weights.tensors()),
        }
    }

    /// The tensor of that name; `None` where there is none, an error where its type has no kernels.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        match &self.source {
            Source::Gguf(gguf) => gguf.find(name),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => folder.find(name),
        }
    }

    /// As [`Checkpoint::find`]; where tensors are made up, one of that name and `shape`. The shape of a file's tensor is
    /// whatever it is.
    pub fn shaped(&self, name: &str, shape: &[usize]) -> Result<Option<Tensor>, FormatError> {
        match &self.source {
            Source::Synthetic(_, source) => source.tensor(name, shape).map(Some),
            _ => self.find(name),
        }
    }

    /// Shape and bytes of the tensor of that name if the file calls its type `dtype`, also where there are no kernels for
    /// it: formats that lie in several tensors are put together from those.
    pub fn bytes(&self, name: &str, dtype: &str) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
        match &self.source {
            Source::HuggingFace(folder) => folder.weights.bytes(name, dtype),
            Source::Gguf(gguf) => gguf.bytes(name, dtype),
            Source::Synthetic(..) => Ok(None),
        }
    }

    /// Shape and values of a tensor of whole numbers, if there is one of that name.
    ///
    /// # Errors
    /// Where the tensor is of another type, or its bytes lie outside of the file.
    pub fn integers(&self, name: &str) -> Result<Option<Integers>, FormatError> {
        if let Some((shape, bytes)) = self.bytes(name, "i64")? {
            let (values, _) = bytes.as_chunks::<8>();
            return Ok(Some((shape, values.iter().map(|v| i64::from_le_bytes(*v)).collect())));
        }
        if let Some((shape, bytes)) = self.bytes(name, "i32")? {
            let (values, _) = bytes.as_chunks::<4>();
            return Ok(Some((shape, values.iter().map(|v| i32::from_le_bytes(*v).into()).collect())));
        }
        let Some(info) = self.tensors().find(|t| t.name == name) else { return Ok(None) };
        let what = format!("it is of type {}, and i32 or i64 is wanted", info.dtype_name);
        Err(FormatError::BadTensor { path: info.file.into(), tensor: name.into(), what })
    }

    /// The tensor of that name; an error where there is none or its type has no kernels.
    pub fn tensor(&self, name: &str) -> Result<Tensor, FormatError> {
        self.find(name)?.ok_or_else(|| self.missing(name))
    }

    /// The error for a tensor that is needed and not there.
    pub fn missing(&self, name: &str) -> FormatError {
        FormatError::MissingTensor { path: self.path.clone(), tensor: name.into() }
    }
}

fn open_file(path: &Path) -> Result<Source, FormatError> {
    let start = MappedFile::open(path)?.map;
    if start.starts_with(b"GGUF") {
        return Gguf::open(path).map(Source::Gguf);
    }
    if !safetensors::looks_like(&start) {
        return Err(gguf::not_a_model(path, &start));
    }
    let dir = match path.parent() {
        Some(dir) if dir != Path::new("") => dir,
        _ => Path::new("."),
    };
    // A part of a sharded checkpoint stands for all of it.
    let index = dir.join(INDEX);
    let named = json::read_object(&index)?.is_some_and(|object| {
        let map = safetensors::weight_map(&index, &object).unwrap_or_default();
        map.values().any(|shard| path.file_name() == Some(OsStr::new(shard)))
    });
    let weights = if named { SafeTensors::open_index(&index)? } else { SafeTensors::open(path)? };
    HfFolder::open(dir, weights).map(Source::HuggingFace)
}

fn open_folder(dir: &Path) -> Result<Source, FormatError> {
    let whole = dir.join("model.safetensors");
    let index = dir.join(INDEX);
    if index.is_file() {
        return HfFolder::open(dir, SafeTensors::open_index(&index)?).map(Source::HuggingFace);
    }
    if whole.is_file() {
        return HfFolder::open(dir, SafeTensors::open(&whole)?).map(Source::HuggingFace);
    }
    let names = list(dir)?;
    let with = |suffix: &str| names.iter().filter(|n| n.ends_with(suffix)).map(String::as_str).collect::<Vec<_>>();
    // The other parts of a split model are opened with its first; it is one model.
    let later_part = |n: &&str| n.contains("-of-") && !n.contains("-00001-of-");
    let ggufs: Vec<&str> = with(".gguf").into_iter().filter(|n| !later_part(n)).collect();
    let safetensors = with(".safetensors");
    let what = match (&ggufs[..], &safetensors[..]) {
        ([], [one]) => {
            let weights = SafeTensors::open(&dir.join(one))?;
            return HfFolder::open(dir, weights).map(Source::HuggingFace);
        }
        ([one], _) => return Gguf::open(&dir.join(one)).map(Source::Gguf),
        ([_, ..], _) => format!("it holds several models ({}); name one of them", ggufs.join(", ")),
        ([], [_, ..]) => format!("it holds several safetensors files and no {INDEX}; fetch the index"),
        ([], []) if names.iter().any(|n| n.ends_with(".bin") || n.ends_with(".pth") || n.ends_with(".pt")) => {
            "its weights are pickled PyTorch files, which are not read; fetch or convert to safetensors".into()
        }
        ([], []) => "it holds no model.safetensors and no .gguf file".into(),
    };
    Err(FormatError::Folder { path: dir.into(), what })
}

/// Names of the files of a folder, sorted; those that are not UTF-8 are no model of ours.
fn list(dir: &Path) -> Result<Vec<String>, FormatError> {
    let io = |source| FormatError::Io { path: dir.into(), source };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(io)? {
        names.extend(entry.map_err(io)?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}
