//! Mat-vec over the 32-element block formats (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0): the kernel that decode speed hangs on.
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
//! group's first block again and meet zero activations. Copying the headers out first, by scalar loads and stores, was
//! tried instead of gathering them in registers: it is slower, for the vectors then wait for many small stores. A step on AVX-512 costs about 2.5 cycles a block, under the 4
//! to 5 that memory takes to deliver one. 2·rows·k·tokens flops; W is read once.

use super::job::{AHEAD, Job};
use crate::cpu::arch::SimdBytes;

/// A block of 32 quants with an f16 scale in its first two bytes.
pub(super) trait Block32 {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether bytes 2 and 3 are an f16 minimum that is added to every element.
    const HAS_MIN: bool = false;

    /// What must be added to every quant (after [`Block32::dot`]'s own reading of it) where there is no minimum.
    fn offset<S: SimdBytes>() -> f32;

    /// The quants of P blocks at `p + offsets[i]`: the first 16 of each, the last 16.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B);

    /// The same for P blocks side by side.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B);

    /// The first words of P blocks side by side, of four rows.
    /// # Safety
    /// The blocks must be readable.
    unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I;

    /// lo·x_lo + hi·x_hi
    #[inline(always)]
    fn dot<S: SimdBytes>(s: S, quants: (S::B, S::B), x_lo: S::B, x_hi: S::B) -> S::I {
        s.dot2_u5(quants.0, x_lo, quants.1, x_hi)
    }
}

/// See [`crate::quant::DType::Q4_0`].
pub(super) struct Q4_0;
/// See [`crate::quant::DType::Q4_1`].
pub(super) struct Q4_1;
/// See [`crate::quant::DType::Q5_0`].
pub(super) struct Q5_0;
/// See [`crate::quant::DType::Q5_1`].
pub(super) struct Q5_1;
/// See [`crate::quant::DType::Q8_0`].
pub(super) struct Q8_0;

/// The methods for groups, for a format of `$bytes` bytes a block with quants from byte `$skip` on.
macro_rules! nibble_group {
    ($bytes:literal, $skip:literal $(, $fifth:literal)?) => {
        #[inline(always)]
        unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
            // SAFETY: the caller vouches for the blocks.
            unsafe {
                let packed = s.load_group::<$bytes, $skip>(p);
                let (lo, hi) = (s.low4(packed), s.high4(packed));
                $(let (lo, hi) = s.or_fifth_bits(p.add($fifth), [0, $bytes, 2 * $bytes, 3 * $bytes], lo, hi);)?
                (lo, hi)
            }
        }
        #[inline(always)]
        unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I {
            // SAFETY: the caller vouches for the blocks.
            unsafe { s.load_group_headers::<$bytes>(rows) }
        }
    };
}

/// Sixteen bytes of nibbles a block: the low ones are the first 16 quants.
#[inline(always)]
unsafe fn load_nibbles<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
    // SAFETY: the caller vouches for the blocks.
    let packed = unsafe { s.load_pieces(p, offsets) };
    (s.low4(packed), s.high4(packed))
}

impl Block32 for Q4_0 {
    const BYTES: usize = 18;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        -8.0
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: quants follow the scale.
        unsafe { load_nibbles(s, p.add(2), offsets) }
    }
    nibble_group!(18, 2);
}

impl Block32 for Q4_1 {
    const BYTES: usize = 20;
    const HAS_MIN: bool = true;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: quants follow the scale and the minimum.
        unsafe { load_nibbles(s, p.add(4), offsets) }
    }
    nibble_group!(20, 4);
}

impl Block32 for Q5_0 {
    const BYTES: usize = 22;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        -16.0
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: fifth bits and quants follow the scale.
        unsafe {
            let (lo, hi) = load_nibbles(s, p.add(6), offsets);
            s.or_fifth_bits(p.add(2), offsets, lo, hi)
        }
    }
    nibble_group!(22, 6, 2);
}

impl Block32 for Q5_1 {
    const BYTES: usize = 24;
    const HAS_MIN: bool = true;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        0.0
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: fifth bits and quants follow the scale and the minimum.
        unsafe {
            let (lo, hi) = load_nibbles(s, p.add(8), offsets);
            s.or_fifth_bits(p.add(4), offsets, lo, hi)
        }
    }
    nibble_group!(24, 8, 4);
}

