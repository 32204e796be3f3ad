//! Mat-vec over float weights: four rows share each load of the activations.
//!
//! Operands: W as f32, f16, bf16 or f8 in rows of k, any k ≥ 1, perhaps with scales apart; x as f32. A row has sixteen
//! chains of sums, element i in chain i mod 16: vectors with fewer lanes take turns.
//! 2·rows·k·tokens flops; W is read once.

use std::ops::Range;

use super::chains::{Sixteen, join16};
use super::job::{AHEAD, Job, f32_at};
use super::unpack::Loader;
use crate::cpu::arch::{Simd, SimdBytes};

/// Reads weights as floats.
pub(super) trait FloatWeight: Loader {
    /// # Safety
    /// `p` must be readable for `LANES` weights.
    unsafe fn load<S: Simd>(s: S, p: *const u8) -> S::F;
    /// # Safety
    /// `p` must be readable for `min(n, LANES)` weights.
    unsafe fn load_partial<S: Simd>(s: S, p: *const u8, n: usize) -> S::F;
}

/// Mat-vec for any number of tokens, of which only the first finds its rows in memory and not in a cache.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32 form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: FloatWeight>(s: S, job: &Job) {
    // Where there are no scales, one block has all columns.
    let block_len = if job.scales.is_null() { job.k } else { job.scale_block_cols.min(job.k) };
    // The stream is prefetched in memory order, one set of four rows and a bit ahead.
    let ahead = 4 * job.row_bytes + AHEAD;
    for row in (0..job.n_rows).step_by(4) {
        for t in 0..job.n_tokens {
            let mut chains = [[s.zero(); 4]; 4];
            let mut cursor = job.w.wrapping_add(row * job.row_bytes + ahead);
            // SAFETY: rows are clamped to those that exist; every access stays below k elements of a row and its scales.
            unsafe {
                let rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
                let x = job.act(t).cast();
                for (block, start) in (0..job.k).step_by(block_len).enumerate() {
                    let columns = start..job.k.min(start + block_len);
                    let mut scales = None;
                    if !job.scales.is_null() {
                        scales = Some([
                            s.splat(f32_at(job.scale_row(row), block)),
                            s.splat(f32_at(job.scale_row(row + 1), block)),
                            s.splat(f32_at(job.scale_row(row + 2), block)),
                            s.splat(f32_at(job.scale_row(row + 3), block)),
                        ]);
                    }
                    add_columns::<S, W>(s, job, rows, scales, x, columns, &mut cursor, &mut chains);
                }
                job.write4(row, t, join16(s, chains));
            }
        }
    }
}

/// Adds the products of some columns of four rows, times the rows' `scales`, with the activations to `chains`, and
/// prefetches at `cursor`.
///
/// # Safety
/// As for [`mat_vec`]; rows and activations must have those columns.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined: the state of a loop
pub(super) unsafe fn add_columns<S: SimdBytes, W: FloatWeight>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    scales: Option<[S::F; 4]>,
    x: *const f32,
    columns: Range<usize>,
    cursor: &mut *const u8,
    chains: &mut Sixteen<S::F>,
) {
    let Range { start: mut i, end } = columns;
    // SAFETY: every access stays below `end`, which the caller says is there.
    unsafe {
        while i + 16 <= end {
            job.prefetch(s, *cursor, 4 * 16 * W::BYTES);
            *cursor = cursor.wrapping_add(4 * 16 * W::BYTES);
            for chains in &mut chains[..16 / S::LANES] {
                let x = s.load(x.add(i));
                for r in 0..4 {
                    let mut w = W::load(s, rows[r].add(i * W::BYTES));
                    if let Some(scales) = scales {
                        w = s.mul(w, scales[r]);
                    }
                    chains[r] = s.mul_add(w, x, chains[r]);
                }
                i += S::LANES;
            }
        }
        for chains in &mut chains[..16 / S::LANES] {
            if i < end {
                let x = s.load_partial(x.add(i), end - i);
                for r in 0..4 {
                    let mut w = W::load_partial(s, rows[r].add(i * W::BYTES), end - i);
                    if let Some(scales) = scales {
                        w = s.mul(w, scales[r]);
                    }
                    chains[r] = s.mul_add(w, x, chains[r]);
                }
                i += S::LANES;
            }
        }
    }
}
