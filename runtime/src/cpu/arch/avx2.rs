//! AVX2 with FMA and F16C: eight lanes. Partial accesses of floats use masked moves; those of halves go through the
//! stack, for AVX2 has no masked move of 16-bit values.

use super::Simd;
use std::arch::x86_64::*;

/// AVX2, FMA and F16C.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

const LANES: usize = 8;

/// The mask of the first `n` lanes.
#[inline(always)]
unsafe fn first(n: usize) -> __m256i {
    // SAFETY: called only from methods of the token.
    unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(n.min(LANES) as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
}

/// The first `n` 16-bit values, zeroes after them.
#[inline(always)]
unsafe fn load_u16_partial(p: *const u16, n: usize) -> __m128i {
    let mut buffer = [0u16; LANES];
    // SAFETY: the caller vouches for min(n, LANES) values; the buffer has LANES.
    unsafe {
        std::ptr::copy_nonoverlapping(p.cast::<u8>(), buffer.as_mut_ptr().cast::<u8>(), 2 * n.min(LANES));
        _mm_loadu_si128(buffer.as_ptr().cast())
    }
}

/// bfloat16 is the upper half of a float.
#[inline(always)]
unsafe fn widen_bf16(v: __m128i) -> __m256 {
    // SAFETY: called only from methods of the token.
    unsafe { _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(v))) }
}

/// In each half the sums of `a`'s two pairs of neighbours, then those of `b`'s.
#[inline(always)]
unsafe fn add_pairs(a: __m256, b: __m256) -> __m256 {
    // SAFETY: called only from methods of the token. Faster than `hadd`, which makes the same sums.
    unsafe {
        let (even, odd) = (_mm256_shuffle_ps::<0b10_00_10_00>(a, b), _mm256_shuffle_ps::<0b11_01_11_01>(a, b));
        _mm256_add_ps(even, odd)
    }
}

// SAFETY: every method touches only the memory of its contract; a token exists only where the CPU has the features.
// In all methods: the token proves that the intrinsics' features are there.
#[allow(clippy::undocumented_unsafe_blocks)]
unsafe impl Simd for Avx2 {
    type F = __m256;
    type I = __m256i;
    type M = __m256;
    const LANES: usize = LANES;

    #[inline(always)]
    unsafe fn new() -> Self {
        Avx2(())
    }

