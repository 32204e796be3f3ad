//! exp and tanh over any vector. Polynomials, no tables: a table needs gathers, which are slow on many CPUs.

use super::Simd;

/// eˣ: x = n·ln 2 + r with |r| ≤ ln 2 / 2, then 2ⁿ times the series of eʳ.
///
/// The first term left out of the series is r⁸/8! < 5.2e-9, far below half an ulp (6e-8). 2ⁿ is applied as two factors
/// so that subnormal results and the last binade before overflow come out right.
#[inline(always)]
pub(super) fn exp<S: Simd>(s: S, x: S::F) -> S::F {
    // Outside of these bounds the result is 0 or ∞ anyway. Operand order lets a NaN in x through.
    let x = s.max(s.splat(-105.0), s.min(s.splat(90.0), x));
    let n = s.round_to_i32(s.mul(x, s.splat(std::f32::consts::LOG2_E)));
    let nf = s.i32_to_f32(n);
    // ln 2 in two parts: n times the first is exact for |n| < 2¹¹.
    let r = s.mul_add(nf, s.splat(-0.693_359_4), x);
    let r = s.mul_add(nf, s.splat(2.121_944_4e-4), r);
    let mut p = s.splat(1.0 / 5040.0);
    p = s.mul_add(p, r, s.splat(1.0 / 720.0));
    p = s.mul_add(p, r, s.splat(1.0 / 120.0));
    p = s.mul_add(p, r, s.splat(1.0 / 24.0));
    p = s.mul_add(p, r, s.splat(1.0 / 6.0));
    p = s.mul_add(p, r, s.splat(0.5));
    p = s.mul_add(s.mul(p, r), r, s.add(r, s.splat(1.0)));
    let half = s.shr_i32(n, 1);
    let rest = s.sub_i32(n, half);
    s.mul(s.mul(p, pow2(s, half)), pow2(s, rest))
}

/// 2ⁿ for −126 ≤ n ≤ 127, from the exponent's bits.
#[inline(always)]
fn pow2<S: Simd>(s: S, n: S::I) -> S::F {
    s.f32_from_bits(s.shl_i32(s.add_i32(n, s.splat_i32(127)), 23))
}

/// tanh x = 1 − 2/(e²ˣ + 1) for large |x|. Near 0 the difference cancels, so an odd polynomial replaces it there (the
/// minimax coefficients of the Cephes library, S. Moshier, for |x| < 0.625).
#[inline(always)]
pub(super) fn tanh<S: Simd>(s: S, x: S::F) -> S::F {
    let one = s.splat(1.0);
    let e = exp(s, s.add(x, x));
    let far = s.sub(one, s.div(s.splat(2.0), s.add(e, one)));
    let z = s.mul(x, x);
    let mut p = s.splat(-5.704_988_7e-3);
    p = s.mul_add(p, z, s.splat(2.063_909e-2));
    p = s.mul_add(p, z, s.splat(-5.373_971_5e-2));
    p = s.mul_add(p, z, s.splat(1.333_144_2e-1));
    p = s.mul_add(p, z, s.splat(-3.333_328e-1));
    let near = s.mul_add(s.mul(p, z), x, x);
    s.select(s.lt(s.abs(x), s.splat(0.625)), near, far)
}
