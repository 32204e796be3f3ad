//! `handmill inspect --dequantize`: one tensor as float32, in a NumPy array.

use crate::{error::CliError, npy};
use handmill_runtime::format::Checkpoint;
use serde_json::json;
use std::path::Path;

/// Writes the tensor `name` to `path`, decoded, in its shape.
pub fn run(json: bool, checkpoint: &Checkpoint, name: &str, path: &Path) -> Result<(), CliError> {
    let failed = |e| CliError::because("could not read the tensor", e);
    let tensor = checkpoint.find(name).map_err(failed)?.ok_or_else(|| failed(checkpoint.missing(name)))?;
    let mut array = npy::Array::create(path, tensor.shape())?;
    let mut row = vec![0.0; tensor.row_len()];
    for i in 0..tensor.rows() {
        tensor.decode_row(i, &mut row);
        array.write(&row)?;
    }
    let dtype = tensor.dtype().name();
    array.finish(json, &format!(", from {dtype}"), json!({ "type": dtype }))
}
