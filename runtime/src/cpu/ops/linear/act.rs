//! The forms in which kernels read activations, and the kernels that make them from floats.
//!
//! All int8 forms quantise 32 elements together: scale = max|x| / 127, q = round(x / scale). They also keep Σq, and some
//! scale · Σq, so that a weight's minimum or zero point costs one operation a block. A NaN or an infinity in x makes its
//! block's scale NaN, and so the result.

use super::chains::{CHAINS, chain_len, chained};
use crate::cpu::arch::{Simd, SimdBytes};
pub use crate::quant::ActForm;

/// 256 elements of [`ActForm::Q8Chunks`]; the last one of a row is filled up with zeroes.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ActChunk {
    /// The quants.
    pub q: [i8; 256],
    /// The scales of the eight blocks of 32.
    pub scale: [f32; 8],
    /// scale · Σq of the eight blocks. Read together with `scale` as one array of 16.
    pub scaled_sum: [f32; 8],
    /// The scale of every 16 elements, for formats with such sub-blocks.
    pub scale16: [f32; 16],
    /// scale · Σq of every 16 elements.
    pub scaled_sum16: [f32; 16],
    /// −Σq of every 16 elements.
    pub neg_sum16: [i32; 16],
    /// −Σq of every 32 elements; the second half is padding to 64 bytes.
    pub neg_sum32: [i32; 16],
}

const _: () = assert!(size_of::<ActChunk>() == 576);

/// Where a chunk has the scales and sums of its groups of 16 or of 32 elements, from group 0 on.
#[derive(Clone, Copy)]
pub(super) struct GroupActs {
    /// The scales.
    pub scale: *const f32,
    /// scale · Σq.
    pub scaled_sum: *const f32,
    /// −Σq.
    pub neg_sum: *const i32,
}

impl ActChunk {
    /// For groups of `len` elements, 16 or 32.
    ///
    /// # Safety
    /// `chunk` must be a chunk.
    #[inline(always)]
    pub(super) unsafe fn of_groups(chunk: *const ActChunk, len: usize) -> GroupActs {
        // SAFETY: as the caller vouches.
        unsafe {
            if len == 16 {
                GroupActs {
                    scale: (&raw const (*chunk).scale16).cast(),
                    scaled_sum: (&raw const (*chunk).scaled_sum16).cast(),
                    neg_sum: (&raw const (*chunk).neg_sum16).cast(),
                }
            } else {
                GroupActs {
                    scale: (&raw const (*chunk).scale).cast(),
                    scaled_sum: (&raw const (*chunk).scaled_sum).cast(),
                    neg_sum: (&raw const (*chunk).neg_sum32).cast(),
                }
            }
        }
    }
}

/// Bytes of a row of `k` elements where a vector has `lanes` 32-bit lanes: a multiple of 64.
pub(super) fn row_bytes(form: ActForm, lanes: usize, k: usize) -> usize {
    match form {
        ActForm::F32 => (4 * k).next_multiple_of(64),
        ActForm::F32Chains => 4 * CHAINS * chain_len(k),
        ActForm::Q8Groups | ActForm::Q8Pairs => (k.div_ceil(8 * lanes) * 16 * lanes).next_multiple_of(64),
        ActForm::Q8Chunks => k.div_ceil(256) * size_of::<ActChunk>(),
    }
}

/// Makes a row of [`ActForm::F32Chains`]. Mat-mat goes through one chain after the other: it then reads whole lines, and
/// none of them twice.
#[inline(always)]
pub(super) fn chain_floats<S: SimdBytes>(s: S, x: &[f32], out: &mut [u8]) {
    let k = x.len();
    let out: &mut [f32] = bytemuck::cast_slice_mut(&mut out[..row_bytes(ActForm::F32Chains, S::LANES, k)]);
    // As many elements of each chain as a vector has lanes.
    let whole = k / CHAINS / S::LANES * S::LANES;
    for at in (0..whole).step_by(S::LANES) {
        // SAFETY: LANES times 16 elements are left of x, and LANES of each chain in `out`.
        unsafe {
            let (from, to) = (x.as_ptr().add(CHAINS * at), out.as_mut_ptr().add(at));
            s.transpose_words(from.cast(), 4 * CHAINS, to.cast(), chain_len(k), CHAINS);
        }
    }
    for i in CHAINS * whole..k {
        out[chained(i, k)] = x[i];
    }
}

