//! Mat-vec over the 32-element block formats: the kernel that bounds the speed of decoding.
//!
//! Four rows at once. A step takes one group of P blocks from each (P = 16-byte pieces in a vector: 4 on AVX-512):
//!
//! ```text
//! quants of P blocks of one row     -> lo: first 16 of each block, hi: last 16      one byte a quant
//! lo·x_lo + hi·x_hi                 -> four 32-bit lanes a block                    exact integers
//! headers of P blocks of four rows  -> one vector of scales (lane 4·block + row), converted at once
//! sum[row]  += lanes · scale[row]   where scale = weight scale · activation scale
//! min       += m · (activation scale · Σq): offsets and minima of four rows at once
//! ```
//!
//! Rows are reduced by one transpose for four. A row's last group may have fewer blocks: the missing ones read the
//! group's first block again and meet zero activations. An earlier version copied the headers out first, by scalar
//! loads and stores, instead of gathering them in registers. It was slower, because the vectors waited for many small
//! stores. A group on AVX-512 costs about 2.5 cycles a block, less than the 4 to 5 that memory takes to deliver one.
//! 2·rows·k·tokens flops; W is read once.

use super::job::{AHEAD, Job};
use super::unpack::{Loader, Shape};
use crate::cpu::arch::SimdBytes;

/// A block of 32 quants with a scale in its first bytes, an f16 unless [`Block32::scales`] says otherwise. Where there
/// are minima, bytes 2 and 3 hold the block's minimum, an f16.
pub(super) trait Block32: Loader {
    /// The scales of headers.
    #[inline(always)]
    fn scales<S: SimdBytes>(s: S, headers: S::I) -> S::F {
        s.f16_low(headers)
    }

    /// The quants of P blocks at `p + offsets[i]`: the first 16 of each, then the last 16.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B);

    /// The quants of P adjacent blocks.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B);

    /// The first words of P adjacent blocks of each of four rows.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I;
}

/// The low bytes of P scales of each of four rows.
///
/// # Safety
/// `n` bytes of each row must be readable, and lie within the job's scales.
#[inline(always)]
unsafe fn headers_apart<S: SimdBytes>(s: S, job: &Job, rows: [*const u8; 4], n: usize) -> S::I {
    const AT: [usize; 4] = [0, 1, 2, 3];
    let last = (job.scale_first_row + job.n_rows - 1) / job.scale_block_rows;
    let end = job.scales.wrapping_add((last + 1) * job.scale_row_bytes);
    // A word is read at every byte, so the last one reaches three bytes further. The last row lies furthest.
    if n == S::PIECES && rows[3].wrapping_add(n + 3) <= end {
        // SAFETY: the words end before the scales do.
        return unsafe { s.load_headers(rows, AT) };
    }
    let mut copies = [[0u8; 8]; 4];
    for (copy, row) in copies.iter_mut().zip(rows) {
        // SAFETY: n ≤ 4 bytes are readable.
        unsafe { std::ptr::copy_nonoverlapping(row, copy.as_mut_ptr(), n) };
    }
    // SAFETY: 8 bytes hold the words of four.
    unsafe { s.load_headers([copies[0].as_ptr(), copies[1].as_ptr(), copies[2].as_ptr(), copies[3].as_ptr()], AT) }
}

/// Mat-vec for 1 to 4 tokens; three run as four, the last one twice, which costs less than a kernel of their own.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Groups form of `S`.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Block32>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            2 => mat_vec_n::<S, W, 2>(s, job),
            _ => mat_vec_n::<S, W, 4>(s, job),
        }
    }
}

/// lo·x_lo + hi·x_hi
#[inline(always)]
fn dot<S: SimdBytes, W: Block32>(s: S, (lo, hi): (S::B, S::B), x_lo: S::B, x_hi: S::B) -> S::I {
    if W::Shape::SIGNED { s.dot2_i8(lo, x_lo, hi, x_hi) } else { s.dot2_u5(lo, x_lo, hi, x_hi) }
}

