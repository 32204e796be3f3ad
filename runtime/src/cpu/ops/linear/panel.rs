//! Unpacking blocks of many rows at once, for the panel of a matrix product over bytes.
//!
//! A vector has a lane for each row. Sixteen bytes of every row are read and transposed, so that vector j holds word j of
//! all rows; from there on no operation crosses lanes. A panel's group of G elements is
//!
//! ```text
//! [G / 4][rows] words of four quants      [rows] scales      [rows] minima, if the format has them
//! ```

use super::unpack::{Loader, Shape};
use crate::cpu::arch::SimdBytes;

/// One block of as many rows as a vector has lanes.
#[derive(Clone, Copy)]
pub(super) struct RowBlocks {
    /// The block of the first row.
    p: *const u8,
    /// Bytes from there to the block of row `4·i + j`, at `[j][i]`.
    offsets: [[usize; 4]; 4],
}

impl RowBlocks {
    /// The first blocks of rows of `row_bytes` bytes from `p` on. Lanes beyond the last of `n_rows` rows repeat it.
    pub fn new<S: SimdBytes>(p: *const u8, row_bytes: usize, n_rows: usize) -> Self {
        let mut offsets = [[0; 4]; 4];
        for lane in 0..S::LANES {
            offsets[lane % 4][lane / 4] = lane.min(n_rows - 1) * row_bytes;
        }
        Self { p, offsets }
    }

    /// The blocks that begin `bytes` later.
    pub fn skip(self, bytes: usize) -> Self {
        Self { p: self.p.wrapping_add(bytes), ..self }
    }

    /// The 16 bytes of every block from byte `at` on: word j of all rows in vector j.
    ///
    /// # Safety
    /// They must be readable.
    #[inline(always)]
    pub unsafe fn words<S: SimdBytes>(&self, s: S, at: usize) -> [S::I; 4] {
        // SAFETY: as the caller vouches.
        let [a, b, c, d] = unsafe {
            let p = self.p.add(at);
            s.transpose4([
                s.load_pieces(p, self.offsets[0]),
                s.load_pieces(p, self.offsets[1]),
                s.load_pieces(p, self.offsets[2]),
                s.load_pieces(p, self.offsets[3]),
            ])
        };
        [s.bytes_to_words(a), s.bytes_to_words(b), s.bytes_to_words(c), s.bytes_to_words(d)]
    }

    /// The word at byte `at` of every block of the format `W`.
    ///
    /// # Safety
    /// It must be readable. The 16 bytes around it are those that other words near it lie in.
    #[inline(always)]
    pub unsafe fn word<S: SimdBytes, W: Loader>(&self, s: S, at: usize) -> S::I {
        let last = W::BYTES - 16;
        let from = (at / 16 * 16 + at % 4).min(last - (last + 4 - at % 4) % 4);
        // SAFETY: as the caller vouches; the 16 bytes end within the block.
        unsafe { self.words(s, from)[(at - from) / 4] }
    }
}

/// The place of such blocks in a panel.
#[derive(Clone, Copy)]
pub(super) struct PanelBlock {
    /// The first row's word of the block's first group.
    pub p: *mut u8,
    /// Rows of the panel.
    pub tile: usize,
    /// Bytes of a group.
    pub group_bytes: usize,
}

impl PanelBlock {
    /// Writes word `word` of group `group`: four quants of every row.
    ///
    /// # Safety
    /// The panel must have that group.
    #[inline(always)]
    pub unsafe fn quants<S: SimdBytes>(&self, s: S, group: usize, word: usize, v: S::I) {
        // SAFETY: as the caller vouches.
        unsafe { s.store_bytes(self.p.add(group * self.group_bytes + 4 * word * self.tile), s.words_to_bytes(v)) }
    }

    /// Writes a group of 32 quants out of 16 bytes of nibbles: the low ones are the first 16.
    ///
    /// # Safety
    /// As [`PanelBlock::quants`].
    #[inline(always)]
    pub unsafe fn nibbles<S: SimdBytes>(&self, s: S, group: usize, packed: [S::I; 4]) {
        for j in 0..4 {
            // SAFETY: as the caller vouches.
            unsafe {
                self.quants(s, group, j, low4(s, packed[j]));
                self.quants(s, group, 4 + j, high4(s, packed[j]));
            }
        }
    }

