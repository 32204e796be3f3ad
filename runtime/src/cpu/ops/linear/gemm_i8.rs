//! Mat-mat over a panel of bytes, for block formats.
//!
//! ```text
//! for each tile of R vectors of rows:                       W is unpacked once, whatever the number of tokens
//!     panel: for each group of G = 16 or 32 elements        see `panel`
//!     for each tile of N tokens:
//!         for each chain c of four: for the groups c, c + 4, …
//!             int[N][R] = zero point's share; += four quants · four activations, G / 4 times
//!             sum[N][R] += int · (scale · activation scale) (+ min · (activation scale · Σq))
//!         out = the chains, joined as `chains` says
//! ```
//!
//! The chains are those of mat-vec, whose vectors hold four groups side by side: both give the same bits.
//!
//! The panel is about k·R·(4·LANES) bytes: L1 or L2. 2·rows·k·tokens operations; W is read once, the activations once per
//! tile of rows.

use super::act::ActChunk;
use super::chains::{Four, ORDER};
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

/// Prefetches of the next tile's weights, spread over the work on one tile so that memory is never idle. With few tokens
/// the reading takes as long as the products.
pub(super) struct Ahead {
    /// What is prefetched next, and the end of what may be.
    next: *const u8,
    end: *const u8,
    /// What should be prefetched by now.
    due: *const u8,
    /// Bytes a step of unpacking, and a step of multiplying.
    unpacking: usize,
    multiplying: usize,
}

/// Unpacking a block's columns of a tile takes about as long as multiplying them with this many tokens.
const UNPACKING_TOKENS: usize = 8;
/// With more tokens than this there is time enough during the products with the first ones.
const AHEAD_TOKENS: usize = 24;

impl Ahead {
    /// For the tile from `row` on, with `blocks` steps of unpacking and `groups` of multiplying for each `tile_tokens`.
    fn new(job: &Job, row: usize, tile: usize, [blocks, groups, tile_tokens]: [usize; 3]) -> Self {
        let at = |row: usize| job.w.wrapping_add(row.min(job.n_rows) * job.row_bytes);
        let (next, end) = (at(row + tile), at(row + 2 * tile));
        let bytes = end as usize - next as usize;
        let tokens = job.n_tokens.min(AHEAD_TOKENS);
        let first = bytes * UNPACKING_TOKENS / (UNPACKING_TOKENS + tokens);
        let steps = groups * tokens.div_ceil(tile_tokens);
        Self {
            next,
            end,
            due: next,
            unpacking: first.div_ceil(blocks.max(1)),
            multiplying: (bytes - first).div_ceil(steps.max(1)),
        }
    }

    #[inline(always)]
    fn step<S: SimdBytes>(&mut self, s: S, bytes: usize) {
        self.due = self.due.wrapping_add(bytes);
        while self.next < self.due && self.next < self.end {
            s.prefetch(self.next);
            self.next = self.next.wrapping_add(64);
        }
    }
}

/// Mat-mat for any number of tokens. `multiply` is [`multiply`] for the format's shape.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Chunks form and a panel of [`panel_bytes`].
#[inline(always)]
pub(super) unsafe fn mat_mat<S: SimdBytes, W: Loader>(s: S, job: &Job, multiply: unsafe fn(&Job, usize, &mut Ahead)) {
    let tile = tile_rows::<S>();
    let steps = [tile / S::LANES * (job.k / W::LEN), job.k / W::Shape::GROUP, S::GEMM_I8_TOKENS];
    for row in (0..job.n_rows).step_by(tile) {
        let mut ahead = Ahead::new(job, row, tile, steps);
        // SAFETY: the contract is passed on; rows are clamped to those that exist.
        unsafe {
            fill::<S, W>(s, job, row, &mut ahead);
            multiply(job, row, &mut ahead);
        }
    }
}

