//! Every method of the trait on every instruction set of this CPU, against plain Rust.

use super::{Isa, IsaError, Simd};

const N: usize = 64;

#[inline(always)]
fn arithmetic_impl<S: Simd>(s: S, a: &[f32; N], b: &[f32; N], out: &mut [[f32; N]; 15]) {
    let mut i = 0;
    while i < N {
        // SAFETY: LANES divides N.
        unsafe {
            let (x, y) = (s.load(a.as_ptr().add(i)), s.load(b.as_ptr().add(i)));
            s.store(out[0].as_mut_ptr().add(i), s.add(x, y));
            s.store(out[1].as_mut_ptr().add(i), s.sub(x, y));
            s.store(out[2].as_mut_ptr().add(i), s.mul(x, y));
            s.store(out[3].as_mut_ptr().add(i), s.div(x, y));
            s.store(out[4].as_mut_ptr().add(i), s.mul_add(x, y, x));
            s.store(out[5].as_mut_ptr().add(i), s.max(x, y));
            s.store(out[6].as_mut_ptr().add(i), s.min(x, y));
            s.store(out[7].as_mut_ptr().add(i), s.neg(s.abs(x)));
            s.store(out[8].as_mut_ptr().add(i), s.sqrt(s.abs(x)));
            s.store(out[9].as_mut_ptr().add(i), s.select(s.gt(x, y), x, s.zero()));
            let n = s.round_to_i32(x);
            s.store(out[10].as_mut_ptr().add(i), s.i32_to_f32(s.shl_i32(s.sub_i32(n, s.splat_i32(1)), 3)));
            let m = s.round_to_i32(y);
            s.store(out[12].as_mut_ptr().add(i), s.i32_to_f32(s.and_i32(n, m)));
            s.store(out[13].as_mut_ptr().add(i), s.i32_to_f32(s.or_i32(n, m)));
            s.store(out[14].as_mut_ptr().add(i), s.i32_to_f32(s.xor_i32(n, m)));
            let mut lanes = [0i32; N];
            s.store_i32(lanes.as_mut_ptr(), s.shr_i32(n, 1));
            for j in 0..S::LANES {
                out[11][i + j] = lanes[j] as f32;
            }
        }
        i += S::LANES;
    }
}
simd_dispatch!(fn arithmetic(a: &[f32; N], b: &[f32; N], out: &mut [[f32; N]; 15]) = arithmetic_impl);

#[test]
fn arithmetic_matches_plain_rust() {
    let a: [f32; N] = std::array::from_fn(|i| (i as f32 - 31.3) * 1.37);
    let b: [f32; N] = std::array::from_fn(|i| ((i * 29 % N) as f32 - 20.5) * 0.77);
    for isa in Isa::available() {
        let mut out = [[f32::NAN; N]; 15];
        arithmetic(isa)(&a, &b, &mut out);
        for i in 0..N {
            let (x, y) = (a[i], b[i]);
            let n = x.round_ties_even() as i32;
            let exact = [x + y, x - y, x * y, x / y];
            assert_eq!(exact, [out[0][i], out[1][i], out[2][i], out[3][i]], "{isa:?}");
            assert!((out[4][i] - (x * y + x)).abs() <= 1e-3, "{isa:?}");
            let rest = [x.max(y), x.min(y), -x.abs(), x.abs().sqrt(), if x > y { x } else { 0.0 }];
            assert_eq!(rest, [out[5][i], out[6][i], out[7][i], out[8][i], out[9][i]], "{isa:?}");
            assert_eq!([((n - 1) << 3) as f32, (n >> 1) as f32], [out[10][i], out[11][i]], "{isa:?}");
            let m = y.round_ties_even() as i32;
            let bits = [n & m, n | m, n ^ m].map(|v| v as f32);
            assert_eq!(bits, [out[12][i], out[13][i], out[14][i]], "{isa:?}");
        }
    }
}

