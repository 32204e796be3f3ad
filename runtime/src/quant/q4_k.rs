//! Q4_K: 256 elements in 144 bytes, eight sub-blocks of 32, `x = (d · scale) · q − (dmin · minimum)`.
//!
//! ```text
//! byte  0      2         4                    16                      144
//!       d f16  dmin f16  scales: 12 bytes     qs: 4 × 32 bytes
//! scales: 6-bit scale and minimum of each sub-block, see k_scales
//! byte k of the c-th 32 of qs:  hhhh llll   l = element 64c + k (sub-block 2c), h = element 64c + 32 + k (2c + 1)
//! ```

use super::{ActForm, Block, DType, Encode, F16Le, Format, Quants, Scale, k_scales};

/// The declaration.
pub(super) const Q4_K: Format = Format {
    name: "q4_k",
    block_len: 256,
    block_bytes: 144,
    alignment: 4,
    quants: Some(Quants { bits: 4, signed: false, zero: 0, group: 32, minima: true }),
    acts: ActForm::Q8Chunks,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ4_K, 256>(),
    // Half a step, the search, and the rounding of scales and minima to 1/63 of the largest.
    encode: Format::encoder::<BlockQ4_K, 256>(1.5 / 15.0),
    smaller: Some(DType::Q5_0),
    scales: &[Scale::Half { at: 0, size: 0.0005 }, Scale::Half { at: 2, size: 0.0003 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ4_K {
    /// Unit of the scales.
    pub d: F16Le,
    /// Unit of the minima.
    pub dmin: F16Le,
    /// Scales and minima, 6 bits each.
    pub scales: [u8; 12],
    /// Quants, two a byte.
    pub qs: [u8; 128],
}

impl Block<256> for BlockQ4_K {
    fn decode(&self) -> [f32; 256] {
        let (d, dmin) = (self.d.to_f32(), self.dmin.to_f32());
        let (scales, minima) = k_scales::unpack(&self.scales);
        std::array::from_fn(|i| {
            let sub = i / 32;
            let q = self.qs[32 * (i / 64) + i % 32] >> (4 * (sub % 2)) & 15;
            (d * f32::from(scales[sub])) * f32::from(q) - dmin * f32::from(minima[sub])
        })
    }
}

impl Encode<256> for BlockQ4_K {
    fn encode(x: &[f32; 256]) -> Self {
        let k_scales::Fitted { d, dmin, scales, minima, quants } = k_scales::fit(x, 63, 15);
        let scales = k_scales::pack(&scales, &minima);
        let qs = std::array::from_fn(|k| {
            let low = 64 * (k / 32) + k % 32;
            quants[low] | quants[low + 32] << 4
        });
        Self { d, dmin, scales, qs }
    }
}
