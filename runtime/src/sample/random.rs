//! Random numbers and functions for choosing tokens. Only the four basic operations, in a fixed order: the system's own
//! exponential and logarithm differ between systems.

/// PCG's output function as a hash. Source: Jarzynski and Olano, Hash Functions for GPU Rendering (2020).
pub(crate) fn pcg(x: u32) -> u32 {
    let state = x.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
    (word >> 22) ^ word
}

/// The stream of one choice: it depends on the request's seed and on the row's position alone, so that neither the
/// device, the batch nor a second run of the same row changes a draw.
pub(super) fn stream(seed: u64, position: usize) -> u32 {
    pcg(seed as u32 ^ pcg((seed >> 32) as u32 ^ pcg(position as u32)))
}

/// -ln of an exponentially distributed random number that belongs to a token. `sample.wgsl` has the same function.
pub(super) fn luck(stream: u32, id: u32) -> f32 {
    let u = (pcg(stream ^ pcg(id)) as f32 + 0.5) * 2.328_306_4e-10;
    // Small numbers keep their digits: they are the ones that win.
    let e = if u < 0.01 { u + u * u * (0.5 + u * (1.0 / 3.0)) } else { -ln((1.0 - u).max(1e-9)) };
    -ln(e)
}

/// More than [`luck`] ever is.
pub(super) const MOST_LUCK: f32 = 23.0;

/// ln x for positive normal numbers, within a few units in the last place of the larger of x's two parts.
pub(super) fn ln(x: f32) -> f32 {
    // x = 2^n · m with m from √½ to √2.
    const ROOT: i32 = 0x3f35_04f3;
    let bits = x.to_bits() as i32;
    let n = (bits - ROOT) >> 23;
    let m = f32::from_bits((bits - (n << 23)) as u32);
    // ln m = 2 artanh s, as a series up to s^9: the rest is below 2^-28.
    let s = (m - 1.0) / (m + 1.0);
    let z = s * s;
    let series = 1.0 + z * (1.0 / 3.0 + z * (0.2 + z * (1.0 / 7.0 + z * (1.0 / 9.0))));
    // ln 2 in two parts, of which the first times n is exact.
    let n = n as f32;
    n * 0.693_359_4 + (2.0 * s * series + n * -2.121_944_4e-4)
}

/// e^x for x ≤ 0, within 2 units in the last place; 0 for NaN and where the result would be subnormal.
#[inline]
pub(super) fn exp(x: f32) -> f32 {
    // e^x = 2^n · e^r with n = round(x / ln 2) and |r| ≤ ln 2 / 2; ln 2 is split in two so that r is exact.
    const ROUND: f32 = 12_582_912.0; // 1.5 · 2^23: adding it rounds to an integer
    let x_safe = if x > -87.0 { x } else { -87.0 };
    let n = (x_safe * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x_safe - n * 0.693_359_4) - n * -2.121_944_4e-4;
    // Taylor's series up to r^7: the rest is below 2^-28.
    let mut p = 1.0 / 5040.0;
    for c in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        p = p * r + c;
    }
    let scale = f32::from_bits(((n as i32 + 127) << 23) as u32);
    if x > -87.0 { p * scale } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_close_to_the_systems() {
        let mut x = 0.0f32;
        while x > -86.0 {
            let want = f64::from(x).exp();
            assert!((f64::from(exp(x)) - want).abs() <= want * 2.4e-7, "e^{x}: {} where {want} is due", exp(x));
            x -= 0.0137;
        }
        assert_eq!(exp(0.0), 1.0);
        for zero in [-1000.0, f32::NEG_INFINITY, f32::NAN] {
            assert_eq!(exp(zero), 0.0);
        }
        let mut x = 1e-10f32;
        while x < 30.0 {
            let want = f64::from(x).ln();
            assert!((f64::from(ln(x)) - want).abs() <= want.abs().max(0.5) * 2.4e-7, "ln {x}: {} for {want}", ln(x));
            x *= 1.0037;
        }
        assert_eq!(ln(1.0), 0.0);
    }

    #[test]
    fn luck_is_that_of_an_exponential_race() {
        let (mut sum, n) = (0.0, 200_000);
        for id in 0..n {
            let luck = luck(stream(3, 9), id);
            assert!(luck < MOST_LUCK, "{luck}");
            sum += f64::from(-luck).exp();
        }
        assert!((sum / f64::from(n) - 1.0).abs() < 0.01, "the mean of an exponential distribution: {sum} of {n}");
        assert!(stream(1, 2) != stream(2, 1) && stream(1 << 32, 0) != stream(1, 0));
    }
}
