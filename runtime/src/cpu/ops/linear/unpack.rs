//! Unpacking weights for the matrix product: blocks to one byte a quant with float scales and minima, and any format to
//! floats.

use super::job::Job;
use super::panel::{PanelBlock, RowBlocks};
use crate::cpu::arch::SimdBytes;
use crate::quant::DType;

/// Most elements of a block.
pub(super) const MAX_LEN: usize = 256;

/// A block of quants, one byte each: element i is `scale[g] · (q[i] − zero) + min[g]` with g = i / GROUP.
pub(super) struct Quants {
    /// A vector longer than the quants: loaders may write whole vectors beyond the last quant.
    pub q: [u8; MAX_LEN + 64],
    pub scale: [f32; 16],
    pub min: [f32; 16],
}

impl Quants {
    /// All zero.
    pub const EMPTY: Quants = Quants { q: [0; MAX_LEN + 64], scale: [0.0; 16], min: [0.0; 16] };
}

/// The facts of a format that a matrix product over quants depends on. Formats that share them share the compiled
/// product.
pub(super) trait Shape {
    /// Elements that share a scale, 16 or 32.
    const GROUP: usize;
    /// Whether there are minima.
    const HAS_MIN: bool;
    /// Whether quants have a sign.
    const SIGNED: bool;
    /// Bits of a quant, at most.
    const BITS: u32;

    /// The quant that stands for zero, in the numbering of [`Loader::to_quants`] and of products of bytes: a power of
    /// two, or 0.
    fn zero<S: SimdBytes>() -> i32;

    /// Sums times that quant, which must not be 0. By a vector shift, because the scalar units are busier than the vector
    /// units.
    #[inline(always)]
    fn times_zero<S: SimdBytes>(s: S, sums: S::I) -> S::I {
        s.shl_i32(sums, Self::zero::<S>().trailing_zeros())
    }
}

/// The [`Shape`] that a format declares, by [`Numbers`].
pub(super) struct Declared<const GROUP: usize, const MINIMA: bool, const SIGNED: bool, const ZERO: i32, const BITS: u32>;

impl<const GROUP: usize, const MINIMA: bool, const SIGNED: bool, const ZERO: i32, const BITS: u32> Shape
    for Declared<GROUP, MINIMA, SIGNED, ZERO, BITS>
{
    const GROUP: usize = GROUP;
    const HAS_MIN: bool = MINIMA;
    const SIGNED: bool = SIGNED;
    const BITS: u32 = BITS;

    #[inline(always)]
    fn zero<S: SimdBytes>() -> i32 {
        if SIGNED { S::I8_BIAS } else { ZERO }
    }
}

/// The numbers of [`Declared`].
pub(super) struct Numbers {
    pub group: usize,
    pub minima: bool,
    pub signed: bool,
    pub zero: i32,
    /// 5, 6 or 8, because products differ by these alone; 32 for floats, which have no quants.
    pub bits: u32,
}

impl Numbers {
    /// The numbers of a format.
    pub const fn of(dtype: DType) -> Self {
        match dtype.format().quants {
            None => Self { group: 32, minima: false, signed: false, zero: 0, bits: 32 },
            Some(q) => {
                let bits = match q.bits {
                    // Products of fewer bits take quants without a sign.
                    _ if q.signed => 8,
                    0..=5 => 5,
                    6 => 6,
                    _ => 8,
                };
                Self { group: q.group, minima: q.minima, signed: q.signed, zero: q.zero as i32, bits }
            }
        }
    }
}

/// Reads the blocks of a format for kernels. The constants follow from the format's declaration.
pub(super) trait Loader {
    /// The format.
    const DTYPE: DType;
    /// The facts about its quants.
    type Shape: Shape;
    /// Elements of a block; it divides every row.
    const LEN: usize = Self::DTYPE.block_len();
    /// Bytes of a block.
    const BYTES: usize = Self::DTYPE.block_bytes();
    /// Whether blocks hold no scales, and unpack with scales of 1: the job has the scales, one byte a block.
    const APART: bool = Self::DTYPE.format().apart;

