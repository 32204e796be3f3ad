//! Mat-vec over float weights: four rows share each load of the activations.
//!
//! Operands: W as f32, f16 or bf16 in rows of k, any k ≥ 1; x as f32. 2·rows·k·tokens flops; W is read once.

use std::ops::Range;

use super::job::{AHEAD, Job};
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
    // The stream is prefetched in memory order, one set of four rows and a bit ahead.
    let ahead = 4 * job.row_bytes + AHEAD;
    let mut row = 0;
    while row < job.n_rows {
        let mut sums = [[s.zero(); 4]; T];
        let mut cursor = job.w.wrapping_add(row * job.row_bytes + ahead);
        // SAFETY: rows are clamped to those that exist; every access stays below k elements of a row.
        unsafe {
            let rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            add_columns::<S, W, T>(s, job, rows, 0..job.k, &mut cursor, &mut sums);
            for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
                job.write4(row, t, s.reduce_pieces(s.sum4(sums)));
            }
        }
        row += 4;
    }
}

/// Adds the products of some columns of four rows with the activations to `sums`, and prefetches at `cursor`.
///
/// # Safety
/// As for [`mat_vec`]; rows and activations must have those columns.
#[inline(always)]
pub(super) unsafe fn add_columns<S: SimdBytes, W: FloatWeight, const T: usize>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    columns: Range<usize>,
    cursor: &mut *const u8,
    sums: &mut [[S::F; 4]; T],
) {
    let Range { start: mut i, end } = columns;
    // SAFETY: every access stays below `end`, which the caller says is there.
    unsafe {
        while i + S::LANES <= end {
            let w = [
                W::load(s, rows[0].add(i * W::BYTES)),
                W::load(s, rows[1].add(i * W::BYTES)),
                W::load(s, rows[2].add(i * W::BYTES)),
                W::load(s, rows[3].add(i * W::BYTES)),
            ];
            job.prefetch(s, *cursor, 4 * S::LANES * W::BYTES);
            *cursor = cursor.wrapping_add(4 * S::LANES * W::BYTES);
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = s.load(job.act(t).cast::<f32>().add(i));
                for r in 0..4 {
                    sums[r] = s.mul_add(w[r], x, sums[r]);
                }
            }
            i += S::LANES;
        }
        if i < end {
            for (t, sums) in sums.iter_mut().enumerate() {
                let x = s.load_partial(job.act(t).cast::<f32>().add(i), end - i);
                for r in 0..4 {
                    sums[r] = s.mul_add(W::load_partial(s, rows[r].add(i * W::BYTES), end - i), x, sums[r]);
                }
            }
        }
    }
}
