//! How kernels read and write rows of cached keys and values, for each [`KvType`].

use super::super::by_lanes;
use crate::{
    cpu::arch::Simd,
    quant::{f16_to_f32, f32_to_f16},
    simd_dispatch,
    step::{KV_BLOCK, KvType},
};

/// A type of rows, for which kernels are compiled apart.
pub(super) trait Rows {
    /// The rows that scores are made of: these themselves, or floats that they are widened to before.
    type Scored: Elements;
    /// Whether rows are widened to floats before scores are made of them.
    const WIDENED: bool;

    /// Reads elements from `index` on of a row of `dim` elements: `C` vectors of `m` lanes.
    ///
    /// # Safety
    /// The row must be readable there. `m` is `LANES` unless `C` is 1; rows of blocks are read in whole vectors only, from
    /// multiples of `C` vectors on.
    unsafe fn load<S: Simd, const C: usize>(s: S, row: *const u8, dim: usize, index: usize, m: usize) -> [S::F; C];

    /// Copies a row into floats. Returns a vector of zeros if all elements are finite, else one with NaN.
    ///
    /// # Safety
    /// The row, as long as `out`, must be readable.
    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, row: *const u8, out: &mut [f32]) -> S::F {
        let (dim, to, mut spoiled) = (out.len(), out.as_mut_ptr(), s.zero());
        by_lanes!(dim, i, m => {
            // SAFETY: i + m <= the row's length.
            unsafe {
                let [x] = Self::load::<S, 1>(s, row, dim, i, m);
                s.store_partial(to.add(i), m, x);
                spoiled = s.mul_add(x, s.zero(), spoiled);
            }
        });
        spoiled
    }
}

/// Rows of elements one after the other.
pub(super) trait Elements {
    /// Bytes of an element.
    const BYTES: usize;

    /// Reads `m` lanes from element `index` on.
    ///
    /// # Safety
    /// The row must be readable there.
    unsafe fn lanes<S: Simd>(s: S, row: *const u8, index: usize, m: usize) -> S::F;

    /// Reads half of the lanes from element `index` of each of two rows.
    ///
    /// # Safety
    /// Both rows must be readable there.
    unsafe fn pair<S: Simd>(s: S, rows: [*const u8; 2], index: usize) -> S::F;
}

/// [`KvType::F16`].
pub(super) struct Halves;
/// [`KvType::F32`].
pub(super) struct Floats;
/// [`KvType::Q8_0`].
pub(super) struct Blocks;

impl Elements for Halves {
    const BYTES: usize = 2;

    #[inline(always)]
    unsafe fn lanes<S: Simd>(s: S, row: *const u8, index: usize, m: usize) -> S::F {
        // SAFETY: by the caller's promise.
        unsafe { s.load_f16_partial(row.cast::<u16>().add(index), m) }
    }

    #[inline(always)]
    unsafe fn pair<S: Simd>(s: S, [a, b]: [*const u8; 2], index: usize) -> S::F {
        // SAFETY: by the caller's promise.
        unsafe { s.load_pair_f16(a.cast::<u16>().add(index), b.cast::<u16>().add(index)) }
    }
}

impl Elements for Floats {
    const BYTES: usize = 4;

    #[inline(always)]
    unsafe fn lanes<S: Simd>(s: S, row: *const u8, index: usize, m: usize) -> S::F {
        // SAFETY: by the caller's promise.
        unsafe { s.load_partial(row.cast::<f32>().add(index), m) }
    }

    #[inline(always)]
    unsafe fn pair<S: Simd>(s: S, [a, b]: [*const u8; 2], index: usize) -> S::F {
        // SAFETY: by the caller's promise.
        unsafe { s.load_pair(a.cast::<f32>().add(index), b.cast::<f32>().add(index)) }
    }
}

impl<E: Elements> Rows for E {
    type Scored = E;
    const WIDENED: bool = false;

    #[inline(always)]
    unsafe fn load<S: Simd, const C: usize>(s: S, row: *const u8, _: usize, index: usize, m: usize) -> [S::F; C] {
        let mut x = [s.zero(); C];
        for (c, x) in x.iter_mut().enumerate() {
            // SAFETY: by the caller's promise.
            *x = unsafe { E::lanes(s, row, index + c * S::LANES, m) };
        }
        x
    }
}

