//! Q8_0: 32 elements in 34 bytes, `x = d · q`.
//!
//! ```text
//! byte  0      2                         34
//!       d f16  qs: 32 signed bytes, element i in byte i
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, signed_extreme};

/// The declaration.
pub(super) const Q8_0: Format = Format {
    name: "q8_0",
    block_len: 32,
    block_bytes: 34,
    alignment: 2,
    quants: Some(Quants { bits: 8, signed: true, zero: 0, group: 32, minima: false }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ8_0, 32>(),
    encode: Format::encoder::<BlockQ8_0, 32>(0.5 / 127.0 + 0.001),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.001 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: F16Le,
    /// Quants.
    pub qs: [i8; 32],
}

impl Block<32> for BlockQ8_0 {
    fn decode(&self) -> [f32; 32] {
        let d = self.d.to_f32();
        self.qs.map(|q| d * f32::from(q))
    }
}

impl Encode<32> for BlockQ8_0 {
    /// The element of largest magnitude becomes ±127; ties round away from zero.
    fn encode(x: &[f32; 32]) -> Self {
        let d = signed_extreme(x).abs() / 127.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        Self { d: F16Le::saturating(d), qs: x.map(|x| (x * id).round() as i8) }
    }
}
