//! Every format on every instruction set of this CPU, at shapes that fit no tile, against f64.
//!
//! Two references: the same product in f64 with activations quantised as the kernel's form says, which must agree to
//! rounding, and with exact activations, which bounds what int8 costs. Of the exact kernels the two are one. Weights end
//! at a page that cannot be read, and outputs begin as NaN.

use super::{ActForm, LinearKernels, ScaleRows, WeightRows, exact_linear_kernels, linear_kernels};
use crate::cases::linear::{LinearCase, linears};
use crate::cpu::arch::Isa;
use crate::quant::{
    DType,
    testing::{Random, random_weights},
};

/// A row by the format's scalar decode.
fn decode(dtype: DType, row: &[u8], k: usize) -> Vec<f64> {
    let mut out = vec![0f32; k];
    dtype.decode_row(row, &mut out).unwrap();
    out.into_iter().map(f64::from).collect()
}

fn is_float(form: ActForm) -> bool {
    matches!(form, ActForm::F32 | ActForm::F32Chains)
}

/// What an int8 form keeps of the activations.
fn quantised(form: ActForm, x: &[f32]) -> Vec<f64> {
    if is_float(form) {
        return x.iter().map(|&v| f64::from(v)).collect();
    }
    x.chunks(32)
        .flat_map(|block| {
            let peak = block.iter().fold(0f32, |m, v| m.max(v.abs()));
            let (scale, inverse) = (peak / 127.0, if peak > 0.0 { 127.0 / peak } else { 0.0 });
            block.iter().map(move |v| f64::from(scale) * f64::from((v * inverse).round_ties_even()))
        })
        .collect()
}

/// Bytes that end where the readable memory ends.
struct Guarded {
    map: memmap2::MmapMut,
    start: usize,
    len: usize,
}

impl Guarded {
    fn new(bytes: &[u8]) -> Guarded {
        let page = 65536;
        let size = bytes.len().next_multiple_of(page);
        let mut map = memmap2::MmapMut::map_anon(size + page).unwrap();
        let start = size - bytes.len();
        map[start..size].copy_from_slice(bytes);
        #[cfg(unix)]
        {
            unsafe extern "C" {
                fn mprotect(p: *mut std::ffi::c_void, len: usize, protection: i32) -> i32;
            }
            // SAFETY: the last pages of a mapping of our own; nothing refers to them.
            assert_eq!(unsafe { mprotect(map.as_mut_ptr().add(size).cast(), page, 0) }, 0);
        }
        Guarded { map, start, len: bytes.len() }
    }
    fn bytes(&self) -> &[u8] {
        // SAFETY: this part of the mapping is readable.
        unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(self.start), self.len) }
    }
}

/// One product by the kernel that the number of tokens calls for.
fn product(kernels: &LinearKernels, dtype: DType, w: &[u8], n_rows: usize, k: usize, x: &[Vec<f32>]) -> Vec<f32> {
    let n_tokens = x.len();
    let form = kernels.act_form(dtype, n_tokens);
    let stride = kernels.act_row_bytes(form, k);
    assert!(stride.is_multiple_of(64));
    let mut acts = vec![0xffu8; stride * n_tokens];
    for (x, out) in x.iter().zip(acts.chunks_exact_mut(stride)) {
        kernels.quantize_row(form, x, out);
    }
    let out_stride = n_rows + 3;
    let mut out = vec![f32::NAN; out_stride * n_tokens];
    let row_bytes = dtype.row_bytes(k).unwrap();
    if n_tokens <= LinearKernels::MAT_VEC_TOKENS {
        // SAFETY: `out` has room for all rows of all tokens.
        unsafe { kernels.mat_vec(WeightRows::new(dtype, n_rows, k, w), &acts, n_tokens, out.as_mut_ptr(), out_stride) };
    } else {
        let step = kernels.panel_rows(dtype, k);
        let mut panel = vec![0xffu8; kernels.panel_bytes(dtype, k)];
        for row in (0..n_rows).step_by(step) {
            let n = step.min(n_rows - row);
            let w = &w[row * row_bytes..(row + n) * row_bytes];
            // SAFETY: `out` has room for all rows of all tokens.
            unsafe {
                let out = out.as_mut_ptr().add(row);
                kernels.mat_mat(WeightRows::new(dtype, n, k, w), &acts, n_tokens, out, out_stride, &mut panel);
            }
        }
    }
    for row in out.chunks_exact(out_stride) {
        assert!(row[n_rows..].iter().all(|v| v.is_nan()), "wrote beyond the rows");
    }
    out.chunks_exact(out_stride).flat_map(|row| row[..n_rows].to_vec()).collect()
}

