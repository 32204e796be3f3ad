//! Mat-vec over the 32-element block formats (Q4_0, Q4_1, Q5_0, Q5_1, Q8_0): the kernel that decode speed hangs on.
//!
//! Four rows at once, in two passes over at most [`SEGMENT`] blocks of each. The first copies what stands before the
//! quants (scales, minima, fifth bits) to a buffer, in the order in which vectors want them: scalar loads and stores run
//! beside the vector units, while putting words together in registers would take up the shuffle unit, the narrowest one.
//! In the second, a step takes one group of P blocks from each row (P = 16-byte pieces in a vector: 4 on AVX-512):
//!
//! ```text
//! quants of P blocks of one row    -> lo: first 16 of each block, hi: last 16       one byte a quant
//! lo·x_lo + hi·x_hi                -> four 32-bit lanes a block                     exact integers
//! scales of P blocks of four rows  -> one vector, lane 4·block + row                converted by one instruction
//! sum[row] += lanes · scale[row]   where scale = weight scale · activation scale
//! min      += m · (activation scale · Σq): offsets and minima of four rows at once
//! ```
//!
//! Rows are reduced by one transpose for four. A row's last group may have fewer blocks: the missing ones read the
//! group's first block again, with scale 0. A step on AVX-512 costs about 1.6 cycles a block, well under the 4 to 5
//! that memory takes to deliver one. 2·rows·k·tokens flops; W is read once.

use super::job::Job;
use crate::cpu::arch::SimdBytes;
use std::mem::MaybeUninit;

/// Blocks of a row whose headers are copied at a time: short enough for L1, and most rows have fewer.
const SEGMENT: usize = 256;

/// A block of 32 quants with an f16 scale in its first two bytes.
pub(super) trait Block32 {
    /// Bytes of a block.
    const BYTES: usize;
    /// Whether bytes 2 and 3 are an f16 minimum that is added to every element.
    const HAS_MIN: bool = false;
    /// Where 32 bits begin that are bit 4 of every quant.
    const FIFTH: Option<usize> = None;
    /// Where the quants begin.
    const QUANTS: usize;

    /// What must be added to every quant where there is no minimum.
    fn offset<S: SimdBytes>() -> f32;

    /// The quants of P blocks at `p + offsets[i]`, but for fifth bits: the first 16 of each, the last 16.
    /// # Safety
    /// The blocks must be readable.
    #[inline(always)]
    unsafe fn load<S: SimdBytes>(s: S, p: *const u8, offsets: [usize; 4]) -> (S::B, S::B) {
        // SAFETY: sixteen bytes of nibbles end the block; the low ones are the first 16 quants.
        let packed = unsafe { s.load_pieces(p.add(Self::QUANTS), offsets) };
        (s.low4(packed), s.high4(packed))
    }

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

impl Block32 for Q4_0 {
    const BYTES: usize = 18;
    const QUANTS: usize = 2;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        -8.0
    }
}

impl Block32 for Q4_1 {
    const BYTES: usize = 20;
    const HAS_MIN: bool = true;
    const QUANTS: usize = 4;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        0.0
    }
}

impl Block32 for Q5_0 {
    const BYTES: usize = 22;
    const FIFTH: Option<usize> = Some(2);
    const QUANTS: usize = 6;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        -16.0
    }
}

impl Block32 for Q5_1 {
    const BYTES: usize = 24;
    const HAS_MIN: bool = true;
    const FIFTH: Option<usize> = Some(4);
    const QUANTS: usize = 8;
    #[inline(always)]
    fn offset<S: SimdBytes>() -> f32 {
        0.0
    }
}

impl Block32 for Q8_0 {
    const BYTES: usize = 34;
    const QUANTS: usize = 2;
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
    fn dot<S: SimdBytes>(s: S, quants: (S::B, S::B), x_lo: S::B, x_hi: S::B) -> S::I {
        s.dot2_i8(quants.0, x_lo, quants.1, x_hi)
    }
}

/// Mat-vec for 1 to 4 tokens.
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
            3 => mat_vec_n::<S, W, 3>(s, job),
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

/// The headers of up to [`SEGMENT`] blocks of four rows. Words, not vectors: vectors are loaded from any place in it.
struct Headers {
    /// f16 scale of block b of row r at `4·b + r`.
    scales: [MaybeUninit<u16>; 4 * SEGMENT],
    /// f16 minima, likewise.
    mins: [MaybeUninit<u16>; 4 * SEGMENT],
    /// For each row and group of P blocks: the bits of the first 16 quants of each block, then those of the last 16.
    fifth: [[MaybeUninit<u16>; 2 * SEGMENT]; 4],
}