/// Quantises 32 floats: (scale, Σq of the first 16, of the last 16).
///
/// # Safety
/// `x` must be readable for 32 floats and `q` writable for 32 bytes.
#[inline(always)]
unsafe fn quantize32<S: Simd>(s: S, x: *const f32, q: &mut [i8; 32]) -> (f32, i32, i32) {
    let mut peak = s.zero();
    let mut poison = s.zero();
    let mut i = 0;
    while i < 32 {
        // SAFETY: LANES divides 32.
        let v = unsafe { s.load(x.add(i)) };
        peak = s.max(peak, s.abs(v));
        poison = s.mul_add(v, s.zero(), poison);
        i += S::LANES;
    }
    let peak = s.reduce_max(peak);
    let inverse = if peak > 0.0 { 127.0 / peak } else { 0.0 };
    let mut lanes = [0i32; 32];
    let mut i = 0;
    while i < 32 {
        // SAFETY: LANES divides 32.
        unsafe {
            let v = s.mul(s.load(x.add(i)), s.splat(inverse));
            s.store_i32(lanes.as_mut_ptr().add(i), s.round_to_i32(v));
        }
        i += S::LANES;
    }
    let (mut first, mut last) = (0, 0);
    for i in 0..16 {
        // Where the peak is so small that 127 / peak overflows, lanes are infinite; integers of them saturate.
        (q[i], q[i + 16]) = (lanes[i].clamp(-127, 127) as i8, lanes[i + 16].clamp(-127, 127) as i8);
        first += i32::from(q[i]);
        last += i32::from(q[i + 16]);
    }
    (peak / 127.0 + s.reduce_sum(poison), first, last)
}

/// Makes a row of [`ActForm::Q8Groups`], or of [`ActForm::Q8Pairs`]. `x.len()` is a multiple of 32; `out` is 64-byte stepped as `row_bytes` says.
#[inline(always)]
pub(super) fn quantize_groups<S: SimdBytes, const PAIRS: bool>(s: S, x: &[f32], out: &mut [u8]) {
    let width = 4 * S::LANES;
    assert!(x.len().is_multiple_of(32) && out.len() >= row_bytes(ActForm::Q8Groups, S::LANES, x.len()));
    for (g, group) in x.chunks(32 * S::PIECES).enumerate() {
        let out = &mut out[4 * width * g..][..4 * width];
        if group.len() < 32 * S::PIECES {
            out.fill(0);
        }
        for (i, block) in group.chunks_exact(32).enumerate() {
            let mut q = [0i8; 32];
            // SAFETY: the block has 32 floats.
            let (scale, first, last) = unsafe { quantize32(s, block.as_ptr(), &mut q) };
            if PAIRS {
                q = std::array::from_fn(|i| q[i % 16 * 2 + i / 16]);
            }
            let q: &[u8] = bytemuck::cast_slice(&q);
            out[16 * i..][..16].copy_from_slice(&q[..16]);
            out[width + 16 * i..][..16].copy_from_slice(&q[16..]);

            out[2 * width + 16 * i..][..16].copy_from_slice(bytemuck::bytes_of(&[scale; 4]));
            out[3 * width + 16 * i..][..16].copy_from_slice(bytemuck::bytes_of(&[first + last; 4]));
        }
    }
}

/// Makes a row of [`ActForm::Q8Chunks`]. `x.len()` is a multiple of 32.
#[inline(always)]
pub(super) fn quantize_chunks<S: SimdBytes>(s: S, x: &[f32], out: &mut [u8]) {
    assert!(x.len().is_multiple_of(32) && out.len() >= row_bytes(ActForm::Q8Chunks, S::LANES, x.len()));
    for (part, out) in x.chunks(256).zip(out.chunks_exact_mut(size_of::<ActChunk>())) {
        let mut chunk = ActChunk {
            q: [0; 256],
            scale: [0.0; 8],
            scaled_sum: [0.0; 8],
            scale16: [0.0; 16],
            scaled_sum16: [0.0; 16],
            neg_sum16: [0; 16],
            neg_sum32: [0; 16],
        };
        for (i, block) in part.chunks_exact(32).enumerate() {
            let mut q = [0i8; 32];
            // SAFETY: the block has 32 floats.
            let (scale, first, last) = unsafe { quantize32(s, block.as_ptr(), &mut q) };
            chunk.q[32 * i..][..32].copy_from_slice(&q);
            chunk.scale[i] = scale;
            chunk.scaled_sum[i] = scale * (first + last) as f32;
            chunk.scale16[2 * i..][..2].fill(scale);
            chunk.scaled_sum16[2 * i] = scale * first as f32;
            chunk.scaled_sum16[2 * i + 1] = scale * last as f32;
            chunk.neg_sum16[2 * i] = -first;
            chunk.neg_sum16[2 * i + 1] = -last;
            chunk.neg_sum32[i] = -(first + last);
        }
        // SAFETY: `out` has the chunk's size, and the chunk has no padding.
        unsafe { out.as_mut_ptr().cast::<ActChunk>().write_unaligned(chunk) };
    }
}