/// Sums of a product's results in f64, of `[tokens, rows]`.
struct Reference {
    /// Of the activations as the kernel's form has them.
    want: Vec<f64>,
    /// Of the activations themselves.
    exact: Vec<f64>,
    /// Of the magnitudes of all terms.
    magnitude: Vec<f64>,
    /// ‖W‖² · ‖x‖², summed over all results.
    norm: f64,
}

impl Reference {
    fn new(dtype: DType, w: &[u8], k: usize, x: &[Vec<f32>], form: ActForm) -> Self {
        let rows: Vec<_> = w.chunks_exact(dtype.row_bytes(k).unwrap()).map(|row| decode(dtype, row, k)).collect();
        let mut reference = Self { want: Vec::new(), exact: Vec::new(), magnitude: Vec::new(), norm: 0.0 };
        let squares = |v: &[f64]| v.iter().map(|v| v * v).sum::<f64>();
        for x in x {
            let quantised = quantised(form, x);
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).collect();
            for row in &rows {
                let dot = |x: &[f64]| row.iter().zip(x).map(|(a, b)| a * b).sum::<f64>();
                reference.want.push(dot(&quantised));
                reference.exact.push(dot(&x));
                reference.magnitude.push(row.iter().zip(&x).map(|(a, b)| (a * b).abs()).sum());
                reference.norm += squares(row) * squares(&x);
            }
        }
        reference
    }
}

/// The case on every instruction set.
fn check(kernels: KernelsOf, case: &LinearCase) {
    let LinearCase { dtype, rows: n_rows, k, tokens: n_tokens, .. } = *case;
    let weights = Guarded::new(&case.weights());
    let x = case.activations();
    let form = kernels(Isa::Generic).act_form(dtype, n_tokens);
    let reference = Reference::new(dtype, weights.bytes(), k, &x, form);
    for isa in Isa::available() {
        let kernels = kernels(isa);
        let what = format!("{dtype} on {isa:?}, {form:?}: {n_rows} rows of {k}, {n_tokens} tokens");
        assert_eq!(kernels.act_form(dtype, n_tokens), form, "{what}: another form");
        let got = product(kernels, dtype, weights.bytes(), n_rows, k, &x);
        // The norm is ‖W‖·‖x‖ by element: a sum that happens to cancel must not count as a large relative error.
        let (mut error, mut int8_error) = (0f64, 0f64);
        for (i, got) in got.iter().map(|v| f64::from(*v)).enumerate() {
            let (want, at) = (reference.want[i], (i % n_rows, i / n_rows));
            let close = (got - want).abs() <= 4e-6 * reference.magnitude[i];
            assert!(close, "{what}: row and token {at:?}: {got} for {want}");
            error += (got - want).powi(2);
            int8_error += (got - reference.exact[i]).powi(2);
        }
        let rounding = if is_float(form) { 1e-6 } else { 2e-6 };
        let norm = reference.norm;
        assert!(error.sqrt() <= rounding * norm.sqrt(), "{what}: {}", (error / norm).sqrt());
        assert!(int8_error.sqrt() <= 2e-2 * norm.sqrt(), "{what}: int8 {}", (int8_error / norm).sqrt());
    }
}

type KernelsOf = fn(Isa) -> &'static LinearKernels;

fn all_kernels() -> impl Iterator<Item = &'static LinearKernels> {
    Isa::available().into_iter().flat_map(|isa| [linear_kernels(isa), exact_linear_kernels(isa)])
}

/// The cases of the formats with blocks of `len` elements.
fn check_all(kernels: KernelsOf, len: usize) {
    let cases = linears(DType::ALL.into_iter().filter(|d| d.block_len() == len));
    cases.iter().for_each(|case| check(kernels, case));
}

#[test]
fn float_weights_match_f64() {
    check_all(linear_kernels, 1);
}

#[test]
fn blocks_of_32_match_f64() {
    check_all(linear_kernels, 32);
}

#[test]
fn blocks_of_256_match_f64() {
    check_all(linear_kernels, 256);
}

