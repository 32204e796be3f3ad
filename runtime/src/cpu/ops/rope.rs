//! Rotary position embedding (Su et al. 2021): pairs of a head's elements are turned by an angle that grows with the
//! position. The frequencies, with whatever scaling a model has, are the caller's.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::graph::RopeLayout;
use crate::simd_dispatch;

/// Writes the cosines and sines of one position, times `attention_factor`; all slices have rotary_dims/2 elements.
///
/// The angle is a product of floats as in the models' own code (a sharper one would differ from what they were trained
/// with at far positions); its cosine and sine are then exact to the last bit or so.
///
/// # Panics
/// If the lengths differ.
pub fn rope_cos_sin(inv_freq: &[f32], attention_factor: f32, position: usize, cos: &mut [f32], sin: &mut [f32]) {
    assert!(inv_freq.len() == cos.len() && inv_freq.len() == sin.len());
    for ((freq, cos), sin) in inv_freq.iter().zip(cos).zip(sin) {
        let (s, c) = f64::from(position as f32 * freq).sin_cos();
        *cos = (c * f64::from(attention_factor)) as f32;
        *sin = (s * f64::from(attention_factor)) as f32;
    }
}

simd_dispatch!(
    /// Turns `2 * cos.len()` elements from `first` on of each head of `x` (`[n_heads][head_dim]`) by the angles in `cos`
    /// and `sin`. The others stay as they are.
    ///
    /// # Panics
    /// If `cos` and `sin` differ in length, a head is shorter than what is turned, or `x` is not whole heads.
    pub fn rope_heads(x: &mut [f32], head_dim: usize, first: usize, cos: &[f32], sin: &[f32], layout: RopeLayout) =
        rope_heads_impl
);

#[inline(always)]
fn rope_heads_impl<S: Simd>(
    s: S,
    x: &mut [f32],
    head_dim: usize,
    first: usize,
    cos: &[f32],
    sin: &[f32],
    layout: RopeLayout,
) {
    assert!(head_dim > 0 && x.len().is_multiple_of(head_dim), "{} elements in heads of {head_dim}", x.len());
    for head in x.chunks_exact_mut(head_dim) {
        rope_head(s, &mut head[first..], cos, sin, layout);
    }
}

/// [`rope_heads`] for one head, to be inlined into other kernels.
#[inline(always)]
pub(super) fn rope_head<S: Simd>(s: S, x: &mut [f32], cos: &[f32], sin: &[f32], layout: RopeLayout) {
    let half = cos.len();
    assert!(sin.len() == half && 2 * half <= x.len(), "{} angles for a head of {}", half, x.len());
    match layout {
        RopeLayout::Half => {
            let (x, cos, sin) = (x.as_mut_ptr(), cos.as_ptr(), sin.as_ptr());
            by_lanes!(half, i, m => {
                // SAFETY: i + m <= half, and 2 · half <= the length of x.
                unsafe {
                    let (a, b) = (s.load_partial(x.add(i), m), s.load_partial(x.add(half + i), m));
                    let (c, n) = (s.load_partial(cos.add(i), m), s.load_partial(sin.add(i), m));
                    s.store_partial(x.add(i), m, s.sub(s.mul(a, c), s.mul(b, n)));
                    s.store_partial(x.add(half + i), m, s.mul_add(a, n, s.mul(b, c)));
                }
            });
        }
        RopeLayout::Interleaved => {
            // Left to the compiler, which finds the shuffles; the vector trait has none.
            for ((pair, &c), &n) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * c - b * n;
                pair[1] = a * n + b * c;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::arch::Isa;
    use crate::cpu::ops::testing::{random, relative_error};

    #[test]
    fn rope_matches_f64_and_turns_back() {
        for isa in Isa::available() {
            let cases = [(2, 2, 0), (16, 16, 0), (24, 24, 0), (24, 10, 0), (24, 10, 14), (64, 64, 0), (80, 32, 7)];
            for (head_dim, rotary, first) in cases {
                for layout in [RopeLayout::Half, RopeLayout::Interleaved] {
                    let half = rotary / 2;
                    let inv_freq: Vec<f32> = (0..half).map(|i| 10000f32.powf(-(i as f32) / half as f32)).collect();
                    let (mut cos, mut sin) = (vec![f32::NAN; half], vec![f32::NAN; half]);
                    rope_cos_sin(&inv_freq, 1.25, 777, &mut cos, &mut sin);
                    let x = random(1, 3 * head_dim);
                    let mut expected: Vec<f64> = x.iter().map(|&x| f64::from(x)).collect();
                    for head in expected.chunks_mut(head_dim) {
                        for (i, freq) in inv_freq.iter().enumerate() {
                            let (a, b) = match layout {
                                RopeLayout::Half => (first + i, first + i + half),
                                RopeLayout::Interleaved => (first + 2 * i, first + 2 * i + 1),
                            };
                            let (s, c) = f64::from(777.0 * freq).sin_cos();
                            let (u, v) = (head[a] * 1.25, head[b] * 1.25);
                            (head[a], head[b]) = (u * c - v * s, u * s + v * c);
                        }
                    }
                    let mut out = x.clone();
                    rope_heads(isa)(&mut out, head_dim, first, &cos, &sin, layout);
                    let error = relative_error(&out, &expected);
                    assert!(error < 3e-7, "{layout:?} {} {head_dim}/{rotary}: {error:e}", isa.name());
                    // The factor applies twice, to the turned elements.
                    let back: Vec<f32> = inv_freq.iter().map(|f| -f).collect();
                    rope_cos_sin(&back, 1.25, 777, &mut cos, &mut sin);
                    rope_heads(isa)(&mut out, head_dim, first, &cos, &sin, layout);
                    for (head, original) in out.chunks_mut(head_dim).zip(x.chunks(head_dim)) {
                        head[first..first + rotary].iter_mut().for_each(|x| *x /= 1.25 * 1.25);
                        let original: Vec<f64> = original.iter().map(|&x| f64::from(x)).collect();
                        assert!(relative_error(head, &original) < 5e-7);
                    }
                }
            }
        }
    }
}
