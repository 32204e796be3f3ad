//! The arguments of a kernel, with the pointers already checked by [`LinearKernels`](super::LinearKernels).

use crate::cpu::arch::SimdBytes;

/// One call: `n_rows` rows of W against `n_tokens` tokens.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// `n_rows` rows of `row_bytes` each, as in the file; any alignment.
    pub w: *const u8,
    pub n_rows: usize,
    /// Elements of a row.
    pub k: usize,
    pub row_bytes: usize,
    /// `n_tokens` rows of `act_stride` bytes, 64-byte steps, in the form that the kernel takes.
    pub acts: *const u8,
    pub act_stride: usize,
    pub n_tokens: usize,
    /// `out[t · out_stride + r]` is written for all r < n_rows, t < n_tokens.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Scratch of mat-mat: `panel_bytes`, aligned to 64.
    pub panel: *mut u8,
    /// Of a transposed weight, whose `k` rows lie at `w`: the column that stands for row 0 of `n_rows`, and all columns.
    pub columns: (usize, usize),
}

/// How far ahead of its use the stream of weights is asked for, beyond what is being read: on an Emerald Rapids core a
/// read is at 12.2 GB/s without, 13.1 with 2 KiB, 13.7 from 4 KiB on.
pub(super) const AHEAD: usize = 4096;

impl Job {
    /// Row `r`, or the last row where there is no such row: tiles of rows may be partly empty, but never read beyond.
    ///
    /// # Safety
    /// `w` must be valid for `n_rows` rows.
    #[inline(always)]
    pub unsafe fn row(&self, r: usize) -> *const u8 {
        // SAFETY: the row is one of the n_rows ≥ 1.
        unsafe { self.w.add(r.min(self.n_rows - 1) * self.row_bytes) }
    }

    /// The activations of token `t`, or of the last one where there is no such token: tiles may be partly empty.
    ///
    /// # Safety
    /// `acts` must be valid for `n_tokens` rows.
    #[inline(always)]
    pub unsafe fn act(&self, t: usize) -> *const u8 {
        // SAFETY: the token is one of the n_tokens ≥ 1.
        unsafe { self.acts.add(t.min(self.n_tokens - 1) * self.act_stride) }
    }

    /// Asks for `n` bytes at `p`, which the stream will reach, unless they lie beyond this call's rows: what follows is
    /// some other thread's, and would be fetched twice.
    #[inline(always)]
    pub fn prefetch<S: SimdBytes>(&self, s: S, p: *const u8, n: usize) {
        let end = self.w.wrapping_add(self.n_rows * self.row_bytes);
        if p.wrapping_add(n) <= end {
            for line in 0..n.div_ceil(64) {
                s.prefetch(p.wrapping_add(64 * line));
            }
        }
    }

    /// Writes the results of rows `row .. row + 4` (those that exist) for token `t`.
    ///
    /// # Safety
    /// `row < n_rows`, `t < n_tokens`, and `out` must be valid.
    #[inline(always)]
    pub unsafe fn write4(&self, row: usize, t: usize, values: [f32; 4]) {
        // SAFETY: only rows that exist are written. The common case is one store; a copy of unknown length is a call.
        unsafe {
            let out = self.out.add(t * self.out_stride + row);
            if self.n_rows - row >= 4 {
                out.cast::<[f32; 4]>().write_unaligned(values);
            } else {
                for r in 0..self.n_rows - row {
                    *out.add(r) = values[r];
                }
            }
        }
    }
}

/// A kernel for one format on one instruction set.
pub(super) type Kernel = unsafe fn(&Job);