/// Nothing of the activations is lost against any format.
#[test]
fn exact_kernels_match_f64() {
    assert!(all_kernels().skip(1).step_by(2).all(|kernels| {
        DType::ALL.iter().all(|d| [1, 4, 5, 99].iter().all(|n| is_float(kernels.act_form(*d, *n))))
    }));
    for len in [1, 32, 256] {
        check_all(exact_linear_kernels, len);
    }
}

/// Executors split rows and batches as they like: it must not show.
/// Bit by bit: by themselves, by any of the two kernels, as a part of more rows or tokens, and on every instruction set.
/// The generic one multiplies and adds in two steps, so it agrees with itself only.
#[test]
fn a_result_depends_on_its_own_row_and_token_alone() {
    let mut random = Random::new(7);
    for dtype in DType::ALL {
        let lengths: &[usize] = match dtype.block_len() {
            1 => &[37, 96],
            32 => &[32, 160],
            _ => &[512],
        };
        for &k in lengths {
            let n_rows = 37;
            let w = random_weights(&mut random, dtype, n_rows * k);
            let x: Vec<Vec<f32>> = (0..9).map(|_| (0..k).map(|_| random.float()).collect()).collect();
            let row_bytes = dtype.row_bytes(k).unwrap();
            for of in [linear_kernels as KernelsOf, exact_linear_kernels] {
                let mut fused: Option<Vec<f32>> = None;
                for isa in Isa::available() {
                    let what = format!("{dtype} on {isa:?}, {k} elements");
                    let kernels = of(isa);
                    let all = product(kernels, dtype, &w, n_rows, k, &x);
                    if isa != Isa::Generic {
                        assert_eq!(*fused.get_or_insert_with(|| all.clone()), all, "{what}: another instruction set");
                    }
                    for n_tokens in [1, 2, 3, 5, 8] {
                        let few = product(kernels, dtype, &w, n_rows, k, &x[..n_tokens]);
                        assert_eq!(few, all[..few.len()], "{what}: {n_tokens} tokens");
                    }
                    for (first, n) in [(5, 9), (36, 1)] {
                        for n_tokens in [1, 9] {
                            let part = product(kernels, dtype, &w[first * row_bytes..], n, k, &x[..n_tokens]);
                            for (t, part) in part.chunks_exact(n).enumerate() {
                                assert_eq!(part, &all[t * n_rows + first..][..n], "{what}: rows {first}..+{n}");
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A NaN must not be quantised away.
#[test]
fn nan_and_infinity_in_activations_show_in_the_result() {
    let mut random = Random::new(11);
    for kernels in all_kernels() {
        for dtype in DType::ALL {
            for bad in [f32::NAN, f32::INFINITY] {
                for at in [0, 37, 255] {
                    for n_tokens in [1, 5] {
                        let w = random_weights(&mut random, dtype, 256);
                        let mut x = vec![vec![0.5; 256]; n_tokens];
                        x[0][at] = bad;
                        let out = product(kernels, dtype, &w, 1, 256, &x);
                        assert!(!out[0].is_finite(), "{dtype} on {:?}, {n_tokens} tokens", kernels.isa());
                    }
                }
            }
        }
    }
}

#[test]
fn zero_activations_give_zero() {
    let mut random = Random::new(13);
    for kernels in all_kernels() {
        for dtype in DType::ALL {
            for n_tokens in [1, 5] {
                let w = random_weights(&mut random, dtype, 3 * 256);
                let out = product(kernels, dtype, &w, 3, 256, &vec![vec![0.0; 256]; n_tokens]);
                assert!(out.iter().all(|&v| v == 0.0), "{dtype} on {:?}", kernels.isa());
            }
        }
    }
}

#[test]
fn transposed_weights_match_f64() {
    let mut random = Random::new(77);
    for dtype in DType::ALL {
        for (inputs, blocks, n_tokens) in [(1, 1, 1), (7, 3, 2), (130, 2, 5), (9, 3, 1), (33, 11, 7)] {
            let row_len = if dtype.block_len() == 1 { 37 * blocks } else { dtype.block_len() * blocks };
            let row_bytes = dtype.row_bytes(row_len).unwrap();
            let w = Guarded::new(&random_weights(&mut random, dtype, inputs * row_len));
            let x: Vec<Vec<f32>> = (0..n_tokens).map(|_| (0..inputs).map(|_| random.float()).collect()).collect();
            let rows: Vec<Vec<f64>> = w.bytes().chunks_exact(row_bytes).map(|r| decode(dtype, r, row_len)).collect();
            let columns = row_len / 5..row_len;
            let reference: Vec<f64> = x
                .iter()
                .flat_map(|x| {
                    let rows = &rows;
                    columns.clone().map(move |j| x.iter().zip(rows).map(|(x, r)| f64::from(*x) * r[j]).sum())
                })
                .collect();
            for isa in Isa::available() {
                let kernels = linear_kernels(isa);
                let stride = kernels.act_row_bytes(ActForm::F32Chains, inputs);
                let mut acts = vec![0xffu8; stride * n_tokens];
                for (x, out) in x.iter().zip(acts.chunks_exact_mut(stride)) {
                    kernels.quantize_row(ActForm::F32Chains, x, out);
                }
                let mut panel = vec![0xffu8; kernels.transposed_panel_bytes(dtype, inputs)];
                let mut out = vec![f32::NAN; columns.len() * n_tokens];
                let (n, to) = (columns.len(), out.as_mut_ptr());
                // SAFETY: `out` has a row of `n` for every token.
                unsafe {
                    let w = WeightRows::new(dtype, inputs, row_len, w.bytes());
                    kernels.mat_mat_transposed(w, columns.clone(), &acts, n_tokens, None, to, n, &mut panel);
                }
                let error = crate::cpu::ops::testing::relative_error(&out, &reference);
                assert!(error < 2e-6, "{dtype} [{inputs}, {row_len}] {}: {error:e}", isa.name());
            }
        }
    }
}

/// Scales that are not in the blocks, whose last ones end where the readable memory does.
#[test]
fn mxfp4_with_scales_apart_matches_whole_blocks() {
    let mut random = Random::new(19);
    for (n_rows, k) in [(1, 32), (3, 96), (7, 160), (33, 576)] {
        let whole = random_weights(&mut random, DType::MXFP4, n_rows * k);
        // Element j and j + 16 of a byte become 2j and 2j + 1.
        let mut blocks = Vec::new();
        let mut scales = Vec::new();
        for block in whole.chunks_exact(17) {
            scales.push(block[0]);
            let nibble = |i: usize| if i < 16 { block[1 + i] & 15 } else { block[1 + i - 16] >> 4 };
            blocks.extend((0..16).map(|j| nibble(2 * j) | nibble(2 * j + 1) << 4));
        }
        let (blocks, scales) = (Guarded::new(&blocks), Guarded::new(&scales));
        for kernels in all_kernels() {
            for n_tokens in [1, 2, 4, 5, 17] {
                let x: Vec<Vec<f32>> = (0..n_tokens).map(|_| (0..k).map(|_| random.float()).collect()).collect();
                let want = product(kernels, DType::MXFP4, &whole, n_rows, k, &x);
                let mut w = WeightRows::new(DType::MXFP4_SPLIT, n_rows, k, blocks.bytes());
                w.scales = Some(ScaleRows {
                    bytes: scales.bytes(),
                    row_bytes: k / 32,
                    block_rows: 1,
                    block_cols: 32,
                    first_row: 0,
                });
                let form = kernels.act_form(w.dtype, n_tokens);
                let stride = kernels.act_row_bytes(form, k);
                let mut acts = vec![0xffu8; stride * n_tokens];
                for (x, out) in x.iter().zip(acts.chunks_exact_mut(stride)) {
                    kernels.quantize_row(form, x, out);
                }
                let mut out = vec![f32::NAN; n_rows * n_tokens];
                let mut panel = vec![0xffu8; kernels.panel_bytes(w.dtype, k)];
                // SAFETY: `out` has room for all rows of all tokens.
                unsafe {
                    if n_tokens <= LinearKernels::MAT_VEC_TOKENS {
                        kernels.mat_vec(w, &acts, n_tokens, out.as_mut_ptr(), n_rows);
                    } else {
                        kernels.mat_mat(w, &acts, n_tokens, out.as_mut_ptr(), n_rows, &mut panel);
                    }
                }
                let reference: Vec<f64> = want.iter().map(|v| f64::from(*v)).collect();
                let error = crate::cpu::ops::testing::relative_error(&out, &reference);
                assert!(error < 2e-6, "[{n_rows}, {k}], {n_tokens} tokens, {:?}: {error:e}", kernels.isa());
            }
        }
    }
}
