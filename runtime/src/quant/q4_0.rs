//! Q4_0: 32 elements in 18 bytes, `x = d · (q − 8)`.
//!
//! ```text
//! byte  0      2                         18
//!       d f16  qs: 16 bytes
//! byte k of qs:  hhhh llll   l = quant of element k, h = quant of element k + 16
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, signed_extreme};

/// The declaration.
pub(super) const Q4_0: Format = Format {
    name: "q4_0",
    block_len: 32,
    block_bytes: 18,
    alignment: 2,
    quants: Some(Quants { bits: 4, signed: false, zero: 8, group: 32, minima: false }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ4_0, 32>(),
    // One extreme sets the scale, and the opposite one is cut by up to a whole step.
    encode: Format::encoder::<BlockQ4_0, 32>(1.0 / 16.0 + 0.01),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.02 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: F16Le,
    /// Quants, two a byte.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ4_0 {
    fn decode(&self) -> [f32; 32] {
        let d = self.d.to_f32();
        std::array::from_fn(|i| {
            let q = self.qs[i % 16] >> (4 * (i / 16)) & 15;
            d * (f32::from(q) - 8.0)
        })
    }
}

impl Encode<32> for BlockQ4_0 {
    /// The element of largest magnitude becomes −8, so that the whole range is used on its side; ties round up.
    fn encode(x: &[f32; 32]) -> Self {
        let d = signed_extreme(x) / -8.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let q = |i: usize| ((x[i] * id + 8.5) as u8).min(15);
        Self { d: F16Le::saturating(d), qs: std::array::from_fn(|k| q(k) | q(k + 16) << 4) }
    }
}
