//! The vector trait: the operations that kernels need of an instruction set, and no others.

use super::math;

/// A proof that the CPU has some instruction set, with that set's vectors of [`Simd::LANES`] 32-bit lanes.
///
/// # Safety
///
/// Implementors promise that every method only touches the memory named in its contract, and that a value of the type
/// can be made only through an `unsafe` constructor whose caller vouches for the CPU.
pub unsafe trait Simd: Copy + Send + Sync + 'static {
    /// `LANES` floats.
    type F: Copy;
    /// `LANES` signed 32-bit integers.
    type I: Copy;
    /// `LANES` truth values.
    type M: Copy;

    /// Lanes of 32 bits in a vector.
    const LANES: usize;

    /// # Safety
    /// The CPU must have the instruction set, and the code must be inlined into a function that enables it.
    unsafe fn new() -> Self;

    // ---- memory ----

    /// Reads `LANES` floats; any alignment.
    /// # Safety
    /// `p` must be readable for `LANES` floats.
    unsafe fn load(self, p: *const f32) -> Self::F;

    /// Reads the first `n` floats and zeroes the other lanes; `n >= LANES` reads a whole vector.
    /// # Safety
    /// `p` must be readable for `min(n, LANES)` floats. Nothing beyond is touched.
    unsafe fn load_partial(self, p: *const f32, n: usize) -> Self::F;

    /// Writes `LANES` floats; any alignment.
    /// # Safety
    /// `p` must be writable for `LANES` floats.
    unsafe fn store(self, p: *mut f32, v: Self::F);

    /// Writes the first `n` lanes; `n >= LANES` writes a whole vector.
    /// # Safety
    /// `p` must be writable for `min(n, LANES)` floats. Nothing beyond is touched.
    unsafe fn store_partial(self, p: *mut f32, n: usize, v: Self::F);

    /// Reads `LANES` IEEE halves as floats; any alignment.
    /// # Safety
    /// `p` must be readable for `LANES` halves.
    unsafe fn load_f16(self, p: *const u16) -> Self::F;

    /// Reads the first `n` halves and zeroes the other lanes.
    /// # Safety
    /// `p` must be readable for `min(n, LANES)` halves.
    unsafe fn load_f16_partial(self, p: *const u16, n: usize) -> Self::F;

    /// Writes `LANES` floats as halves, rounded to nearest even.
    /// # Safety
    /// `p` must be writable for `LANES` halves.
    unsafe fn store_f16(self, p: *mut u16, v: Self::F);

    /// Writes the first `n` lanes as halves.
    /// # Safety
    /// `p` must be writable for `min(n, LANES)` halves.
    unsafe fn store_f16_partial(self, p: *mut u16, n: usize, v: Self::F);

    /// Reads the lower half of the lanes from `a` and the upper half from `b`; any alignment.
    /// # Safety
    /// Both must be readable for `LANES / 2` floats.
    unsafe fn load_pair(self, a: *const f32, b: *const f32) -> Self::F;

    /// [`Simd::load_pair`] of IEEE halves.
    /// # Safety
    /// Both must be readable for `LANES / 2` halves.
    unsafe fn load_pair_f16(self, a: *const u16, b: *const u16) -> Self::F;

    /// Reads `LANES` bfloat16 as floats (exact); any alignment.
    /// # Safety
    /// `p` must be readable for `LANES` 16-bit values.
    unsafe fn load_bf16(self, p: *const u16) -> Self::F;

    /// Reads the first `n` bfloat16 and zeroes the other lanes.
    /// # Safety
    /// `p` must be readable for `min(n, LANES)` 16-bit values.
    unsafe fn load_bf16_partial(self, p: *const u16, n: usize) -> Self::F;

    /// Reads `LANES` signed bytes as floats.
    /// # Safety
    /// `p` must be readable for `LANES` bytes.
    unsafe fn load_i8(self, p: *const i8) -> Self::F;

    // ---- float arithmetic, by lane ----

    /// `x` in all lanes.
    fn splat(self, x: f32) -> Self::F;
    /// The IEEE half with these bits in all lanes.
    fn splat_f16(self, bits: u16) -> Self::F;
    /// 0 in all lanes.
    #[inline(always)]
    fn zero(self) -> Self::F {
        self.splat(0.0)
    }
    /// a + b
    fn add(self, a: Self::F, b: Self::F) -> Self::F;
    /// a − b
    fn sub(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b
    fn mul(self, a: Self::F, b: Self::F) -> Self::F;
    /// a / b
    fn div(self, a: Self::F, b: Self::F) -> Self::F;
    /// a · b + c; rounded once where the instruction set has it, else twice.
    fn mul_add(self, a: Self::F, b: Self::F, c: Self::F) -> Self::F;
    /// The greater. A NaN in `b` is returned; a NaN in `a` may be lost.
    fn max(self, a: Self::F, b: Self::F) -> Self::F;
    /// The lesser. A NaN in `b` is returned; a NaN in `a` may be lost.
    fn min(self, a: Self::F, b: Self::F) -> Self::F;
    /// |a|
    fn abs(self, a: Self::F) -> Self::F;
    /// −a
    fn neg(self, a: Self::F) -> Self::F;
    /// √a, correctly rounded.
    fn sqrt(self, a: Self::F) -> Self::F;

    /// The sum of all lanes, halving the vector until one lane is left: a fixed order.
    fn reduce_sum(self, a: Self::F) -> f32;
    /// The sums of the `LANES` blocks of eight elements that eight vectors hold one after the other. A block's sum is
    /// `((e0 + e1) + (e2 + e3)) + ((e4 + e5) + (e6 + e7))`.
    fn sum_eights(self, v: [Self::F; 8]) -> Self::F;
    /// The greatest lane; unspecified where lanes are NaN.
    fn reduce_max(self, a: Self::F) -> f32;

    // ---- choice ----

    /// a < b; false where one is NaN.
    fn lt(self, a: Self::F, b: Self::F) -> Self::M;
    /// a > b; false where one is NaN.
    #[inline(always)]
    fn gt(self, a: Self::F, b: Self::F) -> Self::M {
        self.lt(b, a)
    }
    /// Lanes of `a` where `m`, else of `b`.
    fn select(self, m: Self::M, a: Self::F, b: Self::F) -> Self::F;

    // ---- integers, by lane ----

    /// `x` in all lanes.
    fn splat_i32(self, x: i32) -> Self::I;
    /// a + b, wrapping.
    fn add_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// a − b, wrapping.
    fn sub_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// a << n, for n < 32.
    fn shl_i32(self, a: Self::I, n: u32) -> Self::I;
    /// a >> n, keeping the sign, for n < 32.
    fn shr_i32(self, a: Self::I, n: u32) -> Self::I;
    /// a & b
    fn and_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// a | b
    fn or_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// a ^ b
    fn xor_i32(self, a: Self::I, b: Self::I) -> Self::I;
    /// To the nearest integer, ties to even; |a| < 2²².
    fn round_to_i32(self, a: Self::F) -> Self::I;
    /// The nearest float.
    fn i32_to_f32(self, a: Self::I) -> Self::F;
    /// The float with these bits.
    fn f32_from_bits(self, a: Self::I) -> Self::F;
    /// Writes `LANES` integers; any alignment.
    /// # Safety
    /// `p` must be writable for `LANES` integers.
    unsafe fn store_i32(self, p: *mut i32, v: Self::I);

    // ---- functions made of the above ----

    /// eˣ within about 1.5 ulp; 0 below −104, ∞ above 88.73, NaN for NaN.
    #[inline(always)]
    fn exp(self, x: Self::F) -> Self::F {
        math::exp(self, x)
    }

    /// tanh x within about 2 ulp.
    #[inline(always)]
    fn tanh(self, x: Self::F) -> Self::F {
        math::tanh(self, x)
    }

    /// 1 / (1 + e⁻ˣ)
    #[inline(always)]
    fn sigmoid(self, x: Self::F) -> Self::F {
        let one = self.splat(1.0);
        self.div(one, self.add(one, self.exp(self.neg(x))))
    }
}
