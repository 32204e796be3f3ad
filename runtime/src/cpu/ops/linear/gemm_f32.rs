//! Mat-mat over a panel of floats.
//!
//! ```text
//! for each tile of R rows (R = 1, 2 or 4 vectors):          W is unpacked once, whatever the number of tokens
//!     panel[16][k / 16][R] = floats of these rows           4·k·R bytes: stays in L2
//!     for each tile of 6 tokens:                            their activations stream from L2
//!         for each chain c of sixteen: for i = c, c + 16, …
//!             acc[6][R] += x[t][c][i / 16] · panel[c][i / 16][..]   registers; R + 6 loads for 6·R multiply-adds
//!         out = the chains, joined as `chains` says
//! ```
//!
//! The chains are those of mat-vec, whose vectors run along a row: both give the same bits.
//! 2·rows·k·tokens flops; W is read once, the activations once per R rows.

use super::chains::{CHAINS, Four, ORDER, chain_len, chained};
use super::job::Job;
use super::unpack::{MAX_LEN, ToFloats};
use crate::cpu::{arch::SimdBytes, ops::by_lanes};

/// Rows of a tile.
pub(super) const fn tile_rows<S: SimdBytes>() -> usize {
    S::GEMM_VECTORS * S::LANES
}

/// Bytes of the panel, whose chains are all as long as the longest.
pub(super) const fn panel_bytes(k: usize, tile_rows: usize) -> usize {
    4 * CHAINS * chain_len(k) * tile_rows
}

/// Mat-mat for any number of tokens, of weights in the format that `w` reads.
///
/// # Safety
/// The job's pointers must be valid, with activations in the F32Chains form and a panel of [`panel_bytes`].
#[inline(always)]
pub(super) unsafe fn mat_mat<S: SimdBytes>(s: S, job: &Job, w: ToFloats) {
    for row in (0..job.n_rows).step_by(tile_rows::<S>()) {
        // SAFETY: the contract is passed on; rows are clamped to those that exist.
        unsafe {
            fill(s, job, w, row);
            multiply(s, job, row);
        }
    }
}

/// Columns of a transposed weight that are unpacked at a time: at least a block of any format, so that a block is
/// unpacked once and not for each tile.
pub(super) const fn transposed_columns(block_len: usize, tile_rows: usize) -> usize {
    if block_len == 1 { tile_rows } else { MAX_LEN }
}

/// As [`mat_mat`], for a transposed weight: W[r][i] is element `columns.0 + r` of row i. The panel is then filled
/// without a transposition; one token needs no panel.
///
/// # Safety
/// As for [`mat_mat`]; `job.w` must hold `k` rows of `columns.1` elements, `n_rows` of them from `columns.0` on, and the
/// panel [`transposed_columns`] floats for each.
#[inline(always)]
pub(super) unsafe fn mat_mat_transposed<S: SimdBytes>(s: S, job: &Job, w: ToFloats) {
    let tile = tile_rows::<S>();
    const { assert!(MAX_LEN.is_multiple_of(tile_rows::<S>())) };
    if job.n_tokens == 1 {
        // SAFETY: the contract is passed on.
        return unsafe { vec_transposed(s, job, w) };
    }
    let width = transposed_columns(w.block_len, tile);
    for first in (0..job.n_rows).step_by(width) {
        let n = width.min(job.n_rows - first);
        // SAFETY: the contract is passed on; each tile has a panel of its own.
        unsafe {
            fill_transposed::<S>(job, w, first, n);
            for t in 0..n.div_ceil(tile) {
                let panel = job.panel.add(panel_bytes(job.k, tile) * t);
                multiply(s, &Job { panel, ..*job }, first + t * tile);
            }
        }
    }
}

