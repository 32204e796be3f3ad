//! AVX2 byte vectors: two pieces of 16 bytes. Dot products are `vpmaddubsw` (16-bit pair sums, saturating) and
//! `vpmaddwd`. Weights ≤ 63 cannot saturate: 2 · 63 · 127 < 2¹⁵; nor can two products of weights ≤ 31 that are added as
//! 16-bit sums: 4 · 31 · 127 < 2¹⁵.

use super::{Avx2, SimdBytes, bytes::dot_add_each};
use std::arch::x86_64::*;

/// The word at `p` in all lanes.
#[inline(always)]
unsafe fn broadcast_word(p: *const u8) -> __m256i {
    // SAFETY: called only from methods of the token, with a readable word.
    unsafe { _mm256_set1_epi32(p.cast::<i32>().read_unaligned()) }
}

/// For byte j of every piece, byte `first + j / 8` of the piece.
#[inline(always)]
unsafe fn spread_bytes(v: __m256i, first: i64) -> __m256i {
    let (a, b) = (first * 0x0101_0101_0101_0101, (first + 1) * 0x0101_0101_0101_0101);
    // SAFETY: called only from methods of the token.
    unsafe { _mm256_shuffle_epi8(v, _mm256_set_epi64x(b, a, b, a)) }
}

/// w·x by fours, where the pair sums fit 16 bits.
#[inline(always)]
unsafe fn maddubs(w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: called only from methods of the token.
    unsafe { _mm256_madd_epi16(_mm256_maddubs_epi16(w, x), _mm256_set1_epi16(1)) }
}

/// |w|·(x with the sign of w): 2 · 128 · 127 < 2¹⁵ does not saturate.
#[inline(always)]
unsafe fn signed_maddubs(w: __m256i, x: __m256i) -> __m256i {
    // SAFETY: called only from methods of the token.
    unsafe { maddubs(_mm256_abs_epi8(w), _mm256_sign_epi8(x, w)) }
}

/// The low 16 bits of every lane, side by side.
#[inline(always)]
unsafe fn pack_words(v: __m256i) -> __m128i {
    // SAFETY: called only from methods of the token.
    unsafe { _mm_packus_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v)) }
}

