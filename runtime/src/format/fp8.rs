//! The scales of FP8 checkpoints: every matrix `X.weight` has a tensor `X.weight_scale_inv` (DeepSeek's name for a
//! factor that multiplies all the same) or `X.weight_scale`, with a factor for each block, for each row, or for all.
//! DeepSeek V4 has powers of two in `X.scale`, and experts in FP4: two elements a byte, a scale for each 32.

use std::path::Path;

use super::{Bytes, FormatError, SafeTensors, ScaleType, Scales, Tensor, tensor::e8m0_to_f32};
use crate::quant::DType;

/// The tensor that is called `name`, if there is one; FP8 and FP4 tensors with their scales. `dir` is for messages;
/// `block` is the configuration's number of rows and columns that share a scale of FP8, where it gives one.
///
/// # Errors
/// FP8 without scales, or scales whose shape fits none of the three ways.
pub(super) fn find(
    dir: &Path,
    weights: &SafeTensors,
    name: &str,
    block: Option<[usize; 2]>,
) -> Result<Option<Tensor>, FormatError> {
    if let Some(tensor) = fp4(dir, weights, name)? {
        return Ok(Some(tensor));
    }
    match weights.find(name)? {
        Some(tensor) if tensor.dtype() == DType::F8_E4M3 => with_scales(dir, weights, name, tensor, block).map(Some),
        tensor => Ok(tensor),
    }
}

/// `tensor`, which is called `name`, with its scales.
fn with_scales(
    dir: &Path,
    weights: &SafeTensors,
    name: &str,
    tensor: Tensor,
    block: Option<[usize; 2]>,
) -> Result<Tensor, FormatError> {
    let bad = |what: String| FormatError::BadTensor { path: dir.into(), tensor: name.into(), what };
    let (shape, bytes) = match powers(weights, name)? {
        Some((shape, exponents)) => {
            (shape, Bytes::heap(exponents.iter().flat_map(|e| e8m0_to_f32(*e).to_le_bytes()).collect()))
        }
        None => {
            let mut found = None;
            for suffix in ["_scale_inv", "_scale"] {
                found = found.or(weights.find(&format!("{name}{suffix}"))?);
            }
            let scales = found.ok_or_else(|| bad(format!("it is FP8 and has no scales `{name}_scale_inv`")))?;
            let bytes = match scales.dtype() {
                DType::F32 => scales.shared_bytes().clone(),
                _ => {
                    let mut values = vec![0.0; scales.shape().iter().product()];
                    let decoded = scales.dtype().decode_row(scales.bytes(), &mut values);
                    decoded.map_err(|e| bad(format!("its scales cannot be read: {e}")))?;
                    Bytes::heap(values.iter().flat_map(|v| v.to_le_bytes()).collect())
                }
            };
            (scales.shape().to_vec(), bytes)
        }
    };
    let (rows, len) = (tensor.rows(), tensor.row_len());
    let fits =
        |block: [usize; 2]| block[0] > 0 && block[1] > 0 && shape == [rows.div_ceil(block[0]), len.div_ceil(block[1])];
    let count: usize = shape.iter().product();
    let block = match block {
        Some(block) if tensor.shape().len() == 2 && fits(block) => block,
        _ if count == 1 => [rows.max(1), len.max(1)],
        _ if count == rows && shape[0] == rows => [1, len.max(1)],
        _ => return Err(bad(format!("its scales have shape {shape:?}, and it has {:?}", tensor.shape()))),
    };
    let scales = Scales { dtype: ScaleType::F32, block, first_row: 0, bytes };
    tensor.with_scales(scales).ok_or_else(|| bad("its scales do not fit".into()))
}

/// The FP4 matrix that is called `name`, if there is one: bytes beside powers of two in `X.scale`.
///
/// # Errors
/// Scales of a shape that does not fit the bytes.
fn fp4(dir: &Path, weights: &SafeTensors, name: &str) -> Result<Option<Tensor>, FormatError> {
    let Some((shape, bytes)) = weights.bytes(name, "i8")? else { return Ok(None) };
    let Some((scale_shape, scales)) = powers(weights, name)? else { return Ok(None) };
    let bad = |what: String| FormatError::BadTensor { path: dir.into(), tensor: name.into(), what };
    let mismatch = || bad(format!("it has {shape:?} bytes of FP4, and its scales have shape {scale_shape:?}"));
    let [rows, half] = shape[..] else { return Err(mismatch()) };
    if scale_shape != [rows, half / 16] || !half.is_multiple_of(16) {
        return Err(mismatch());
    }
    let scales = Scales { dtype: ScaleType::E8M0, block: [1, 32], first_row: 0, bytes: scales };
    let tensor = Tensor::new(DType::MXFP4_SPLIT, vec![rows, 2 * half], bytes).and_then(|t| t.with_scales(scales));
    tensor.ok_or_else(mismatch).map(Some)
}

/// The powers of two `X.scale` of the matrix `X.weight`, as exponents.
fn powers(weights: &SafeTensors, name: &str) -> Result<Option<(Vec<usize>, Bytes)>, FormatError> {
    let Some(stem) = name.strip_suffix(".weight") else { return Ok(None) };
    weights.bytes(&format!("{stem}.scale"), "f8_e8m0")
}
