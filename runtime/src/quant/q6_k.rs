//! Q6_K: 256 elements in 210 bytes, sixteen sub-blocks of 16, `x = (d · scale) · (q − 32)`.
//!
//! ```text
//! byte  0                    128                 192                208     210
//!       ql: 2 × 64 bytes     qh: 2 × 32 bytes    scales: 16 × i8    d f16
//! half h of the block (elements 128h ..) has the h-th 64 bytes of ql and the h-th 32 of qh; in it, for k < 32:
//! byte k      of ql:  cccc aaaa   low bits of a = element k, c = element k + 64
//! byte k + 32 of ql:  dddd bbbb   low bits of b = element k + 32, d = element k + 96
//! byte k      of qh:  DDCCBBAA    upper bits of the same four
//! scale s is that of elements 16s ..
//! ```

use super::{ActForm, Block, DType, Encode, F16Le, Format, Quants, Scale, signed_extreme};

/// The declaration.
pub(super) const Q6_K: Format = Format {
    name: "q6_k",
    block_len: 256,
    block_bytes: 210,
    alignment: 2,
    quants: Some(Quants { bits: 6, signed: false, zero: 32, group: 16, minima: false }),
    acts: ActForm::Q8Chunks,
    beyond_f16: false,
    apart: false,
    table: None,
    decode: Format::decoder::<BlockQ6_K, 256>(),
    encode: Format::encoder::<BlockQ6_K, 256>(1.0 / 32.0),
    smaller: Some(DType::Q8_0),
    scales: &[Scale::Half { at: 208, size: 5e-05 }],
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockQ6_K {
    /// Low four bits, two quants a byte.
    pub ql: [u8; 128],
    /// Upper two bits, four quants a byte.
    pub qh: [u8; 64],
    /// Scales of the sub-blocks.
    pub scales: [i8; 16],
    /// Unit of the scales.
    pub d: F16Le,
}

impl Block<256> for BlockQ6_K {
    fn decode(&self) -> [f32; 256] {
        let d = self.d.to_f32();
        std::array::from_fn(|i| {
            let (half, quarter, k) = (i / 128, i / 32 % 4, i % 32);
            let low = self.ql[64 * half + 32 * (quarter % 2) + k] >> (4 * (quarter / 2)) & 15;
            let high = self.qh[32 * half + k] >> (2 * quarter) & 3;
            let q = f32::from(high << 4 | low) - 32.0;
            (d * f32::from(self.scales[i / 16])) * q
        })
    }
}

impl Encode<256> for BlockQ6_K {
    /// Fits every 16 elements by themselves, rounds their scales to 8 bits of a common f16, then quantises with the
    /// rounded scales.
    fn encode(x: &[f32; 256]) -> Self {
        let fits: [f32; 16] = std::array::from_fn(|s| fit_sub_block(&x[16 * s..][..16], 32.0));
        let d = F16Le::saturating(signed_extreme(&fits) / -128.0);
        let unit = d.to_f32();
        let scales = fits.map(|f| if unit == 0.0 { 0 } else { (f / unit).round() as i8 });
        let quants: [u8; 256] = std::array::from_fn(|i| {
            let scale = unit * f32::from(scales[i / 16]);
            let q = if scale == 0.0 { 0.0 } else { (x[i] / scale).round().clamp(-32.0, 31.0) };
            (q + 32.0) as u8
        });
        let ql = std::array::from_fn(|b| {
            let low = 128 * (b / 64) + b % 64;
            quants[low] & 15 | quants[low + 64] << 4
        });
        let qh = std::array::from_fn(|b| {
            (0..4).fold(0, |bits, quarter| bits | quants[128 * (b / 32) + 32 * quarter + b % 32] >> 4 << (2 * quarter))
        });
        Self { ql, qh, scales, d }
    }
}

/// The scale of either sign with `x ≈ scale · q`, `q` from −zero to zero − 1. It tries several scales around the plain
/// one, each followed by the least-squares scale of the quants that it gives.
pub(super) fn fit_sub_block(x: &[f32], zero: f32) -> f32 {
    let extreme = signed_extreme(x);
    if extreme == 0.0 || !extreme.is_finite() {
        return 0.0;
    }
    let mut best = (f32::INFINITY, 0.0);
    for trial in 0..=10 {
        let inverse = -(zero - 1.0 + 0.2 * trial as f32) / extreme;
        let q = |x: f32| (x * inverse).round().clamp(-zero, zero - 1.0);
        let (sum_xq, sum_qq) = x.iter().fold((0.0, 0.0), |(xq, qq), x| (xq + x * q(*x), qq + q(*x) * q(*x)));
        let scale = sum_xq / sum_qq;
        let error: f32 = x.iter().map(|x| (scale * q(*x) - x).powi(2)).sum();
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}
