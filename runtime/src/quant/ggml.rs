//! The numbers that GGUF files give to element types, including types that have no kernels here: messages need their
//! names, and checks of a file whose other tensors can be used need their sizes.

use super::DType;
use std::borrow::Cow;

/// Number, name, elements of a block, bytes of a block.
type Row = (u32, &'static str, usize, usize);

/// All types of GGUF files. Missing numbers were withdrawn or are newer than this table. The name of a row finds our
/// format of it.
const TYPES: [Row; 35] = [
    (0, "f32", 1, 4),
    (1, "f16", 1, 2),
    (2, "q4_0", 32, 18),
    (3, "q4_1", 32, 20),
    (6, "q5_0", 32, 22),
    (7, "q5_1", 32, 24),
    (8, "q8_0", 32, 34),
    (9, "q8_1", 32, 40),
    (10, "q2_k", 256, 84),
    (11, "q3_k", 256, 110),
    (12, "q4_k", 256, 144),
    (13, "q5_k", 256, 176),
    (14, "q6_k", 256, 210),
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
    (30, "bf16", 1, 2),
    (34, "tq1_0", 256, 54),
    (35, "tq2_0", 256, 66),
    (39, "mxfp4", 32, 17),
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

    /// The type of this runtime, where it has one.
    pub fn dtype(self) -> Option<DType> {
        DType::from_ggml(self.0)
    }

    /// Its name in lower case; the number of an unknown type.
    pub fn name(self) -> Cow<'static, str> {
        self.row().map_or_else(|| format!("ggml type {}", self.0).into(), |row| row.1.into())
    }

    /// Elements and bytes of a block; `None` where the type is unknown.
    pub fn block(self) -> Option<(usize, usize)> {
        self.row().map(|row| (row.2, row.3))
    }

    fn row(self) -> Option<&'static Row> {
        TYPES.iter().find(|row| row.0 == self.0)
    }
}

impl DType {
    /// The number that GGUF files give to this type; `None` for types of other files.
    pub fn to_ggml(self) -> Option<u32> {
        TYPES.iter().find(|row| row.1 == self.name()).map(|row| row.0)
    }

    /// The type of that number in GGUF files; `None` where it has no kernels here.
    pub fn from_ggml(number: u32) -> Option<DType> {
        let name = GgmlType(number).row()?.1;
        DType::ALL.into_iter().find(|d| d.name() == name)
    }
}
