//! Rows of blocks: [`DType::decode_row`] and [`DType::encode_row`] for every format, and what the formats share.

use super::{
    BlockMXFP4, BlockMXFP4Split, BlockQ4_0, BlockQ4_1, BlockQ4_K, BlockQ5_0, BlockQ5_1, BlockQ5_K, BlockQ6_K,
    BlockQ8_0, DType, F8E4M3,
    floats::{Bf16Element, F16Element, F32Element},
};

/// A block format of `N` elements. Blocks are plain bytes without alignment, so that any place in a map can be viewed.
pub trait Block<const N: usize>: bytemuck::Pod {
    /// The elements in f32: the scalar oracle, written to be right and not to be fast.
    fn decode(&self) -> [f32; N];
    /// The block nearest to `x`, by the format's plain rounding.
    fn encode(x: &[f32; N]) -> Self;
}

/// Bytes and elements that do not make the same number of whole blocks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{elements} elements of {dtype} are not {bytes} bytes; a block is {} elements in {} bytes",
        dtype.block_len(), dtype.block_bytes())]
pub struct RowError {
    /// The format.
    pub dtype: DType,
    /// Elements given or asked for.
    pub elements: usize,
    /// Bytes given.
    pub bytes: usize,
}

impl DType {
    /// Decodes `bytes`, whole blocks of this format, into `out`, one value an element.
    pub fn decode_row(self, bytes: &[u8], out: &mut [f32]) -> Result<(), RowError> {
        match self {
            DType::F32 => decode::<F32Element, 1>(bytes, out),
            DType::F16 => decode::<F16Element, 1>(bytes, out),
            DType::BF16 => decode::<Bf16Element, 1>(bytes, out),
            DType::F8_E4M3 => decode::<F8E4M3, 1>(bytes, out),
            DType::Q4_0 => decode::<BlockQ4_0, 32>(bytes, out),
            DType::Q4_1 => decode::<BlockQ4_1, 32>(bytes, out),
            DType::Q5_0 => decode::<BlockQ5_0, 32>(bytes, out),
            DType::Q5_1 => decode::<BlockQ5_1, 32>(bytes, out),
            DType::Q8_0 => decode::<BlockQ8_0, 32>(bytes, out),
            DType::Q4_K => decode::<BlockQ4_K, 256>(bytes, out),
            DType::Q5_K => decode::<BlockQ5_K, 256>(bytes, out),
            DType::Q6_K => decode::<BlockQ6_K, 256>(bytes, out),
            DType::MXFP4 => decode::<BlockMXFP4, 32>(bytes, out),
            DType::MXFP4_SPLIT => decode::<BlockMXFP4Split, 32>(bytes, out),
        }
        .ok_or(RowError { dtype: self, elements: out.len(), bytes: bytes.len() })
    }

    /// Appends `x` to `out` in this format; on error `out` is left as it was.
    pub fn encode_row(self, x: &[f32], out: &mut Vec<u8>) -> Result<(), RowError> {
        match self {
            DType::F32 => encode::<F32Element, 1>(x, out),
            DType::F16 => encode::<F16Element, 1>(x, out),
            DType::BF16 => encode::<Bf16Element, 1>(x, out),
            DType::F8_E4M3 => encode::<F8E4M3, 1>(x, out),
            DType::Q4_0 => encode::<BlockQ4_0, 32>(x, out),
            DType::Q4_1 => encode::<BlockQ4_1, 32>(x, out),
            DType::Q5_0 => encode::<BlockQ5_0, 32>(x, out),
            DType::Q5_1 => encode::<BlockQ5_1, 32>(x, out),
            DType::Q8_0 => encode::<BlockQ8_0, 32>(x, out),
            DType::Q4_K => encode::<BlockQ4_K, 256>(x, out),
            DType::Q5_K => encode::<BlockQ5_K, 256>(x, out),
            DType::Q6_K => encode::<BlockQ6_K, 256>(x, out),
            DType::MXFP4 => encode::<BlockMXFP4, 32>(x, out),
            DType::MXFP4_SPLIT => encode::<BlockMXFP4Split, 32>(x, out),
        }
        .ok_or(RowError { dtype: self, elements: x.len(), bytes: 0 })
    }
}

fn decode<B: Block<N>, const N: usize>(bytes: &[u8], out: &mut [f32]) -> Option<()> {
    let blocks: &[B] = bytemuck::try_cast_slice(bytes).ok()?;
    let (out, rest) = out.as_chunks_mut::<N>();
    if blocks.len() != out.len() || !rest.is_empty() {
        return None;
    }
    for (block, out) in blocks.iter().zip(out) {
        *out = block.decode();
    }
    Some(())
}

fn encode<B: Block<N>, const N: usize>(x: &[f32], out: &mut Vec<u8>) -> Option<()> {
    let (x, rest) = x.as_chunks::<N>();
    if !rest.is_empty() {
        return None;
    }
    for x in x {
        out.extend_from_slice(bytemuck::bytes_of(&B::encode(x)));
    }
    Some(())
}

/// The element of largest magnitude, with its sign; the first of equals, 0 of none.
pub(super) fn signed_extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, v| if v.abs() > best.abs() { *v } else { best })
}

/// Smallest and largest element.
pub(super) fn extent(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}