impl Headers {
    /// Copies the headers of blocks `0..n` at `rows`, up to whole groups of P; scales and minima of blocks that do not
    /// exist are 0.
    ///
    /// # Safety
    /// The blocks must be readable, n ≤ SEGMENT.
    #[inline(always)]
    unsafe fn copy<S: SimdBytes, W: Block32>(&mut self, rows: [*const u8; 4], n: usize) {
        for r in 0..4 {
            let mut block = rows[r];
            for b in 0..n {
                // SAFETY: the block is readable; b < SEGMENT. Volatile, for else the compiler gathers the words in
                // registers to store them together, which is what this pass is there to avoid.
                unsafe {
                    let word = |at: usize| MaybeUninit::new(block.add(at).cast::<u16>().read_unaligned());
                    (&raw mut self.scales[4 * b + r]).write_volatile(word(0));
                    if W::HAS_MIN {
                        (&raw mut self.mins[4 * b + r]).write_volatile(word(2));
                    }
                    if let Some(at) = W::FIFTH {
                        let to = b / S::PIECES * 2 * S::PIECES + b % S::PIECES;
                        (&raw mut self.fifth[r][to]).write_volatile(word(at));
                        (&raw mut self.fifth[r][to + S::PIECES]).write_volatile(word(at + 2));
                    }
                    block = block.add(W::BYTES);
                }
            }
        }
        for b in n..n.next_multiple_of(S::PIECES) {
            self.scales[4 * b..][..4].fill(MaybeUninit::new(0));
            self.mins[4 * b..][..4].fill(MaybeUninit::new(0));
            if W::FIFTH.is_some() {
                let to = b / S::PIECES * 2 * S::PIECES + b % S::PIECES;
                for row in &mut self.fifth {
                    (row[to], row[to + S::PIECES]) = (MaybeUninit::new(0), MaybeUninit::new(0));
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block32, const T: usize>(s: S, job: &Job) {
    let n_blocks = job.k / 32;
    let rest = n_blocks % S::PIECES;
    let whole = [0, W::BYTES, 2 * W::BYTES, 3 * W::BYTES];
    let mut partial = [0; 4];
    for i in 0..rest {
        partial[i] = i * W::BYTES;
    }
    // The stream is prefetched in memory order, one set of four rows and two KiB ahead.
    let ahead = 4 * job.row_bytes + 2048;
    let group_bytes = S::PIECES * W::BYTES;
    let mut headers = Headers {
        scales: [MaybeUninit::uninit(); 4 * SEGMENT],
        mins: [MaybeUninit::uninit(); 4 * SEGMENT],
        fifth: [[MaybeUninit::uninit(); 2 * SEGMENT]; 4],
    };
    let mut row = 0;
    while row < job.n_rows {
        let mut sums = [Sums { rows: [s.zero(); 4], mins: s.zero() }; T];
        let mut cursor = job.w.wrapping_add(row * job.row_bytes + ahead);
        // SAFETY: rows are clamped to those that exist, and groups to the blocks of a row.
        unsafe {
            let mut rows = [job.row(row), job.row(row + 1), job.row(row + 2), job.row(row + 3)];
            for segment in (0..n_blocks).step_by(SEGMENT) {
                let n = SEGMENT.min(n_blocks - segment);
                headers.copy::<S, W>(rows, n);
                for group in 0..n / S::PIECES {
                    job.prefetch(s, cursor, 4 * group_bytes);
                    cursor = cursor.wrapping_add(4 * group_bytes);
                    let x = (segment / S::PIECES + group) * 16 * S::LANES;
                    step::<S, W, T>(s, job, rows, whole, &headers, group, x, &mut sums);
                    for row in &mut rows {
                        *row = row.add(group_bytes);
                    }
                }
                // Only the last segment is no multiple of P.
                if n % S::PIECES > 0 {
                    let x = n_blocks / S::PIECES * 16 * S::LANES;
                    step::<S, W, T>(s, job, rows, partial, &headers, n / S::PIECES, x, &mut sums);
                }
            }
            for (t, sums) in sums.into_iter().enumerate() {
                job.write4(row, t, s.reduce_pieces(s.add(s.sum4(sums.rows), sums.mins)));
            }
        }
        row += 4;
    }
}

/// One group of P blocks of four rows, group `group` of the headers, against the activations at byte `x` of a token.
///
/// # Safety
/// The blocks at `rows[r] + offsets[i]` must be readable, and so must the activations; the headers must be copied.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn step<S: SimdBytes, W: Block32, const T: usize>(
    s: S,
    job: &Job,
    rows: [*const u8; 4],
    offsets: [usize; 4],
    headers: &Headers,
    group: usize,
    x: usize,
    sums: &mut [Sums<S::F>; T],
) {
    let width = 4 * S::LANES;
    // SAFETY: as the caller vouches.
    unsafe {
        let scales = s.load_f16(headers.scales.as_ptr().cast::<u16>().add(group * S::LANES));
        let mins = if W::HAS_MIN {
            s.load_f16(headers.mins.as_ptr().cast::<u16>().add(group * S::LANES))
        } else {
            s.mul(scales, s.splat(W::offset::<S>()))
        };
        let mut quants = [
            W::load(s, rows[0], offsets),
            W::load(s, rows[1], offsets),
            W::load(s, rows[2], offsets),
            W::load(s, rows[3], offsets),
        ];
        if W::FIFTH.is_some() {
            for r in 0..4 {
                let bits = headers.fifth[r].as_ptr().cast::<u16>().add(group * 2 * S::PIECES);
                quants[r] = (s.or16_bits(quants[r].0, bits), s.or16_bits(quants[r].1, bits.add(S::PIECES)));
            }
        }
        for (t, sums) in sums.iter_mut().enumerate() {
            let x = job.act(t).add(x);
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
