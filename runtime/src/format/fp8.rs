//! The scales of FP8 checkpoints: for every matrix `X.weight` a tensor `X.weight_scale_inv` (DeepSeek's, which multiplies
//! all the same) or `X.weight_scale`, with a factor for each block, for each row, or one for all.

use serde_json::Value;

use super::{Bytes, FormatError, ScaleType, Scales, Tensor, checkpoint::HfFolder};
use crate::quant::DType;

/// `tensor`, which is called `name`, with the scales that `folder` has for it.
///
/// # Errors
/// Where there are none, or of a shape that fits no way of scaling.
pub(super) fn with_scales(folder: &HfFolder, name: &str, tensor: Tensor) -> Result<Tensor, FormatError> {
    let bad = |what: String| FormatError::BadTensor { path: folder.dir().into(), tensor: name.into(), what };
    let mut found = None;
    for suffix in ["_scale_inv", "_scale"] {
        found = found.or(folder.weights().find(&format!("{name}{suffix}"))?);
    }
    let scales = found.ok_or_else(|| bad(format!("it is FP8 and has no scales `{name}_scale_inv`")))?;
    let (rows, len) = (tensor.rows(), tensor.row_len());
    let fits = |block: [usize; 2]| {
        block[0] > 0 && block[1] > 0 && scales.shape() == [rows.div_ceil(block[0]), len.div_ceil(block[1])]
    };
    let count: usize = scales.shape().iter().product();
    let block = match configured(folder) {
        Some(block) if tensor.shape().len() == 2 && fits(block) => block,
        _ if count == 1 => [rows.max(1), len.max(1)],
        _ if count == rows && scales.shape()[0] == rows => [1, len.max(1)],
        _ => return Err(bad(format!("its scales have shape {:?}, and it has {:?}", scales.shape(), tensor.shape()))),
    };
    let bytes = match scales.dtype() {
        DType::F32 => scales.shared_bytes().clone(),
        _ => {
            let mut values = vec![0.0; count];
            let decoded = scales.dtype().decode_row(scales.bytes(), &mut values);
            decoded.map_err(|e| bad(format!("its scales cannot be read: {e}")))?;
            Bytes::heap(values.iter().flat_map(|v| v.to_le_bytes()).collect())
        }
    };
    let scales = Scales { dtype: ScaleType::F32, block, first_row: 0, bytes };
    tensor.with_scales(scales).ok_or_else(|| bad("its scales do not fit".into()))
}

/// `quantization_config.weight_block_size`.
fn configured(folder: &HfFolder) -> Option<[usize; 2]> {
    let size = folder.config.get("quantization_config")?.get("weight_block_size")?.as_array()?;
    let numbers: Vec<usize> = size.iter().filter_map(Value::as_u64).filter_map(|n| n.try_into().ok()).collect();
    numbers.try_into().ok()
}