/// Sums of four rows for one token.
#[derive(Clone, Copy)]
struct Sums<F> {
    rows: [F; 4],
    mins: F,
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block32, const T: usize>(s: S, job: &Job) {
    const { assert!(W::LEN == 32 && (W::Shape::SIGNED || W::Shape::BITS <= 5)) };
    let n_blocks = job.k / 32;
    let (n_groups, rest) = (n_blocks / S::PIECES, n_blocks % S::PIECES);
    let partial: [usize; 4] = std::array::from_fn(|i| if i < rest { i * W::BYTES } else { 0 });
    // Prefetches run in memory order, one set of four rows and a bit ahead. During the first set they run at twice the
    // pace, to catch up from the bytes that the caller has prefetched.
    let group_bytes = S::PIECES * W::BYTES;
    let mut row = 0;
    while row < job.n_rows {
        let mut sums = [Sums { rows: [s.zero(); 4], mins: s.zero() }; T];
        let mut cursor = job.w.wrapping_add(if row == 0 { AHEAD } else { (row + 4) * job.row_bytes + AHEAD });
        // SAFETY: rows are clamped to those that exist, and groups to the blocks of a row.
        unsafe {
            let mut rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            let scales = match W::APART && !job.scales.is_null() {
                true => [job.scale_row(row), job.scale_row(row + 1), job.scale_row(row + 2), job.scale_row(row + 3)],
                false => [std::ptr::null(); 4],
            };
            for group in 0..n_groups {
                job.prefetch(s, cursor, 4 * group_bytes);
                cursor = cursor.wrapping_add(4 * group_bytes);
                if row == 0 {
                    job.prefetch(s, cursor, 4 * group_bytes);
                    cursor = cursor.wrapping_add(4 * group_bytes);
                }
                step::<S, W, T>(s, job, rows, scales, None, group, &mut sums);
                rows = rows.map(|p| p.add(group_bytes));
            }
            if rest > 0 {
                step::<S, W, T>(s, job, rows, scales, Some((partial, rest)), n_groups, &mut sums);
            }
            for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
                let all = s.sum4(sums.rows);
                let all = if W::Shape::HAS_MIN {
                    s.add(all, sums.mins)
                } else {
                    s.mul_add(sums.mins, s.splat(-(W::Shape::zero::<S>() as f32)), all)
                };
                job.write4(row, t, s.reduce_pieces(all));
            }
        }
        row += 4;
    }
}

/// One group of P blocks of four rows. The blocks are adjacent unless the group is a `partial` one, which has fewer
/// blocks but offsets for all P. `scale_rows` are the rows' scales, for formats whose scales lie apart.
///
/// # Safety
/// The blocks at `rows[r] + offsets[i]` must be readable, and the group must be one of the activations'.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined: the state of a loop
unsafe fn step<S: SimdBytes, W: Block32, const T: usize>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    scale_rows: [*const u8; 4],
    partial: Option<([usize; 4], usize)>,
    group: usize,
    sums: &mut [Sums<S::F>; T],
) {
    let width = 4 * S::LANES;
    // SAFETY: as the caller vouches.
    unsafe {
        let offsets = partial.map(|(offsets, _)| offsets);
        let headers = match offsets {
            _ if W::APART && job.scales.is_null() => s.splat_i32(127),
            _ if W::APART => {
                let n = partial.map_or(S::PIECES, |(_, n)| n);
                headers_apart(s, job, scale_rows.map(|p| p.add(group * S::PIECES)), n)
            }
            None => W::load_group_headers(s, rows),
            Some(offsets) => s.load_headers(rows, offsets),
        };
        let scales = W::scales(s, headers);
        // An offset is the same for all blocks and is added at the end.
        let mins = if W::Shape::HAS_MIN { s.f16_high(headers) } else { scales };
        let load = |row: *const u8| match offsets {
            None => W::load_group(s, row),
            Some(offsets) => W::load(s, row, offsets),
        };
        let quants = [load(rows[0]), load(rows[1]), load(rows[2]), load(rows[3])];
        for (t, sums) in sums.iter_mut().enumerate() {
            let x = job.act(t).add(4 * width * group);
            let (x_lo, x_hi) = (s.load_bytes(x), s.load_bytes(x.add(width)));
            let scales = s.mul(scales, s.load(x.add(2 * width).cast()));
            let dots = [
                s.i32_to_f32(dot::<S, W>(s, quants[0], x_lo, x_hi)),
                s.i32_to_f32(dot::<S, W>(s, quants[1], x_lo, x_hi)),
                s.i32_to_f32(dot::<S, W>(s, quants[2], x_lo, x_hi)),
                s.i32_to_f32(dot::<S, W>(s, quants[3], x_lo, x_hi)),
            ];
            sums.rows[0] = s.mul_add_lane::<0>(dots[0], scales, sums.rows[0]);
            sums.rows[1] = s.mul_add_lane::<1>(dots[1], scales, sums.rows[1]);
            sums.rows[2] = s.mul_add_lane::<2>(dots[2], scales, sums.rows[2]);
            sums.rows[3] = s.mul_add_lane::<3>(dots[3], scales, sums.rows[3]);
            if W::Shape::HAS_MIN || W::Shape::zero::<S>() != 0 {
                sums.mins = s.mul_add(mins, s.load(x.add(3 * width).cast()), sums.mins);
            }
        }
    }
}
