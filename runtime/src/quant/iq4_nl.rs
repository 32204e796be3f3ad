//! IQ4_NL: 32 elements in 18 bytes, `x = d · values[q]`, with sixteen values that are denser near zero.
//!
//! ```text
//! byte  0      2                         18
//!       d f16  qs: 16 bytes
//! byte k of qs:  hhhh llll   l = index of element k, h = index of element k + 16
//! ```

use super::{ActForm, Block, Encode, F16Le, Format, Quants, Scale, signed_extreme};

/// The declaration.
pub(super) const IQ4_NL: Format = Format {
    name: "iq4_nl",
    block_len: 32,
    block_bytes: 18,
    alignment: 2,
    quants: Some(Quants { bits: 8, signed: true, zero: 0, group: 32, minima: false }),
    acts: ActForm::Q8Groups,
    beyond_f16: false,
    apart: false,
    table: Some(("IQ4_VALUES", &IQ4_WORDS)),
    decode: Format::decoder::<BlockIQ4_NL, 32>(),
    // Half the widest gap between values, and the cut on the side that has fewer values.
    encode: Format::encoder::<BlockIQ4_NL, 32>(0.12),
    smaller: None,
    scales: &[Scale::Half { at: 0, size: 0.002 }],
};

/// The sixteen values of IQ4_NL and IQ4_XS (llama.cpp#4773, `kvalues_iq4nl`).
pub const IQ4_VALUES: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The same, four bytes a word, the first byte lowest.
pub(super) static IQ4_WORDS: [u32; 4] = {
    let mut words = [0; 4];
    let mut i = 0;
    while i < 16 {
        words[i / 4] |= (IQ4_VALUES[i] as u8 as u32) << (8 * (i % 4));
        i += 1;
    }
    words
};

/// A block in the file.
#[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct BlockIQ4_NL {
    /// Scale.
    pub d: F16Le,
    /// Indices into [`IQ4_VALUES`], two a byte.
    pub qs: [u8; 16],
}

impl Block<32> for BlockIQ4_NL {
    fn decode(&self) -> [f32; 32] {
        let d = self.d.to_f32();
        values(&self.qs).map(|v| d * v)
    }
}

impl Encode<32> for BlockIQ4_NL {
    fn encode(x: &[f32; 32]) -> Self {
        let d = F16Le::saturating(fit(x));
        Self { d, qs: indices(x, d.to_f32()) }
    }
}

/// The values of 32 indices.
pub(super) fn values(qs: &[u8; 16]) -> [f32; 32] {
    std::array::from_fn(|i| f32::from(IQ4_VALUES[usize::from(qs[i % 16] >> (4 * (i / 16)) & 15)]))
}

/// The indices of the values nearest to x / scale.
pub(super) fn indices(x: &[f32; 32], scale: f32) -> [u8; 16] {
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    std::array::from_fn(|k| nearest(x[k] * inverse) | nearest(x[k + 16] * inverse) << 4)
}

/// The index of the value nearest to x, the first of equals.
fn nearest(x: f32) -> u8 {
    let distance = |i: u8| (f32::from(IQ4_VALUES[usize::from(i)]) - x).abs();
    (1..16).fold(0, |best, i| if distance(i) < distance(best) { i } else { best })
}

/// The scale of either sign with `x ≈ scale · value`. It tries several scales around the one that makes the largest
/// element −127, each followed by the least-squares scale of the values that it gives.
pub(super) fn fit(x: &[f32; 32]) -> f32 {
    let extreme = signed_extreme(x);
    if extreme == 0.0 || !extreme.is_finite() {
        return 0.0;
    }
    let mut best = (f32::INFINITY, 0.0);
    for trial in -7..=7 {
        let inverse = (f32::from(IQ4_VALUES[0]) + trial as f32) / extreme;
        let value = |x: f32| f32::from(IQ4_VALUES[usize::from(nearest(x * inverse))]);
        let (sum_xv, sum_vv) = x.iter().fold((0.0, 0.0), |(xv, vv), x| (xv + x * value(*x), vv + value(*x).powi(2)));
        let scale = sum_xv / sum_vv;
        let error: f32 = x.iter().map(|x| (scale * value(*x) - x).powi(2)).sum();
        if error < best.0 {
            best = (error, scale);
        }
    }
    best.1
}