    #[inline(always)]
    unsafe fn load(self, p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn load_partial(self, p: *const f32, n: usize) -> __m256 {
        unsafe { _mm256_maskload_ps(p, first(n)) }
    }
    #[inline(always)]
    unsafe fn store(self, p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: __m256) {
        unsafe { _mm256_maskstore_ps(p, first(n), v) }
    }
    #[inline(always)]
    unsafe fn load_f16(self, p: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_f16_partial(self, p: *const u16, n: usize) -> __m256 {
        unsafe { _mm256_cvtph_ps(load_u16_partial(p, n)) }
    }
    #[inline(always)]
    unsafe fn store_f16(self, p: *mut u16, v: __m256) {
        unsafe { _mm_storeu_si128(p.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(v)) }
    }
    #[inline(always)]
    unsafe fn store_f16_partial(self, p: *mut u16, n: usize, v: __m256) {
        let mut buffer = [0u16; LANES];
        unsafe {
            self.store_f16(buffer.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(buffer.as_ptr().cast::<u8>(), p.cast::<u8>(), 2 * n.min(LANES));
        }
    }
    #[inline(always)]
    unsafe fn load_pair(self, a: *const f32, b: *const f32) -> __m256 {
        unsafe { _mm256_loadu2_m128(b, a) }
    }
    #[inline(always)]
    unsafe fn load_pair_f16(self, a: *const u16, b: *const u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_unpacklo_epi64(_mm_loadl_epi64(a.cast()), _mm_loadl_epi64(b.cast()))) }
    }
    #[inline(always)]
    unsafe fn load_bf16(self, p: *const u16) -> __m256 {
        unsafe { widen_bf16(_mm_loadu_si128(p.cast())) }
    }
    #[inline(always)]
    unsafe fn load_bf16_partial(self, p: *const u16, n: usize) -> __m256 {
        unsafe { widen_bf16(load_u16_partial(p, n)) }
    }

    #[inline(always)]
    unsafe fn load_i8(self, p: *const i8) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(p.cast()))) }
    }

    #[inline(always)]
    fn splat(self, x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    fn splat_f16(self, bits: u16) -> __m256 {
        unsafe { _mm256_cvtph_ps(_mm_set1_epi16(bits as i16)) }
    }
    #[inline(always)]
    fn add(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    fn sub(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    fn mul(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    fn div(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    fn mul_add(self, a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    fn max(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_max_ps(a, b) }
    }
    #[inline(always)]
    fn min(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_min_ps(a, b) }
    }
    #[inline(always)]
    fn abs(self, a: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), a) }
    }
    #[inline(always)]
    fn neg(self, a: __m256) -> __m256 {
        unsafe { _mm256_xor_ps(a, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    fn sqrt(self, a: __m256) -> __m256 {
        unsafe { _mm256_sqrt_ps(a) }
    }

    #[inline(always)]
    fn reduce_sum(self, a: __m256) -> f32 {
        unsafe {
            let x = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_add_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_add_ss(x, _mm_movehdup_ps(x)))
        }
    }
    #[inline(always)]
    fn sum_eights(self, v: [__m256; 8]) -> __m256 {
        unsafe {
            // Pairs of lanes within each half, twice: then every lane holds four elements of one block.
            let (ab, cd, ef, gh) =
                (add_pairs(v[0], v[1]), add_pairs(v[2], v[3]), add_pairs(v[4], v[5]), add_pairs(v[6], v[7]));
            let (abcd, efgh) = (add_pairs(ab, cd), add_pairs(ef, gh));
            let low = _mm256_permute2f128_ps::<0x20>(abcd, efgh);
            let high = _mm256_permute2f128_ps::<0x31>(abcd, efgh);
            _mm256_add_ps(low, high)
        }
    }
    #[inline(always)]
    fn reduce_max(self, a: __m256) -> f32 {
        unsafe {
            let x = _mm_max_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps::<1>(a));
            let x = _mm_max_ps(x, _mm_movehl_ps(x, x));
            _mm_cvtss_f32(_mm_max_ss(x, _mm_movehdup_ps(x)))
        }
    }

    #[inline(always)]
    fn lt(self, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_cmp_ps::<_CMP_LT_OQ>(a, b) }
    }
    #[inline(always)]
    fn select(self, m: __m256, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(b, a, m) }
    }

    #[inline(always)]
    fn splat_i32(self, x: i32) -> __m256i {
        unsafe { _mm256_set1_epi32(x) }
    }
    #[inline(always)]
    fn add_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_add_epi32(a, b) }
    }
    #[inline(always)]
    fn sub_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_sub_epi32(a, b) }
    }
    // The compiler folds a constant count into the immediate form.
    #[inline(always)]
    fn shl_i32(self, a: __m256i, n: u32) -> __m256i {
        unsafe { _mm256_sll_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn shr_i32(self, a: __m256i, n: u32) -> __m256i {
        unsafe { _mm256_sra_epi32(a, _mm_cvtsi32_si128(n as i32)) }
    }
    #[inline(always)]
    fn and_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_and_si256(a, b) }
    }
    #[inline(always)]
    fn or_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_or_si256(a, b) }
    }
    #[inline(always)]
    fn xor_i32(self, a: __m256i, b: __m256i) -> __m256i {
        unsafe { _mm256_xor_si256(a, b) }
    }
    #[inline(always)]
    fn round_to_i32(self, a: __m256) -> __m256i {
        unsafe { _mm256_cvtps_epi32(a) }
    }
    #[inline(always)]
    fn i32_to_f32(self, a: __m256i) -> __m256 {
        unsafe { _mm256_cvtepi32_ps(a) }
    }
    #[inline(always)]
    fn f32_from_bits(self, a: __m256i) -> __m256 {
        unsafe { _mm256_castsi256_ps(a) }
    }
    #[inline(always)]
    unsafe fn store_i32(self, p: *mut i32, v: __m256i) {
        unsafe { _mm256_storeu_si256(p.cast(), v) }
    }
}