/// panel[t][i % 16][i / 16][r] = W[i][columns.0 + first + t · tile + r], n columns in all.
#[inline(always)]
unsafe fn fill_transposed<S: SimdBytes>(job: &Job, w: ToFloats, first: usize, n: usize) {
    let tile = tile_rows::<S>();
    let mut buffer = [0f32; 3 * MAX_LEN];
    for i in 0..job.k {
        // SAFETY: the columns exist, and the panels have `tile` floats for row i of each tile.
        unsafe {
            let row = unpack_columns(job, w, i, first, n, &mut buffer);
            for t in 0..n.div_ceil(tile) {
                let target = job.panel.add(t * panel_bytes(job.k, tile)).cast::<f32>().add(chained(i, job.k) * tile);
                std::ptr::copy_nonoverlapping(row.add(t * tile), target, tile.min(n - t * tile));
            }
        }
    }
}

/// One token, without a panel: out[r] = Σ_i x[i] · W[i][columns.0 + r].
#[inline(always)]
unsafe fn vec_transposed<S: SimdBytes>(s: S, job: &Job, w: ToFloats) {
    let (mut chains, mut buffer) = ([[0f32; MAX_LEN]; CHAINS], [0f32; 3 * MAX_LEN]);
    for first in (0..job.n_rows).step_by(MAX_LEN) {
        let n = MAX_LEN.min(job.n_rows - first);
        chains.iter_mut().for_each(|chain| chain[..n].fill(0.0));
        // SAFETY: the columns exist, the token has k floats, and n results go where they belong.
        unsafe {
            let x = job.gathered_act(0).cast::<f32>();
            for i in 0..job.k {
                let row = unpack_columns(job, w, i, first, n, &mut buffer);
                let (x, to) = (s.splat(*x.add(chained(i, job.k))), chains[i % CHAINS].as_mut_ptr());
                by_lanes!(n, j, m => {
                    s.store_partial(to.add(j), m, s.mul_add(s.load_partial(row.add(j), m), x, s.load_partial(to.add(j), m)));
                });
            }
            let out = job.gathered_out(0).add(first);
            by_lanes!(n, j, m => {
                let mut fours = Four::<_, 1, 1>::new(s);
                for i in ORDER {
                    let mut four = Four::new(s);
                    for j4 in ORDER {
                        four.add(s, j4, [[s.load_partial(chains[4 * i + j4].as_ptr().add(j), m)]]);
                    }
                    fours.add(s, i, four.sum(s));
                }
                s.store_partial(out.add(j), m, fours.sum(s)[0][0]);
            });
        }
    }
}

/// Elements `columns.0 + first..` of row `i` of a transposed weight, `n` of at most [`MAX_LEN`], as floats in `buffer`.
///
/// # Safety
/// Row and columns must exist.
#[inline(always)]
unsafe fn unpack_columns(
    job: &Job,
    w: ToFloats,
    i: usize,
    first: usize,
    n: usize,
    buffer: &mut [f32; 3 * MAX_LEN],
) -> *const f32 {
    let first = job.columns.0 + first;
    // Whole blocks around the columns; blocks divide a row.
    let (from, to) = (first / w.block_len * w.block_len, (first + n).next_multiple_of(w.block_len));
    // SAFETY: the caller's promise; at most a block less one element is before the n columns, and behind.
    unsafe {
        (w.read)(job, i, from, to - from, buffer.as_mut_ptr());
        buffer.as_ptr().add(first - from)
    }
}

/// panel[i % 16][i / 16][r] = W[row + r][i]
#[inline(always)]
unsafe fn fill<S: SimdBytes>(s: S, job: &Job, w: ToFloats, row: usize) {
    let panel = job.panel.cast::<f32>();
    let tile = tile_rows::<S>();
    // As many rows as a vector has lanes, a short stretch of each: small enough to be transposed from L1. The stretches
    // are not a power of two apart, because such rows share few cache sets.
    const STRETCH: usize = MAX_LEN;
    let mut buffer = [[0f32; STRETCH + 16]; 16];
    let stride = size_of_val(&buffer[0]);
    for first in (0..tile).step_by(S::LANES) {
        for i in (0..job.k).step_by(STRETCH) {
            let n = STRETCH.min(job.k - i);
            // SAFETY: rows are clamped to those that exist, and n elements of each are left.
            unsafe {
                for r in 0..S::LANES {
                    (w.read)(job, (row + first + r).min(job.n_rows - 1), i, n, buffer[r].as_mut_ptr());
                }
                // Element by element the chains take turns.
                for j in (0..n).step_by(CHAINS) {
                    let words = panel.add((i + j) / CHAINS * tile + first).cast::<u32>();
                    let from = buffer.as_ptr().cast::<f32>().add(j).cast();
                    s.transpose_words(from, stride, words, chain_len(job.k) * tile, CHAINS.min(n - j));
                }
            }
        }
    }
}

