//! Unpacking weights for the matrix product: blocks to one byte a quant with float scales and minima, and any format to
//! floats.

use super::job::Job;
use super::mat_vec_block::{self as block, Block32, MXFP4_QUANTS};
use super::mat_vec_float::{BF16, F16, F32, FloatWeight};
use super::mat_vec_scaled::F8E4M3;
use super::mat_vec_super::{self as super_block, Block256, unpack_scales};
use crate::cpu::arch::SimdBytes;

/// Most elements of a block.
pub(super) const MAX_LEN: usize = 256;

/// A block of quants, one byte each: element i is `scale[g] · (q[i] − zero) + min[g]` with g = i / GROUP.
pub(super) struct Quants {
    pub q: [u8; MAX_LEN],
    pub scale: [f32; 16],
    pub min: [f32; 16],
}

impl Quants {
    /// All zero.
    pub const EMPTY: Quants = Quants { q: [0; MAX_LEN], scale: [0.0; 16], min: [0.0; 16] };
}

/// What a matrix product over quants must know of a format: formats that share it share the compiled product.
pub(super) trait Shape {
    /// Elements that share a scale, 16 or 32.
    const GROUP: usize = 32;
    /// Whether there are minima.
    const HAS_MIN: bool = false;
    /// Bits of a quant, at most.
    const BITS: u32;

    /// The quant that stands for zero: a power of two, or 0.
    fn zero<S: SimdBytes>() -> i32;
}

/// Up to 5 bits with minima.
pub(super) struct WithMin;
/// 4 bits centred on 8.
pub(super) struct Centred8;
/// 5 bits centred on 16.
pub(super) struct Centred16;
/// 6 bits centred on 32, in groups of 16.
pub(super) struct Centred32;
/// 8 bits, signed, or centred on 128 where the instruction set wants that.
pub(super) struct Signed8;
/// Floats, which have no quants.
pub(super) struct NoQuants;

impl Shape for WithMin {
    const HAS_MIN: bool = true;
    const BITS: u32 = 5;
    fn zero<S: SimdBytes>() -> i32 {
        0
    }
}

impl Shape for Centred8 {
    const BITS: u32 = 4;
    fn zero<S: SimdBytes>() -> i32 {
        8
    }
}

impl Shape for Centred16 {
    const BITS: u32 = 5;
    fn zero<S: SimdBytes>() -> i32 {
        16
    }
}

impl Shape for Centred32 {
    const GROUP: usize = 16;
    const BITS: u32 = 6;
    fn zero<S: SimdBytes>() -> i32 {
        32
    }
}

impl Shape for Signed8 {
    const BITS: u32 = 8;
    fn zero<S: SimdBytes>() -> i32 {
        S::I8_BIAS
    }
}

impl Shape for NoQuants {
    // More than any instruction set's limit: the product over quants is never taken.
    const BITS: u32 = 32;
    fn zero<S: SimdBytes>() -> i32 {
        0
    }
}

/// A format that can be unpacked block by block.
pub(super) trait Unpack {
    /// What its quants are like.
    type Shape: Shape;
    /// Elements of a block; it divides every row.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;

    /// Whether blocks hold no scales, and unpack as if those were 1: the job has them, one byte a block.
    const APART: bool = false;

    /// Unpacks one block to quants, the first LEN of `out.q`, with as many scales and minima as it has groups.
    /// # Safety
    /// `p` must be readable for BYTES.
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants);

    /// Unpacks `n` elements, whole blocks, to floats.
    /// # Safety
    /// `p` must be readable for the blocks, `out` writable for `n` floats.
    #[inline(always)]
    unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, n: usize, out: *mut f32) {
        let mut quants = Quants::EMPTY;
        // Where zero is 0 and there are no minima, quants are signed.
        let signed = Self::Shape::zero::<S>() == 0 && !Self::Shape::HAS_MIN;
        for block in 0..n / Self::LEN {
            // SAFETY: the block is one of those that the caller vouches for.
            let out = unsafe {
                Self::to_quants(s, p.add(block * Self::BYTES), &mut quants);
                out.add(block * Self::LEN)
            };
            for g in 0..Self::LEN / Self::Shape::GROUP {
                let scale = quants.scale[g];
                let min = if Self::Shape::HAS_MIN { quants.min[g] } else { 0.0 };
                for i in g * Self::Shape::GROUP..(g + 1) * Self::Shape::GROUP {
                    let q = if signed { i32::from(quants.q[i] as i8) } else { i32::from(quants.q[i]) };
                    // SAFETY: i < LEN.
                    unsafe { *out.add(i) = (q - Self::Shape::zero::<S>()) as f32 * scale + min };
                }
            }
        }
    }
}

