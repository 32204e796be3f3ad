//! AVX-512 byte vectors: four pieces of 16 bytes. With VNNI a dot product is one `vpdpbusd` a vector; without, it is
//! `vpmaddubsw` (16-bit pair sums, saturating) and `vpmaddwd`. Weights ≤ 63 cannot saturate: 2 · 63 · 127 < 2¹⁵; nor can
//! two products of weights ≤ 31 that are added as 16-bit sums: 4 · 31 · 127 < 2¹⁵.

use super::{Avx512, SimdBytes, bytes::dot_add_each};
use std::arch::x86_64::*;

/// The words of pieces 1, 2 and 3.
const PIECE: [__mmask16; 4] = [0x000f, 0x00f0, 0x0f00, 0xf000];
/// The word of row r in every piece.
const ROW: [__mmask16; 4] = [0x1111, 0x2222, 0x4444, 0x8888];

/// Every piece of the result is the word at `p + offsets[i]`, four times.
///
/// By masked broadcasts: a gather is ten times slower on CPUs whose microcode has the mitigation of GDS.
#[inline(always)]
unsafe fn broadcast_words(p: *const u8, offsets: [usize; 4]) -> __m512i {
    // SAFETY: called only from methods of the token, with readable words.
    unsafe {
        let v = broadcast_word(p.add(offsets[0]));
        let v = _mm512_mask_mov_epi32(v, PIECE[1], broadcast_word(p.add(offsets[1])));
        let v = _mm512_mask_mov_epi32(v, PIECE[2], broadcast_word(p.add(offsets[2])));
        _mm512_mask_mov_epi32(v, PIECE[3], broadcast_word(p.add(offsets[3])))
    }
}

