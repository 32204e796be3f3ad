//! A checkpoint of any kind by its path: a GGUF file, or a Hugging Face folder with safetensors and JSON files. A
//! synthetic one has only a configuration, and its tensors are made up.

use super::{
    Bytes, FormatError, Gguf, HfFolder, Tensor, TensorInfo, TensorSource,
    folder::{INDEX, list},
    gguf, safetensors,
    table::MappedFile,
};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// An open model: its tensors by name and, by [`Checkpoint::kind`], the metadata that describes it.
#[derive(Debug)]
pub struct Checkpoint {
    path: PathBuf,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Gguf(Gguf),
    HuggingFace(HfFolder),
    /// A configuration, and a source of made-up tensors.
    Synthetic(HfFolder, Box<dyn TensorSource>),
}

/// Form of a checkpoint's files.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// One or more GGUF files, with metadata in them.
    Gguf(&'a Gguf),
    /// Safetensors beside JSON files.
    HuggingFace(&'a HfFolder),
}

/// Shape and values of a tensor of whole numbers.
pub type Integers = (Vec<usize>, Vec<i64>);

impl Checkpoint {
    /// Opens a `.gguf` file (any part of a split one), a `.safetensors` file beside its `config.json`, or a folder
    /// that holds one or the other. The content decides the file's kind; its extension does not.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let source = if path.is_dir() { open_folder(path)? } else { open_file(path)? };
        Ok(Self { path: path.into(), source })
    }

    /// A checkpoint of the configuration `config`, read at `path`, whose tensors come from `source`. Only
    /// [`Checkpoint::shaped`], whose callers know the shapes they want, finds them: no file holds them, and no iterator
    /// lists them.
    pub fn synthetic(path: &Path, config: Map<String, Value>, source: Box<dyn TensorSource>) -> Self {
        Self { path: path.into(), source: Source::Synthetic(HfFolder::without_files(path, config), source) }
    }

    /// Whether the tensors are made up.
    pub fn is_synthetic(&self) -> bool {
        matches!(self.source, Source::Synthetic(..))
    }

    /// The path that was opened.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The form of the checkpoint's files.
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
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => folder.weights().file_size(),
        }
    }

    /// Descriptions of all tensors, in file order; also of those whose type has no kernels.
    pub fn tensors(&self) -> Box<dyn ExactSizeIterator<Item = TensorInfo<'_>> + '_> {
        match &self.source {
            Source::Gguf(gguf) => Box::new(gguf.tensors()),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => Box::new(folder.weights().tensors()),
        }
    }

    /// The tensor of that name; `None` where there is none, an error where its type has no kernels.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        match &self.source {
            Source::Gguf(gguf) => gguf.find(name),
            Source::HuggingFace(folder) | Source::Synthetic(folder, _) => folder.find(name),
        }
    }

    /// As [`Checkpoint::find`]; where tensors are made up, a tensor of that name with one of `shapes`
    /// ([`TensorSource::tensor`]). A file's tensor is returned with the file's shape, which the caller checks.
    pub fn shaped(&self, name: &str, shapes: &[&[usize]]) -> Result<Option<Tensor>, FormatError> {
        match &self.source {
            Source::Synthetic(_, source) => source.tensor(name, shapes).map(Some),
            _ => self.find(name),
        }
    }

    /// Shape and bytes of the tensor of that name if the file calls its type `dtype`, also where the type has no
    /// kernels. Formats that take several tensors are put together from those.
    pub fn bytes(&self, name: &str, dtype: &str) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
        match &self.source {
            Source::HuggingFace(folder) => folder.weights().bytes(name, dtype),
            Source::Gguf(gguf) => gguf.bytes(name, dtype),
            Source::Synthetic(..) => Ok(None),
        }
    }

    /// As [`Checkpoint::bytes`]; where tensors are made up, bytes of `shape`, if the source has them.
    pub fn shaped_bytes(
        &self,
        name: &str,
        dtype: &str,
        shape: &[usize],
    ) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
        match &self.source {
            Source::Synthetic(_, source) => Ok(source.bytes(name, dtype, shape)?.map(|bytes| (shape.to_vec(), bytes))),
            _ => self.bytes(name, dtype),
        }
    }

    /// Shape and values of a tensor of whole numbers, if there is one of that name.
    ///
    /// # Errors
    /// The tensor is of another type, or its bytes lie outside of the file.
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

    /// The error for a tensor that the model needs and the file lacks.
    pub fn missing(&self, name: &str) -> FormatError {
        let promised = match self.kind() {
            Kind::HuggingFace(folder) => folder.weights().promised(name),
            Kind::Gguf(_) => None,
        };
        promised.unwrap_or_else(|| FormatError::MissingTensor { path: self.path.clone(), tensor: name.into() })
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
    HfFolder::of_file(path).map(Source::HuggingFace)
}

fn open_folder(dir: &Path) -> Result<Source, FormatError> {
    if let Some(folder) = HfFolder::find_in(dir)? {
        return Ok(Source::HuggingFace(folder));
    }
    let names = list(dir)?;
    let with = |suffix: &str| names.iter().filter(|n| n.ends_with(suffix)).map(String::as_str).collect::<Vec<_>>();
    // A split model is opened by its first part, which opens the others, so later parts do not count.
    let later_part = |n: &&str| n.contains("-of-") && !n.contains("-00001-of-");
    let ggufs: Vec<&str> = with(".gguf").into_iter().filter(|n| !later_part(n)).collect();
    let safetensors = with(".safetensors");
    let what = match (&ggufs[..], &safetensors[..]) {
        ([], [one]) => {
            return HfFolder::of_file(&dir.join(one)).map(Source::HuggingFace);
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
