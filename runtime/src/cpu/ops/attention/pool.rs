//! A block of tokens pooled into one row (DeepSeek V4's compressors, DeepSeek-AI 2025): the mean of the tokens' rows, channel
//! by channel weighted by a softmax of their gates.
//!
//! `out[c] = Σ_t softmax_t(gate[t][c] + bias[t % block][c]) · x[t][c]` over the block's tokens; where blocks overlap, over
//! the second halves of its tokens' channels and the first halves of those of the block before. Rows lie in the cache: x as
//! keys, gates as values. Two passes over the gates, one over x: 3 · reach · width elements read, about as many
//! exponentials as rows have elements.

use super::super::by_lanes;
use super::rows::{Rows, by_rows};
use super::{AttentionParams, KvPages, NO_SCORE, join::exp2_negative};
use crate::cpu::arch::Simd;
use crate::graph::PoolOp;
use crate::simd_dispatch;

/// One block of one sequence.
#[derive(Clone, Copy, Debug)]
pub struct PoolItem<'a> {
    /// The op.
    pub op: &'a PoolOp,
    /// The sequence's rows, those of the block included.
    pub kv: &'a KvPages<'a>,
    /// `[block][channels]`.
    pub bias: &'a [f32],
    /// The block's number in the sequence.
    pub block: usize,
}

/// Floats of scratch that [`pool_block`] needs: maxima and sums.
pub fn scratch_len(op: &PoolOp) -> usize {
    2 * op.width
}

simd_dispatch!(
    /// The row of a block: `width` elements.
    ///
    /// # Safety
    /// The pages of its tokens (and of the block before, where blocks overlap) must be readable as [`KvPages`] describes,
    /// and not be written meanwhile.
    ///
    /// # Panics
    /// If a slice is too short or a token's page is missing.
    pub unsafe fn pool_block(item: &PoolItem<'_>, scratch: &mut [f32], out: &mut [f32]) = pool_impl
);

#[inline(always)]
unsafe fn pool_impl<S: Simd>(s: S, item: &PoolItem<'_>, scratch: &mut [f32], out: &mut [f32]) {
    // SAFETY: the caller's promise is passed on; the storage type decides how rows are read.
    by_rows!(item.kv.kv, R => unsafe { pool_typed::<S, R>(s, item, scratch, out) })
}

/// The kernels' view of the cache.
fn params(op: &PoolOp) -> AttentionParams<'static> {
    let channels = op.channels();
    AttentionParams::one_head(channels, channels)
}

/// # Safety
/// As [`pool_block`]; `R` must agree with the storage.
#[inline(always)]
unsafe fn pool_typed<S: Simd, R: Rows>(s: S, item: &PoolItem<'_>, scratch: &mut [f32], out: &mut [f32]) {
    let (op, params) = (item.op, params(item.op));
    let (n, width, channels) = (op.block, op.width, op.channels());
    let row_bytes = item.kv.kv.row_bytes(channels);
    let (max, sum) = scratch[..2 * width].split_at_mut(width);
    let out = &mut out[..width];
    assert!(item.bias.len() >= n * channels);
    max.fill(NO_SCORE);
    sum.fill(0.0);
    out.fill(0.0);
    // The tokens of a part, and the first of their channels that it takes.
    let own = (item.block * n, item.block * n + n, channels - width);
    let before = (item.block.saturating_sub(1) * n, item.block * n, 0);
    let parts = [before, own];
    let parts = if op.overlap { &parts[..] } else { &parts[1..] };
    for pass in 0..2 {
        for &(mut token, end, first) in parts {
            while token < end {
                let run = item.kv.run(&params, 0, token..end);
                for j in 0..run.n {
                    let bias = &item.bias[(token + j) % n * channels + first..][..width];
                    let (x, gates) = (run.k.wrapping_add(j * row_bytes), run.v.wrapping_add(j * row_bytes));
                    let (max, sum, out) = (max.as_mut_ptr(), sum.as_mut_ptr(), out.as_mut_ptr());
                    by_lanes!(width, i, m => {
                        // SAFETY: i + m <= width, the length of all but the cached rows, which are `channels` long.
                        unsafe {
                            let [gate] = R::load::<S, 1>(s, gates, channels, first + i, m);
                            let gate = s.add(gate, s.load_partial(bias.as_ptr().add(i), m));
                            let gate = s.mul(gate, s.splat(std::f32::consts::LOG2_E));
                            let top = s.load_partial(max.add(i), m);
                            if pass == 0 {
                                s.store_partial(max.add(i), m, s.max(top, gate));
                            } else {
                                let p = exp2_negative(s, s.sub(gate, top));
                                let [x] = R::load::<S, 1>(s, x, channels, first + i, m);
                                s.store_partial(sum.add(i), m, s.add(s.load_partial(sum.add(i), m), p));
                                s.store_partial(out.add(i), m, s.mul_add(p, x, s.load_partial(out.add(i), m)));
                            }
                        }
                    });
                }
                token += run.n;
            }
        }
    }
    out.iter_mut().zip(sum).for_each(|(out, sum)| *out /= *sum);
}

#[cfg(test)]
mod tests {
    use crate::{
        cases::{pool::pools, relative_error},
        cpu::{arch::Isa, ops::op_kernels},
    };

    #[test]
    fn blocks_match_f64() {
        for case in pools() {
            let (blocks, channels) = (3, case.op.channels());
            let (rows, bias) = (case.rows(blocks * case.op.block), case.bias());
            let cache = case.cache(&rows);
            for block in 0..blocks {
                let expected = case.reference(block, |t, c| [&rows.x, &rows.gates].map(|x| x[t * channels + c]));
                for isa in Isa::available() {
                    let mut out = vec![f32::NAN; case.op.width];
                    let mut scratch = vec![f32::NAN; case.scratch_len()];
                    case.run(op_kernels(isa), &cache, &bias, block, &mut scratch, &mut out);
                    let error = relative_error(&out, &expected);
                    assert!(error < 1e-5, "{} {} block {block}: {error:e}", isa.name(), case.name());
                }
            }
        }
    }
}