/// How a format is read as floats: compiled once for each format, so that the products on floats need not be.
#[derive(Clone, Copy)]
pub(super) struct ToFloats {
    /// Elements of a block.
    pub block_len: usize,
    /// [`to_floats`] of the format.
    pub read: unsafe fn(&Job, usize, usize, usize, *mut f32),
}

/// Elements `i..i + n` of row `row` of a job's weights, transposed ones included, as floats, scales that the file has apart
/// multiplied in.
///
/// # Safety
/// The row must exist with its scales; whole blocks make up the elements; `out` is writable for `n` floats.
#[inline(always)]
pub(super) unsafe fn to_floats<S: SimdBytes, W: Unpack>(
    s: S,
    job: &Job,
    row: usize,
    i: usize,
    n: usize,
    out: *mut f32,
) {
    // SAFETY: the caller vouches for row and elements.
    unsafe {
        W::to_f32(s, job.w.add(row * job.row_bytes + i / W::LEN * W::BYTES), n, out);
        if W::APART && !job.scales.is_null() {
            let scales = (job.scale_first_row + row) / job.scale_block_rows * job.scale_row_bytes;
            let scales = job.scales.add(scales + i / W::LEN);
            for j in 0..n {
                // Blocks unpack with half of a scale of 1.
                *out.add(j) *= 2.0 * e8m0_half(*scales.add(j / W::LEN));
            }
        } else if W::LEN == 1 {
            job.scale_f32(s, row, i, n, out);
        }
    }
}

macro_rules! unpack_float {
    ($($format:ty),*) => {$(
        impl Unpack for $format {
            const LEN: usize = 1;
            const BYTES: usize = <$format as FloatWeight>::BYTES;
            type Shape = NoQuants;
            // Never called: see the shape.
            #[inline(always)]
            unsafe fn to_quants<S: SimdBytes>(_: S, _: *const u8, _: &mut Quants) {}
            #[inline(always)]
            unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, n: usize, out: *mut f32) {
                let mut i = 0;
                // SAFETY: n elements are read and written.
                unsafe {
                    while i + S::LANES <= n {
                        s.store(out.add(i), <$format>::load(s, p.add(i * <Self as Unpack>::BYTES)));
                        i += S::LANES;
                    }
                    if i < n {
                        s.store_partial(out.add(i), n - i, <$format>::load_partial(s, p.add(i * <Self as Unpack>::BYTES), n - i));
                    }
                }
            }
        }
    )*};
}
unpack_float!(F32, F16, BF16, F8E4M3);

/// The half at `p`.
#[inline(always)]
unsafe fn half<S: SimdBytes>(s: S, p: *const u8) -> f32 {
    // SAFETY: the caller vouches for two bytes.
    s.f16_to_f32(u16::from_le(unsafe { p.cast::<u16>().read_unaligned() }))
}

/// N bytes at `p`.
#[inline(always)]
unsafe fn bytes<const N: usize>(p: *const u8) -> [u8; N] {
    // SAFETY: the caller vouches for N bytes.
    unsafe { p.cast::<[u8; N]>().read_unaligned() }
}

/// Sixteen bytes of nibbles: the low ones are the first 16 quants.
#[inline(always)]
fn nibbles(packed: [u8; 16], out: &mut Quants) {
    for i in 0..16 {
        out.q[i] = packed[i] & 15;
        out.q[i + 16] = packed[i] >> 4;
    }
}

/// Bit i of `bits` is bit 4 of quant i.
#[inline(always)]
fn fifth_bits(bits: u32, out: &mut Quants) {
    for i in 0..32 {
        out.q[i] |= ((bits >> i & 1) << 4) as u8;
    }
}

macro_rules! unpack_blocks {
    ($($format:ty, $shape:ty, |$s:ident, $p:ident, $out:ident| $body:block)*) => {$(
        impl Unpack for $format {
            const LEN: usize = 32;
            const BYTES: usize = <$format as Block32>::BYTES;
            type Shape = $shape;
            #[inline(always)]
            unsafe fn to_quants<S: SimdBytes>($s: S, $p: *const u8, $out: &mut Quants) {
                // SAFETY: all offsets are below the block's size.
                unsafe {
                    $out.scale[0] = half($s, $p);
                    if <$shape>::HAS_MIN {
                        $out.min[0] = half($s, $p.add(2));
                    }
                    $body
                }
            }
        }
    )*};
}
unpack_blocks! {
    block::Q4_0, Centred8, |s, p, out| { nibbles(bytes(p.add(2)), out) }
    block::Q4_1, WithMin, |s, p, out| { nibbles(bytes(p.add(4)), out) }
    block::Q5_0, Centred16, |s, p, out| {
        nibbles(bytes(p.add(6)), out);
        fifth_bits(u32::from_le_bytes(bytes(p.add(2))), out);
    }
    block::Q5_1, WithMin, |s, p, out| {
        nibbles(bytes(p.add(8)), out);
        fifth_bits(u32::from_le_bytes(bytes(p.add(4))), out);
    }
    block::Q8_0, Signed8, |s, p, out| {
        let q: [u8; 32] = bytes(p.add(2));
        for i in 0..32 {
            out.q[i] = q[i] ^ S::I8_BIAS as u8;
        }
    }
}

