//! Mat-vec over blocks against float activations, for exactness: a stretch of four rows is unpacked as for mat-mat,
//! then multiplied as floats.
//!
//! Operands: W in blocks, in rows of k; x as f32. 2·rows·k·tokens flops; W is read once, and unpacking it takes several
//! times as long as reading.

use super::chains::join16;
use super::formats::floats::F32;
use super::job::Job;
use super::mat_vec_float::add_columns;
use super::unpack::{MAX_LEN, ToFloats};
use crate::cpu::arch::SimdBytes;

/// Mat-vec for any number of tokens, one after the other. Each token unpacks the weights again: this kernel is for
/// exactness, and speed does not matter.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32 form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes>(s: S, job: &Job, w: ToFloats) {
    let mut buffer = [[0f32; MAX_LEN]; 4];
    // A cursor at the end of the weights: this kernel prefetches nothing.
    let mut cursor = job.w.wrapping_add(job.n_rows * job.row_bytes);
    for (t, row) in (0..job.n_tokens).flat_map(|t| (0..job.n_rows).step_by(4).map(move |row| (t, row))) {
        let mut chains = [[s.zero(); 4]; 4];
        for i in (0..job.k).step_by(MAX_LEN) {
            let n = MAX_LEN.min(job.k - i);
            // SAFETY: rows are clamped to those that exist, blocks divide the stretch, and n elements of each row and of
            // the activations are left.
            unsafe {
                for (r, buffer) in buffer.iter_mut().enumerate() {
                    (w.read)(job, (row + r).min(job.n_rows - 1), i, n, buffer.as_mut_ptr());
                }
                let rows = [0, 1, 2, 3].map(|r: usize| buffer[r].as_ptr().cast());
                let x = job.act(t).cast::<f32>().add(i);
                add_columns::<S, F32>(s, job, rows, None, x, 0..n, &mut cursor, &mut chains);
            }
        }
        // SAFETY: the row and the token exist.
        unsafe { job.write4(row, t, join16(s, chains)) };
    }
}
