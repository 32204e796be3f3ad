//! The numbers that GGUF files give to element types, also of those that have no kernels here: their names are for
//! messages, their sizes for checking a file whose other tensors can be used.

use super::DType;
use std::borrow::Cow;

/// Number, name, elements of a block, bytes of a block.
type Row = (u32, &'static str, usize, usize);

/// Types that this runtime lists and does not compute with. Numbers that are missing here and in
/// [`DType::to_ggml`] were withdrawn by their inventors or are newer than this table.
const OTHERS: [Row; 23] = [
    (9, "q8_1", 32, 40),
    (10, "q2_k", 256, 84),
    (11, "q3_k", 256, 110),
    (15, "q8_k", 256, 292),
    (16, "iq2_xxs", 256, 66),
    (17, "iq2_xs", 256, 74),
    (18, "iq3_xxs", 256, 98),
    (19, "iq1_s", 256, 50),
    (20, "iq4_nl", 32, 18),
    (21, "iq3_s", 256, 110),
    (22, "iq2_s", 256, 82),
    (23, "iq4_xs", 256, 136),
    (24, "i8", 1, 1),
    (25, "i16", 1, 2),
    (26, "i32", 1, 4),
    (27, "i64", 1, 8),
    (28, "f64", 1, 8),
    (29, "iq1_m", 256, 56),
    (34, "tq1_0", 256, 54),
    (35, "tq2_0", 256, 66),
    (40, "nvfp4", 64, 36),
    (41, "q1_0", 128, 18),
    (42, "q2_0", 64, 18),
];

/// An element type by its number in a GGUF file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GgmlType(u32);

impl GgmlType {
    /// The type of that number, known or not.
    pub const fn from_number(number: u32) -> Self {
        Self(number)
    }

    /// Its number.
    pub const fn number(self) -> u32 {
        self.0
    }

    /// The type as one that this runtime computes with.
    pub fn dtype(self) -> Option<DType> {
        DType::from_ggml(self.0)
    }

    /// Its name in lower case; of an unknown type, its number.
    pub fn name(self) -> Cow<'static, str> {
        match (self.dtype(), self.row()) {
            (Some(dtype), _) => dtype.name().into(),
            (None, Some(row)) => row.1.into(),
            (None, None) => format!("ggml type {}", self.0).into(),
        }
    }

    /// Elements and bytes of a block; `None` where the type is unknown.
    pub fn block(self) -> Option<(usize, usize)> {
        let known = self.dtype().map(|d| (d.block_len(), d.block_bytes()));
        known.or_else(|| self.row().map(|row| (row.2, row.3)))
    }

    fn row(self) -> Option<&'static Row> {
        OTHERS.iter().find(|row| row.0 == self.0)
    }
}

impl DType {
    /// The number that GGUF files give to this type; `None` for types that only other files have.
    pub const fn to_ggml(self) -> Option<u32> {
        Some(match self {
            DType::F8_E4M3 | DType::MXFP4_SPLIT => return None,
            DType::F32 => 0,
            DType::F16 => 1,
            DType::Q4_0 => 2,
            DType::Q4_1 => 3,
            DType::Q5_0 => 6,
            DType::Q5_1 => 7,
            DType::Q8_0 => 8,
            DType::Q4_K => 12,
            DType::Q5_K => 13,
            DType::Q6_K => 14,
            DType::BF16 => 30,
            DType::MXFP4 => 39,
        })
    }

    /// The type of that number in GGUF files; `None` for those of [`GgmlType`] that have no kernels here.
    pub fn from_ggml(number: u32) -> Option<DType> {
        DType::ALL.into_iter().find(|d| d.to_ggml() == Some(number))
    }
}
