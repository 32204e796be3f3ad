//! The tensors of a checkpoint, by name, over the files that hold them. GGUF and safetensors share this table.

use super::{Bytes, FormatError, Mapping, Tensor, lfs};
use crate::quant::DType;
use std::{
    borrow::Cow,
    collections::HashMap,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Description of a tensor in its file.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TensorInfo<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Name of the element type in lower case, also where there are no kernels for it.
    pub dtype_name: &'a str,
    /// The element type; `None` where [`super::Checkpoint::tensor`] refuses it.
    pub dtype: Option<DType>,
    /// Shape, outermost first.
    pub shape: &'a [usize],
    /// Bytes in the file (0 where the type is unknown, and therefore its size).
    pub bytes: usize,
    /// The file that holds it.
    pub file: &'a Path,
    /// Offset of its bytes in that file.
    pub offset: usize,
}

/// One mapped file of a checkpoint.
#[derive(Debug)]
pub(super) struct MappedFile {
    pub path: PathBuf,
    pub map: Arc<Mapping>,
}

impl MappedFile {
    /// Maps `path`; the error says where it is no regular file, is empty or is a pointer file.
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let io = |source: std::io::Error| match source.kind() {
            std::io::ErrorKind::NotFound => FormatError::NotFound { path: path.into() },
            _ => FormatError::Io { path: path.into(), source },
        };
        let meta = std::fs::metadata(path).map_err(io)?;
        if meta.is_dir() {
            return Err(FormatError::Folder { path: path.into(), what: "a file was expected here".into() });
        }
        if !meta.is_file() {
            // Opening a pipe waits for its writer.
            return Err(io(std::io::Error::new(std::io::ErrorKind::InvalidInput, "it is not a regular file")));
        }
        if meta.len() == 0 {
            return Err(FormatError::Empty { path: path.into() });
        }
        let map = Mapping::open(path).map_err(io)?;
        lfs::refuse_pointer(path, &map)?;
        Ok(Self { map, path: path.into() })
    }
}

/// A tensor as its header describes it; bounds are checked.
#[derive(Debug)]
pub(super) struct Entry {
    pub name: String,
    /// The type, or the name of a type that has no kernels.
    pub dtype: Result<DType, Cow<'static, str>>,
    pub shape: Vec<usize>,
    pub file: usize,
    pub range: Range<usize>,
}

/// The tensors of one checkpoint, in file order, with an index by name.
#[derive(Debug, Default)]
pub(super) struct TensorTable {
    files: Vec<MappedFile>,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
}

impl TensorTable {
    /// Adds a file and its tensors, whose `file` is set here. A name that the table already has is an error.
    pub fn add(&mut self, file: MappedFile, entries: Vec<Entry>) -> Result<(), FormatError> {
        for mut entry in entries {
            entry.file = self.files.len();
            if self.index.insert(entry.name.clone(), self.entries.len()).is_some() {
                let what = "the name occurs twice".into();
                return Err(FormatError::BadTensor { path: file.path, tensor: entry.name, what });
            }
            self.entries.push(entry);
        }
        self.files.push(file);
        Ok(())
    }

    pub fn contains(&self, name: &str) -> bool {
        self.index.contains_key(name)
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn files(&self) -> &[MappedFile] {
        &self.files
    }

    pub fn file_size(&self) -> u64 {
        self.files.iter().map(|f| f.map.len() as u64).sum()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = TensorInfo<'_>> {
        self.entries.iter().map(|e| TensorInfo {
            name: &e.name,
            dtype_name: e.dtype.as_ref().map_or_else(|n| n.as_ref(), |d| d.name()),
            dtype: e.dtype.as_ref().ok().copied(),
            shape: &e.shape,
            bytes: e.range.len(),
            file: &self.files[e.file].path,
            offset: e.range.start,
        })
    }

    /// The tensor of that name; `None` where there is none, an error where its type has no kernels.
    pub fn find(&self, name: &str) -> Result<Option<Tensor>, FormatError> {
        let Some(entry) = self.index.get(name).map(|i| &self.entries[*i]) else { return Ok(None) };
        let file = &self.files[entry.file];
        let dtype = *entry.dtype.as_ref().map_err(|dtype| FormatError::UnsupportedType {
            path: file.path.clone(),
            tensor: name.into(),
            dtype: dtype.to_string(),
        })?;
        Bytes::mapped(&file.map, entry.range.clone())
            .and_then(|bytes| Tensor::new(dtype, entry.shape.clone(), bytes))
            .map(Some)
            .ok_or_else(|| FormatError::BadTensor {
                path: file.path.clone(),
                tensor: name.into(),
                what: format!("its bytes do not match shape {:?} of {dtype}", entry.shape),
            })
    }

    /// Shape and bytes of the tensor of that name, if its type is called `dtype`.
    pub fn bytes(&self, name: &str, dtype: &str) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
        let Some(entry) = self.index.get(name).map(|i| &self.entries[*i]) else { return Ok(None) };
        if entry.dtype.as_ref().map_or_else(|n| n.as_ref(), |d| d.name()) != dtype {
            return Ok(None);
        }
        let file = &self.files[entry.file];
        let bytes = Bytes::mapped(&file.map, entry.range.clone()).ok_or_else(|| FormatError::BadTensor {
            path: file.path.clone(),
            tensor: name.into(),
            what: "its bytes lie outside of the file".into(),
        })?;
        Ok(Some((entry.shape.clone(), bytes)))
    }
}
