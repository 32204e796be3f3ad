//! Rows of blocks: [`DType::decode_row`] and [`DType::encode_row`] for every format, and the traits of blocks.

use super::DType;

/// A block format of `N` elements. Blocks are plain bytes without alignment, so that bytes of a map can be viewed at
/// any place.
pub trait Block<const N: usize>: bytemuck::Pod {
    /// The elements in f32: the scalar oracle, written for correctness and not for speed.
    fn decode(&self) -> [f32; N];
}

/// A block format that can be written.
pub trait Encode<const N: usize>: Block<N> {
    /// The block nearest to `x`, by the format's plain rounding.
    fn encode(x: &[f32; N]) -> Self;
}

/// Reasons why a row cannot be decoded or encoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RowError {
    /// Bytes and elements do not make the same number of whole blocks.
    #[error("{elements} elements of {dtype} are not {bytes} bytes; a block is {} elements in {} bytes",
            dtype.block_len(), dtype.block_bytes())]
    Length {
        /// The format.
        dtype: DType,
        /// Elements given or asked for.
        elements: usize,
        /// Bytes given; 0 when encoding.
        bytes: usize,
    },
    /// This runtime can read the format but not write it.
    #[error("{0} can only be read; write another format, {alternatives}", alternatives = DType::writable())]
    ReadOnly(DType),
}

impl DType {
    /// Decodes `bytes`, whole blocks of this format, into `out`, one value an element.
    ///
    /// # Errors
    /// Lengths that do not fit.
    pub fn decode_row(self, bytes: &[u8], out: &mut [f32]) -> Result<(), RowError> {
        let error = RowError::Length { dtype: self, elements: out.len(), bytes: bytes.len() };
        (self.format().decode)(bytes, out).ok_or(error)
    }

    /// Appends `x` to `out` in this format; on error `out` is unchanged.
    ///
    /// # Errors
    /// A format that cannot be written, or elements that do not make whole blocks.
    pub fn encode_row(self, x: &[f32], out: &mut Vec<u8>) -> Result<(), RowError> {
        let encoder = self.format().encode.as_ref().ok_or(RowError::ReadOnly(self))?;
        (encoder.row)(x, out).ok_or(RowError::Length { dtype: self, elements: x.len(), bytes: 0 })
    }

    /// The names of the formats that can be written.
    fn writable() -> String {
        let names = DType::ALL.into_iter().filter(|d| d.format().encode.is_some()).map(DType::name);
        names.collect::<Vec<_>>().join(", ")
    }
}

/// The element of largest magnitude, with its sign; the first of equals, 0 for an empty slice.
pub(super) fn signed_extreme(x: &[f32]) -> f32 {
    x.iter().fold(0.0, |best: f32, v| if v.abs() > best.abs() { *v } else { best })
}

/// Smallest and largest element.
pub(super) fn extent(x: &[f32]) -> (f32, f32) {
    x.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)))
}