impl Blocks {
    /// The scale of a row's block in all lanes.
    ///
    /// # Safety
    /// The row must be readable.
    #[inline(always)]
    unsafe fn scale<S: Simd>(s: S, row: *const u8, dim: usize, block: usize) -> S::F {
        // SAFETY: scales lie behind the row's bytes.
        s.splat_f16(unsafe { row.add(dim).cast::<u16>().add(block).read_unaligned() })
    }
}

/// A byte times a half is exact in f32, so elements are the same on all instruction sets.
impl Rows for Blocks {
    type Scored = Floats;
    const WIDENED: bool = true;

    #[inline(always)]
    unsafe fn load<S: Simd, const C: usize>(s: S, row: *const u8, dim: usize, index: usize, m: usize) -> [S::F; C] {
        debug_assert!(m >= S::LANES && index.is_multiple_of(C * S::LANES));
        let (mut x, mut scale) = ([s.zero(); C], s.zero());
        for (c, x) in x.iter_mut().enumerate() {
            // SAFETY: by the caller's promise; `C` vectors divide a block or are whole blocks.
            unsafe {
                if (c * S::LANES).is_multiple_of(KV_BLOCK) {
                    scale = Self::scale(s, row, dim, (index + c * S::LANES) / KV_BLOCK);
                }
                *x = s.mul(scale, s.load_i8(row.cast::<i8>().add(index + c * S::LANES)));
            }
        }
        x
    }

    #[inline(always)]
    unsafe fn widen<S: Simd>(s: S, row: *const u8, out: &mut [f32]) -> S::F {
        let (dim, mut spoiled) = (out.len(), s.zero());
        for (block, out) in out.chunks_exact_mut(KV_BLOCK).enumerate() {
            // SAFETY: whole blocks of the row, and of `out`.
            unsafe {
                let scale = Self::scale(s, row, dim, block);
                // Bytes are finite.
                spoiled = s.mul_add(scale, s.zero(), spoiled);
                for i in (0..KV_BLOCK).step_by(S::LANES) {
                    let bytes = s.load_i8(row.cast::<i8>().add(block * KV_BLOCK + i));
                    s.store(out.as_mut_ptr().add(i), s.mul(scale, bytes));
                }
            }
        }
        spoiled
    }
}

/// Runs `$body` with `$R` the rows of `$kv`.
macro_rules! by_rows {
    ($kv:expr, $R:ident => $body:expr) => {{
        use crate::cpu::ops::attention::rows::{Blocks, Floats, Halves};
        match $kv {
            crate::step::KvType::F16 => {
                type $R = Halves;
                $body
            }
            crate::step::KvType::F32 => {
                type $R = Floats;
                $body
            }
            crate::step::KvType::Q8_0 => {
                type $R = Blocks;
                $body
            }
        }
    }};
}
pub(super) use by_rows;

/// [`Rows::widen`] for rows of a type that is not known before.
///
/// # Safety
/// As there.
#[inline(always)]
pub(super) unsafe fn widen<S: Simd>(s: S, kv: KvType, row: *const u8, out: &mut [f32]) -> S::F {
    // SAFETY: by the caller's promise.
    by_rows!(kv, R => unsafe { R::widen(s, row, out) })
}

simd_dispatch!(
    /// Writes a row of [`KvType::Q8_0`], `row_bytes` of it, for whole blocks of elements; the same bytes on all
    /// instruction sets. Scales are a block's greatest magnitude over 127, and bytes are rounded by the scale as it is
    /// stored, ties to even. A block with an element that is not finite, or that is beyond the scale's range, has no
    /// finite element: attention then makes no finite results of it.
    ///
    /// # Panics
    /// If `row` is not as long as such a row.
    pub fn store_blocks(x: &[f32], row: &mut [u8]) = store_blocks_impl
);

