//! Depthwise causal convolution over the tokens of a sequence, then SiLU: `out[t][c] = silu(Σ_j w[j][c] · x[t - j'][c])`
//! with `j' = taps - 1 - j`. Inputs before the step's first token come out of the state, which holds the last `taps - 1`.
//!
//! Vectors run over channels, so that nothing crosses lanes; each reads its column of rows one after the other. Bytes:
//! 8 an element of a prompt; of a single token 4 · (3 · taps) a channel, most of it the state and the taps.

use super::by_lanes;
use crate::cpu::arch::Simd;
use crate::simd_dispatch;

/// Some channels of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct ShortConvItem {
    /// Channels that the item computes.
    pub n_channels: usize,
    /// Tokens that a result depends on.
    pub taps: usize,
    /// New tokens.
    pub n_tokens: usize,
    /// `[taps]` rows of weights, of the item's first channel, the oldest token's first.
    pub weight: *const f32,
    /// `[n_tokens]` rows of inputs, of the first channel.
    pub x: *const f32,
    /// Elements from one row of inputs to the next.
    pub x_stride: usize,
    /// `[n_tokens]` rows of results.
    pub out: *mut f32,
    /// Elements from one row of results to the next.
    pub out_stride: usize,
    /// `[taps - 1]` rows: the inputs before the first token, or null where they are zero.
    pub from: *const f32,
    /// As many rows that get the last inputs; may be `from`.
    pub to: *mut f32,
    /// Elements from one row of weights or state to the next.
    pub stride: usize,
}

simd_dispatch!(
    /// Convolves, and brings the state up to date.
    ///
    /// # Safety
    /// The item's pointers must be valid for the rows that they are documented to have, `n_channels` elements of each;
    /// nobody else uses what is written.
    pub unsafe fn short_conv(item: &ShortConvItem) = short_conv_impl
);

#[inline(always)]
unsafe fn short_conv_impl<S: Simd>(s: S, item: &ShortConvItem) {
    let ShortConvItem { taps, n_tokens, stride, .. } = *item;
    let past = taps - 1;
    by_lanes!(item.n_channels, c, m => {
        // SAFETY: channels `c..c + m` of rows that the caller vouches for. Rows of the state are read no later than they
        // are written: row `j` becomes row `j + n_tokens` or an input.
        unsafe {
            for t in 0..n_tokens {
                let mut sum = s.zero();
                for j in 0..taps {
                    // Input `t + j - past`, counted from the step's first.
                    let x = if t + j >= past {
                        s.load_partial(item.x.add((t + j - past) * item.x_stride + c), m)
                    } else if item.from.is_null() {
                        continue;
                    } else {
                        s.load_partial(item.from.add((t + j) * stride + c), m)
                    };
                    sum = s.mul_add(x, s.load_partial(item.weight.add(j * stride + c), m), sum);
                }
                s.store_partial(item.out.add(t * item.out_stride + c), m, s.mul(sum, s.sigmoid(sum)));
            }
            for j in 0..past {
                let row = if j + n_tokens >= past {
                    s.load_partial(item.x.add((j + n_tokens - past) * item.x_stride + c), m)
                } else if item.from.is_null() {
                    s.zero()
                } else {
                    s.load_partial(item.from.add((j + n_tokens) * stride + c), m)
                };
                s.store_partial(item.to.add(j * stride + c), m, row);
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::arch::Isa;
    use crate::cpu::ops::testing::{random, relative_error};

    /// All tokens at once, from nothing: the sum that the definition says.
    fn reference(x: &[f32], weight: &[f32], width: usize, taps: usize) -> Vec<f64> {
        let rows = x.len() / width;
        (0..rows * width)
            .map(|i| {
                let (t, c) = (i / width, i % width);
                let sum: f64 = (0..taps)
                    .filter(|j| t + j + 1 >= taps)
                    .map(|j| f64::from(weight[j * width + c]) * f64::from(x[(t + j + 1 - taps) * width + c]))
                    .sum();
                sum / (1.0 + (-sum).exp())
            })
            .collect()
    }

    #[test]
    fn any_cut_of_the_tokens_matches_f64() {
        for isa in Isa::available() {
            for (width, taps) in [(1, 2), (7, 4), (16, 4), (37, 3), (64, 16)] {
                let tokens = 21;
                let (x, weight) = (random(1, tokens * width), random(2, taps * width));
                let expected = reference(&x, &weight, width, taps);
                for parts in [vec![21], vec![1; 21], vec![2, 5, 1, 13]] {
                    let mut out = vec![f32::NAN; tokens * width];
                    let mut states = [vec![f32::NAN; (taps - 1) * width], vec![f32::NAN; (taps - 1) * width]];
                    let mut t = 0;
                    for (i, n) in parts.into_iter().enumerate() {
                        // In place from the third part on; before that from one state to the other.
                        let (from, to) = if i < 2 { (1 - i, i) } else { (1, 1) };
                        let item = ShortConvItem {
                            n_channels: width,
                            taps,
                            n_tokens: n,
                            weight: weight.as_ptr(),
                            x: x[t * width..].as_ptr(),
                            x_stride: width,
                            out: out[t * width..].as_mut_ptr(),
                            out_stride: width,
                            from: if i == 0 { std::ptr::null() } else { states[from].as_ptr() },
                            to: states[to].as_mut_ptr(),
                            stride: width,
                        };
                        // SAFETY: all rows are as long as the item says.
                        unsafe { short_conv(isa)(&item) };
                        t += n;
                    }
                    let error = relative_error(&out, &expected);
                    assert!(error < 1e-6, "{} width {width} taps {taps}: {error:e}", isa.name());
                }
            }
        }
    }
}
