//! The arguments of a kernel, with the pointers already checked by [`LinearKernels`](super::LinearKernels).

use std::ops::Range;

use crate::{cpu::arch::SimdBytes, format::Tensor, quant::DType};

/// Rows of a weight matrix in the file's layout.
#[derive(Clone, Copy, Debug)]
pub struct WeightRows<'a> {
    /// Their format.
    pub dtype: DType,
    /// Number of rows.
    pub n_rows: usize,
    /// Elements of each.
    pub k: usize,
    /// The rows, one after the other.
    pub bytes: &'a [u8],
    /// Scales in a tensor of their own, for formats that have such.
    pub scales: Option<ScaleRows<'a>>,
}

/// Scales of [`WeightRows`]: row r of the weights has row `(first_row + r) / block_rows` of them.
#[derive(Clone, Copy, Debug)]
pub struct ScaleRows<'a> {
    /// Rows of scales, one after the other.
    pub bytes: &'a [u8],
    /// Bytes of each.
    pub row_bytes: usize,
    /// Rows of weights that share a row of scales.
    pub block_rows: usize,
    /// Elements of a row that share a scale.
    pub block_cols: usize,
    /// Rows of weights between the start of their block and the first row here.
    pub first_row: usize,
}

impl<'a> WeightRows<'a> {
    /// Rows `rows` of `tensor`.
    ///
    /// # Panics
    /// If the tensor has fewer rows.
    pub fn of(tensor: &'a Tensor, rows: Range<usize>) -> Self {
        let row_bytes = tensor.row_bytes();
        let scales = tensor.scales().map(|s| {
            let (from, to) = (s.first_row + rows.start, s.first_row + rows.end);
            let row_bytes = s.row_bytes(tensor.row_len());
            let bytes = &s.bytes[from / s.block[0] * row_bytes..to.div_ceil(s.block[0]) * row_bytes];
            ScaleRows { bytes, row_bytes, block_rows: s.block[0], block_cols: s.block[1], first_row: from % s.block[0] }
        });
        Self {
            dtype: tensor.dtype(),
            n_rows: rows.len(),
            k: tensor.row_len(),
            bytes: &tensor.bytes()[rows.start * row_bytes..rows.end * row_bytes],
            scales,
        }
    }

    /// Rows without scales of their own, from the front of `bytes`.
    pub fn new(dtype: DType, n_rows: usize, k: usize, bytes: &'a [u8]) -> Self {
        Self { dtype, n_rows, k, bytes, scales: None }
    }
}

/// The row of activations that a row of the result is made of, and its place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Gather {
    /// Row of the activations.
    pub act: u32,
    /// Row of the output.
    pub out: u32,
}

/// One call: `n_rows` rows of W against `n_tokens` tokens.
#[derive(Clone, Copy)]
pub(super) struct Job {
    /// `n_rows` rows of `row_bytes` each, as in the file; any alignment.
    pub w: *const u8,
    pub n_rows: usize,
    /// Elements of a row.
    pub k: usize,
    pub row_bytes: usize,
    /// See [`ScaleRows`]; null where there are none.
    pub scales: *const u8,
    pub scale_row_bytes: usize,
    pub scale_block_rows: usize,
    pub scale_block_cols: usize,
    pub scale_first_row: usize,
    /// For mat-mat: the rows of `acts` and of `out` that belong to the tokens; null where token t has row t.
    pub gather: *const Gather,
    /// `n_tokens` rows of `act_stride` bytes, 64-byte steps, in the form that the kernel takes.
    pub acts: *const u8,
    pub act_stride: usize,
    pub n_tokens: usize,
    /// `out[t · out_stride + r]` is written for all r < n_rows, t < n_tokens.
    pub out: *mut f32,
    pub out_stride: usize,
    /// Scratch of mat-mat: `panel_bytes`, aligned to 64.
    pub panel: *mut u8,
    /// For a transposed weight, whose `k` rows lie at `w`: the column that stands for row 0 of `n_rows`, and the number
    /// of columns.
    pub columns: (usize, usize),
}

/// Bytes between a read of the weights and its prefetch. On an Emerald Rapids core reads run at 12.2 GB/s without
/// prefetch, at 13.1 with 2 KiB, at 13.7 from 4 KiB on.
pub(super) const AHEAD: usize = 4096;

