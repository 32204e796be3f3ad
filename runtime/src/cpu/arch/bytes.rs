//! The integer half of the vector trait: operations of the kernels over quantised blocks.
//!
//! A byte vector has the width of a float vector: `4 · LANES` bytes. It consists of `LANES / 4` *pieces* of 16 bytes,
//! because half a 32-element block has 16 bytes once its quants are one byte each. A dot product leaves four 32-bit
//! lanes a piece.

use super::Simd;

/// Byte vectors, unpacking and integer dot products.
///
/// # Safety
///
/// As for [`Simd`]: methods touch only the memory named in their contracts.
pub unsafe trait SimdBytes: Simd {
    /// `4 · LANES` bytes.
    type B: Copy;

    /// Pieces of 16 bytes in a byte vector.
    const PIECES: usize = Self::LANES / 4;

    /// Vectors of rows in a matrix product's register tile, beside six tokens: 1, 2 or 4, as registers allow.
    const GEMM_VECTORS: usize;

    /// Vectors of rows in the register tile of a matrix product over bytes: 1 or 2.
    const GEMM_I8_VECTORS: usize;

    /// Tokens in that tile: 4, 6 or 8.
    const GEMM_I8_TOKENS: usize;

    /// Whether four of its dot products at once ([`SimdBytes::dot_add4`]) are cheaper than one by one.
    const GEMM_I8_BY_FOUR: bool;

    /// What is added to signed weights before they are multiplied: 0 where there are products of signed bytes.
    const I8_BIAS: i32;

    // ---- memory ----

    /// Reads a whole vector; any alignment.
    /// # Safety
    /// `p` must be readable for `4 · LANES` bytes.
    unsafe fn load_bytes(self, p: *const u8) -> Self::B;

    /// The lower half from `a`, the upper from `b`.
    /// # Safety
    /// `a` and `b` must be readable for `2 · LANES` bytes each.
    unsafe fn load_halves(self, a: *const u8, b: *const u8) -> Self::B;

    /// Piece `i` from `p + offsets[i]`, for the first [`SimdBytes::PIECES`] offsets.
    /// # Safety
    /// `p + offsets[i]` must be readable for 16 bytes for `i < PIECES`.
    unsafe fn load_pieces(self, p: *const u8, offsets: [usize; 4]) -> Self::B;

    /// Lane `4·i + r` is the 32-bit word at `rows[r] + offsets[i]`.
    /// # Safety
    /// Those words must be readable for `i < PIECES` and all `r`.
    unsafe fn load_headers(self, rows: [*const u8; 4], offsets: [usize; 4]) -> Self::I;

    /// [`SimdBytes::load_pieces`] of [`SimdBytes::PIECES`] adjacent blocks of `BYTES` bytes from `p` on: of each block
    /// the 16 bytes from `SKIP` on.
    /// # Safety
    /// Those blocks must be readable.
    #[inline(always)]
    unsafe fn load_group<const BYTES: usize, const SKIP: usize>(self, p: *const u8) -> Self::B {
        // SAFETY: as the caller vouches.
        unsafe { self.load_pieces(p.add(SKIP), [0, BYTES, 2 * BYTES, 3 * BYTES]) }
    }

    /// [`SimdBytes::load_group`] for 32 bytes of each block: the first 16 and the last 16 of them.
    /// # Safety
    /// Those blocks must be readable.
    #[inline(always)]
    unsafe fn load_group_pairs<const BYTES: usize, const SKIP: usize>(self, p: *const u8) -> (Self::B, Self::B) {
        // SAFETY: as the caller vouches.
        unsafe {
            let offsets = [0, BYTES, 2 * BYTES, 3 * BYTES];
            (self.load_pieces(p.add(SKIP), offsets), self.load_pieces(p.add(SKIP + 16), offsets))
        }
    }

    /// [`SimdBytes::load_headers`] of adjacent blocks of `BYTES` bytes.
    /// # Safety
    /// Those blocks must be readable.
    #[inline(always)]
    unsafe fn load_group_headers<const BYTES: usize>(self, rows: [*const u8; 4]) -> Self::I {
        // SAFETY: as the caller vouches.
        unsafe { self.load_headers(rows, [0, BYTES, 2 * BYTES, 3 * BYTES]) }
    }

    /// Lanes `4·i ..= 4·i + 3` are `p[i]`.
    /// # Safety
    /// `p` must be readable for `PIECES` floats.
    unsafe fn load_dup4(self, p: *const f32) -> Self::F;

