//! Byte vectors as arrays of 16.

use super::{Generic, Simd, SimdBytes};
use std::array::from_fn;

const BYTES: usize = 16;
type B = [u8; BYTES];
type F = [f32; 4];
type I = [i32; 4];

/// A 32-bit word from any address.
#[inline(always)]
unsafe fn word(p: *const u8) -> u32 {
    // SAFETY: the caller vouches for four bytes.
    unsafe { p.cast::<u32>().read_unaligned() }
}

// SAFETY: every method touches only the memory of its contract, and no instruction set is assumed.
unsafe impl SimdBytes for Generic {
    type B = B;
    // Sixteen registers on x86-64: twelve sums, two vectors of rows, an activation.
    const GEMM_VECTORS: usize = 2;
    const GEMM_I8_VECTORS: usize = 1;
    const GEMM_I8_TOKENS: usize = 4;
    const GEMM_I8_BY_FOUR: bool = false;
    const I8_BIAS: i32 = 0;

    #[inline(always)]
    unsafe fn load_bytes(self, p: *const u8) -> B {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { p.cast::<B>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn load_halves(self, a: *const u8, b: *const u8) -> B {
        // SAFETY: the caller vouches for 8 bytes each.
        let (a, b) = unsafe { (a.cast::<[u8; 8]>().read_unaligned(), b.cast::<[u8; 8]>().read_unaligned()) };
        from_fn(|i| if i < 8 { a[i] } else { b[i - 8] })
    }
    #[inline(always)]
    unsafe fn load_pieces(self, p: *const u8, offsets: [usize; 4]) -> B {
        // SAFETY: the caller vouches for 16 bytes at the first offset.
        unsafe { self.load_bytes(p.add(offsets[0])) }
    }
    #[inline(always)]
    unsafe fn load_headers(self, rows: [*const u8; 4], offsets: [usize; 4]) -> I {
        // SAFETY: the caller vouches for these words.
        from_fn(|i| unsafe { word(rows[i].add(offsets[0])) } as i32)
    }
    #[inline(always)]
    unsafe fn load_dup4(self, p: *const f32) -> F {
        // SAFETY: the caller vouches for the float.
        self.splat(unsafe { p.read_unaligned() })
    }
    #[inline(always)]
    unsafe fn load_dup4_i32(self, p: *const i32) -> I {
        // SAFETY: the caller vouches for the integer.
        self.splat_i32(unsafe { p.read_unaligned() })
    }
    #[inline(always)]
    unsafe fn splat_word(self, p: *const u8) -> B {
        // SAFETY: the caller vouches for four bytes.
        let word = unsafe { p.cast::<[u8; 4]>().read_unaligned() };
        from_fn(|i| word[i % 4])
    }
    #[inline(always)]
    unsafe fn store_bytes(self, p: *mut u8, v: B) {
        // SAFETY: the caller vouches for 16 bytes.
        unsafe { p.cast::<B>().write_unaligned(v) }
    }
    #[inline(always)]
    fn prefetch(self, _: *const u8) {}

    #[inline(always)]
    fn low4(self, v: B) -> B {
        v.map(|x| x & 15)
    }
    #[inline(always)]
    fn high4(self, v: B) -> B {
        v.map(|x| x >> 4)
    }
    #[inline(always)]
    fn lookup(self, table: &[u8; 16], v: B) -> B {
        v.map(|x| table[usize::from(x & 15)])
    }
    #[inline(always)]
    fn or_bytes(self, a: B, b: B) -> B {
        from_fn(|i| a[i] | b[i])
    }
    #[inline(always)]
    unsafe fn or_fifth_bits(self, p: *const u8, offsets: [usize; 4], lo: B, hi: B) -> (B, B) {
        // SAFETY: the caller vouches for the word.
        let word = unsafe { word(p.add(offsets[0])) };
        let bit = |i: usize, shift: usize| ((word >> (shift + i)) as u8 & 1) << 4;
        (from_fn(|i| lo[i] | bit(i, 0)), from_fn(|i| hi[i] | bit(i, 16)))
    }
    #[inline(always)]
    fn or_where<const BIT: i8>(self, v: B, q: B, bits: B) -> B {
        from_fn(|i| v[i] | if q[i] & bits[i] != 0 { BIT as u8 } else { 0 })
    }
    #[inline(always)]
    unsafe fn nibbles_by_16(self, p: *const u8, at: usize) -> B {
        // SAFETY: the caller vouches for 16 bytes.
        let packed = unsafe { self.load_bytes(p) };
        if at < 16 { self.low4(packed) } else { self.high4(packed) }
    }
    #[inline(always)]
    fn splat_byte_halves(self, a: u8, b: u8) -> B {
        from_fn(|i| if i < BYTES / 2 { a } else { b })
    }
    #[inline(always)]
    unsafe fn high2(self, q: *const u8, at: usize) -> (B, B) {
        // SAFETY: the caller vouches for 32 bytes.
        let q = unsafe { self.load_bytes(q.add(at % 32)) };
        let shift = at / 32 * 2;
        (q.map(|x| (x >> shift & 3) << 4), q.map(|x| (x >> (shift + 4) & 3) << 4))
    }
    #[inline(always)]
    unsafe fn two_bits(self, q: *const u8, at: usize) -> B {
        // SAFETY: the caller vouches for 32 bytes.
        let q = unsafe { self.load_bytes(q.add(at % 32)) };
        q.map(|x| x >> (at / 32 * 2) & 3)
    }
    #[inline(always)]
    fn spread_byte<const N: usize>(self, v: I) -> B {
        from_fn(|i| v[i / 4].to_le_bytes()[N])
    }
    #[inline(always)]
    fn shr_pieces(self, v: I, from: u32, _step: u32) -> I {
        v.map(|word| (word as u32 >> from) as i32)
    }
    #[inline(always)]
    fn transpose4(self, v: [B; 4]) -> [B; 4] {
        from_fn(|j| from_fn(|i| v[i / 4][4 * j + i % 4]))
    }

    #[inline(always)]
    fn bytes_to_words(self, v: B) -> I {
        from_fn(|i| i32::from_le_bytes([v[4 * i], v[4 * i + 1], v[4 * i + 2], v[4 * i + 3]]))
    }
    #[inline(always)]
    fn words_to_bytes(self, v: I) -> B {
        from_fn(|i| v[i / 4].to_le_bytes()[i % 4])
    }

    #[inline(always)]
    fn dot2_u5(self, w0: B, x0: B, w1: B, x1: B) -> I {
        self.add_i32(dot(w0, x0), dot(w1, x1))
    }
    // Weights below 128 are the same signed or not.
    #[inline(always)]
    fn dot_add<const SIGNED: bool>(self, acc: I, w: B, x: B) -> I {
        self.add_i32(acc, dot(w, x))
    }

    #[inline(always)]
    fn f16_low(self, v: I) -> F {
        from_fn(|i| self.f16_to_f32(v[i] as u16))
    }
    #[inline(always)]
    fn f16_high(self, v: I) -> F {
        from_fn(|i| self.f16_to_f32((v[i] as u32 >> 16) as u16))
    }
    #[inline(always)]
    fn f16_to_f32(self, h: u16) -> f32 {
        crate::quant::f16_to_f32(h)
    }
    #[inline(always)]
    fn sum4(self, v: [F; 4]) -> F {
        v.map(|lanes| (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]))
    }
    #[inline(always)]
    fn sum4_i32(self, v: [I; 4]) -> I {
        v.map(|lanes| lanes.into_iter().fold(0, i32::wrapping_add))
    }
    #[inline(always)]
    fn add_piece_pairs(self, a: I, b: I) -> I {
        self.add_i32(a, b)
    }
    #[inline(always)]
    fn reduce_pieces(self, v: F) -> [f32; 4] {
        v
    }
}

/// Signed bytes times signed bytes, summed by fours.
#[inline(always)]
fn dot(w: B, x: B) -> I {
    let product: [i32; BYTES] = from_fn(|i| i32::from(w[i] as i8) * i32::from(x[i] as i8));
    from_fn(|i| product[4 * i] + product[4 * i + 1] + product[4 * i + 2] + product[4 * i + 3])
}