#[inline(always)]
fn store_blocks_impl<S: Simd>(s: S, x: &[f32], row: &mut [u8]) {
    assert!(x.len().is_multiple_of(KV_BLOCK) && row.len() == KvType::Q8_0.row_bytes(x.len()));
    let (bytes, scales) = row.split_at_mut(x.len());
    let blocks = x.chunks_exact(KV_BLOCK).zip(bytes.chunks_exact_mut(KV_BLOCK));
    for ((x, bytes), scale) in blocks.zip(scales.chunks_exact_mut(2)) {
        // As integers, so that NaN is the greatest.
        let greatest = x.iter().fold(0, |most: u32, x| most.max(x.abs().to_bits()));
        let greatest = f32::from_bits(greatest);
        let half = f32_to_f16(if greatest.is_finite() { greatest / 127.0 } else { f32::NAN });
        scale.copy_from_slice(&half.to_ne_bytes());
        let stored = f16_to_f32(half);
        let inverse = s.splat(if stored > 0.0 { 1.0 / stored } else { 0.0 });
        // The smallest scales are rounded by more than a byte's step.
        let (low, high) = (s.splat(-127.0), s.splat(127.0));
        let mut quants = [0i32; KV_BLOCK];
        for i in (0..KV_BLOCK).step_by(S::LANES) {
            // SAFETY: LANES divides a block.
            unsafe {
                let q = s.mul(s.load(x.as_ptr().add(i)), inverse);
                let q = s.round_to_i32(s.min(high, s.max(low, q)));
                s.store_i32(quants.as_mut_ptr().add(i), q);
            }
        }
        bytes.iter_mut().zip(quants).for_each(|(byte, q)| *byte = q as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cases::random, cpu::arch::Isa};

    fn stored(isa: Isa, x: &[f32]) -> Vec<u8> {
        let mut row = vec![0xaa; KvType::Q8_0.row_bytes(x.len())];
        store_blocks(isa)(x, &mut row);
        row
    }

    fn read(isa: Isa, row: &[u8], dim: usize) -> (Vec<f32>, bool) {
        #[inline(always)]
        fn read_impl<S: Simd>(s: S, row: &[u8], out: &mut [f32]) -> bool {
            // SAFETY: a row as long as `out` asks for.
            s.reduce_sum(unsafe { Blocks::widen(s, row.as_ptr(), out) }).is_nan()
        }
        simd_dispatch!(fn read_row(row: &[u8], out: &mut [f32]) -> bool = read_impl);
        let mut out = vec![f32::NAN; dim];
        let spoiled = read_row(isa)(row, &mut out);
        (out, spoiled)
    }

    #[test]
    fn rows_have_a_scale_for_32_elements_and_the_same_bytes_everywhere() {
        for (dim, size) in [(32, 1.0), (64, 3e-3), (96, 5e4), (128, 1e-6), (576, 7.0)] {
            let x: Vec<f32> = random(dim as u64, dim).into_iter().map(|x| x * size).collect();
            let expected = stored(Isa::Generic, &x);
            for isa in Isa::available() {
                let row = stored(isa, &x);
                assert_eq!(row, expected, "{isa:?}");
                let (got, spoiled) = read(isa, &row, dim);
                assert!(!spoiled);
                for (x, got) in x.chunks(KV_BLOCK).zip(got.chunks(KV_BLOCK)) {
                    let greatest = x.iter().fold(0f32, |a, x| a.max(x.abs()));
                    // Half a step, a rounded scale, and what the smallest halves cannot show.
                    let limit = greatest * (0.501 / 127.0) + 127.0 * 2f32.powi(-25);
                    assert!(x.iter().zip(got).all(|(x, got)| (x - got).abs() <= limit), "{isa:?}, {size}");
                }
            }
        }
    }

    #[test]
    fn blocks_that_are_not_finite_stay_so() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e8] {
            let mut x = random(3, 96);
            x[40] = odd;
            for isa in Isa::available() {
                let (got, spoiled) = read(isa, &stored(isa, &x), 96);
                let finite = |range: std::ops::Range<usize>| got[range].iter().filter(|x| x.is_finite()).count();
                assert!(spoiled && finite(32..64) == 0 && finite(0..32) + finite(64..96) == 64, "{isa:?}, {odd}");
            }
        }
        assert_eq!(read(Isa::Generic, &stored(Isa::Generic, &[0.0; 32]), 32).0, [0.0; 32]);
    }
}
