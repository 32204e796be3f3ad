//! Mat-vec over the 32-element block formats: the kernel that bounds the speed of decoding.
//!
//! Four rows at once. A part takes one group of P blocks from each (P = 16-byte pieces in a vector: 4 on AVX-512):
//!
//! ```text
//! quants of P blocks of one row     -> lo: first 16 of each block, hi: last 16      one byte a quant
//! lo·x_lo + hi·x_hi                 -> four 32-bit lanes a block                    exact integers
//! the lanes of four rows            -> one vector of products (lane 4·block + row), less the zero point's share
//! headers of P blocks of four rows  -> one vector of scales, in the same order, converted at once
//! sum  += product · (scale · activation scale)
//! sum  += minimum · (activation scale · Σq), if there are minima
//! ```
//!
//! A row has four chains of sums, block b in chain b mod 4: where a vector has fewer than four pieces, several vectors
//! take turns. At the end they are joined as (0 + 2) + (1 + 3), by one transpose for four rows. The matrix product keeps
//! the same chains, so it gives the same bits, and so do all instruction sets with fused multiply-adds.
//!
//! A row's last group may have fewer blocks: the missing ones read the group's first block again and meet zero
//! activations. An earlier version copied the headers out first, by scalar loads and stores, instead of gathering them
//! in registers. It was slower, because the vectors waited for many small stores. 2·rows·k·tokens flops; W is read once.

use super::chains::join;
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

/// Mat-vec for one or two tokens.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Groups form of `S`.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Block32>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            _ => mat_vec_n::<S, W, 2>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block32, const T: usize>(s: S, job: &Job) {
    const { assert!(W::LEN == 32 && (W::Shape::SIGNED || W::Shape::BITS <= 5)) };
    let n_blocks = job.k / 32;
    let (n_groups, rest) = (n_blocks / S::PIECES, n_blocks % S::PIECES);
    let partial: [usize; 4] = std::array::from_fn(|i| if i < rest { i * W::BYTES } else { 0 });
    // Groups before chain 0 comes again.
    let parts = 4 / S::PIECES;
    // Prefetches run in memory order, one set of four rows and a bit ahead. During the first set they run at twice the
    // pace, to catch up from the bytes that the caller has prefetched.
    let group_bytes = S::PIECES * W::BYTES;
    let mut row = 0;
    while row < job.n_rows {
        let mut chains = [[s.zero(); 4]; T];
        let mut cursor = job.w.wrapping_add(if row == 0 { AHEAD } else { (row + 4) * job.row_bytes + AHEAD });
        // SAFETY: rows are clamped to those that exist, and groups to the blocks of a row.
        unsafe {
            let mut rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            let scales = match W::APART && !job.scales.is_null() {
                true => [job.scale_row(row), job.scale_row(row + 1), job.scale_row(row + 2), job.scale_row(row + 3)],
                false => [std::ptr::null(); 4],
            };
            let mut group = 0;
            while group < n_groups {
                for part in 0..parts {
                    if group == n_groups {
                        break;
                    }
                    job.prefetch(s, cursor, 4 * group_bytes);
                    cursor = cursor.wrapping_add(4 * group_bytes);
                    if row == 0 {
                        job.prefetch(s, cursor, 4 * group_bytes);
                        cursor = cursor.wrapping_add(4 * group_bytes);
                    }
                    add_group::<S, W, T>(s, job, rows, scales, None, group, part, &mut chains);
                    rows = rows.map(|p| p.add(group_bytes));
                    group += 1;
                }
            }
            for part in 0..parts {
                if rest > 0 && part == n_groups % parts {
                    add_group::<S, W, T>(s, job, rows, scales, Some((partial, rest)), group, part, &mut chains);
                }
            }
            for (t, chains) in chains.into_iter().enumerate().take(job.n_tokens) {
                job.write4(row, t, join(s, chains));
            }
        }
        row += 4;
    }
}

/// Adds one group of P blocks of four rows to vector `part` of the chains. The blocks are adjacent unless the group is a
/// `partial` one, which has fewer blocks but offsets for all P. `scale_rows` are the rows' scales, for formats whose
/// scales lie apart.
///
/// # Safety
/// The blocks at `rows[r] + offsets[i]` must be readable, and the group must be one of the activations'.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // inlined: the state of a loop
unsafe fn add_group<S: SimdBytes, W: Block32, const T: usize>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    scale_rows: [*const u8; 4],
    partial: Option<([usize; 4], usize)>,
    group: usize,
    part: usize,
    chains: &mut [[S::F; 4]; T],
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
        let (scales, minima) = (W::scales(s, headers), s.f16_high(headers));
        let load = |row: *const u8| match offsets {
            None => W::load_group(s, row),
            Some(offsets) => W::load(s, row, offsets),
        };
        let quants = [load(rows[0]), load(rows[1]), load(rows[2]), load(rows[3])];
        for (t, chains) in chains.iter_mut().enumerate() {
            let x = job.act(t).add(4 * width * group);
            let (x_lo, x_hi) = (s.load_bytes(x), s.load_bytes(x.add(width)));
            let x_scales = s.load(x.add(2 * width).cast());
            let x_sums = s.bytes_to_words(s.load_bytes(x.add(3 * width)));
            let mut products = s.sum4_i32([
                dot::<S, W>(s, quants[0], x_lo, x_hi),
                dot::<S, W>(s, quants[1], x_lo, x_hi),
                dot::<S, W>(s, quants[2], x_lo, x_hi),
                dot::<S, W>(s, quants[3], x_lo, x_hi),
            ]);
            if W::Shape::zero::<S>() != 0 {
                products = s.sub_i32(products, W::Shape::times_zero(s, x_sums));
            }
            let chain = &mut chains[part];
            *chain = s.mul_add(s.i32_to_f32(products), s.mul(scales, x_scales), *chain);
            if W::Shape::HAS_MIN {
                *chain = s.mul_add(minima, s.mul(x_scales, s.i32_to_f32(x_sums)), *chain);
            }
        }
    }
}

/// lo·x_lo + hi·x_hi, with [`SimdBytes::I8_BIAS`] added to signed quants.
#[inline(always)]
fn dot<S: SimdBytes, W: Block32>(s: S, (lo, hi): (S::B, S::B), x_lo: S::B, x_hi: S::B) -> S::I {
    if !W::Shape::SIGNED {
        return s.dot2_u5(lo, x_lo, hi, x_hi);
    }
    s.dot_add::<true>(s.dot_add::<true>(s.splat_i32(0), biased(s, lo), x_lo), biased(s, hi), x_hi)
}

/// Adds [`SimdBytes::I8_BIAS`] to signed bytes.
#[inline(always)]
pub(super) fn biased<S: SimdBytes>(s: S, v: S::B) -> S::B {
    match S::I8_BIAS {
        0 => v,
        bias => s.words_to_bytes(s.xor_i32(s.bytes_to_words(v), s.splat_i32(bias.wrapping_mul(0x0101_0101)))),
    }
}
