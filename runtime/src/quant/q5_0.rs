//! Q5_0: 32 elements in 22 bytes, `x = d · (q − 16)`.
//!
//! ```text
//! byte  0      2        6                         22
//!       d f16  qh u32   qs: 16 bytes
//! byte k of qs:  hhhh llll   low four bits of the quants of elements k (l) and k + 16 (h)
//! bit  i of qh:  fifth bit of the quant of element i (qh is little-endian)
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, signed_extreme};

/// The declaration.
pub(super) const Q5_0: Format = Format {
    name: "q5_0",
    block_len: 32,
    block_bytes: 22,
    alignment: 2,
    quants: Some(Quants { bits: 5, signed: false, zero: 16, group: 32, minima: false }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ5_0, 32>(),
    // As in Q4_0.
    encode: Format::encoder::<BlockQ5_0, 32>(1.0 / 32.0 + 0.01),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.02 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: F16Le,
    /// Fifth bits, a little-endian u32.
    pub qh: [u8; 4],
    /// Low four bits, two quants a byte.
    pub qs: [u8; 16],
}

impl Block<32> for BlockQ5_0 {
    fn decode(&self) -> [f32; 32] {
        let d = self.d.to_f32();
        let quants = unpack(&self.qh, &self.qs);
        quants.map(|q| d * (f32::from(q) - 16.0))
    }
}

impl Encode<32> for BlockQ5_0 {
    /// The element of largest magnitude becomes −16, so that the whole range is used on its side; ties round up.
    fn encode(x: &[f32; 32]) -> Self {
        let d = signed_extreme(x) / -16.0;
        let id = if d == 0.0 { 0.0 } else { 1.0 / d };
        let (qh, qs) = pack(&x.map(|x| ((x * id + 16.5) as u8).min(31)));
        Self { d: F16Le::saturating(d), qh, qs }
    }
}

/// The 5-bit quants of Q5_0 and Q5_1 from their fifth and low bits.
pub(super) fn unpack(qh: &[u8; 4], qs: &[u8; 16]) -> [u8; 32] {
    let qh = u32::from_le_bytes(*qh);
    std::array::from_fn(|i| {
        let low = qs[i % 16] >> (4 * (i / 16)) & 15;
        let high = (qh >> i & 1) as u8;
        high << 4 | low
    })
}

/// The inverse of [`unpack`].
pub(super) fn pack(q: &[u8; 32]) -> ([u8; 4], [u8; 16]) {
    let qh = (0..32).fold(0, |bits, i| bits | u32::from(q[i] >> 4) << i);
    (qh.to_le_bytes(), std::array::from_fn(|k| q[k] & 15 | q[k + 16] << 4))
}
