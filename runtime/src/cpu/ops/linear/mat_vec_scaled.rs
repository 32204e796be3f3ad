//! Mat-vec over FP8 weights with f32 scales in a tensor of their own: four rows share each load of the activations.
//!
//! Operands: W as E4M3 in rows of k, any k ≥ 1; a scale for every block of rows and columns, or none; x as f32. The sums
//! of a block of columns are multiplied by its scale, so that scales cost next to nothing.
//! 2·rows·k·tokens flops; W is read once.

use super::job::{AHEAD, Job, f32_at};
use super::mat_vec_float::{FloatWeight, add_columns};
use crate::cpu::arch::SimdBytes;

/// Mat-vec for one or two tokens.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32 form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: FloatWeight>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            _ => mat_vec_n::<S, W, 2>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: FloatWeight, const T: usize>(s: S, job: &Job) {
    // Where there are no scales, one block has all columns.
    let block_len = if job.scales.is_null() { job.k } else { job.scale_block_cols.min(job.k) };
    let ahead = 4 * job.row_bytes + AHEAD;
    let mut row = 0;
    while row < job.n_rows {
        let mut totals = [[s.zero(); 4]; T];
        let mut cursor = job.w.wrapping_add(row * job.row_bytes + ahead);
        // SAFETY: rows are clamped to those that exist; every access stays below k elements of a row and its scales.
        unsafe {
            let rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            for (block, start) in (0..job.k).step_by(block_len).enumerate() {
                let end = job.k.min(start + block_len);
                let mut sums = [[s.zero(); 4]; T];
                add_columns::<S, W, T>(s, job, rows, start..end, &mut cursor, &mut sums);
                let mut scales = [s.splat(1.0); 4];
                if !job.scales.is_null() {
                    for (r, scale) in scales.iter_mut().enumerate() {
                        *scale = s.splat(f32_at(job.scale_row(row + r), block));
                    }
                }
                for (totals, sums) in totals.iter_mut().zip(&sums) {
                    for r in 0..4 {
                        totals[r] = s.mul_add(sums[r], scales[r], totals[r]);
                    }
                }
            }
            for (t, totals) in totals.into_iter().enumerate().take(job.n_tokens) {
                job.write4(row, t, s.reduce_pieces(s.sum4(totals)));
            }
        }
        row += 4;
    }
}
