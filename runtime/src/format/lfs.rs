//! Pointer files of Git LFS, which a clone without LFS has in place of large files.
//!
//! ```text
//! version https://git-lfs.github.com/spec/v1
//! oid sha256:4d7a…
//! size 12345
//! ```

use super::FormatError;
use std::path::Path;

/// The specification limits pointers to fewer bytes.
const MAX_BYTES: usize = 1024;
/// The first line up to the version; the second address dates from before 2015.
const STARTS: [&str; 2] = ["version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/"];

/// Passes bytes of the file at `path` unless they are a pointer file.
///
/// # Errors
/// [`FormatError::LfsPointer`], with the size of the file that the pointer stands for.
pub fn refuse_pointer(path: &Path, bytes: &[u8]) -> Result<(), FormatError> {
    if bytes.len() >= MAX_BYTES || !STARTS.iter().any(|start| bytes.starts_with(start.as_bytes())) {
        return Ok(());
    }
    let text = String::from_utf8_lossy(bytes);
    let size = text.lines().find_map(|line| line.strip_prefix("size ")?.trim().parse().ok());
    Err(FormatError::LfsPointer { path: path.into(), size })
}