/// All tokens against one panel, which holds the rows from `row` on.
///
/// # Safety
/// As for [`mat_mat`]; the panel must be filled.
#[inline(always)]
unsafe fn multiply<S: SimdBytes>(s: S, job: &Job, row: usize) {
    // SAFETY: the contract is passed on.
    unsafe {
        match S::GEMM_VECTORS {
            1 => multiply_tiles::<S, 1>(s, job, row),
            2 => multiply_tiles::<S, 2>(s, job, row),
            _ => multiply_tiles::<S, 4>(s, job, row),
        }
    }
}

#[inline(always)]
unsafe fn multiply_tiles<S: SimdBytes, const R: usize>(s: S, job: &Job, row: usize) {
    let mut t = 0;
    // SAFETY: tiles may be partly empty.
    unsafe {
        while t + 2 < job.n_tokens {
            tile::<S, R, 6>(s, job, row, t);
            t += 6;
        }
        // One or two tokens are left.
        if t < job.n_tokens {
            tile::<S, R, 2>(s, job, row, t);
        }
    }
}

/// R vectors of rows by N tokens, of which some may not exist.
#[inline(always)]
unsafe fn tile<S: SimdBytes, const R: usize, const N: usize>(s: S, job: &Job, row: usize, t: usize) {
    let mut fours = Four::<_, R, N>::new(s);
    // SAFETY: the panel has R vectors for each element, every token k floats; rows that do not exist are not written.
    unsafe {
        let mut x = [std::ptr::null::<f32>(); N];
        for (n, x) in x.iter_mut().enumerate() {
            *x = job.gathered_act(t + n).cast();
        }
        for i in ORDER {
            let mut four = Four::new(s);
            for j in ORDER {
                four.add(s, j, chain_sums(s, job, &x, 4 * i + j));
            }
            fours.add(s, i, four.sum(s));
        }
        let sums = fours.sum(s);
        for n in 0..N.min(job.n_tokens - t) {
            for r in 0..R {
                let at = row + r * S::LANES;
                if at < job.n_rows {
                    let out = job.gathered_out(t + n).add(at);
                    s.store_partial(out, job.n_rows - at, sums[n][r]);
                }
            }
        }
    }
}

/// The sums over elements `chain`, `chain + 16`, … of the panel, for the tokens whose floats begin at `x`.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn chain_sums<S: SimdBytes, const R: usize, const N: usize>(
    s: S,
    job: &Job,
    x: &[*const f32; N],
    chain: usize,
) -> [[S::F; R]; N] {
    let mut sums = [[s.zero(); R]; N];
    // SAFETY: as the caller vouches.
    unsafe {
        let panel = job.panel.cast_const().cast::<f32>();
        let first = chain * chain_len(job.k);
        // Element `chain` is the first one of the chain, where there is one.
        for at in first..first + (job.k + CHAINS - 1 - chain) / CHAINS {
            let mut w = [s.zero(); R];
            for (r, w) in w.iter_mut().enumerate() {
                *w = s.load(panel.add((at * R + r) * S::LANES));
            }
            for n in 0..N {
                let x = s.splat(*x[n].add(at));
                for r in 0..R {
                    sums[n][r] = s.mul_add(w[r], x, sums[n][r]);
                }
            }
        }
    }
    sums
}
