//! Mat-vec over blocks against float activations, for exactness: a stretch of four rows is unpacked as for mat-mat, then
//! multiplied as if the file had it as floats.
//!
//! Operands: W in blocks, in rows of k; x as f32. 2·rows·k·tokens flops; W is read once, and unpacking it takes several
//! times as long as reading.

use super::gemm_f32::unpack_row;
use super::job::Job;
use super::mat_vec_float::{F32, add_columns};
use super::unpack::{MAX_LEN, Unpack};
use crate::cpu::arch::SimdBytes;

/// Mat-vec for 1 to 4 tokens; three run as four, the last one twice.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32 form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Unpack>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            2 => mat_vec_n::<S, W, 2>(s, job),
            _ => mat_vec_n::<S, W, 4>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Unpack, const T: usize>(s: S, job: &Job) {
    let mut buffer = [[0f32; MAX_LEN]; 4];
    // Nothing lies ahead of what is read here.
    let mut cursor = job.w.wrapping_add(job.n_rows * job.row_bytes);
    for row in (0..job.n_rows).step_by(4) {
        let mut sums = [[s.zero(); 4]; T];
        for i in (0..job.k).step_by(MAX_LEN) {
            let n = MAX_LEN.min(job.k - i);
            // SAFETY: rows are clamped to those that exist, blocks divide the stretch, and n elements of each row and of
            // the activations are left.
            unsafe {
                for (r, buffer) in buffer.iter_mut().enumerate() {
                    unpack_row::<S, W>(s, job, row + r, i, n, buffer.as_mut_ptr());
                }
                let rows = [0, 1, 2, 3].map(|r: usize| buffer[r].as_ptr().cast());
                let stretch = Job { acts: job.acts.add(4 * i), ..*job };
                add_columns::<S, F32, T>(s, &stretch, rows, 0..n, &mut cursor, &mut sums);
            }
        }
        for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
            // SAFETY: the row and the token exist.
            unsafe { job.write4(row, t, s.reduce_pieces(s.sum4(sums))) };
        }
    }
}