impl Unpack for block::MXFP4 {
    type Shape = Centred16;
    const LEN: usize = 32;
    const BYTES: usize = 17;
    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(_: S, p: *const u8, out: &mut Quants) {
        // SAFETY: all offsets are below the block's size.
        unsafe {
            out.scale[0] = e8m0_half(*p);
            nibbles(bytes(p.add(1)), out);
        }
        out.q[..32].iter_mut().for_each(|q| *q = MXFP4_QUANTS[usize::from(*q)]);
    }
}

impl Unpack for block::MXFP4Split {
    type Shape = Centred16;
    const LEN: usize = 32;
    const BYTES: usize = 16;
    const APART: bool = true;
    #[inline(always)]
    unsafe fn to_quants<S: SimdBytes>(_: S, p: *const u8, out: &mut Quants) {
        // SAFETY: the block has 16 bytes.
        let packed: [u8; 16] = unsafe { bytes(p) };
        out.scale[0] = 0.5;
        for (i, byte) in packed.into_iter().enumerate() {
            out.q[2 * i] = MXFP4_QUANTS[usize::from(byte & 15)];
            out.q[2 * i + 1] = MXFP4_QUANTS[usize::from(byte >> 4)];
        }
    }
}

/// Half of 2^(e − 127), for quants are twice the values.
#[inline(always)]
pub(super) fn e8m0_half(e: u8) -> f32 {
    // In two steps, so that the smallest is no special case; 255 is infinite.
    f32::from_bits((u32::from(e) << 23).max(0x0040_0000)) * 0.5
}

/// Q4_K, and Q5_K with its 32 bytes of `fifth` bits.
#[inline(always)]
unsafe fn super_block_45<S: SimdBytes>(s: S, p: *const u8, fifth: Option<[u8; 32]>, q: *const u8, out: &mut Quants) {
    // SAFETY: the caller vouches for the super-block, of which `q` is the 128 bytes of nibbles.
    unsafe {
        let (d, dmin) = (half(s, p), -half(s, p.add(2)));
        let scales = unpack_scales(p.add(4));
        for sub in 0..8 {
            out.scale[sub] = d * f32::from(scales[sub]);
            out.min[sub] = dmin * f32::from(scales[8 + sub]);
            let packed: [u8; 32] = bytes(q.add(sub / 2 * 32));
            for i in 0..32 {
                let high = fifth.map_or(0, |fifth| (fifth[i] >> sub & 1) << 4);
                out.q[32 * sub + i] = (packed[i] >> (sub % 2 * 4) & 15) | high;
            }
        }
    }
}

macro_rules! unpack_super_blocks {
    ($($format:ty, $shape:ty, |$s:ident, $p:ident, $out:ident| $body:block)*) => {$(
        impl Unpack for $format {
            type Shape = $shape;
            const LEN: usize = 256;
            const BYTES: usize = <$format as Block256>::BYTES;
            #[inline(always)]
            unsafe fn to_quants<S: SimdBytes>($s: S, $p: *const u8, $out: &mut Quants) {
                // SAFETY: all offsets are below the super-block's size.
                unsafe { $body }
            }
        }
    )*};
}
unpack_super_blocks! {
    super_block::Q4_K, WithMin, |s, p, out| {
        super_block_45(s, p, None, p.add(16), out)
    }
    super_block::Q5_K, WithMin, |s, p, out| {
        super_block_45(s, p, Some(bytes(p.add(16))), p.add(48), out)
    }
    super_block::Q6_K, Centred32, |s, p, out| {
        let d = half(s, p.add(208));
        for sub in 0..16 {
            out.scale[sub] = d * f32::from(*p.add(192 + sub) as i8);
        }
        for part in 0..8 {
            // Parts of 32 quants: nibbles from 32 of the half's 64 bytes, bit pairs from its 32.
            let (h, j) = (part / 4, part % 4);
            let low: [u8; 32] = bytes(p.add(64 * h + j % 2 * 32));
            let high: [u8; 32] = bytes(p.add(128 + 32 * h));
            for i in 0..32 {
                out.q[32 * part + i] = (low[i] >> (j / 2 * 4) & 15) | (high[i] >> (2 * j) & 3) << 4;
            }
        }
    }
}
