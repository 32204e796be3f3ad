//! Mat-vec over the 256-element formats, one row after the other.
//!
//! A small table holds a super-block's 6- or 8-bit sub-scales as floats, times the activations' scales; each dot
//! product of a vector's width broadcasts its scales from there. Minima and offsets of all sub-blocks cost one
//! multiplication with the activations' sums. 2·rows·k·tokens flops; W is read once.

use super::act::ActChunk;
use super::job::{AHEAD, Job};
use super::unpack::Loader;
use crate::cpu::arch::SimdBytes;

/// Sums of one row for one token: two chains for the dot products, one for minima.
#[derive(Clone, Copy)]
pub(super) struct Sums<F> {
    pub lo: F,
    pub hi: F,
    pub mins: F,
}

/// A super-block of 256 quants.
pub(super) trait Block256: Loader {
    /// Adds the products of one super-block with the chunks of T tokens.
    /// # Safety
    /// The super-block and the chunks must be readable.
    unsafe fn accumulate<S: SimdBytes, const T: usize>(
        s: S,
        block: *const u8,
        x: [*const ActChunk; T],
        sums: &mut [Sums<S::F>; T],
    );
}

/// The scales of one super-block for T tokens.
type Scales<const T: usize> = [[f32; 16]; T];

/// For sub-blocks of 32: of each token eight scales times `d` times the activations' scales, then eight minima times `dmin`
/// times the activations' sums, which are added to the minima of `sums`.
///
/// # Safety
/// The chunks must be readable.
#[inline(always)]
pub(super) unsafe fn scales_of_32<S: SimdBytes, const T: usize>(
    s: S,
    scales_and_minima: &[i8; 16],
    [d, dmin]: [f32; 2],
    x: [*const ActChunk; T],
    sums: &mut [Sums<S::F>; T],
) -> Scales<T> {
    let mut table = [[0f32; 16]; T];
    let mut i = 0;
    while i < 16 {
        let factor = if S::LANES == 16 { s.splat_halves(d, dmin) } else { s.splat(if i < 8 { d } else { dmin }) };
        // SAFETY: LANES divides 16; a chunk's scales and sums of 32 follow one another.
        unsafe {
            let base = s.mul(s.load_i8(scales_and_minima.as_ptr().add(i)), factor);
            for t in 0..T {
                let product = s.mul(base, s.load((&raw const (*x[t]).scale).cast::<f32>().add(i)));
                s.store(table[t].as_mut_ptr().add(i), product);
                if S::LANES == 16 {
                    sums[t].mins = s.add_upper(sums[t].mins, product);
                } else if i >= 8 {
                    sums[t].mins = s.add(sums[t].mins, product);
                }
            }
        }
        i += S::LANES;
    }
    table
}

/// Addends of the elements of sub-blocks of 16.
pub(super) enum Minima {
    /// Their scale times this.
    Scales(f32),
    /// Sixteen numbers of their own times this.
    Own(*const i8, f32),
}

/// For sub-blocks of 16: of each token sixteen `scales` times `d` times the activations' scales. The minima times the
/// activations' sums are added to those of `sums`.
///
/// # Safety
/// Scales and minima must be readable for 16 bytes, the chunks whole.
#[inline(always)]
pub(super) unsafe fn scales_of_16<S: SimdBytes, const T: usize>(
    s: S,
    scales: *const i8,
    d: f32,
    minima: Minima,
    x: [*const ActChunk; T],
    sums: &mut [Sums<S::F>; T],
) -> Scales<T> {
    let mut table = [[0f32; 16]; T];
    let mut i = 0;
    while i < 16 {
        // SAFETY: LANES divides 16.
        unsafe {
            let base = s.mul(s.load_i8(scales.add(i)), s.splat(d));
            let mins = match minima {
                Minima::Scales(offset) => s.mul(base, s.splat(offset)),
                Minima::Own(minima, unit) => s.mul(s.load_i8(minima.add(i)), s.splat(unit)),
            };
            for t in 0..T {
                let scale = s.load((&raw const (*x[t]).scale16).cast::<f32>().add(i));
                s.store(table[t].as_mut_ptr().add(i), s.mul(base, scale));
                let sum = s.load((&raw const (*x[t]).scaled_sum16).cast::<f32>().add(i));
                sums[t].mins = s.mul_add(mins, sum, sums[t].mins);
            }
        }
        i += S::LANES;
    }
    table
}

/// Mat-vec for 1 to 4 tokens; three run as four, the last one twice, which costs less than a kernel of their own.
///
/// # Safety
/// The job's pointers must be valid, with activations in the Q8Chunks form.
#[inline(always)]
pub(super) unsafe fn mat_vec<S: SimdBytes, W: Block256>(s: S, job: &Job) {
    // SAFETY: the contract is passed on.
    unsafe {
        match job.n_tokens {
            1 => mat_vec_n::<S, W, 1>(s, job),
            2 => mat_vec_n::<S, W, 2>(s, job),
            _ => mat_vec_n::<S, W, 4>(s, job),
        }
    }
}

#[inline(always)]
unsafe fn mat_vec_n<S: SimdBytes, W: Block256, const T: usize>(s: S, job: &Job) {
    for row in 0..job.n_rows {
        let mut sums = [Sums { lo: s.zero(), hi: s.zero(), mins: s.zero() }; T];
        for i in 0..job.k / 256 {
            // SAFETY: the row has k / 256 super-blocks, and every token as many chunks.
            unsafe {
                let block = job.row(row).add(i * W::BYTES);
                job.prefetch(s, block.wrapping_add(AHEAD), W::BYTES);
                let x: [*const ActChunk; T] = std::array::from_fn(|t| job.act(t).cast::<ActChunk>().add(i));
                W::accumulate(s, block, x, &mut sums);
            }
        }
        for (t, sums) in sums.into_iter().enumerate().take(job.n_tokens) {
            let sum = s.reduce_sum(s.add(s.add(sums.lo, sums.hi), sums.mins));
            // SAFETY: the row and the token exist.
            unsafe { *job.out.add(t * job.out_stride + row) = sum };
        }
    }
}