/// Unpacks one tile of rows into the panel.
#[inline(always)]
unsafe fn fill<S: SimdBytes, W: Loader>(s: S, job: &Job, row: usize, ahead: &mut Ahead) {
    let tile = tile_rows::<S>();
    let groups_of_block = W::LEN / W::Shape::GROUP;
    let group_bytes = group_bytes::<S, W::Shape>();
    for first in (0..tile).step_by(S::LANES) {
        let first_row = (row + first).min(job.n_rows - 1);
        // SAFETY: rows are clamped to those that exist; the panel has all groups of the row.
        unsafe {
            let rows = RowBlocks::new::<S>(job.row(first_row), job.row_bytes, job.n_rows - first_row);
            for block in 0..job.k / W::LEN {
                ahead.step(s, ahead.unpacking);
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
pub(super) unsafe fn multiply<S: SimdBytes, W: Shape>(s: S, job: &Job, row: usize, ahead: &mut Ahead) {
    // SAFETY: the contract is passed on.
    unsafe {
        match (S::GEMM_I8_VECTORS, S::GEMM_I8_TOKENS) {
            (1, 4) => multiply_tiles::<S, W, 1, 4>(s, job, row, ahead),
            (1, _) => multiply_tiles::<S, W, 1, 8>(s, job, row, ahead),
            _ => multiply_tiles::<S, W, 2, 6>(s, job, row, ahead),
        }
    }
}

#[inline(always)]
unsafe fn multiply_tiles<S: SimdBytes, W: Shape, const R: usize, const N: usize>(
    s: S,
    job: &Job,
    row: usize,
    ahead: &mut Ahead,
) {
    let mut t = 0;
    // SAFETY: tiles may be partly empty.
    unsafe {
        while t + 2 < job.n_tokens {
            // Three or four may be left.
            if N > 4 && t + 4 >= job.n_tokens {
                return tile::<S, W, R, 4>(s, job, row, t, ahead);
            }
            tile::<S, W, R, N>(s, job, row, t, ahead);
            t += N;
        }
        // One or two tokens are left.
        if t < job.n_tokens {
            tile::<S, W, R, 2>(s, job, row, t, ahead);
        }
    }
}

/// R vectors of rows by N tokens, of which some may not exist.
#[inline(always)]
unsafe fn tile<S: SimdBytes, W: Shape, const R: usize, const N: usize>(
    s: S,
    job: &Job,
    row: usize,
    t: usize,
    ahead: &mut Ahead,
) {
    let mut four = Four::<_, R, N>::new(s);
    // SAFETY: the panel has k / GROUP groups, every token k / 256 chunks; rows that do not exist are not written.
    unsafe {
        for chain in ORDER {
            four.add(s, chain, chain_sums::<S, W, R, N>(s, job, t, chain, ahead));
        }
        let sums = four.sum(s);
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

/// The sums over groups `chain`, `chain + 4`, … of the panel.
///
/// # Safety
/// As for [`multiply`].
#[inline(always)]
unsafe fn chain_sums<S: SimdBytes, W: Shape, const R: usize, const N: usize>(
    s: S,
    job: &Job,
    t: usize,
    chain: usize,
    ahead: &mut Ahead,
) -> [[S::F; R]; N] {
    let width = 4 * S::LANES;
    let groups_of_chunk = 256 / W::GROUP;
    let mut sums = [[s.zero(); R]; N];
    // SAFETY: as the caller vouches.
    unsafe {
        let mut rows = [std::ptr::null::<ActChunk>(); N];
        for (n, row) in rows.iter_mut().enumerate() {
            *row = job.gathered_act(t + n).cast();
        }
        let n_groups = job.k / W::GROUP;
        for chunk in 0..n_groups.div_ceil(groups_of_chunk) {
            let x = rows.map(|row| row.add(chunk));
            for i in (chain..groups_of_chunk.min(n_groups - chunk * groups_of_chunk)).step_by(4) {
                let mut panel = job.panel.add((chunk * groups_of_chunk + i) * group_bytes::<S, W>()).cast_const();
                ahead.step(s, ahead.multiplying);
                let mut dots = [[s.splat_i32(0); R]; N];
                if W::zero::<S>() != 0 {
                    for n in 0..N {
                        dots[n] =
                            [W::times_zero(s, s.splat_i32(*ActChunk::of_groups(x[n], W::GROUP).neg_sum.add(i))); R];
                    }
                }
                let q = x.map(|x| (&raw const (*x).q).cast::<u8>().add(W::GROUP * i));
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
                                let q = q[n].add(4 * step);
                                let q = [
                                    s.splat_word(q),
                                    s.splat_word(q.add(4)),
                                    s.splat_word(q.add(8)),
                                    s.splat_word(q.add(12)),
                                ];
                                dots[n][r] = match W::BITS {
                                    0..=5 => s.dot_add4::<5>(dots[n][r], w, q),
                                    6 => s.dot_add4::<6>(dots[n][r], w, q),
                                    _ => s.dot_add4::<8>(dots[n][r], w, q),
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
                            let q = s.splat_word(q[n].add(4 * step));
                            for r in 0..R {
                                dots[n][r] = s.dot_add::<false>(dots[n][r], w[r], q);
                            }
                        }
                    }
                }
                let scales = panel.cast::<f32>();
                for n in 0..N {
                    let scale = s.splat(*ActChunk::of_groups(x[n], W::GROUP).scale.add(i));
                    for r in 0..R {
                        let scale = s.mul(s.load(scales.add(r * S::LANES)), scale);
                        sums[n][r] = s.mul_add(s.i32_to_f32(dots[n][r]), scale, sums[n][r]);
                    }
                    if W::HAS_MIN {
                        let sum = s.splat(*ActChunk::of_groups(x[n], W::GROUP).scaled_sum.add(i));
                        for r in 0..R {
                            sums[n][r] = s.mul_add(s.load(scales.add((R + r) * S::LANES)), sum, sums[n][r]);
                        }
                    }
                }
            }
        }
    }
    sums
}