impl Job {
    /// Gives the first `n_rows` rows at `w` their scales.
    ///
    /// # Panics
    /// If there are fewer rows of scales.
    pub fn set_scales(&mut self, s: ScaleRows<'_>, n_rows: usize) {
        let rows = (s.first_row + n_rows).div_ceil(s.block_rows);
        let enough = rows.checked_mul(s.row_bytes).is_some_and(|n| n <= s.bytes.len());
        assert!(enough, "fewer scales than {n_rows} rows need");
        self.scales = s.bytes.as_ptr();
        (self.scale_row_bytes, self.scale_block_rows, self.scale_block_cols) =
            (s.row_bytes, s.block_rows, s.block_cols);
        self.scale_first_row = s.first_row;
    }

    /// Multiplies elements `i..i + n` of row `row` at `w`, decoded to `x`, by their f32 scales, if there are any.
    ///
    /// # Safety
    /// `x` must be valid for `n` floats, and the row one of those that `set_scales` was called for.
    #[inline(always)]
    pub unsafe fn scale_f32<S: SimdBytes>(&self, s: S, row: usize, i: usize, n: usize, x: *mut f32) {
        if self.scales.is_null() {
            return;
        }
        let scales =
            self.scales.wrapping_add((self.scale_first_row + row) / self.scale_block_rows * self.scale_row_bytes);
        let mut at = i;
        while at < i + n {
            let block = at / self.scale_block_cols;
            let end = (i + n).min((block + 1).saturating_mul(self.scale_block_cols));
            // SAFETY: the block has a scale, and the elements are among the n.
            unsafe {
                let scale = s.splat(f32_at(scales, block));
                while at < end {
                    let p = x.add(at - i);
                    s.store_partial(p, end - at, s.mul(scale, s.load_partial(p, end - at)));
                    at += S::LANES;
                }
            }
            at = end;
        }
    }

    /// Row `r`, or the last row where `r` is beyond it: a tile of rows may be partly empty, and must not read past the
    /// rows.
    ///
    /// # Safety
    /// `w` must be valid for `n_rows` rows.
    #[inline(always)]
    pub unsafe fn row(&self, r: usize) -> *const u8 {
        // SAFETY: the row is one of the n_rows ≥ 1.
        unsafe { self.w.add(r.min(self.n_rows - 1) * self.row_bytes) }
    }

    /// The scales of row `r`, or of the last row.
    ///
    /// # Safety
    /// The format must have scales of their own.
    #[inline(always)]
    pub unsafe fn scale_row(&self, r: usize) -> *const u8 {
        let row = (self.scale_first_row + r.min(self.n_rows - 1)) / self.scale_block_rows;
        // SAFETY: `LinearKernels` has checked that all rows have scales.
        unsafe { self.scales.add(row * self.scale_row_bytes) }
    }

    /// The activations of token `t` where tokens are gathered; see [`Job::act`].
    ///
    /// # Safety
    /// As for [`Job::act`].
    #[inline(always)]
    pub unsafe fn gathered_act(&self, t: usize) -> *const u8 {
        let t = t.min(self.n_tokens - 1);
        // SAFETY: the token is one of the n_tokens ≥ 1, whose rows were checked.
        unsafe {
            let row = if self.gather.is_null() { t } else { (*self.gather.add(t)).act as usize };
            self.acts.add(row * self.act_stride)
        }
    }

    /// Place of the results of token `t`.
    ///
    /// # Safety
    /// `t < n_tokens`.
    #[inline(always)]
    pub unsafe fn gathered_out(&self, t: usize) -> *mut f32 {
        // SAFETY: as above.
        unsafe {
            let row = if self.gather.is_null() { t } else { (*self.gather.add(t)).out as usize };
            self.out.add(row * self.out_stride)
        }
    }

    /// The activations of token `t`, or of the last token where `t` is beyond it: tiles may be partly empty.
    ///
    /// # Safety
    /// `acts` must be valid for `n_tokens` rows.
    #[inline(always)]
    pub unsafe fn act(&self, t: usize) -> *const u8 {
        // SAFETY: the token is one of the n_tokens ≥ 1.
        unsafe { self.acts.add(t.min(self.n_tokens - 1) * self.act_stride) }
    }

    /// Prefetches `n` bytes at `p`, unless they lie beyond this call's rows: those belong to other threads, which
    /// prefetch them themselves.
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

/// Float `i` at `p`, at any alignment.
///
/// # Safety
/// The float must be readable.
#[inline(always)]
pub(super) unsafe fn f32_at(p: *const u8, i: usize) -> f32 {
    // SAFETY: as above.
    unsafe { f32::from_le_bytes(p.add(4 * i).cast::<[u8; 4]>().read_unaligned()) }
}

/// A kernel for one format on one instruction set.
pub(super) type Kernel = unsafe fn(&Job);