// SAFETY: every method touches only the memory of its contract; a token exists only where the CPU has the features.
// In all methods: the token proves that the intrinsics' features are there.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl SimdBytes for Avx2 {
    type B = __m256i;
    // Sixteen registers: twelve sums, two vectors of rows, an activation.
    const GEMM_VECTORS: usize = 2;
    // Sixteen registers: four sums, four dot products, four vectors of rows, activations, the ones.
    const GEMM_I8_VECTORS: usize = 1;
    const GEMM_I8_TOKENS: usize = 4;
    const GEMM_I8_BY_FOUR: bool = true;
    const I8_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> __m256i {
        unsafe { _mm256_loadu_si256(p.cast()) }
    }
    #[inline(always)]
    unsafe fn load_halves(self, a: *const u8, b: *const u8) -> __m256i {
        unsafe {
            let a = _mm256_castsi128_si256(_mm_loadu_si128(a.cast()));
            _mm256_inserti128_si256::<1>(a, _mm_loadu_si128(b.cast()))
        }
    }
    #[inline(always)]
    unsafe fn load_pieces(self, p: *const u8, offsets: [usize; 4]) -> __m256i {
        unsafe { self.load_halves(p.add(offsets[0]), p.add(offsets[1])) }
    }
    #[inline(always)]
    unsafe fn load_headers(self, rows: [*const u8; 4], offsets: [usize; 4]) -> __m256i {
        // Broadcasts and blends: both run beside the shuffles, which an insertion of words would need.
        unsafe {
            let (a, b) = (offsets[0], offsets[1]);
            let row0 = _mm256_blend_epi32::<0x10>(broadcast_word(rows[0].add(a)), broadcast_word(rows[0].add(b)));
            let row1 = _mm256_blend_epi32::<0x20>(broadcast_word(rows[1].add(a)), broadcast_word(rows[1].add(b)));
            let row2 = _mm256_blend_epi32::<0x40>(broadcast_word(rows[2].add(a)), broadcast_word(rows[2].add(b)));
            let row3 = _mm256_blend_epi32::<0x80>(broadcast_word(rows[3].add(a)), broadcast_word(rows[3].add(b)));
            let rows01 = _mm256_blend_epi32::<0x22>(row0, row1);
            let rows23 = _mm256_blend_epi32::<0x88>(row2, row3);
            _mm256_blend_epi32::<0xcc>(rows01, rows23)
        }
    }
    #[inline(always)]
    unsafe fn load_dup4(self, p: *const f32) -> __m256 {
        unsafe {
            let (a, b) = (_mm256_broadcast_ss(&p.read_unaligned()), _mm256_broadcast_ss(&p.add(1).read_unaligned()));
            _mm256_blend_ps::<0xf0>(a, b)
        }
    }
    #[inline(always)]
    unsafe fn load_dup4_i32(self, p: *const i32) -> __m256i {
        unsafe {
            let (a, b) = (p.read_unaligned(), p.add(1).read_unaligned());
            _mm256_setr_epi32(a, a, a, a, b, b, b, b)
        }
    }
    #[inline(always)]
    unsafe fn splat_word(self, p: *const u8) -> __m256i {
        unsafe { broadcast_word(p) }
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
    #[inline(always)]
    fn prefetch(self, p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }

    #[inline(always)]
    fn low4(self, v: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(v, _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    fn high4(self, v: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(_mm256_srli_epi16::<4>(v), _mm256_set1_epi8(15)) }
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], v: __m256i) -> __m256i {
        unsafe {
            let table = _mm_loadu_si128(table.as_ptr().cast());
            _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(table), v)
        }
    }
    #[inline(always)]
    fn or_bytes(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    unsafe fn or_fifth_bits(self, p: *const u8, offsets: [usize; 4], lo: __m256i, hi: __m256i) -> (__m256i, __m256i) {
        unsafe {
            // Byte j of a piece tests bit j % 8 of byte j / 8 of its word, or of the two bytes after it.
            let (a, b) = (broadcast_word(p.add(offsets[0])), broadcast_word(p.add(offsets[1])));
            let words = _mm256_blend_epi32::<0xf0>(a, b);
            let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
            (self.or_where::<16>(lo, spread_bytes(words, 0), bit), self.or_where::<16>(hi, spread_bytes(words, 2), bit))
        }
    }
    // Every byte of `bits` has one bit, so equality tests for not zero.
    #[inline(always)]
    fn or_where<const BIT: i8>(self, v: __m256i, q: __m256i, bits: __m256i) -> __m256i {
        unsafe {
            let set = _mm256_cmpeq_epi8(_mm256_and_si256(q, bits), bits);
            _mm256_or_si256(v, _mm256_and_si256(set, _mm256_set1_epi8(BIT)))
        }
    }
    #[inline(always)]
    unsafe fn nibbles_by_16(self, p: *const u8, _at: usize) -> __m256i {
        unsafe {
            let packed = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
            self.low4(_mm256_srlv_epi64(packed, _mm256_setr_epi64x(0, 0, 4, 4)))
        }
    }
    #[inline(always)]
    fn splat_byte_halves(self, a: u8, b: u8) -> __m256i {
        unsafe { _mm256_blend_epi32::<0xf0>(_mm256_set1_epi8(a as i8), _mm256_set1_epi8(b as i8)) }
    }
    #[inline(always)]
    unsafe fn high2(self, q: *const u8, at: usize) -> (__m256i, __m256i) {
        unsafe {
            let q = _mm256_loadu_si256(q.cast());
            let (lo, hi) = if at < 32 {
                (_mm256_slli_epi16::<4>(q), q)
            } else {
                (_mm256_slli_epi16::<2>(q), _mm256_srli_epi16::<2>(q))
            };
            let mask = _mm256_set1_epi8(0x30);
            (_mm256_and_si256(lo, mask), _mm256_and_si256(hi, mask))
        }
    }
    #[inline(always)]
    unsafe fn two_bits(self, q: *const u8, at: usize) -> __m256i {
        unsafe {
            let q = _mm256_loadu_si256(q.cast());
            let q = match at / 32 {
                0 => q,
                1 => _mm256_srli_epi16::<2>(q),
                2 => _mm256_srli_epi16::<4>(q),
                _ => _mm256_srli_epi16::<6>(q),
            };
            _mm256_and_si256(q, _mm256_set1_epi8(3))
        }
    }
    #[inline(always)]
    fn spread_byte<const B: usize>(self, v: __m256i) -> __m256i {
        unsafe {
            let first = (B * 0x0101_0101) as i32;
            let at = _mm_setr_epi32(first, first + 0x0404_0404, first + 0x0808_0808, first + 0x0c0c_0c0c);
            _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(at))
        }
    }
    #[inline(always)]
    fn shr_pieces(self, v: __m256i, from: u32, step: u32) -> __m256i {
        unsafe {
            let (a, b) = (from as i32, (from + step) as i32);
            _mm256_srlv_epi32(v, _mm256_setr_epi32(a, a, a, a, b, b, b, b))
        }
    }
    #[inline(always)]
    fn transpose4(self, v: [__m256i; 4]) -> [__m256i; 4] {
        unsafe {
            let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
            let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
            [
                _mm256_unpacklo_epi64(a, c),
                _mm256_unpackhi_epi64(a, c),
                _mm256_unpacklo_epi64(b, d),
                _mm256_unpackhi_epi64(b, d),
            ]
        }
    }

    #[inline(always)]
    fn bytes_to_words(self, v: __m256i) -> __m256i {
        v
    }
    #[inline(always)]
    fn words_to_bytes(self, v: __m256i) -> __m256i {
        v
    }

    #[inline(always)]
    fn dot2_u5(self, w0: __m256i, x0: __m256i, w1: __m256i, x1: __m256i) -> __m256i {
        unsafe {
            let pairs = _mm256_add_epi16(_mm256_maddubs_epi16(w0, x0), _mm256_maddubs_epi16(w1, x1));
            _mm256_madd_epi16(pairs, _mm256_set1_epi16(1))
        }
    }
    #[inline(always)]
    fn dot_add<const SIGNED: bool>(self, acc: __m256i, w: __m256i, x: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(acc, if SIGNED { signed_maddubs(w, x) } else { maddubs(w, x) }) }
    }

    // Sums of products are kept in 16 bits as long as they fit: 8 · 31 · 127 < 2¹⁵ and 4 · 63 · 127 < 2¹⁵.
    #[inline(always)]
    fn dot_add4<const BITS: u32>(self, acc: __m256i, w: [__m256i; 4], x: [__m256i; 4]) -> __m256i {
        unsafe {
            if BITS == 8 {
                return dot_add_each::<Self, true>(self, acc, w, x);
            }
            let ones = _mm256_set1_epi16(1);
            let a = _mm256_add_epi16(_mm256_maddubs_epi16(w[0], x[0]), _mm256_maddubs_epi16(w[1], x[1]));
            let b = _mm256_add_epi16(_mm256_maddubs_epi16(w[2], x[2]), _mm256_maddubs_epi16(w[3], x[3]));
            if BITS <= 5 {
                _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_add_epi16(a, b), ones))
            } else {
                let sum = _mm256_add_epi32(_mm256_madd_epi16(a, ones), _mm256_madd_epi16(b, ones));
                _mm256_add_epi32(acc, sum)
            }
        }
    }

    #[inline(always)]
    fn f16_low(self, v: __m256i) -> __m256 {
        unsafe { _mm256_cvtph_ps(pack_words(_mm256_and_si256(v, _mm256_set1_epi32(0xffff)))) }
    }
    #[inline(always)]
    fn f16_high(self, v: __m256i) -> __m256 {
        unsafe { _mm256_cvtph_ps(pack_words(_mm256_srli_epi32::<16>(v))) }
    }
    #[inline(always)]
    fn f16_to_f32(self, h: u16) -> f32 {
        unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(h)))) }
    }
    #[inline(always)]
    fn sum4(self, v: [__m256; 4]) -> __m256 {
        unsafe {
            // Interleaving by ones, then by twos, leaves in each lane a partial sum of its row.
            let a = _mm256_add_ps(_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpackhi_ps(v[0], v[1]));
            let b = _mm256_add_ps(_mm256_unpacklo_ps(v[2], v[3]), _mm256_unpackhi_ps(v[2], v[3]));
            _mm256_add_ps(_mm256_shuffle_ps::<0x44>(a, b), _mm256_shuffle_ps::<0xee>(a, b))
        }
    }
    #[inline(always)]
    fn sum4_i32(self, v: [__m256i; 4]) -> __m256i {
        unsafe { _mm256_hadd_epi32(_mm256_hadd_epi32(v[0], v[1]), _mm256_hadd_epi32(v[2], v[3])) }
    }
    #[inline(always)]
    fn add_piece_pairs(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(_mm256_permute2x128_si256::<0x20>(a, b), _mm256_permute2x128_si256::<0x31>(a, b)) }
    }
    #[inline(always)]
    fn reduce_pieces(self, v: __m256) -> [f32; 4] {
        unsafe {
            let v = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let mut out = [0.0; 4];
            _mm_storeu_ps(out.as_mut_ptr(), v);
            out
        }
    }
}
