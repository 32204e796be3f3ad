//! Q3_K: 256 elements in 110 bytes, sixteen sub-blocks of 16, `x = (d · scale) · (q − 4)`.
//!
//! ```text
//! byte  0                  32                  96                   108    110
//!       high: 32 bytes     qs: 2 × 32 bytes    scales: 12 bytes     d f16
//! half h of the block (elements 128h ..) has the h-th 32 bytes of qs; in it, for k < 32:
//! byte k of qs:               ddccbbaa    low bits of a = element k, b = element k + 32, c = k + 64, d = k + 96
//! bit  s of byte k of high:               third bit of element 32s + k
//! scales are centred on 32; that of sub-block s (elements 16s ..) has its
//! low four bits in byte s % 8 of scales, those of sub-blocks 8 .. in the upper half, and its
//! upper two bits in byte 8 + s % 4, from bit 2 · (s / 4) on
//! ```

use super::{
    ActForm, Block, DType, Encode, F16Le, Format, Quants, Scale,
    q2_k::{pack_two_bits, two_bits},
    q6_k, signed_extreme,
};

/// The declaration.
pub(super) const Q3_K: Format = Format {
    name: "q3_k",
    block_len: 256,
    block_bytes: 110,
    alignment: 2,
    quants: Some(Quants { bits: 3, signed: false, zero: 4, group: 16, minima: false }),
    acts: ActForm::Q8Chunks,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ3_K, 256>(),
    // One extreme sets the scale, and the opposite one is cut by up to a whole step; scales are rounded to 1/32.
    encode: Format::encoder::<BlockQ3_K, 256>(1.0 / 8.0 + 0.05),
    smaller: Some(DType::IQ4_NL),
    scales: &[Scale::Half { at: 108, size: 0.002 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ3_K {
    /// Third bits, eight quants a byte.
    pub high: [u8; 32],
    /// Low two bits, four quants a byte.
    pub qs: [u8; 64],
    /// Scales, 6 bits each.
    pub scales: [u8; 12],
    /// Unit of the scales.
    pub d: F16Le,
}

impl Block<256> for BlockQ3_K {
    fn decode(&self) -> [f32; 256] {
        let d = self.d.to_f32();
        std::array::from_fn(|i| {
            let s = i / 16;
            let low = self.scales[s % 8] >> (4 * (s / 8)) & 15;
            let scale = low | (self.scales[8 + s % 4] >> (2 * (s / 4)) & 3) << 4;
            let q = two_bits(&self.qs, i) | (self.high[i % 32] >> (i / 32) & 1) << 2;
            (d * (f32::from(scale) - 32.0)) * (f32::from(q) - 4.0)
        })
    }
}

impl Encode<256> for BlockQ3_K {
    /// Fits every 16 elements by themselves, rounds their scales to 6 bits of a common f16, then quantises with the
    /// rounded scales.
    fn encode(x: &[f32; 256]) -> Self {
        let fits: [f32; 16] = std::array::from_fn(|s| q6_k::fit_sub_block(&x[16 * s..][..16], 4.0));
        let d = F16Le::saturating(signed_extreme(&fits) / -32.0);
        let unit = d.to_f32();
        let rounded = fits.map(|f| if unit == 0.0 { 0.0 } else { (f / unit).round().clamp(-32.0, 31.0) });
        let quants: [u8; 256] = std::array::from_fn(|i| {
            let scale = unit * rounded[i / 16];
            let q = if scale == 0.0 { 0.0 } else { (x[i] / scale).round().clamp(-4.0, 3.0) };
            (q + 4.0) as u8
        });
        let centred = rounded.map(|s| (s + 32.0) as u8);
        let scales = std::array::from_fn(|k| match k {
            0..8 => centred[k] & 15 | centred[k + 8] << 4,
            _ => (0..4).fold(0, |bits, j| bits | centred[k - 8 + 4 * j] >> 4 << (2 * j)),
        });
        let high = std::array::from_fn(|k| (0..8).fold(0, |bits, s| bits | quants[32 * s + k] >> 2 << s));
        Self { high, qs: pack_two_bits(&quants), scales, d }
    }
}