#[inline(always)]
fn memory_impl<S: Simd>(s: S, n: usize, x: &[f32], half: &[u16], out: &mut [f32], out_half: &mut [u16]) -> usize {
    let n = n.min(S::LANES);
    assert!(x.len() == n && half.len() == n && out.len() >= 3 * n && out_half.len() >= n);
    // SAFETY: all slices hold n elements of what is read or written.
    unsafe {
        s.store_partial(out.as_mut_ptr(), n, s.load_partial(x.as_ptr(), n));
        s.store_partial(out.as_mut_ptr().add(n), n, s.load_f16_partial(half.as_ptr(), n));
        s.store_partial(out.as_mut_ptr().add(2 * n), n, s.load_bf16_partial(half.as_ptr(), n));
        s.store_f16_partial(out_half.as_mut_ptr(), n, s.load_partial(x.as_ptr(), n));
        if n == S::LANES {
            let sum = s.reduce_sum(s.load(x.as_ptr()));
            assert!((sum - x.iter().sum::<f32>()).abs() < 1e-4);
            assert_eq!(s.reduce_max(s.load(x.as_ptr())), x.iter().copied().fold(f32::MIN, f32::max));
            let (a, b) = (n / 2, n / 3);
            s.store(out.as_mut_ptr(), s.load_pair(x.as_ptr().add(a), x.as_ptr().add(b)));
            s.store(out.as_mut_ptr().add(n), s.load_pair_f16(half.as_ptr().add(a), half.as_ptr().add(b)));
            for i in 0..n {
                let from = if i < n / 2 { a + i } else { b + i - n / 2 };
                assert_eq!(out[i], x[from]);
                assert_eq!(out[n + i], half::f16::from_bits(half[from]).to_f32());
            }
            s.store(out.as_mut_ptr(), s.load_i8(half.as_ptr().cast()));
            s.store(out.as_mut_ptr().add(n), s.splat_f16(half[0]));
            for (i, byte) in half.iter().flat_map(|x| x.to_ne_bytes()).take(n).enumerate() {
                assert_eq!(out[i], f32::from(byte as i8));
                assert_eq!(out[n + i], half::f16::from_bits(half[0]).to_f32());
            }
            s.store(out.as_mut_ptr(), s.load(x.as_ptr()));
            s.store_f16(out_half.as_mut_ptr(), s.load(x.as_ptr()));
            s.store(out.as_mut_ptr().add(n), s.load_f16(half.as_ptr()));
            s.store(out.as_mut_ptr().add(2 * n), s.load_bf16(half.as_ptr()));
        }
    }
    n
}
simd_dispatch!(fn memory(n: usize, x: &[f32], half: &[u16], out: &mut [f32], out_half: &mut [u16]) -> usize = memory_impl);

#[test]
fn partial_accesses_touch_nothing_else() {
    let lanes = |isa| match isa {
        Isa::Avx2 => 8,
        Isa::Avx512 | Isa::Avx512Vnni => 16,
        Isa::Generic | Isa::Neon | Isa::NeonDotprod | Isa::NeonI8mm => 4,
    };
    for isa in Isa::available() {
        for n in 0..=lanes(isa) {
            // Ties in both directions, subnormal halves, an overflow to infinity.
            let values = [1.0 + 1.0 / 2048.0, 1.0 + 3.0 / 2048.0, -2.5e-7, 7e4, 0.1, -3.75];
            let x: Vec<f32> = (0..n).map(|i| if i < 6 { values[i] } else { i as f32 * 0.3 }).collect();
            let half: Vec<u16> = (0..n).map(|i| 0x3c01 + 77 * i as u16).collect();
            let mut out = vec![f32::NAN; 3 * n + 1];
            let mut out_half = vec![0xdead; n + 1];
            assert_eq!(memory(isa)(n, &x, &half, &mut out, &mut out_half), n);
            assert!(out[3 * n].is_nan() && out_half[n] == 0xdead, "{isa:?} {n}");
            for i in 0..n {
                assert_eq!(out[i], x[i], "{isa:?} {n}");
                assert_eq!(out[n + i], half::f16::from_bits(half[i]).to_f32(), "{isa:?} {n}");
                assert_eq!(out[2 * n + i], half::bf16::from_bits(half[i]).to_f32(), "{isa:?} {n}");
                assert_eq!(out_half[i], half::f16::from_f32(x[i]).to_bits(), "{isa:?} {n} {}", x[i]);
            }
        }
    }
}

/// The sum of a vector in an order of its own, and the sums of as many blocks of eight.
#[inline(always)]
fn sums_impl<S: Simd>(s: S, x: &[f32; 128], sums: &mut [f32; 16]) -> (usize, f32) {
    // SAFETY: eight vectors have 128 lanes at most, and one has 16 at most.
    unsafe {
        let v = std::array::from_fn(|i| s.load(x.as_ptr().add(i * S::LANES)));
        s.store(sums.as_mut_ptr(), s.sum_eights(v));
        (S::LANES, s.reduce_sum(s.load(x.as_ptr())))
    }
}
simd_dispatch!(fn sums(x: &[f32; 128], sums: &mut [f32; 16]) -> (usize, f32) = sums_impl);

