//! Mat-mat over a panel of floats.
//!
//! ```text
//! for each tile of R rows (R = 1, 2 or 4 vectors):          W is unpacked once, whatever the number of tokens
//!     panel[k][R] = floats of these rows                    4·k·R bytes: stays in L2
//!     for each tile of 6 tokens:                            their activations stream from L2
//!         acc[6][R] += x[t][i] · panel[i][..]               registers; R + 6 loads for 6·R multiply-adds
//! ```
//!
//! 2·rows·k·tokens flops; W is read once, the activations once per R rows.

use super::job::Job;
use super::unpack::{MAX_LEN, Unpack};
use crate::cpu::arch::SimdBytes;

/// Rows of a tile.
pub(super) const fn tile_rows<S: SimdBytes>() -> usize {
    S::GEMM_VECTORS * S::LANES
}

/// Bytes of the panel.
pub(super) const fn panel_bytes(k: usize, tile_rows: usize) -> usize {
    4 * k * tile_rows
}

/// Mat-mat for any number of tokens.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32 form and a panel of [`panel_bytes`].
#[inline(always)]
pub(super) unsafe fn mat_mat<S: SimdBytes, W: Unpack>(s: S, job: &Job) {
    let panel = job.panel.cast::<f32>();
    let mut row = 0;
    while row < job.n_rows {
        // SAFETY: the contract is passed on; rows are clamped to those that exist.
        unsafe {
            fill::<S, W>(s, job, row, panel);
            match S::GEMM_VECTORS {
                1 => multiply::<S, 1>(s, job, row, panel),
                2 => multiply::<S, 2>(s, job, row, panel),
                _ => multiply::<S, 4>(s, job, row, panel),
            }
        }
        row += tile_rows::<S>();
    }
}

/// panel[i][r] = W[row + r][i]
#[inline(always)]
unsafe fn fill<S: SimdBytes, W: Unpack>(s: S, job: &Job, row: usize, panel: *mut f32) {
    let tile = tile_rows::<S>();
    // Pieces outside, rows inside: the lines of the panel that one piece touches stay in L1 for all rows. Single
    // elements are taken 16 at a time for the same reason.
    let step = if W::LEN == 1 { 16 } else { W::LEN };
    let mut buffer = [0f32; MAX_LEN];
    let mut i = 0;
    while i < job.k {
        let n = step.min(job.k - i);
        for r in 0..tile {
            // SAFETY: the row is clamped, and n elements of it are left.
            unsafe {
                let p = job.row(row + r).add(i / W::LEN * W::BYTES);
                for piece in 0..n / W::LEN {
                    W::to_f32(s, p.add(piece * W::BYTES), buffer.as_mut_ptr().add(piece * W::LEN));
                }
                for j in 0..n {
                    *panel.add((i + j) * tile + r) = buffer[j];
                }
            }
        }
        i += n;
    }
}

/// All tokens against one panel.
#[inline(always)]
unsafe fn multiply<S: SimdBytes, const R: usize>(s: S, job: &Job, row: usize, panel: *const f32) {
    let mut t = 0;
    // SAFETY: each tile takes tokens that exist.
    unsafe {
        while t + 6 <= job.n_tokens {
            tile::<S, R, 6>(s, job, row, t, panel);
            t += 6;
        }
        if t + 4 <= job.n_tokens {
            tile::<S, R, 4>(s, job, row, t, panel);
            t += 4;
        }
        if t + 2 <= job.n_tokens {
            tile::<S, R, 2>(s, job, row, t, panel);
            t += 2;
        }
        if t < job.n_tokens {
            tile::<S, R, 1>(s, job, row, t, panel);
        }
    }
}

/// R vectors of rows by N tokens.
#[inline(always)]
unsafe fn tile<S: SimdBytes, const R: usize, const N: usize>(s: S, job: &Job, row: usize, t: usize, panel: *const f32) {
    let mut sums = [[s.zero(); R]; N];
    // SAFETY: the panel has k rows of R vectors, every token k floats; rows that do not exist are not written.
    unsafe {
        let mut x = [job.act(t).cast::<f32>(); N];
        for (n, x) in x.iter_mut().enumerate() {
            *x = job.act(t + n).cast();
        }
        for i in 0..job.k {
            let mut w = [s.zero(); R];
            for (r, w) in w.iter_mut().enumerate() {
                *w = s.load(panel.add((i * R + r) * S::LANES));
            }
            for n in 0..N {
                let x = s.splat(*x[n].add(i));
                for r in 0..R {
                    sums[n][r] = s.mul_add(w[r], x, sums[n][r]);
                }
            }
        }
        for n in 0..N {
            for r in 0..R {
                let at = row + r * S::LANES;
                if at < job.n_rows {
                    let out = job.out.add((t + n) * job.out_stride + at);
                    s.store_partial(out, job.n_rows - at, sums[n][r]);
                }
            }
        }
    }
}
