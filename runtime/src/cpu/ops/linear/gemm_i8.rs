//! Mat-mat over a panel of bytes, for block formats where the instruction set multiplies bytes fast enough.
//!
//! ```text
//! for each tile of R vectors of rows:                       W is unpacked once, whatever the number of tokens
//!     panel: for each group of G = 16 or 32 elements
//!         [G / 4][R vectors] quants, four of one row in a lane      then [R] scales and, if any, [R] minima
//!     for each tile of N tokens:
//!         for each group: int[N][R] = zero point's share; += four quants · four activations, G / 4 times
//!                         sum[N][R] += int · activation scale · scale (+ min · activation scale · Σq)
//! ```
//!
//! The panel is about k·R·(4·LANES) bytes: L1 or L2. 2·rows·k·tokens operations; W is read once, the activations once per
//! tile of rows.

use super::act::ActChunk;
use super::job::Job;
use super::panel::{PanelBlock, RowBlocks};
use super::unpack::{Loader, Shape, e8m0_half};
use crate::cpu::arch::SimdBytes;

/// Rows of a tile.
pub(super) const fn tile_rows<S: SimdBytes>() -> usize {
    S::GEMM_I8_VECTORS * S::LANES
}

/// Bytes of the panel for groups of `group` elements, with `minima` or without.
pub(super) const fn panel_bytes(k: usize, tile_rows: usize, group: usize, minima: bool) -> usize {
    k / group * (group / 4 + 1 + minima as usize) * 4 * tile_rows
}

/// Bytes of one group in the panel.
const fn group_bytes<S: SimdBytes, W: Shape>() -> usize {
    panel_bytes(W::GROUP, tile_rows::<S>(), W::GROUP, W::HAS_MIN)
}

/// Mat-mat for any number of tokens. `multiply` is [`multiply`] for the format's shape.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Chunks form and a panel of [`panel_bytes`].
#[inline(always)]
pub(super) unsafe fn mat_mat<S: SimdBytes, W: Loader>(s: S, job: &Job, multiply: unsafe fn(&Job, usize)) {
    for row in (0..job.n_rows).step_by(tile_rows::<S>()) {
        // SAFETY: the contract is passed on; rows are clamped to those that exist.
        unsafe {
            fill::<S, W>(s, job, row);
            multiply(job, row);
        }
    }
}

/// Unpacks one tile of rows into the panel. Meanwhile the next tile's bytes are prefetched, in the order of memory.
#[inline(always)]
unsafe fn fill<S: SimdBytes, W: Loader>(s: S, job: &Job, row: usize) {
    let tile = tile_rows::<S>();
    let groups_of_block = W::LEN / W::Shape::GROUP;
    let group_bytes = group_bytes::<S, W::Shape>();
    let mut cursor = job.w.wrapping_add((row + tile) * job.row_bytes);
    for first in (0..tile).step_by(S::LANES) {
        let first_row = (row + first).min(job.n_rows - 1);
        // SAFETY: rows are clamped to those that exist; the panel has all groups of the row.
        unsafe {
            let rows = RowBlocks::new::<S>(job.row(first_row), job.row_bytes, job.n_rows - first_row);
            for block in 0..job.k / W::LEN {
                job.prefetch(s, cursor, S::LANES * W::BYTES);
                cursor = cursor.wrapping_add(S::LANES * W::BYTES);
                let p = job.panel.add(block * groups_of_block * group_bytes + 4 * first);
                W::to_panel(s, rows.skip(block * W::BYTES), PanelBlock { p, tile, group_bytes });
                if W::APART && !job.scales.is_null() {
                    let scales = p.add(W::Shape::GROUP * tile).cast::<f32>();
                    for r in 0..S::LANES {
                        *scales.add(r) = e8m0_half(*job.scale_row(first_row + r).add(block));
                    }
                }
            }
        }
    }
}

/// All tokens against one panel, which holds the rows from `row` on.
///
/// # Safety
/// As for [`mat_mat`]; the panel must be filled by a format of shape `W`.
#[inline(always)]
pub(super) unsafe fn multiply<S: SimdBytes, W: Shape>(s: S, job: &Job, row: usize) {
    // SAFETY: the contract is passed on.
    unsafe {
        match (S::GEMM_I8_VECTORS, S::GEMM_I8_TOKENS) {
            (1, 4) => multiply_tiles::<S, W, 1, 4>(s, job, row),
            (1, _) => multiply_tiles::<S, W, 1, 8>(s, job, row),
            _ => multiply_tiles::<S, W, 2, 6>(s, job, row),
        }
    }
}