    /// Lanes `4·i ..= 4·i + 3` are `p[i]`.
    /// # Safety
    /// `p` must be readable for `PIECES` integers.
    unsafe fn load_dup4_i32(self, p: *const i32) -> Self::I;

    /// The four bytes at `p` in every lane.
    /// # Safety
    /// `p` must be readable for four bytes.
    unsafe fn splat_word(self, p: *const u8) -> Self::B;

    /// Writes a whole vector; any alignment.
    /// # Safety
    /// `p` must be writable for `4 · LANES` bytes.
    unsafe fn store_bytes(self, p: *mut u8, v: Self::B);

    /// Transposes `LANES` rows of `n` 32-bit words: word j of row i goes to `out[j · out_stride + i]`.
    /// # Safety
    /// `p + i · stride` must be readable for `4 · n` bytes for i < LANES, and `out` writable at those places.
    #[inline(always)]
    unsafe fn transpose_words(self, p: *const u8, stride: usize, out: *mut u32, out_stride: usize, n: usize) {
        let mut j = 0;
        // SAFETY: as the caller vouches. Piece b of the i-th load is four words of row 4·b + i.
        unsafe {
            while j + 4 <= n {
                let offsets = [0, 4 * stride, 8 * stride, 12 * stride];
                let p = p.add(4 * j);
                let columns = self.transpose4([
                    self.load_pieces(p, offsets),
                    self.load_pieces(p.add(stride), offsets),
                    self.load_pieces(p.add(2 * stride), offsets),
                    self.load_pieces(p.add(3 * stride), offsets),
                ]);
                let out = out.add(j * out_stride).cast::<u8>();
                self.store_bytes(out, columns[0]);
                self.store_bytes(out.add(4 * out_stride), columns[1]);
                self.store_bytes(out.add(8 * out_stride), columns[2]);
                self.store_bytes(out.add(12 * out_stride), columns[3]);
                j += 4;
            }
            for j in j..n {
                for i in 0..Self::LANES {
                    *out.add(j * out_stride + i) = p.add(i * stride + 4 * j).cast::<u32>().read_unaligned();
                }
            }
        }
    }

    /// Prefetches the cache line of `p` into the second-level cache, whose queue of misses is longer than that of the
    /// first; from there to the first is a short way. Never faults, at any address.
    fn prefetch(self, p: *const u8);

    // ---- unpacking ----

    /// The low four bits of every byte.
    fn low4(self, v: Self::B) -> Self::B;
    /// The high four bits of every byte, moved down.
    fn high4(self, v: Self::B) -> Self::B;
    /// Byte `v[i]` of the table, for bytes below 16.
    fn lookup(self, table: &[u8; 16], v: Self::B) -> Self::B;
    /// a | b
    fn or_bytes(self, a: Self::B, b: Self::B) -> Self::B;

    /// Sets bit 4 of byte `j` of piece `i` of `lo` where bit `j` of the word at `p + offsets[i]` is set, and of `hi`
    /// where bit `16 + j` is.
    /// # Safety
    /// The words must be readable for `i < PIECES`.
    unsafe fn or_fifth_bits(self, p: *const u8, offsets: [usize; 4], lo: Self::B, hi: Self::B) -> (Self::B, Self::B);

    /// Sets the clear bit `BIT` in the bytes of `v` where `q & bits` is not zero; `bits` has one bit a byte.
    fn or_where<const BIT: i8>(self, v: Self::B, q: Self::B, bits: Self::B) -> Self::B;

    /// Nibbles `at .. at + 4·LANES` of 64, of which the first 32 are the low ones of the 32 bytes at `p`.
    /// # Safety
    /// `p` must be readable for 32 bytes.
    #[inline(always)]
    unsafe fn nibbles_by_32(self, p: *const u8, at: usize) -> Self::B {
        // SAFETY: vectors are no wider than 32 bytes where this is not overridden, and `at` is below 64.
        let packed = unsafe { self.load_bytes(p.add(at % 32)) };
        if at < 32 { self.low4(packed) } else { self.high4(packed) }
    }

    /// Nibbles `at .. at + 4·LANES` of the 16-byte stretches from `p` on, which hold 32 each: the first 16 are the low
    /// ones.
    /// # Safety
    /// `p` must be readable for the stretches.
    unsafe fn nibbles_by_16(self, p: *const u8, at: usize) -> Self::B;

    /// `a` in all bytes of the lower half, `b` in those of the upper.
    fn splat_byte_halves(self, a: u8, b: u8) -> Self::B;

