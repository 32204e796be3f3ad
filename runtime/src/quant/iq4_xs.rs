//! IQ4_XS: 256 elements in 136 bytes, eight sub-blocks of 32, `x = (d · scale) · values[q]`, with the values of IQ4_NL.
//!
//! ```text
//! byte  0      2         4          8                    136
//!       d f16  high u16  low: 4     qs: 8 × 16 bytes
//! bits 2s, 2s + 1 of high:              upper bits of the scale of sub-block s, which is centred on 32
//! byte k of low:            hhhh llll   lower bits of the scales of sub-blocks 2k (l) and 2k + 1 (h)
//! byte k of the s-th 16 of qs:
//!                           hhhh llll   l = index of element 32s + k, h = index of element 32s + k + 16
//! ```

use super::{
    ActForm, Block, DType, Encode, F16Le, Format, Quants, Scale,
    iq4_nl::{IQ4_WORDS, fit, indices, values},
    signed_extreme,
};

/// The declaration.
pub(super) const IQ4_XS: Format = Format {
    name: "iq4_xs",
    block_len: 256,
    block_bytes: 136,
    alignment: 4,
    quants: Some(Quants { bits: 8, signed: true, zero: 0, group: 32, minima: false }),
    acts: ActForm::Q8Chunks,
    beyond_f16: false,
    apart: false,
    table: Some(("IQ4_VALUES", &IQ4_WORDS)),
    decode: Format::decoder::<BlockIQ4_XS, 256>(),
    // As in IQ4_NL, with scales rounded to 1/32 of the largest.
    encode: Format::encoder::<BlockIQ4_XS, 256>(0.15),
    smaller: Some(DType::IQ4_NL),
    scales: &[Scale::Half { at: 0, size: 0.0001 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_XS {
    /// Unit of the scales.
    pub d: F16Le,
    /// Upper two bits of the scales, a little-endian u16.
    pub scales_high: [u8; 2],
    /// Lower four bits of the scales, two a byte.
    pub scales_low: [u8; 4],
    /// Indices, two a byte, 16 bytes a sub-block.
    pub qs: [[u8; 16]; 8],
}

impl Block<256> for BlockIQ4_XS {
    fn decode(&self) -> [f32; 256] {
        let d = self.d.to_f32();
        let high = u16::from_le_bytes(self.scales_high);
        let subs: [[f32; 32]; 8] = std::array::from_fn(|s| {
            let low = self.scales_low[s / 2] >> (4 * (s % 2)) & 15;
            let scale = low | ((high >> (2 * s)) as u8 & 3) << 4;
            let scale = d * (f32::from(scale) - 32.0);
            values(&self.qs[s]).map(|v| scale * v)
        });
        bytemuck::cast(subs)
    }
}

impl Encode<256> for BlockIQ4_XS {
    /// Fits every 32 elements by themselves, rounds their scales to 6 bits of a common f16, then quantises with the
    /// rounded scales.
    fn encode(x: &[f32; 256]) -> Self {
        let x: [[f32; 32]; 8] = bytemuck::cast(*x);
        let fits = x.map(|x| fit(&x));
        let d = F16Le::saturating(signed_extreme(&fits) / -32.0);
        let unit = d.to_f32();
        let scales = fits.map(|f| if unit == 0.0 { 0 } else { (f / unit).round().clamp(-32.0, 31.0) as i8 });
        let centred = scales.map(|s| (s + 32) as u8);
        let high = (0..8).fold(0, |bits, s| bits | u16::from(centred[s] >> 4) << (2 * s));
        Self {
            d,
            scales_high: high.to_le_bytes(),
            scales_low: std::array::from_fn(|k| centred[2 * k] & 15 | centred[2 * k + 1] << 4),
            qs: std::array::from_fn(|s| indices(&x[s], unit * f32::from(scales[s]))),
        }
    }
}
