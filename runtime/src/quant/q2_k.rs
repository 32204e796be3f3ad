//! Q2_K: 256 elements in 84 bytes, sixteen sub-blocks of 16, `x = (d · scale) · q − (dmin · minimum)`.
//!
//! ```text
//! byte  0                    16                  80     82        84
//!       scales: 16 bytes     qs: 2 × 32 bytes    d f16  dmin f16
//! byte s of scales:  mmmm ssss   s = scale, m = minimum of elements 16s ..
//! half h of the block (elements 128h ..) has the h-th 32 bytes of qs; in it, for k < 32:
//! byte k of qs:      ddccbbaa    a = element k, b = element k + 32, c = k + 64, d = k + 96
//! ```

use super::{ActForm, Block, DType, Encode, F16Le, Format, Quants, Scale, k_scales};

/// The declaration.
pub(super) const Q2_K: Format = Format {
    name: "q2_k",
    block_len: 256,
    block_bytes: 84,
    alignment: 4,
    quants: Some(Quants { bits: 2, signed: false, zero: 0, group: 16, minima: true }),
    acts: ActForm::Q8Chunks,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ2_K, 256>(),
    // Half a step, the search, and the rounding of scales and minima to 1/15 of the largest.
    encode: Format::encoder::<BlockQ2_K, 256>(1.5 / 3.0),
    smaller: Some(DType::IQ4_NL),
    scales: &[Scale::Half { at: 80, size: 0.01 }, Scale::Half { at: 82, size: 0.01 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ2_K {
    /// Scales (low) and minima (high), 4 bits each.
    pub scales: [u8; 16],
    /// Quants, four a byte.
    pub qs: [u8; 64],
    /// Unit of the scales.
    pub d: F16Le,
    /// Unit of the minima.
    pub dmin: F16Le,
}

impl Block<256> for BlockQ2_K {
    fn decode(&self) -> [f32; 256] {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        std::array::from_fn(|i| {
            let scale = self.scales[i / 16];
            let q = two_bits(&self.qs, i);
            (d * f32::from(scale & 15)) * f32::from(q) - dmin * f32::from(scale >> 4)
        })
    }
}

impl Encode<256> for BlockQ2_K {
    /// Fits every 16 elements by themselves, rounds their scales and minima to 4 bits of a common f16 each, then
    /// quantises with the rounded numbers.
    fn encode(x: &[f32; 256]) -> Self {
        let k_scales::Fitted::<16> { d, dmin, scales, minima, quants } = k_scales::fit(x, 15, 3);
        Self { scales: std::array::from_fn(|s| scales[s] | minima[s] << 4), qs: pack_two_bits(&quants), d, dmin }
    }
}

/// The low two bits of element i's quant, whose place Q2_K and Q3_K share.
pub(super) fn two_bits(qs: &[u8; 64], i: usize) -> u8 {
    qs[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3
}

/// The inverse of [`two_bits`], for the low two bits of quants.
pub(super) fn pack_two_bits(quants: &[u8; 256]) -> [u8; 64] {
    std::array::from_fn(|b| {
        let first = 128 * (b / 32) + b % 32;
        (0..4).fold(0, |bits, j| bits | (quants[first + 32 * j] & 3) << (2 * j))
    })
}