    /// The upper two bits (as 0x30) of 6-bit quants `at .. at + 4·LANES` of 64: those of quant `i` lie in bits `2·(i /
    /// 32)` and up of `q[i % 32]`. The second result has those that lie four bits further up.
    /// # Safety
    /// `q` must be readable for 32 bytes.
    unsafe fn high2(self, q: *const u8, at: usize) -> (Self::B, Self::B);

    /// Two-bit quants `at .. at + 4·LANES` of 128, where quant `i` lies in bits `2·(i / 32)` and up of `q[i % 32]`.
    /// # Safety
    /// `q` must be readable for 32 bytes.
    unsafe fn two_bits(self, q: *const u8, at: usize) -> Self::B;

    /// Byte `B` of every word, in all four bytes of the word.
    fn spread_byte<const B: usize>(self, v: Self::I) -> Self::B;

    /// Moves the words of piece `i` down by `from + i·step` bits, all below 32; zeroes move in.
    fn shr_pieces(self, v: Self::I, from: u32, step: u32) -> Self::I;

    /// Transposes the four words of four vectors, piece by piece: word j of piece b of `v[i]` becomes word i of piece b of
    /// result j.
    fn transpose4(self, v: [Self::B; 4]) -> [Self::B; 4];

    /// The bytes as 32-bit words, the first byte lowest.
    fn bytes_to_words(self, v: Self::B) -> Self::I;
    /// The bytes of 32-bit words, the lowest first.
    fn words_to_bytes(self, v: Self::I) -> Self::B;

    // ---- dot products of bytes into 32-bit lanes: lane i sums the products of bytes 4i ..= 4i + 3 ----

    /// w0·x0 + w1·x1 for weights ≤ 31 and |x| ≤ 127, exact.
    fn dot2_u5(self, w0: Self::B, x0: Self::B, w1: Self::B, x1: Self::B) -> Self::I;

    /// acc + w·x, exact for |x| ≤ 127: for signed weights without a bias, where `SIGNED`; else for unsigned ones of up to 6
    /// bits, or of 8 where there is a bias.
    fn dot_add<const SIGNED: bool>(self, acc: Self::I, w: Self::B, x: Self::B) -> Self::I;

    /// acc + Σ wᵢ·xᵢ, with weights of up to `BITS` bits, 5, 6 or 8; those of 8 bits have a sign or [`SimdBytes::I8_BIAS`].
    #[inline(always)]
    fn dot_add4<const BITS: u32>(self, acc: Self::I, w: [Self::B; 4], x: [Self::B; 4]) -> Self::I {
        match BITS == 8 && Self::I8_BIAS == 0 {
            true => dot_add_each::<Self, true>(self, acc, w, x),
            false => dot_add_each::<Self, false>(self, acc, w, x),
        }
    }

    // ---- floats ----

    /// The IEEE halves in the low 16 bits of every lane.
    fn f16_low(self, v: Self::I) -> Self::F;
    /// The IEEE halves in the high 16 bits of every lane.
    fn f16_high(self, v: Self::I) -> Self::F;
    /// One IEEE half.
    fn f16_to_f32(self, h: u16) -> f32;

    /// Lane `4·i + r` is the sum of the four lanes of piece `i` of `v[r]`, as (0 + 2) + (1 + 3).
    fn sum4(self, v: [Self::F; 4]) -> Self::F;

    /// [`SimdBytes::sum4`] of integers.
    fn sum4_i32(self, v: [Self::I; 4]) -> Self::I;

    /// Sums of adjacent pieces: piece `i` is the sum of pieces `2·i` and `2·i + 1` of `a` and behind it `b`.
    fn add_piece_pairs(self, a: Self::I, b: Self::I) -> Self::I;

    /// Sums over the pieces: element `r` is the sum of lanes `4·i + r`, four as (0 + 2) + (1 + 3).
    fn reduce_pieces(self, v: Self::F) -> [f32; 4];
}

/// acc + Σ wᵢ·xᵢ, one after the other.
#[inline(always)]
pub(super) fn dot_add_each<S: SimdBytes, const SIGNED: bool>(s: S, acc: S::I, w: [S::B; 4], x: [S::B; 4]) -> S::I {
    let acc = s.dot_add::<SIGNED>(s.dot_add::<SIGNED>(acc, w[0], x[0]), w[1], x[1]);
    s.dot_add::<SIGNED>(s.dot_add::<SIGNED>(acc, w[2], x[2]), w[3], x[3])
}