#[test]
fn sums_have_a_fixed_order() {
    let x: [f32; 128] = std::array::from_fn(|i| (i as f32 * 12.9898).sin() * 43.7 + 1e3 * (i % 3) as f32);
    for isa in Isa::available() {
        let mut out = [f32::NAN; 16];
        let (lanes, sum) = sums(isa)(&x, &mut out);
        for (block, out) in x.chunks(8).zip(&out[..lanes]) {
            let four = |e: &[f32]| (e[0] + e[1]) + (e[2] + e[3]);
            assert_eq!(*out, four(block) + four(&block[4..]), "{isa:?}");
        }
        let mut halved = x[..lanes].to_vec();
        while halved.len() > 1 {
            let (a, b) = halved.split_at(halved.len() / 2);
            halved = a.iter().zip(b).map(|(a, b)| a + b).collect();
        }
        assert_eq!(sum, halved[0], "{isa:?}");
    }
}

#[inline(always)]
fn functions_impl<S: Simd>(s: S, x: &[f32], exp: &mut [f32], tanh: &mut [f32]) {
    assert!(x.len() == exp.len() && x.len() == tanh.len());
    let mut i = 0;
    while i < x.len() {
        let n = x.len() - i;
        // SAFETY: n elements are left in each slice.
        unsafe {
            let v = s.load_partial(x.as_ptr().add(i), n);
            s.store_partial(exp.as_mut_ptr().add(i), n, s.exp(v));
            s.store_partial(tanh.as_mut_ptr().add(i), n, s.tanh(v));
        }
        i += S::LANES;
    }
}
simd_dispatch!(fn functions(x: &[f32], exp: &mut [f32], tanh: &mut [f32]) = functions_impl);

#[test]
fn exp_and_tanh_are_within_two_ulp() {
    let mut x: Vec<f32> = (-90_000..=89_000).map(|i| i as f32 * 0.000_997).collect();
    x.extend([0.0, -0.0, 1e-20, f32::NEG_INFINITY, -1e30, -100.0, 88.7, f32::INFINITY, 1e30, f32::NAN]);
    let n = x.len();
    for isa in Isa::available() {
        let (mut exp, mut tanh) = (vec![f32::NAN; n], vec![f32::NAN; n]);
        functions(isa)(&x, &mut exp, &mut tanh);
        for i in 0..n - 7 {
            let want = f64::from(x[i]).exp();
            if want > 1.2e-38 && want < 3.4028e38 {
                assert!((f64::from(exp[i]) / want - 1.0).abs() <= 2e-7, "{isa:?} exp({}) = {}", x[i], exp[i]);
            }
            let want = f64::from(x[i]).tanh();
            assert!((f64::from(tanh[i]) - want).abs() <= 3e-7 * want.abs(), "{isa:?} tanh({}) = {}", x[i], tanh[i]);
        }
        let special: Vec<f32> = exp[n - 7..].to_vec();
        assert_eq!(special[..2], [0.0, 0.0], "{isa:?}");
        assert!((special[2] - (-100f64).exp() as f32).abs() <= 2e-45, "{isa:?} {}", special[2]);
        assert!((f64::from(special[3]) / f64::from(88.7f32).exp() - 1.0).abs() <= 2e-7, "{isa:?}");
        assert_eq!(special[4..6], [f32::INFINITY; 2], "{isa:?}");
        assert!(special[6].is_nan() && tanh[n - 1].is_nan(), "{isa:?}");
        assert_eq!([tanh[n - 7], tanh[n - 3]], [-1.0, 1.0], "{isa:?}");
    }
}

#[test]
fn names_parse_back_and_errors_are_values() {
    for isa in Isa::ALL {
        match Isa::parse(isa.name()) {
            Ok(parsed) => assert!(parsed == isa && isa.is_available()),
            Err(error) => assert!(error == IsaError::Unavailable(isa) && !isa.is_available()),
        }
    }
    assert_eq!(Isa::parse("mmx"), Err(IsaError::Unknown("mmx".into())));
    assert!(Isa::available().contains(&Isa::detect()));
}
