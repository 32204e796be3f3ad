//! FP8 E4M3 as the Open Compute Project defines it (2023): the format of DeepSeek V3's checkpoints, whose scales lie
//! apart.
//!
//! ```text
//! seeeemmm      (-1)^s · 2^(e - 7) · (1 + m/8); e = 0: (-1)^s · 2^-6 · m/8; s1111111 is NaN, and there is no infinity
//! ```
//!
//! The same bits in the right places of a binary16 are a number 2^8 times too small, subnormals included. Vectors
//! decode it that way.

use super::{ActForm, Block, Encode, Format, f16_to_f32};

/// The declaration.
pub(super) const F8_E4M3: Format = Format {
    name: "f8_e4m3",
    block_len: 1,
    block_bytes: 1,
    alignment: 1,
    quants: None,
    acts: ActForm::F32,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<F8E4M3, 1>(),
    encode: Format::encoder::<F8E4M3, 1>(1.0 / 16.0),
    smaller: None,
    scales: &[],
};

/// One element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(transparent)]
pub struct F8E4M3(pub u8);

/// The largest finite number.
const LARGEST: f32 = 448.0;

impl F8E4M3 {
    /// The binary16 with the same digits: 2^-8 times the value, or NaN.
    #[inline(always)]
    pub const fn to_f16_bits(self) -> u16 {
        // The sign is spread to the left, and the mask keeps it once.
        let bits = ((self.0 as i8 as i16) << 7) as u16 & 0xbf80;
        if bits & 0x3f80 == 0x3f80 { bits | 0x7e00 } else { bits }
    }

    /// Its value.
    pub fn to_f32(self) -> f32 {
        f16_to_f32(self.to_f16_bits()) * 256.0
    }

    /// The nearest, ties to even; larger numbers become the largest.
    pub fn from_f32(x: f32) -> Self {
        let sign = u8::from(x.is_sign_negative()) << 7;
        if x.is_nan() {
            return Self(sign | 0x7f);
        }
        let v = x.abs().min(LARGEST);
        // The last place of numbers of this size: 2^-9 for the smallest.
        let exponent = ((v.to_bits() >> 23) as i32 - 127).max(-6);
        let steps = (v * f32::from_bits(((127 + 3 - exponent) as u32) << 23)).round_ties_even() as i32;
        // From eight steps on the exponent is in the number of steps; sixteen steps are eight of the next exponent.
        let magnitude = if exponent == -6 && steps < 8 { steps } else { (exponent + 6) * 8 + steps };
        Self(sign | magnitude.min(0x7e) as u8)
    }
}

impl Block<1> for F8E4M3 {
    fn decode(&self) -> [f32; 1] {
        [self.to_f32()]
    }
}

impl Encode<1> for F8E4M3 {
    fn encode([x]: &[f32; 1]) -> Self {
        Self::from_f32(*x)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_decodes_by_its_definition_and_encodes_back() {
        for bits in 0..=255u8 {
            let (e, m) = (i32::from(bits >> 3 & 15), f32::from(bits & 7));
            let sign = if bits > 127 { -1.0 } else { 1.0 };
            let expected = match (e, bits & 0x7f) {
                (_, 0x7f) => f32::NAN,
                (0, _) => sign * 2f32.powi(-6) * m / 8.0,
                _ => sign * 2f32.powi(e - 7) * (1.0 + m / 8.0),
            };
            let got = F8E4M3(bits).to_f32();
            assert!(got == expected || got.is_nan() && expected.is_nan(), "{bits:#x}: {got} {expected}");
            assert_eq!(F8E4M3::from_f32(got).0, bits, "{bits:#x}");
        }
    }

    #[test]
    fn numbers_between_go_to_the_nearest() {
        for bits in 0..0x7eu8 {
            let (low, high) = (F8E4M3(bits).to_f32(), F8E4M3(bits + 1).to_f32());
            assert_eq!(F8E4M3::from_f32(low * 0.75 + high * 0.25).0, bits);
            assert_eq!(F8E4M3::from_f32(low * 0.25 + high * 0.75).0, bits + 1);
            assert_eq!(F8E4M3::from_f32((low + high) / 2.0).0, bits + (bits & 1));
        }
        assert_eq!(F8E4M3::from_f32(1e9).to_f32(), LARGEST);
    }
}
