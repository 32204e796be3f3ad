//! Rotary position embedding (Su et al. 2021): pairs of a head's elements are rotated by an angle that grows with the
//! position. The caller makes the frequencies, scaled as the model wants.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::graph::RopeLayout;
use crate::simd_dispatch;

/// Writes the cosines and sines of one position, times `attention_factor`; all slices have rotary_dims/2 elements.
///
/// The angle is a product of floats as in the models' own code: a more exact one would differ at far positions from the
/// angles of training. Its cosine and sine are then exact to the last bit or so.
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
    /// Rotates `2 * cos.len()` elements from `first` on of each head of `x` (`[n_heads][head_dim]`) by the angles in
    /// `cos` and `sin`. The others stay as they are.
    ///
    /// # Panics
    /// If `cos` and `sin` differ in length, a head is shorter than its rotated part, or `x` is not whole heads.
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
            // The compiler finds the shuffles here; the vector trait has none.
            for ((pair, &c), &n) in x.chunks_exact_mut(2).zip(cos).zip(sin) {
                let (a, b) = (pair[0], pair[1]);
                pair[0] = a * c - b * n;
                pair[1] = a * n + b * c;
            }
        }
    }
}