/// The word at `p` in all lanes.
#[inline(always)]
unsafe fn broadcast_word(p: *const u8) -> __m512i {
    // SAFETY: called only from methods of the token, with a readable word.
    unsafe { _mm512_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// Where the words of a group of four blocks lie in vectors loaded from it.
struct GroupIndex<const BYTES: usize, const SKIP: usize>;

impl<const BYTES: usize, const SKIP: usize> GroupIndex<BYTES, SKIP> {
    /// For each word of four pieces: its index in the vector that begins at byte `SKIP % 4` of the group, or 16 more
    /// than its index in the vector that ends with the group. In one of the two it is aligned to an index.
    const PIECES: [u32; 16] = {
        let (a, b) = (SKIP % 4, 4 * BYTES - 64);
        let mut index = [0; 16];
        let mut i = 0;
        while i < 16 {
            let at = SKIP + i / 4 * BYTES + i % 4 * 4;
            index[i] = if at % 4 == a && at - a + 4 <= 64 {
                (at - a) / 4
            } else {
                assert!(at >= b && (at - b).is_multiple_of(4));
                16 + (at - b) / 4
            } as u32;
            i += 1;
        }
        index
    };

    /// The first word of block i, four times, in the vector at the group's start.
    const HEADERS: [u32; 16] = {
        let mut index = [0; 16];
        let mut i = 0;
        while i < 16 {
            index[i] = (i / 4 * BYTES / 4) as u32;
            i += 1;
        }
        index
    };
}

/// |w|·(x with the sign of w): 2 · 128 · 127 < 2¹⁵ does not saturate.
#[inline(always)]
unsafe fn signed_maddubs(w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: called only from methods of the token.
    unsafe {
        let x = _mm512_mask_sub_epi8(x, _mm512_movepi8_mask(w), _mm512_setzero_si512(), x);
        maddubs(_mm512_abs_epi8(w), x)
    }
}

/// w·x by fours, where the pair sums fit 16 bits.
#[inline(always)]
unsafe fn maddubs(w: __m512i, x: __m512i) -> __m512i {
    // SAFETY: called only from methods of the token.
    unsafe { _mm512_madd_epi16(_mm512_maddubs_epi16(w, x), _mm512_set1_epi16(1)) }
}

// SAFETY: every method touches only the memory of its contract; a token exists only where the CPU has the features.
// In all methods: the token proves that the intrinsics' features are there.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl<const VNNI: bool> SimdBytes for Avx512<VNNI> {
    type B = __m512i;
    const GEMM_VECTORS: usize = 4;
    // VNNI: twelve sums, twelve dot products, two vectors of rows, an activation. Else eight sums, eight dot products,
    // and four vectors of rows and of activations.
    const GEMM_I8_VECTORS: usize = if VNNI { 2 } else { 1 };
    const GEMM_I8_TOKENS: usize = if VNNI { 6 } else { 8 };
    const GEMM_I8_BY_FOUR: bool = !VNNI;
    const I8_BIAS: i32 = if VNNI { 128 } else { 0 };

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> __m512i {
        unsafe { _mm512_loadu_si512(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, a: *const u8, b: *const u8) -> __m512i {
        unsafe {
            let a = _mm512_castsi256_si512(_mm256_loadu_si256(a.cast()));
            _mm512_inserti64x4::<1>(a, _mm256_loadu_si256(b.cast()))
        }
    }
    #[inline(always)]
    unsafe fn load_pieces(self, p: *const u8, offsets: [usize; 4]) -> __m512i {
        unsafe {
            let v = _mm512_castsi128_si512(_mm_loadu_si128(p.add(offsets[0]).cast()));
            let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(p.add(offsets[1]).cast()));
            let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(p.add(offsets[2]).cast()));
            _mm512_inserti32x4::<3>(v, _mm_loadu_si128(p.add(offsets[3]).cast()))
        }
    }
    #[inline(always)]
    unsafe fn load_headers(self, rows: [*const u8; 4], offsets: [usize; 4]) -> __m512i {
        unsafe {
            let v = broadcast_words(rows[0], offsets);
            let v = _mm512_mask_mov_epi32(v, ROW[1], broadcast_words(rows[1], offsets));
            let v = _mm512_mask_mov_epi32(v, ROW[2], broadcast_words(rows[2], offsets));
            _mm512_mask_mov_epi32(v, ROW[3], broadcast_words(rows[3], offsets))
        }
    }
    // Vector loads that cross a cache line count twice, and almost all of these do, so one load serves as many words as
    // it can. Headers of blocks that would need two more such loads are read by broadcasts, which are cheaper.
    #[inline(always)]
    unsafe fn load_group<const BYTES: usize, const SKIP: usize>(self, p: *const u8) -> __m512i {
        unsafe {
            let index = self.load_bytes(GroupIndex::<BYTES, SKIP>::PIECES.as_ptr().cast());
            let (a, b) = (p.add(SKIP % 4), p.add(4 * BYTES - 64));
            _mm512_permutex2var_epi32(self.load_bytes(a), index, self.load_bytes(b))
        }
    }
    #[inline(always)]
    unsafe fn load_group_pairs<const BYTES: usize, const SKIP: usize>(self, p: *const u8) -> (__m512i, __m512i) {
        unsafe {
            let p = p.add(SKIP);
            let a = self.load_halves(p, p.add(BYTES));
            let b = self.load_halves(p.add(2 * BYTES), p.add(3 * BYTES));
            (_mm512_shuffle_i64x2::<0b10_00_10_00>(a, b), _mm512_shuffle_i64x2::<0b11_01_11_01>(a, b))
        }
    }
    #[inline(always)]
    unsafe fn load_group_headers<const BYTES: usize>(self, rows: [*const u8; 4]) -> __m512i {
        unsafe {
            if !BYTES.is_multiple_of(4) || 3 * BYTES + 4 > 64 {
                return self.load_headers(rows, [0, BYTES, 2 * BYTES, 3 * BYTES]);
            }
            let index = self.load_bytes(GroupIndex::<BYTES, 0>::HEADERS.as_ptr().cast());
            let v = _mm512_permutexvar_epi32(index, self.load_bytes(rows[0]));
            let v = _mm512_mask_permutexvar_epi32(v, ROW[1], index, self.load_bytes(rows[1]));
            let v = _mm512_mask_permutexvar_epi32(v, ROW[2], index, self.load_bytes(rows[2]));
            _mm512_mask_permutexvar_epi32(v, ROW[3], index, self.load_bytes(rows[3]))
        }
    }
    #[inline(always)]
    unsafe fn load_dup4(self, p: *const f32) -> __m512 {
        unsafe {
            let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(_mm_loadu_ps(p)))
        }
    }
    #[inline(always)]
    unsafe fn load_dup4_i32(self, p: *const i32) -> __m512i {
        unsafe {
            let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
            _mm512_permutexvar_epi32(lanes, _mm512_castsi128_si512(_mm_loadu_si128(p.cast())))
        }
    }
    #[inline(always)]
    unsafe fn splat_word(self, p: *const u8) -> __m512i {
        unsafe { broadcast_word(p) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: __m512i) {
        unsafe { _mm512_storeu_si512(p.cast(), v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn low4(self, v: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(v, _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    fn high4(self, v: __m512i) -> __m512i {
        unsafe { _mm512_and_si512(_mm512_srli_epi32::<4>(v), _mm512_set1_epi8(15)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], v: __m512i) -> __m512i {
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm512_shuffle_epi8(_mm512_broadcast_i32x4(table), v)
        }
    }
    #[inline(always)]
    fn or_bytes(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe { _mm512_or_si512(a, b) }
    }
    #[inline(always)]
    unsafe fn or_fifth_bits(self, p: *const u8, offsets: [usize; 4], lo: __m512i, hi: __m512i) -> (__m512i, __m512i) {
        unsafe {
            // Four adjacent words are already a mask of bytes. The scalar units put them together: in vectors that
            // takes eight shuffles a row, and there is one shuffle unit.
            let word = |i: usize| u64::from(p.add(offsets[i]).cast::<u32>().read_unaligned());
            let (ab, cd) = (word(0) | word(1) << 32, word(2) | word(3) << 32);
            let halves = |mask: u64| _pext_u64(ab, mask) | _pext_u64(cd, mask) << 32;
            let (lo_mask, hi_mask) = (halves(0x0000_ffff_0000_ffff), halves(0xffff_0000_ffff_0000));
            // An addition replaces a masked or, which bytes lack; bit 4 is clear.
            let sixteen = _mm512_set1_epi8(16);
            (_mm512_mask_add_epi8(lo, lo_mask, lo, sixteen), _mm512_mask_add_epi8(hi, hi_mask, hi, sixteen))
        }
    }
    #[inline(always)]
    fn or_where<const BIT: i8>(self, v: __m512i, q: __m512i, bits: __m512i) -> __m512i {
        // An addition replaces a masked or, which bytes lack; the bit is clear in v.
        unsafe { _mm512_mask_add_epi8(v, _mm512_test_epi8_mask(q, bits), v, _mm512_set1_epi8(BIT)) }
    }
    #[inline(always)]
    unsafe fn nibbles_by_32(self, p: *const u8, _at: usize) -> __m512i {
        unsafe {
            let packed = _mm512_broadcast_i64x4(_mm256_loadu_si256(p.cast()));
            self.low4(_mm512_srlv_epi64(packed, _mm512_setr_epi64(0, 0, 0, 0, 4, 4, 4, 4)))
        }
    }
    #[inline(always)]
    unsafe fn nibbles_by_16(self, p: *const u8, _at: usize) -> __m512i {
        unsafe {
            let packed = self.load_pieces(p, [0, 0, 16, 16]);
            self.low4(_mm512_srlv_epi64(packed, _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4)))
        }
    }
    #[inline(always)]
    fn splat_byte_halves(self, a: u8, b: u8) -> __m512i {
        unsafe { _mm512_mask_mov_epi64(_mm512_set1_epi8(a as i8), 0xf0, _mm512_set1_epi8(b as i8)) }
    }
    #[inline(always)]
    unsafe fn high2(self, q: *const u8, _at: usize) -> (__m512i, __m512i) {
        unsafe {
            let q = _mm512_broadcast_i64x4(_mm256_loadu_si256(q.cast()));
            let up = _mm512_setr_epi64(4, 4, 4, 4, 2, 2, 2, 2);
            let down = _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2);
            let mask = _mm512_set1_epi8(0x30);
            (_mm512_and_si512(_mm512_sllv_epi64(q, up), mask), _mm512_and_si512(_mm512_srlv_epi64(q, down), mask))
        }
    }
    #[inline(always)]
    unsafe fn two_bits(self, q: *const u8, at: usize) -> __m512i {
        unsafe {
            let q = _mm512_broadcast_i64x4(_mm256_loadu_si256(q.cast()));
            let down = if at < 64 {
                _mm512_setr_epi64(0, 0, 0, 0, 2, 2, 2, 2)
            } else {
                _mm512_setr_epi64(4, 4, 4, 4, 6, 6, 6, 6)
            };
            _mm512_and_si512(_mm512_srlv_epi64(q, down), _mm512_set1_epi8(3))
        }
    }
    #[inline(always)]
    fn spread_byte<const B: usize>(self, v: __m512i) -> __m512i {
        unsafe {
            let first = (B * 0x0101_0101) as i32;
            let at = _mm_setr_epi32(first, first + 0x0404_0404, first + 0x0808_0808, first + 0x0c0c_0c0c);
            _mm512_shuffle_epi8(v, _mm512_broadcast_i32x4(at))
        }
    }
    #[inline(always)]
    fn shr_pieces(self, v: __m512i, from: u32, step: u32) -> __m512i {
        unsafe {
            let [a, b, c, d] = [0, 1, 2, 3].map(|i| (from + i * step) as i32);
            _mm512_srlv_epi32(v, _mm512_setr_epi32(a, a, a, a, b, b, b, b, c, c, c, c, d, d, d, d))
        }
    }
    #[inline(always)]
    fn transpose4(self, v: [__m512i; 4]) -> [__m512i; 4] {
        unsafe {
            let (a, b) = (_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let (c, d) = (_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            [
                _mm512_unpacklo_epi64(a, c),
                _mm512_unpackhi_epi64(a, c),
                _mm512_unpacklo_epi64(b, d),
                _mm512_unpackhi_epi64(b, d),
            ]
        }
    }

    #[inline(always)]
    fn bytes_to_words(self, v: __m512i) -> __m512i {
        v
    }
    #[inline(always)]
    fn words_to_bytes(self, v: __m512i) -> __m512i {
        v
    }

    #[inline(always)]
    fn dot2_u5(self, w0: __m512i, x0: __m512i, w1: __m512i, x1: __m512i) -> __m512i {
        unsafe {
            if VNNI {
                _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(_mm512_setzero_si512(), w0, x0), w1, x1)
            } else {
                let pairs = _mm512_add_epi16(_mm512_maddubs_epi16(w0, x0), _mm512_maddubs_epi16(w1, x1));
                _mm512_madd_epi16(pairs, _mm512_set1_epi16(1))
            }
        }
    }
    #[inline(always)]
    fn dot_add<const SIGNED: bool>(self, acc: __m512i, w: __m512i, x: __m512i) -> __m512i {
        unsafe {
            match (VNNI, SIGNED) {
                (true, _) => _mm512_dpbusd_epi32(acc, w, x),
                (false, true) => _mm512_add_epi32(acc, signed_maddubs(w, x)),
                (false, false) => _mm512_add_epi32(acc, maddubs(w, x)),
            }
        }
    }

    // Sums of products are kept in 16 bits as long as they fit: 8 · 31 · 127 < 2¹⁵ and 4 · 63 · 127 < 2¹⁵.
    #[inline(always)]
    fn dot_add4<const BITS: u32>(self, acc: __m512i, w: [__m512i; 4], x: [__m512i; 4]) -> __m512i {
        unsafe {
            if VNNI || BITS == 8 {
                return dot_add_each::<Self, true>(self, acc, w, x);
            }
            let ones = _mm512_set1_epi16(1);
            let a = _mm512_add_epi16(_mm512_maddubs_epi16(w[0], x[0]), _mm512_maddubs_epi16(w[1], x[1]));
            let b = _mm512_add_epi16(_mm512_maddubs_epi16(w[2], x[2]), _mm512_maddubs_epi16(w[3], x[3]));
            if BITS <= 5 {
                _mm512_add_epi32(acc, _mm512_madd_epi16(_mm512_add_epi16(a, b), ones))
            } else {
                let sum = _mm512_add_epi32(_mm512_madd_epi16(a, ones), _mm512_madd_epi16(b, ones));
                _mm512_add_epi32(acc, sum)
            }
        }
    }

    #[inline(always)]
    fn f16_low(self, v: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v)) }
    }
    #[inline(always)]
    fn f16_high(self, v: __m512i) -> __m512 {
        unsafe { _mm512_cvtph_ps(_mm512_cvtepi32_epi16(_mm512_srli_epi32::<16>(v))) }
    }
    #[inline(always)]
    fn f16_to_f32(self, h: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(h)))) }
    }
    #[inline(always)]
    fn sum4(self, v: [__m512; 4]) -> __m512 {
        unsafe {
            // Interleaving by ones, then by twos, leaves in each lane a partial sum of its row.
            let a = _mm512_add_ps(_mm512_unpacklo_ps(v[0], v[1]), _mm512_unpackhi_ps(v[0], v[1]));
            let b = _mm512_add_ps(_mm512_unpacklo_ps(v[2], v[3]), _mm512_unpackhi_ps(v[2], v[3]));
            _mm512_add_ps(_mm512_shuffle_ps::<0x44>(a, b), _mm512_shuffle_ps::<0xee>(a, b))
        }
    }
    #[inline(always)]
    fn sum4_i32(self, v: [__m512i; 4]) -> __m512i {
        unsafe {
            // As `sum4`.
            let a = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let b = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b))
        }
    }
    #[inline(always)]
    fn add_piece_pairs(self, a: __m512i, b: __m512i) -> __m512i {
        unsafe {
            let even = _mm512_shuffle_i32x4::<0b10_00_10_00>(a, b);
            _mm512_add_epi32(even, _mm512_shuffle_i32x4::<0b11_01_11_01>(a, b))
        }
    }
    #[inline(always)]
    fn reduce_pieces(self, v: __m512) -> [f32; 4] {
        unsafe {
            let v = _mm256_add_ps(_mm512_castps512_ps256(v), _mm512_extractf32x8_ps::<1>(v));
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), v);
            out
        }
    }
}
