//! Q5_1: 32 elements in 24 bytes, `x = d · q + m`.
//!
//! ```text
//! byte  0      2      4        8                         24
//!       d f16  m f16  qh u32   qs: 16 bytes
//! byte k of qs:  hhhh llll   low four bits of the quants of elements k (l) and k + 16 (h)
//! bit  i of qh:  fifth bit of the quant of element i (qh is little-endian)
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, extent, q5_0};

/// The declaration.
pub(super) const Q5_1: Format = Format {
    name: "q5_1",
    block_len: 32,
    block_bytes: 24,
    alignment: 4,
    quants: Some(Quants { bits: 5, signed: false, zero: 0, group: 32, minima: true }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ5_1, 32>(),
    encode: Format::encoder::<BlockQ5_1, 32>(0.5 / 31.0 + 0.002),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.02 }, Scale::Half { at: 2, size: 0.1 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: F16Le,
    /// Minimum.
    pub m: F16Le,
    /// Fifth bits, a little-endian u32.
    pub qh: [u8; 4],
    /// Low four bits, two quants a byte.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ5_1 {
    fn decode(&self) -> [f32; 32] {
        let (d, m) = (self.d.to_f32(), self.m.to_f32());
        let quants = q5_0::unpack(&self.qh, &self.qs);
        quants.map(|q| d * f32::from(q) + m)
    }
}

impl Encode<32> for BlockQ5_1 {
    /// The smallest element becomes quant 0 and the largest 31.
    fn encode(x: &[f32; 32]) -> Self {
        let (min, max) = extent(x);
        let d = (max - min) / 31.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (qh, qs) = q5_0::pack(&x.map(|x| (((x - min) * id + 0.5) as u8).min(31)));
        Self { d: F16Le::saturating(d), m: F16Le::saturating(min), qh, qs }
    }
}
