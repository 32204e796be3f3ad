//! Depthwise causal convolution over the tokens of a sequence, then SiLU: `out[t][c] = silu(Σ_j w[j][c] · x[t -
//! j'][c])` with `j' = taps - 1 - j`. Inputs before the step's first token come from the state, which holds the last
//! `taps - 1`.
//!
//! Vectors run over channels, so no operation crosses lanes; each vector reads its columns of the rows one after the
//! other. Bytes: 8 an element of a prompt; of a single token 4 · (3 · taps) a channel, most of it the state and the
//! taps.

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
    use crate::{
        cases::{
            recurrent::{Before, short_convs},
            relative_error, wide,
        },
        cpu::{arch::Isa, ops::op_kernels},
    };

    #[test]
    fn any_cut_of_the_tokens_matches_f64() {
        for case in short_convs() {
            let (tokens, width) = (21, case.width);
            let (x, weight) = (case.inputs(tokens), case.turned_weight());
            let (expected, left) = case.reference(&vec![0.0; case.state_len()], &wide(&x));
            for isa in Isa::available() {
                for parts in [vec![21], vec![1; 21], vec![2, 5, 1, 13]] {
                    let mut out = vec![f32::NAN; tokens * width];
                    let [mut first, mut second] = [(); 2].map(|()| vec![f32::NAN; case.state_len()]);
                    let mut t = 0;
                    for (i, n) in parts.iter().enumerate() {
                        let (from, to) = match i {
                            0 => (Before::Zero, &mut first),
                            1 => (Before::State(&first), &mut second),
                            // In place from the third part on.
                            _ => (Before::InPlace, &mut second),
                        };
                        let rows = t * width..(t + n) * width;
                        case.run(op_kernels(isa), &weight, &x[rows.clone()], from, to, &mut out[rows]);
                        t += n;
                    }
                    let state = if parts.len() == 1 { &first } else { &second };
                    for (what, got, expected) in [("results", &out, &expected), ("state", state, &left)] {
                        let error = relative_error(got, expected);
                        assert!(error < 1e-6, "{what}, {} {}: {error:e}", isa.name(), case.name());
                    }
                }
            }
        }
    }
}
