//! Reading a tokenizer's file.

use std::path::Path;

use handmill_runtime::format::refuse_lfs_pointer;

use super::error::{Result, TextError};

/// The bytes of the file at `path`.
///
/// # Errors
/// A file that cannot be read, or a pointer of Git LFS in its place.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(path).map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    refuse_lfs_pointer(path, &bytes)?;
    Ok(bytes)
}