    /// Mat-vec for one or two tokens, by the kernel for such blocks.
    /// # Safety
    /// The job's pointers must be valid, with activations in the declared form.
    unsafe fn mat_vec<S: SimdBytes>(s: S, job: &Job);

    /// Unpacks one block to quants, the first LEN of `out.q`, with as many scales and minima as it has groups. Signed
    /// quants get [`SimdBytes::I8_BIAS`] added.
    /// # Safety
    /// `p` must be readable for BYTES.
    unsafe fn to_quants<S: SimdBytes>(s: S, p: *const u8, out: &mut Quants);

    /// Unpacks one block of many rows into a panel of bytes; the quants are those of [`Loader::to_quants`].
    /// # Safety
    /// The blocks must be readable for BYTES each, and the panel have LEN / GROUP groups.
    unsafe fn to_panel<S: SimdBytes>(s: S, rows: RowBlocks, out: PanelBlock);

    /// Unpacks `n` elements, whole blocks, to floats.
    /// # Safety
    /// `p` must be readable for the blocks, `out` writable for `n` floats.
    #[inline(always)]
    unsafe fn to_f32<S: SimdBytes>(s: S, p: *const u8, n: usize, out: *mut f32) {
        let mut quants = Quants::EMPTY;
        // With a bias the quants have become unsigned.
        let signed = Self::Shape::SIGNED && S::I8_BIAS == 0;
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

/// Reads a format as floats. It is compiled once for each format, so that the products on floats are compiled once for
/// all.
#[derive(Clone, Copy)]
pub(super) struct ToFloats {
    /// Elements of a block.
    pub block_len: usize,
    /// [`to_floats`] of the format.
    pub read: unsafe fn(&Job, usize, usize, usize, *mut f32),
}

/// Elements `i..i + n` of row `row` of a job's weights, transposed ones included, as floats. Scales in a tensor of
/// their own are multiplied in.
///
/// # Safety
/// The row must exist with its scales; whole blocks make up the elements; `out` is writable for `n` floats.
#[inline(always)]
pub(super) unsafe fn to_floats<S: SimdBytes, W: Loader>(
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
                // Blocks unpack with a scale of 1.
                *out.add(j) *= 2.0 * e8m0_half(*scales.add(j / W::LEN));
            }
        } else if W::LEN == 1 {
            job.scale_f32(s, row, i, n, out);
        }
    }
}

/// The half at `p`.
#[inline(always)]
pub(super) unsafe fn half<S: SimdBytes>(s: S, p: *const u8) -> f32 {
    // SAFETY: the caller vouches for two bytes.
    s.f16_to_f32(u16::from_le(unsafe { p.cast::<u16>().read_unaligned() }))
}

/// N bytes at `p`.
#[inline(always)]
pub(super) unsafe fn bytes<const N: usize>(p: *const u8) -> [u8; N] {
    // SAFETY: the caller vouches for N bytes.
    unsafe { p.cast::<[u8; N]>().read_unaligned() }
}

/// Sixteen bytes of nibbles: the low ones are the first 16 quants.
#[inline(always)]
pub(super) fn low_then_high(packed: [u8; 16], out: &mut Quants) {
    for i in 0..16 {
        out.q[i] = packed[i] & 15;
        out.q[i + 16] = packed[i] >> 4;
    }
}

/// Bit i of `bits` is bit 4 of quant i.
#[inline(always)]
pub(super) fn fifth_bits(bits: u32, out: &mut Quants) {
    for i in 0..32 {
        out.q[i] |= ((bits >> i & 1) << 4) as u8;
    }
}

/// Half of 2^(e − 127), because quants are twice the values.
#[inline(always)]
pub(super) fn e8m0_half(e: u8) -> f32 {
    // Two factors, so that the smallest scale needs no special case; 255 is infinite.
    f32::from_bits((u32::from(e) << 23).max(0x0040_0000)) * 0.5
}
