//! The scales of Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes; and the search for scales and
//! minima, which Q2_K shares.
//!
//! ```text
//! byte 0..4    HHss ssss   s = scale of sub-block j,       H = upper two bits of scale of sub-block j + 4
//! byte 4..8    GGmm mmmm   m = minimum of sub-block j,     G = upper two bits of minimum of sub-block j + 4
//! byte 8..12   gggg hhhh   h, g = lower four bits of scale and minimum of sub-block j + 4
//!              j = the byte's number within its four
//! ```

use super::{F16Le, extent};

/// Scales and minima of the eight sub-blocks.
pub fn unpack(bytes: &[u8; 12]) -> ([u8; 8], [u8; 8]) {
    let of = |first: usize, shift: u32, j: usize| match j {
        0..4 => bytes[first + j] & 63,
        _ => bytes[8 + j - 4] >> shift & 15 | bytes[first + j - 4] >> 6 << 4,
    };
    (std::array::from_fn(|j| of(0, 0, j)), std::array::from_fn(|j| of(4, 4, j)))
}

/// The inverse of [`unpack`]; values are below 64.
pub(super) fn pack(scales: &[u8; 8], minima: &[u8; 8]) -> [u8; 12] {
    std::array::from_fn(|k| match k {
        0..4 => scales[k] | scales[k + 4] >> 4 << 6,
        4..8 => minima[k - 4] | minima[k] >> 4 << 6,
        _ => scales[k - 4] & 15 | minima[k - 4] << 4,
    })
}

/// The parts of a super-block of `N` sub-blocks, `x = d · scale · q − dmin · minimum`, with one quant an element.
pub(super) struct Fitted<const N: usize> {
    pub d: F16Le,
    pub dmin: F16Le,
    pub scales: [u8; N],
    pub minima: [u8; N],
    pub quants: [u8; 256],
}

/// Fits every sub-block by itself, rounds their scales and minima to `0..=most` of a common f16 each, then quantises to
/// `0..=top` with the rounded numbers.
pub(super) fn fit<const N: usize>(x: &[f32; 256], most: u8, top: u8) -> Fitted<N> {
    let len = 256 / N;
    let fits: [(f32, f32); N] = std::array::from_fn(|j| fit_sub_block(&x[len * j..][..len], top));
    let most = f32::from(most);
    let largest = |of: fn(&(f32, f32)) -> f32| fits.iter().map(of).fold(0.0, f32::max);
    let d = F16Le::saturating(largest(|f| f.0) / most);
    let dmin = F16Le::saturating(largest(|f| f.1) / most);
    let round = |v: f32, unit: f32| if unit > 0.0 { (v / unit).round().clamp(0.0, most) as u8 } else { 0 };
    let scales = fits.map(|f| round(f.0, d.to_f32()));
    let minima = fits.map(|f| round(f.1, dmin.to_f32()));
    let quants = std::array::from_fn(|i| {
        let scale = d.to_f32() * f32::from(scales[i / len]);
        let min = dmin.to_f32() * f32::from(minima[i / len]);
        if scale > 0.0 { ((x[i] + min) / scale).round().clamp(0.0, f32::from(top)) as u8 } else { 0 }
    });
    Fitted { d, dmin, scales, minima, quants }
}

/// Scale and (negated) minimum with `x ≈ scale · q − min`, neither negative. It tries several step widths around the
/// plain one, and fits the quants of each by least squares.
fn fit_sub_block(x: &[f32], top: u8) -> (f32, f32) {
    let (min, max) = extent(x);
    let min = min.min(0.0);
    if !(max > min && (max - min).is_finite()) {
        return (0.0, -min);
    }
    let mut best = (f32::INFINITY, (0.0, -min));
    for trial in 0..=10 {
        let inverse = (f32::from(top) - 0.8 + 0.16 * trial as f32) / (max - min);
        let q = |x: f32| ((x - min) * inverse).round().clamp(0.0, f32::from(top));
        let (mut sum_q, mut sum_qq, mut sum_x, mut sum_xq) = (0.0, 0.0, 0.0, 0.0);
        for &x in x {
            let q = q(x);
            (sum_q, sum_qq, sum_x, sum_xq) = (sum_q + q, sum_qq + q * q, sum_x + x, sum_xq + x * q);
        }
        let n = x.len() as f32;
        let det = n * sum_qq - sum_q * sum_q;
        let (mut scale, mut offset) = (1.0 / inverse, min);
        if det > 0.0 {
            (scale, offset) = ((n * sum_xq - sum_x * sum_q) / det, (sum_qq * sum_x - sum_q * sum_xq) / det);
            // The format subtracts minima, so an offset above zero cannot be stored.
            if offset > 0.0 {
                (scale, offset) = (sum_xq / sum_qq, 0.0);
            }
        }
        let error: f32 = x.iter().map(|x| (scale * q(*x) + offset - x).powi(2)).sum();
        if scale > 0.0 && error < best.0 {
            best = (error, (scale, -offset));
        }
    }
    best.1
}
