//! Q4_1: 32 elements in 20 bytes, `x = d · q + m`.
//!
//! ```text
//! byte  0      2      4                         20
//!       d f16  m f16  qs: 16 bytes
//! byte k of qs:  hhhh llll   l = quant of element k, h = quant of element k + 16
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, extent};

/// The declaration.
pub(super) const Q4_1: Format = Format {
    name: "q4_1",
    block_len: 32,
    block_bytes: 20,
    alignment: 4,
    quants: Some(Quants { bits: 4, signed: false, zero: 0, group: 32, minima: true }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ4_1, 32>(),
    encode: Format::encoder::<BlockQ4_1, 32>(0.5 / 15.0 + 0.002),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.02 }, Scale::Half { at: 2, size: 0.1 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: F16Le,
    /// Minimum.
    pub m: F16Le,
    /// Quants, two a byte.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ4_1 {
    fn decode(&self) -> [f32; 32] {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        std::array::from_fn(|i| {
            let q = self.qs[i % 16] >> (4 * (i / 16)) & 15;
            d * f32::from(q) + m
        })
    }
}

impl Encode<32> for BlockQ4_1 {
    /// The smallest element becomes quant 0 and the largest 15.
    fn encode(x: &[f32; 32]) -> Self {
        let (min, max) = extent(x);
        let d = (max - min) / 15.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = |i: usize| (((x[i] - min) * id + 0.5) as u8).min(15);
        Self { d: F16Le::saturating(d), m: F16Le::saturating(min), qs: std::array::from_fn(|k| q(k) | q(k + 16) << 4) }
    }
}
