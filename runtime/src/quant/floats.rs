//! Plain floats: binary32, binary16 and bfloat16, little-endian. A "block" is one element.
//!
//! ```text
//! f32   seeeeeee emmmmmmm mmmmmmmm mmmmmmmm
//! bf16  seeeeeee emmmmmmm                      the upper half of an f32: same range, 8 bits of precision
//! f16   seeeeemm mmmmmmmm                      up to 65504, 11 bits of precision
//! ```

use super::{ActForm, Block, Encode, Format};

/// The value of a binary16.
#[inline]
pub fn f16_to_f32(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let rest = u32::from(bits & 0x7fff);
    let magnitude = match rest {
        // Infinity, and NaN made quiet, keep their payload.
        0x7c00 => 0x7f80_0000,
        0x7c01.. => 0x7fc0_0000 | rest << 13,
        // The same bits read as f32 have an exponent that is too small by the difference of the biases, 127 - 15; the
        // product is exact and takes subnormals along.
        _ => (f32::from_bits(rest << 13) * f32::from_bits((127 + 112) << 23)).to_bits(),
    };
    f32::from_bits(sign | magnitude)
}

/// The nearest binary16, ties to even; from 65520 on it is infinite.
#[inline]
pub fn f32_to_f16(v: f32) -> u16 {
    let sign = (v.to_bits() >> 16) as u16 & 0x8000;
    let bits = v.abs().to_bits();
    let magnitude = if v.is_nan() {
        0x7e00 | (bits >> 13 & 0x3ff)
    } else if v.abs() >= 65520.0 {
        0x7c00
    } else if v.abs() < f32::from_bits((127 - 14) << 23) {
        // Subnormal: the sum's last place is that of a subnormal f16, 2^-24, and the addition rounds to it.
        (v.abs() + 0.5).to_bits() - 0.5f32.to_bits()
    } else {
        ((bits + 0xfff + (bits >> 13 & 1)) >> 13) - (112 << 10)
    };
    sign | magnitude as u16
}

/// The value of a bfloat16.
#[inline]
pub fn bf16_to_f32(bits: u16) -> f32 {
    f32::from_bits(u32::from(bits) << 16)
}

/// The nearest bfloat16, ties to even.
#[inline]
pub fn f32_to_bf16(v: f32) -> u16 {
    let bits = v.to_bits();
    if v.is_nan() {
        return (bits >> 16) as u16 | 0x40;
    }
    ((bits + 0x7fff + (bits >> 16 & 1)) >> 16) as u16
}

/// A binary16 as it lies in a file, at any address: the scale of most block formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct F16Le(pub [u8; 2]);

impl F16Le {
    /// Its value.
    #[inline]
    pub fn to_f32(self) -> f32 {
        f16_to_f32(u16::from_le_bytes(self.0))
    }

    /// The nearest f16; finite values beyond its range become its largest, so that a block's scale stays a number.
    pub fn saturating(v: f32) -> Self {
        let v = if v.is_finite() { v.clamp(-65504.0, 65504.0) } else { v };
        Self(f32_to_f16(v).to_le_bytes())
    }
}

/// The declaration.
pub(super) const F32: Format = Format {
    name: "f32",
    block_len: 1,
    block_bytes: 4,
    alignment: 4,
    quants: None,
    acts: ActForm::F32,
    beyond_f16: true,
    apart: false,
    table: None,
    decode: Format::decoder::<F32Element, 1>(),
    encode: Format::encoder::<F32Element, 1>(0.0),
    smaller: None,
    scales: &[],
};

/// A binary32 at any address.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct F32Element([u8; 4]);

impl Block<1> for F32Element {
    fn decode(&self) -> [f32; 1] {
        [f32::from_le_bytes(self.0)]
    }
}

impl Encode<1> for F32Element {
    fn encode([x]: &[f32; 1]) -> Self {
        Self(x.to_le_bytes())
    }
}

/// The declaration.
pub(super) const F16: Format = Format {
    name: "f16",
    block_len: 1,
    block_bytes: 2,
    alignment: 2,
    quants: None,
    acts: ActForm::F32,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<F16Element, 1>(),
    encode: Format::encoder::<F16Element, 1>(0.0005),
    smaller: None,
    scales: &[],
};

/// A binary16 element; beyond its range it is infinite, as in any conversion.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct F16Element(F16Le);

impl Block<1> for F16Element {
    fn decode(&self) -> [f32; 1] {
        [self.0.to_f32()]
    }
}

impl Encode<1> for F16Element {
    fn encode([x]: &[f32; 1]) -> Self {
        Self(F16Le(f32_to_f16(*x).to_le_bytes()))
    }
}

/// The declaration.
pub(super) const BF16: Format = Format {
    name: "bf16",
    block_len: 1,
    block_bytes: 2,
    alignment: 2,
    quants: None,
    acts: ActForm::F32,
    beyond_f16: true,
    apart: false,
    table: None,
    decode: Format::decoder::<Bf16Element, 1>(),
    encode: Format::encoder::<Bf16Element, 1>(0.004),
    smaller: None,
    scales: &[],
};

/// A bfloat16 element.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub(super) struct Bf16Element([u8; 2]);

impl Block<1> for Bf16Element {
    fn decode(&self) -> [f32; 1] {
        [bf16_to_f32(u16::from_le_bytes(self.0))]
    }
}

impl Encode<1> for Bf16Element {
    fn encode([x]: &[f32; 1]) -> Self {
        Self(f32_to_bf16(*x).to_le_bytes())
    }
}