impl Block32 for Q8_0 {
    const BYTES: usize = 34;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        -S::I8_BIAS as f32
    }
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: 32 quants follow the scale.
        unsafe { (s.load_pieces(p.add(2), offsets), s.load_pieces(p.add(18), offsets)) }
    }
    #[inline(always)]
    unsafe fn load_group<S: SimdBytes>(s: S, p: *const u8) -> (S::B, S::B) {
        // SAFETY: the caller vouches for the blocks.
        unsafe { s.load_group_pairs::<34, 2>(p) }
    }
    #[inline(always)]
    unsafe fn load_group_headers<S: SimdBytes>(s: S, rows: [*const u8; 4]) -> S::I {
        // SAFETY: the caller vouches for the blocks.
        unsafe { s.load_group_headers::<34>(rows) }
    }
    #[inline(always)]
    fn dot<S: SimdBytes>(s: S, quants: (S::B, S::B), x_lo: S::B, x_hi: S::B) -> S::I {
        s.dot2_i8(quants.0, x_lo, quants.1, x_hi)
    }
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

/// What four rows have summed up for one token.
#[derive(Clone, Copy)]
struct Sums<F> {
    rows: [F; 4],
    mins: F,
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block32, const T: usize>(s: S, job: &Job) {
    let n_blocks = job.k / 32;
    let (n_groups, rest) = (n_blocks / S::PIECES, n_blocks % S::PIECES);
    let partial: [usize; 4] = std::array::from_fn(|i| if i < rest { i * W::BYTES } else { 0 });
    // The stream is prefetched in memory order, one set of four rows and a bit ahead. During the first set it runs at
    // twice the pace, to get there from what the caller has asked for.
    let group_bytes = S::PIECES * W::BYTES;
    let mut row = 0;
    while row < job.n_rows {
        let mut sums = [Sums { rows: [s.zero(); 4], mins: s.zero() }; T];
        let mut cursor = job.w.wrapping_add(if row == 0 { AHEAD } else { (row + 4) * job.row_bytes + AHEAD });
        // SAFETY: rows are clamped to those that exist, and groups to the blocks of a row.
        unsafe {
            let mut rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            for group in 0..n_groups {
                job.prefetch(s, cursor, 4 * group_bytes);
                cursor = cursor.wrapping_add(4 * group_bytes);
                if row == 0 {
                    job.prefetch(s, cursor, 4 * group_bytes);
                    cursor = cursor.wrapping_add(4 * group_bytes);
                }
                step::<S, W, T>(s, job, rows, None, group, &mut sums);
                rows = rows.map(|p| p.add(group_bytes));
            }
            if rest > 0 {
                step::<S, W, T>(s, job, rows, Some(partial), n_groups, &mut sums);
            }
            for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
                let all = s.sum4(sums.rows);
                let all = if W::HAS_MIN {
                    s.add(all, sums.mins)
                } else {
                    s.mul_add(sums.mins, s.splat(W::offset::<S>()), all)
                };
                job.write4(row, t, s.reduce_pieces(all));
            }
        }
        row += 4;
    }
}

/// One group of P blocks of four rows, side by side unless there are `offsets`.
///
/// # Safety
/// The blocks at `rows[r] + offsets[i]` must be readable, and the group must be one of the activations'.
#[inline(always)]
unsafe fn step<S: SimdBytes, W: Block32, const T: usize>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    offsets: Option<[usize; 4]>,
    group: usize,
    sums: &mut [Sums<S::F>; T],
) {
    let width = 4 * S::LANES;
    // SAFETY: as the caller vouches.
    unsafe {
        let headers = match offsets {
            None => W::load_group_headers(s, rows),
            Some(offsets) => s.load_headers(rows, offsets),
        };
        let scales = s.f16_low(headers);
        // The offset, where there is one, is the same for all blocks and comes in at the end.
        let mins = if W::HAS_MIN { s.f16_high(headers) } else { scales };
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
                s.i32_to_f32(W::dot(s, quants[0], x_lo, x_hi)),
                s.i32_to_f32(W::dot(s, quants[1], x_lo, x_hi)),
                s.i32_to_f32(W::dot(s, quants[2], x_lo, x_hi)),
                s.i32_to_f32(W::dot(s, quants[3], x_lo, x_hi)),
            ];
            sums.rows[0] = s.mul_add_lane::<0>(dots[0], scales, sums.rows[0]);
            sums.rows[1] = s.mul_add_lane::<1>(dots[1], scales, sums.rows[1]);
            sums.rows[2] = s.mul_add_lane::<2>(dots[2], scales, sums.rows[2]);
            sums.rows[3] = s.mul_add_lane::<3>(dots[3], scales, sums.rows[3]);
            if W::HAS_MIN || W::offset::<S>() != 0.0 {
                sums.mins = s.mul_add(mins, s.load(x.add(3 * width).cast()), sums.mins);
            }
        }
    }
}
