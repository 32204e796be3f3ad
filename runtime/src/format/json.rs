//! Reading the JSON files of a checkpoint folder.

use super::{FormatError, lfs};
use serde_json::{Map, Value};
use std::path::Path;

/// Larger files are taken for a mistake; the configurations and indexes of the largest models have a few megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads `path` as a JSON object; `None` where there is no such file.
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, FormatError> {
    let io = |source| FormatError::Io { path: path.into(), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
        Ok(meta) if meta.len() > MAX_BYTES => {
            return Err(problem(path, format!("{} bytes of JSON; up to {MAX_BYTES} are read", meta.len())));
        }
        Ok(_) => {}
    }
    let text = std::fs::read(path).map_err(io)?;
    lfs::refuse_pointer(path, &text)?;
    parse_object(path, &text).map(Some)
}

/// Parses `text`, a part of the file at `path`, as a JSON object.
pub fn parse_object(path: &Path, text: &[u8]) -> Result<Map<String, Value>, FormatError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(problem(path, "a JSON object was expected".into())),
        Err(e) => Err(problem(path, format!("not valid JSON: {e}; fetch the file again"))),
    }
}

/// The error for a JSON file with something wrong in it.
pub fn problem(path: &Path, what: String) -> FormatError {
    FormatError::Json { path: path.into(), what }
}
