//! Errors of model files; each message says what the file's owner can do.

use std::path::PathBuf;

/// Errors of opening a model file or of using something in it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FormatError {
    /// No file is at the path.
    #[error("{}: no such file or folder; check the path", path.display())]
    NotFound {
        /// The path asked for.
        path: PathBuf,
    },
    /// The system refused to open, map or list the path.
    #[error("{}: cannot be read: {source}", path.display())]
    Io {
        /// The path asked for.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// The file has no bytes at all.
    #[error("{}: the file is empty; an interrupted download? Fetch it again", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is a pointer file, which a clone without Git LFS has in place of the file.
    #[error("{}: only a pointer of Git LFS, not the file itself{}; run `git lfs pull` in the repository or download the \
             file again", path.display(), size.map_or(String::new(), |n| format!(" of {n} bytes")))]
    LfsPointer {
        /// The file.
        path: PathBuf,
        /// Bytes of the file that it stands for.
        size: Option<u64>,
    },
    /// The file is neither GGUF nor safetensors.
    #[error("{}: not a model file: it starts with {start}, where GGUF starts with \"GGUF\" and safetensors with the \
             length of a JSON header", path.display())]
    NotAModel {
        /// The file.
        path: PathBuf,
        /// Its first bytes, printable.
        start: String,
    },
    /// A folder that does not hold a checkpoint.
    #[error("{}: this folder is not a checkpoint: {what}", path.display())]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The missing files, and the files that would do.
        what: String,
    },
    /// A GGUF file for big-endian machines.
    #[error("{}: a big-endian GGUF file, which is not supported; convert the model to little-endian GGUF", path.display())]
    BigEndian {
        /// The file.
        path: PathBuf,
    },
    /// A GGUF version that is not read.
    #[error("{}: GGUF version {version}; versions 2 and 3 are supported, convert the model again", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The version in its header.
        version: u32,
    },
    /// The file ends before its contents do.
    #[error("{}: the file ends too early: {what} needs at least {expected} bytes and the file has {actual}; it is \
             truncated or damaged, fetch it again", path.display())]
    Truncated {
        /// The file.
        path: PathBuf,
        /// The part being read.
        what: String,
        /// The file size that would hold it.
        expected: u64,
        /// The size of the file.
        actual: u64,
    },
    /// A header that contradicts itself or the format.
    #[error("{}: damaged at byte {offset}: {what}; fetch or convert the file again", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
        /// The contradiction.
        what: String,
    },
    /// A tensor whose description cannot be true.
    #[error("{}: tensor `{tensor}`: {what}; fetch or convert the file again", path.display())]
    BadTensor {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The fault.
        what: String,
    },
    /// A tensor whose element type has no kernels.
    #[error("{}: tensor `{tensor}` is stored as {dtype}, which is not supported yet; supported are {}",
            path.display(), supported())]
    UnsupportedType {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type's name in its format.
        dtype: String,
    },
    /// A tensor that the model needs and the file lacks.
    #[error("{}: there is no tensor `{tensor}` in this file; is it a whole model of the family it names?", path.display())]
    MissingTensor {
        /// The checkpoint.
        path: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A metadata key that the model needs and the file lacks.
    #[error("{}: the metadata has no `{key}`; convert the model again with a current converter", path.display())]
    MissingKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A metadata key of another type than it should have.
    #[error("{}: metadata `{key}` should be {expected} and is {found}; convert the model again", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The type that the model needs.
        expected: &'static str,
        /// The value in the file.
        found: String,
    },
    /// A part of a split checkpoint is missing.
    #[error("{}: the model is split and its part {} is missing; put all parts into one folder", path.display(), shard.display())]
    MissingShard {
        /// The file that names the part.
        path: PathBuf,
        /// The part.
        shard: PathBuf,
    },
    /// The files of a split checkpoint contradict each other.
    #[error("{}: the parts of this split model do not fit together: {what}", path.display())]
    Split {
        /// The part or index at fault.
        path: PathBuf,
        /// The contradiction.
        what: String,
    },
    /// A JSON file that is not JSON, or not of the shape it should have.
    #[error("{}: {what}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The fault, with line and column where known.
        what: String,
    },
}

fn supported() -> String {
    crate::quant::DType::ALL.map(|t| t.name()).join(", ")
}
