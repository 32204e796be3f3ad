//! Block formats: the layout of numbers in a tensor's bytes.
//!
//! Every format has one file here with its declaration, its block struct, a drawing of its bits, the scalar decode (the
//! oracle that every SIMD and WGSL kernel is tested against) and, where the format has a simple one, the encode.
//! `for_every_format!` below lists the formats.

#![allow(non_camel_case_types)]

mod f8_e4m3;
mod floats;
mod format;
mod ggml;
mod iq4_nl;
mod iq4_xs;
pub mod k_scales;
pub mod mxfp4;
mod q2_k;
mod q3_k;
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
#[cfg(any(test, feature = "cases"))]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use f8_e4m3::F8E4M3;
pub use floats::{F16Le, bf16_to_f32, f16_to_f32, f32_to_bf16, f32_to_f16};
pub use format::{ActForm, Decoder, Encoder, Format, Quants, Scale};
pub use ggml::GgmlType;
pub use iq4_nl::{BlockIQ4_NL, IQ4_VALUES};
pub use iq4_xs::BlockIQ4_XS;
pub use mxfp4::{BlockMXFP4, BlockMXFP4Split};
pub use q2_k::BlockQ2_K;
pub use q3_k::BlockQ3_K;
pub use q4_0::BlockQ4_0;
pub use q4_1::BlockQ4_1;
pub use q4_k::BlockQ4_K;
pub use q5_0::BlockQ5_0;
pub use q5_1::BlockQ5_1;
pub use q5_k::BlockQ5_K;
pub use q6_k::BlockQ6_K;
pub use q8_0::BlockQ8_0;
pub use random::RandomBlocks;
pub use rows::{Block, Encode, RowError};
use rows::{extent, signed_extreme};

/// Calls `$then!` with `[$args]` and the list of all formats: the variant of [`DType`] and the format's module. The
/// module of that name declares the format here, and the one in the linear kernels has its loader, both under the
/// variant's name.
macro_rules! for_every_format {
    ($then:ident $($args:tt)*) => {
        $then! {
            [$($args)*]
            /// IEEE binary32.
            F32 in floats,
            /// IEEE binary16.
            F16 in floats,
            /// bfloat16: the upper half of a binary32.
            BF16 in floats,
            /// FP8 with 4 bits of exponent and 3 of mantissa; its scales lie in a tensor of their own.
            F8_E4M3 in f8_e4m3,
            /// 32 elements, f16 scale, 4-bit quants centred on 8.
            Q4_0 in q4_0,
            /// 32 elements, f16 scale and minimum, 4-bit quants.
            Q4_1 in q4_1,
            /// 32 elements, f16 scale, 5-bit quants centred on 16.
            Q5_0 in q5_0,
            /// 32 elements, f16 scale and minimum, 5-bit quants.
            Q5_1 in q5_1,
            /// 32 elements, f16 scale, 8-bit signed quants.
            Q8_0 in q8_0,
            /// 256 elements, sixteen 16-element sub-blocks with 4-bit scales and minima, 2-bit quants.
            Q2_K in q2_k,
            /// 256 elements, sixteen 16-element sub-blocks with 6-bit scales, 3-bit quants centred on 4.
            Q3_K in q3_k,
            /// 256 elements, eight 32-element sub-blocks with 6-bit scales and minima, 4-bit quants.
            Q4_K in q4_k,
            /// 256 elements, eight 32-element sub-blocks with 6-bit scales and minima, 5-bit quants.
            Q5_K in q5_k,
            /// 256 elements, sixteen 16-element sub-blocks with 8-bit scales, 6-bit quants centred on 32.
            Q6_K in q6_k,
            /// 32 elements, f16 scale, 4-bit indices of sixteen values.
            IQ4_NL in iq4_nl,
            /// 256 elements, eight 32-element sub-blocks with 6-bit scales, 4-bit indices of sixteen values.
            IQ4_XS in iq4_xs,
            /// 32 elements, a power of two as scale, 4-bit floats.
            MXFP4 in mxfp4,
            /// As [`DType::MXFP4`], but with the scales in a tensor of their own and elements in another order; see
            /// [`mxfp4`]. Decoded without its tensor, scales count as 1.
            MXFP4_SPLIT in mxfp4,
        }
    };
}
pub(crate) use for_every_format;

macro_rules! declare {
    ([] $($(#[$doc:meta])* $variant:ident in $module:ident,)*) => {
        /// Storage of a tensor's elements.
        ///
        /// Block formats pack [`DType::block_len`] consecutive elements of a row into [`DType::block_bytes`] bytes; plain
        /// types have a block of one element.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[non_exhaustive]
        pub enum DType {
            $($(#[$doc])* $variant,)*
        }

        /// The declarations, in the order of [`DType`].
        static FORMATS: [Format; DType::COUNT] = [$($module::$variant),*];

        impl DType {
            /// Number of formats: [`DType::ALL`] and those whose scales lie in a tensor of their own.
            pub const COUNT: usize = [$(DType::$variant),*].len();

            /// All formats that hold their scales, in declaration order.
            pub const ALL: [DType; WHOLE] = {
                let mut all = [DType::F32; WHOLE];
                let mut n = 0;
                $(if !$module::$variant.apart {
                    all[n] = DType::$variant;
                    n += 1;
                })*
                assert!(n == WHOLE);
                all
            };
        }

        /// Number of formats that hold their scales.
        const WHOLE: usize = DType::COUNT $(- $module::$variant.apart as usize)*;

        const _: () = { $(assert!($module::$variant.is_consistent(), stringify!($variant));)* };
    };
}
for_every_format!(declare);

impl DType {
    /// Its declaration.
    pub const fn format(self) -> &'static Format {
        &FORMATS[self as usize]
    }

    /// Elements in one block.
    pub const fn block_len(self) -> usize {
        self.format().block_len
    }

    /// Bytes of one block.
    pub const fn block_bytes(self) -> usize {
        self.format().block_bytes
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
        self.format().name
    }

    /// Whether elements are stored as plain floats (no quantisation blocks).
    pub const fn is_float(self) -> bool {
        self.format().quants.is_none()
    }
}

impl std::fmt::Display for DType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