#[inline(always)]
unsafe fn multiply_tiles<S: SimdBytes, W: Shape, const R: usize, const N: usize>(s: S, job: &Job, row: usize) {
    let mut t = 0;
    // SAFETY: tiles may be partly empty.
    unsafe {
        while t + 2 < job.n_tokens {
            tile::<S, W, R, N>(s, job, row, t);
            t += N;
        }
        // One or two tokens are left.
        if t < job.n_tokens {
            tile::<S, W, R, 2>(s, job, row, t);
        }
    }
}

/// R vectors of rows by N tokens, of which some may not exist.
#[inline(always)]
unsafe fn tile<S: SimdBytes, W: Shape, const R: usize, const N: usize>(s: S, job: &Job, row: usize, t: usize) {
    let width = 4 * S::LANES;
    let mut sums = [[s.zero(); R]; N];
    let mut panel = job.panel.cast_const();
    // SAFETY: the panel has k / GROUP groups, every token k / 256 chunks; rows that do not exist are not written.
    unsafe {
        let mut rows = [std::ptr::null::<ActChunk>(); N];
        for (n, row) in rows.iter_mut().enumerate() {
            *row = job.gathered_act(t + n).cast();
        }
        for block in 0..job.k / 32 {
            let i = block % 8;
            let x = rows.map(|row| row.add(block / 8));
            for part in 0..32 / W::GROUP {
                let mut dots = [[s.splat_i32(0); R]; N];
                if W::zero::<S>() != 0 {
                    for n in 0..N {
                        let sum = if W::GROUP == 16 {
                            (&raw const (*x[n]).neg_sum16).cast::<i32>().add(2 * i + part)
                        } else {
                            (&raw const (*x[n]).neg_sum32).cast::<i32>().add(i)
                        };
                        dots[n] = [zero_share::<S, W>(s, *sum); R];
                    }
                }
                let at = 32 * i + W::GROUP * part;
                if S::GEMM_I8_BY_FOUR {
                    for step in (0..W::GROUP / 4).step_by(4) {
                        for r in 0..R {
                            let p = panel.add(r * width);
                            let w = [
                                s.load_bytes(p),
                                s.load_bytes(p.add(R * width)),
                                s.load_bytes(p.add(2 * R * width)),
                                s.load_bytes(p.add(3 * R * width)),
                            ];
                            for n in 0..N {
                                let q = (&raw const (*x[n]).q).cast::<u8>().add(at + 4 * step);
                                let q = [
                                    s.splat_word(q),
                                    s.splat_word(q.add(4)),
                                    s.splat_word(q.add(8)),
                                    s.splat_word(q.add(12)),
                                ];
                                dots[n][r] = match W::BITS {
                                    0..=5 => s.dot_add4::<5>(dots[n][r], w, q),
                                    _ => s.dot_add4::<6>(dots[n][r], w, q),
                                };
                            }
                        }
                        panel = panel.add(4 * R * width);
                    }
                } else {
                    for step in 0..W::GROUP / 4 {
                        let mut w = [s.load_bytes(panel); R];
                        for r in 1..R {
                            w[r] = s.load_bytes(panel.add(r * width));
                        }
                        panel = panel.add(R * width);
                        for n in 0..N {
                            let q = s.splat_word((&raw const (*x[n]).q).cast::<u8>().add(at + 4 * step));
                            for r in 0..R {
                                dots[n][r] = s.dot_add(dots[n][r], w[r], q);
                            }
                        }
                    }
                }
                let scales = panel.cast::<f32>();
                for n in 0..N {
                    let scale = s.splat(*(&raw const (*x[n]).scale).cast::<f32>().add(i));
                    for r in 0..R {
                        let dot = s.mul(s.i32_to_f32(dots[n][r]), scale);
                        sums[n][r] = s.mul_add(dot, s.load(scales.add(r * S::LANES)), sums[n][r]);
                    }
                    if W::HAS_MIN {
                        let sum = if W::GROUP == 16 {
                            (&raw const (*x[n]).scaled_sum16).cast::<f32>().add(2 * i + part)
                        } else {
                            (&raw const (*x[n]).scaled_sum).cast::<f32>().add(i)
                        };
                        let sum = s.splat(*sum);
                        for r in 0..R {
                            sums[n][r] = s.mul_add(s.load(scales.add((R + r) * S::LANES)), sum, sums[n][r]);
                        }
                    }
                }
                panel = panel.add((1 + W::HAS_MIN as usize) * R * width);
            }
        }
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

/// −zero · Σq in all lanes, from −Σq. A vector shift, because the scalar units are busier than the vector units here.
#[inline(always)]
fn zero_share<S: SimdBytes, W: Shape>(s: S, neg_sum: i32) -> S::I {
    s.shl_i32(s.splat_i32(neg_sum), W::zero::<S>().trailing_zeros())
}
