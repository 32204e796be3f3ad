//! Sums over a row, in an order that the width of vectors does not change: element i is added to chain i mod 64, and the
//! chains are joined as halving vectors of 16 lanes does. Several chains at once also hide the latency of additions, and
//! short partial sums lose less to rounding.

use crate::cpu::arch::Simd;

/// Chains of a sum.
pub(super) const CHAINS: usize = 64;

/// Adds `$body`, a vector of which `$m` lanes from element `$i` on are in use and the others zero, to the chains of 0..`$n`.
macro_rules! sum_of {
    ($s:ident, $n:expr, |$i:ident, $m:ident, $sum:ident| $body:expr) => {{
        let n: usize = $n;
        use $crate::cpu::ops::sums::{CHAINS, join};
        let mut sums = [$s.zero(); CHAINS / 4];
        let turns = CHAINS / S::LANES;
        let mut $i = 0;
        while $i + CHAINS <= n {
            for sum in &mut sums[..turns] {
                let ($m, $sum) = (S::LANES, *sum);
                *sum = $body;
                $i += S::LANES;
            }
        }
        for sum in &mut sums[..turns] {
            if $i < n {
                let ($m, $sum) = (S::LANES.min(n - $i), *sum);
                *sum = $body;
                $i += S::LANES;
            }
        }
        join($s, sums)
    }};
}
pub(super) use sum_of;

/// Joins the chains: quarters of 16 as (0 + 1) + (2 + 3), then half with half.
#[inline(always)]
pub(super) fn join<S: Simd>(s: S, sums: [S::F; CHAINS / 4]) -> f32 {
    // Vectors of a quarter.
    let n = CHAINS / 4 / S::LANES;
    let mut quarter = [s.zero(); 4];
    for (i, sum) in quarter[..n].iter_mut().enumerate() {
        *sum = s.add(s.add(sums[i], sums[n + i]), s.add(sums[2 * n + i], sums[3 * n + i]));
    }
    s.reduce_sum(halved(s, quarter))
}

/// Sixteen lanes, in as many vectors as they take, halved until they are one vector.
#[inline(always)]
pub(super) fn halved<S: Simd>(s: S, v: [S::F; 4]) -> S::F {
    match S::LANES {
        16 => v[0],
        8 => s.add(v[0], v[1]),
        _ => s.add(s.add(v[0], v[2]), s.add(v[1], v[3])),
    }
}

/// `Σ x[i]`
///
/// # Safety
/// `x` must be readable for `n` floats.
#[inline(always)]
pub(super) unsafe fn sum<S: Simd>(s: S, n: usize, x: *const f32) -> f32 {
    // SAFETY: i + m <= n.
    sum_of!(s, n, |i, m, sum| s.add(sum, unsafe { s.load_partial(x.add(i), m) }))
}

/// `Σ a[i] · b[i]`
///
/// # Safety
/// Both must be readable for `n` floats.
#[inline(always)]
pub(super) unsafe fn dot<S: Simd>(s: S, n: usize, a: *const f32, b: *const f32) -> f32 {
    // SAFETY: i + m <= n.
    sum_of!(s, n, |i, m, sum| unsafe { s.mul_add(s.load_partial(a.add(i), m), s.load_partial(b.add(i), m), sum) })
}

/// `Σ (x[i] − mean)²`
///
/// # Safety
/// `x` must be readable for `n` floats.
#[inline(always)]
pub(super) unsafe fn sum_of_squares<S: Simd>(s: S, n: usize, x: *const f32, mean: f32) -> f32 {
    // Unused lanes of a partial load are zero in both.
    let means = [mean; 16];
    sum_of!(s, n, |i, m, sum| {
        // SAFETY: i + m <= n; no vector has more than 16 lanes.
        let d = unsafe { s.sub(s.load_partial(x.add(i), m), s.load_partial(means.as_ptr(), m)) };
        s.mul_add(d, d, sum)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::{LENGTHS, random};
    use crate::cpu::arch::Isa;
    use crate::simd_dispatch;

    simd_dispatch!(fn sums(a: &[f32], b: &[f32], out: &mut [f32; 3]) = sums_impl);

    #[inline(always)]
    fn sums_impl<S: Simd>(s: S, a: &[f32], b: &[f32], out: &mut [f32; 3]) {
        assert_eq!(a.len(), b.len());
        // SAFETY: both have that length.
        *out = unsafe {
            let (n, a, b) = (a.len(), a.as_ptr(), b.as_ptr());
            [sum(s, n, a), dot(s, n, a, b), sum_of_squares(s, n, a, 0.3)]
        };
    }

    #[test]
    fn sums_match_f64_and_are_the_same_on_every_instruction_set() {
        for n in LENGTHS {
            let (a, b) = (random(1, n), random(2, n));
            let f64s = |f: fn(f64, f64) -> f64| a.iter().zip(&b).map(|(a, b)| f((*a).into(), (*b).into())).sum::<f64>();
            let want = [f64s(|a, _| a), f64s(|a, b| a * b), f64s(|a, _| (a - 0.3f32 as f64).powi(2))];
            let scale = a.iter().chain(&b).map(|x| f64::from(x.abs())).sum::<f64>() + 1.0;
            let mut fused: Option<[u32; 3]> = None;
            for isa in Isa::available() {
                let mut out = [f32::NAN; 3];
                sums(isa)(&a, &b, &mut out);
                for (got, want) in out.iter().zip(want) {
                    assert!((f64::from(*got) - want).abs() <= 1e-6 * scale, "{isa:?}, {n}: {got} for {want}");
                }
                // The generic one multiplies and adds in two steps.
                if isa != Isa::Generic {
                    let bits = out.map(f32::to_bits);
                    assert_eq!(*fused.get_or_insert(bits), bits, "{isa:?}, {n}");
                }
            }
        }
    }
}