    /// As [`PanelBlock::nibbles`] of group 0, with bit i of `fifth` as bit 4 of quant i.
    ///
    /// # Safety
    /// As [`PanelBlock::quants`].
    #[inline(always)]
    pub unsafe fn nibbles_and_fifth<S: SimdBytes>(&self, s: S, packed: [S::I; 4], fifth: S::I) {
        for j in 0..4 {
            // SAFETY: as the caller vouches.
            unsafe {
                self.quants(s, 0, j, or_fifth_bits(s, low4(s, packed[j]), fifth, j));
                self.quants(s, 0, 4 + j, or_fifth_bits(s, high4(s, packed[j]), fifth, 4 + j));
            }
        }
    }

    /// As [`PanelBlock::nibbles`], of what `table` has for each nibble.
    ///
    /// # Safety
    /// As [`PanelBlock::quants`].
    #[inline(always)]
    pub unsafe fn looked_up<S: SimdBytes>(&self, s: S, group: usize, packed: [S::I; 4], table: &[u8; 16]) {
        for j in 0..4 {
            let packed = s.words_to_bytes(packed[j]);
            // SAFETY: as the caller vouches.
            unsafe {
                self.quants(s, group, j, s.bytes_to_words(s.lookup(table, s.low4(packed))));
                self.quants(s, group, 4 + j, s.bytes_to_words(s.lookup(table, s.high4(packed))));
            }
        }
    }

    /// Writes the scales of group `group`.
    ///
    /// # Safety
    /// The panel must have that group, in the shape of the format `W`.
    #[inline(always)]
    pub unsafe fn scale<S: SimdBytes, W: Shape>(&self, s: S, group: usize, v: S::F) {
        // SAFETY: as the caller vouches.
        unsafe { s.store(self.p.add(group * self.group_bytes + W::GROUP * self.tile).cast(), v) }
    }

    /// Writes the minima of group `group`.
    ///
    /// # Safety
    /// As [`PanelBlock::scale`]; the format must have minima.
    #[inline(always)]
    pub unsafe fn min<S: SimdBytes, W: Shape>(&self, s: S, group: usize, v: S::F) {
        // SAFETY: as the caller vouches.
        unsafe { s.store(self.p.add(group * self.group_bytes + (W::GROUP + 4) * self.tile).cast(), v) }
    }
}

/// The low four bits of every byte.
#[inline(always)]
pub(super) fn low4<S: SimdBytes>(s: S, v: S::I) -> S::I {
    s.and_i32(v, s.splat_i32(0x0f0f_0f0f))
}

/// The high four bits of every byte, moved down.
#[inline(always)]
pub(super) fn high4<S: SimdBytes>(s: S, v: S::I) -> S::I {
    s.and_i32(s.shr_i32(v, 4), s.splat_i32(0x0f0f_0f0f))
}

/// Two bits of every byte from bit `from` on, moved to bits 0 and 1.
#[inline(always)]
pub(super) fn two_bits<S: SimdBytes>(s: S, v: S::I, from: u32) -> S::I {
    s.and_i32(s.shr_i32(v, from), s.splat_i32(0x0303_0303))
}

/// Adds bit 4 to the bytes of word `word` of 32 quants, where bit `4·word + byte` of `fifth` is set.
#[inline(always)]
fn or_fifth_bits<S: SimdBytes>(s: S, v: S::I, fifth: S::I, word: usize) -> S::I {
    let q = match word / 2 {
        0 => s.spread_byte::<0>(fifth),
        1 => s.spread_byte::<1>(fifth),
        2 => s.spread_byte::<2>(fifth),
        _ => s.spread_byte::<3>(fifth),
    };
    let bits = if word.is_multiple_of(2) { 0x0804_0201 } else { 0x8040_2010_u32 as i32 };
    s.bytes_to_words(s.or_where::<16>(s.words_to_bytes(v), q, s.words_to_bytes(s.splat_i32(bits))))
}

/// Sets the clear bit `BIT` in the bytes of `v` where bit `at` of the bytes of `bits` is set.
#[inline(always)]
pub(super) fn or_bit<S: SimdBytes, const BIT: i8>(s: S, v: S::I, bits: S::I, at: usize) -> S::I {
    let mask = s.words_to_bytes(s.splat_i32(0x0101_0101 << at));
    s.bytes_to_words(s.or_where::<BIT>(s.words_to_bytes(v), s.words_to_bytes(bits), mask))
}

/// Bits `from ..` of every lane that `mask` leaves.
#[inline(always)]
pub(super) fn field<S: SimdBytes>(s: S, v: S::I, from: u32, mask: i32) -> S::I {
    s.and_i32(s.shr_i32(v, from), s.splat_i32(mask))
}
