//! Block formats: how numbers lie in a tensor's bytes.
//!
//! Every format has one file here with its block struct, a drawing of its bits, the scalar decode (the oracle that
//! every SIMD and WGSL kernel is tested against) and, where there is a plain one, the encode.

#![allow(non_camel_case_types)]

mod f8_e4m3;
mod floats;
mod ggml;
pub mod k_scales;
pub mod mxfp4;
mod q4_0;
mod q4_1;
mod q4_k;
mod q5_0;
mod q5_1;
mod q5_k;
mod q6_k;
mod q8_0;
mod random;
mod rows;
#[cfg(test)]
mod tests;

pub use f8_e4m3::F8E4M3;
pub use floats::{F16Le, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use ggml::GgmlType;
pub use mxfp4::{BlockMXFP4, BlockMXFP4Split};
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4_K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5_K;
pub use q6_k::BlockQ6_K;
pub use q8_0::BlockQ8_0;
pub use random::RandomBlocks;
pub use rows::{Block, RowError};
use rows::{extent, signed_extreme};

/// How the elements of a tensor are stored.
///
/// Block formats pack [`DType::block_len`] consecutive elements of a row into [`DType::block_bytes`] bytes; plain
/// types have a block of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DType {
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    BF16,
    /// FP8 with 4 bits of exponent and 3 of mantissa; with scales that the file keeps apart.
    F8_E4M3,
    /// 32 elements, f16 scale, 4-bit quants centred on 8.
    Q4_0,
    /// 32 elements, f16 scale and minimum, 4-bit quants.
    Q4_1,
    /// 32 elements, f16 scale, 5-bit quants centred on 16.
    Q5_0,
    /// 32 elements, f16 scale and minimum, 5-bit quants.
    Q5_1,
    /// 32 elements, f16 scale, 8-bit signed quants.
    Q8_0,
    /// 256 elements, eight 32-element sub-blocks with 6-bit scales and minima, 4-bit quants.
    Q4_K,
    /// 256 elements, eight 32-element sub-blocks with 6-bit scales and minima, 5-bit quants.
    Q5_K,
    /// 256 elements, sixteen 16-element sub-blocks with 8-bit scales, 6-bit quants centred on 32.
    Q6_K,
    /// 32 elements, a power of two as scale, 4-bit floats.
    MXFP4,
    /// As [`DType::MXFP4`], but with the scales in a tensor of their own and elements in another order; see
    /// [`mxfp4`]. Decoded without its tensor, scales count as 1.
    MXFP4_SPLIT,
}

impl DType {
    /// All formats that hold their elements whole, in declaration order.
    pub const ALL: [DType; 13] = [
        DType::F32,
        DType::F16,
        DType::BF16,
        DType::F8_E4M3,
        DType::Q4_0,
        DType::Q4_1,
        DType::Q5_0,
        DType::Q5_1,
        DType::Q8_0,
        DType::Q4_K,
        DType::Q5_K,
        DType::Q6_K,
        DType::MXFP4,
    ];

    /// Formats in all: [`DType::ALL`] and those that do not hold their scales themselves.
    pub const COUNT: usize = Self::ALL.len() + 1;

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        match self {
            DType::F32 | DType::F16 | DType::BF16 | DType::F8_E4M3 => 1,
            DType::Q4_0 | DType::Q4_1 | DType::Q5_0 | DType::Q5_1 | DType::Q8_0 => 32,
            DType::MXFP4 | DType::MXFP4_SPLIT => 32,
            DType::Q4_K | DType::Q5_K | DType::Q6_K => 256,
        }
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        match self {
            DType::F32 => 4,
            DType::F16 | DType::BF16 => 2,
            DType::F8_E4M3 => 1,
            DType::Q4_0 => 18,
            DType::Q4_1 => 20,
            DType::Q5_0 => 22,
            DType::Q5_1 => 24,
            DType::Q8_0 => 34,
            DType::Q4_K => 144,
            DType::Q5_K => 176,
            DType::Q6_K => 210,
            DType::MXFP4 => 17,
            DType::MXFP4_SPLIT => 16,
        }
    }

    /// Bytes of a row of `len` elements; `None` where blocks do not divide the row or the size overflows.
    pub const fn row_bytes(self, len: usize) -> Option<usize> {
        if !len.is_multiple_of(self.block_len()) {
            return None;
        }
        (len / self.block_len()).checked_mul(self.block_bytes())
    }

    /// The name that files and people use (`q4_k`, `f16`, …), in lower case.
    pub const fn name(self) -> &'static str {
        match self {
            DType::F32 => "f32",
            DType::F16 => "f16",
            DType::BF16 => "bf16",
            DType::F8_E4M3 => "f8_e4m3",
            DType::Q4_0 => "q4_0",
            DType::Q4_1 => "q4_1",
            DType::Q5_0 => "q5_0",
            DType::Q5_1 => "q5_1",
            DType::Q8_0 => "q8_0",
            DType::Q4_K => "q4_k",
            DType::Q5_K => "q5_k",
            DType::Q6_K => "q6_k",
            DType::MXFP4 => "mxfp4",
            DType::MXFP4_SPLIT => "mxfp4_split",
        }
    }

    /// Whether elements are stored as plain floats (no quantisation blocks).
    pub const fn is_float(self) -> bool {
        matches!(self, DType::F32 | DType::F16 | DType::BF16 | DType::F8_E4M3)
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
