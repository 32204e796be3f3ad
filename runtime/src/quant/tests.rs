//! Decoding and encoding against fixtures of the `gguf` package, blocks built by hand, and properties.

use super::*;
use proptest::prelude::*;

fn decode(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = vec![f32::NAN; bytes.len() / dtype.block_bytes() * dtype.block_len()];
    dtype.decode_row(bytes, &mut out).unwrap();
    out
}

fn encode(dtype: DType, x: &[f32]) -> Vec<u8> {
    let mut out = Vec::new();
    dtype.encode_row(x, &mut out).unwrap();
    out
}

fn f32s(bytes: &[u8]) -> Vec<f32> {
    decode(DType::F32, bytes)
}

/// Splits `u32 type, u32 count` off a fixture.
fn record(bytes: &mut &[u8]) -> Option<(GgmlType, usize)> {
    let (head, rest) = bytes.split_first_chunk::<8>()?;
    *bytes = rest;
    let number = |at: usize| u32::from_le_bytes(head[at..at + 4].try_into().unwrap());
    Some((GgmlType::from_number(number(0)), number(4) as usize))
}

#[test]
fn decode_equals_the_gguf_package_bit_for_bit() {
    let mut fixture = &include_bytes!("fixtures/decode.bin")[..];
    let mut formats = Vec::new();
    while let Some((ty, n_blocks)) = record(&mut fixture) {
        // The package decodes types that have no kernels here, yet.
        let (len, size) = ty.block().unwrap();
        let (blocks, rest) = fixture.split_at(n_blocks * size);
        let (expected, rest) = rest.split_at(n_blocks * len * 4);
        if let Some(dtype) = ty.dtype() {
            let bits = |v: &[f32]| v.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&decode(dtype, blocks)), bits(&f32s(expected)), "{dtype}");
            formats.push(dtype);
        }
        fixture = rest;
    }
    formats.sort();
    let of_ggml = DType::ALL.into_iter().filter(|d| d.to_ggml().is_some() && *d != DType::F32);
    assert_eq!(formats, of_ggml.collect::<Vec<_>>());
}

#[test]
fn encode_of_plain_formats_equals_the_gguf_package() {
    let (x, mut fixture) = include_bytes!("fixtures/encode.bin").split_at(64 * 4);
    let x = f32s(x);
    let mut formats = 0;
    while let Some((ty, n_bytes)) = record(&mut fixture) {
        let dtype = ty.dtype().unwrap();
        let (expected, rest) = fixture.split_at(n_bytes);
        assert_eq!(encode(dtype, &x), expected, "{dtype}");
        fixture = rest;
        formats += 1;
    }
    assert_eq!(formats, 7);
}

/// f16 of 0.5 and of -2, little-endian.
const HALF: [u8; 2] = [0x00, 0x38];
const MINUS_TWO: [u8; 2] = [0x00, 0xc0];

#[test]
fn blocks_built_by_hand() {
    let mut b = HALF.to_vec();
    b.extend([0x8f; 16]);
    let q4_0 = decode(DType::Q4_0, &b);
    assert_eq!((q4_0[0], q4_0[15], q4_0[16], q4_0[31]), (3.5, 3.5, 0.0, 0.0));

    let mut b = [HALF, MINUS_TWO].concat();
    b.extend([0x31; 16]);
    let q4_1 = decode(DType::Q4_1, &b);
    assert_eq!((q4_1[0], q4_1[16]), (-1.5, -0.5));

    let mut b = HALF.to_vec();
    b.extend(0x0001_0002u32.to_le_bytes());
    b.extend([0x10; 16]);
    let q5_0 = decode(DType::Q5_0, &b);
    assert_eq!((q5_0[0], q5_0[1], q5_0[16], q5_0[17]), (-8.0, 0.0, 0.5, -7.5));

    let mut b = [HALF, MINUS_TWO].concat();
    b.extend(0x8000_0001u32.to_le_bytes());
    b.extend([0x10; 16]);
    let q5_1 = decode(DType::Q5_1, &b);
    assert_eq!((q5_1[0], q5_1[1], q5_1[30], q5_1[31]), (6.0, -2.0, -1.5, 6.5));

    let mut b = HALF.to_vec();
    b.extend((0..32).map(|i| (i as i8 - 16) as u8));
    assert_eq!(decode(DType::Q8_0, &b), (0..32).map(|i| (i as f32 - 16.0) * 0.5).collect::<Vec<_>>());
}

#[test]
fn k_blocks_built_by_hand() {
    // Sub-block 5 has scale 0b10_0001 = 33 and minimum 0b01_0010 = 18; all others have none.
    let mut scales = [0u8; 12];
    (scales[1], scales[5], scales[9]) = (0b1000_0000, 0b0100_0000, 0b0010_0001);
    let mut q4_k = [HALF.to_vec(), HALF.to_vec(), scales.to_vec()].concat();
    let mut q5_k = q4_k.clone();
    q4_k.extend([0x70; 128]);
    let x = decode(DType::Q4_K, &q4_k);
    assert!(x.iter().enumerate().all(|(i, x)| *x == if i / 32 == 5 { 16.5 * 7.0 - 9.0 } else { 0.0 }));

    q5_k.extend([1 << 5; 32]);
    q5_k.extend([0x70; 128]);
    let x = decode(DType::Q5_K, &q5_k);
    assert!(x.iter().enumerate().all(|(i, x)| *x == if i / 32 == 5 { 16.5 * 23.0 - 9.0 } else { 0.0 }));

    // Element 128 + 96 + 7 is in sub-block 14; its quant is 0b11_0101 = 53.
    let mut q6_k = vec![0; 210];
    (q6_k[64 + 32 + 7], q6_k[128 + 32 + 7], q6_k[192 + 14]) = (0x50, 0b1100_0000, -3i8 as u8);
    q6_k[208..].copy_from_slice(&HALF);
    let x = decode(DType::Q6_K, &q6_k);
    assert_eq!((x[231], x[230], x[0]), (-1.5 * 21.0, -1.5 * -32.0, 0.0));
}

#[test]
fn all_f16_and_bf16_there_and_back() {
    for bits in 0..=u16::MAX {
        let (f16, bf16) = (f16_to_f32(bits), bf16_to_f32(bits));
        if f16.is_nan() {
            assert!(f16_to_f32(f32_to_f16(f16)).is_nan());
        } else {
            assert_eq!(f32_to_f16(f16), bits);
        }
        if bf16.is_nan() {
            assert!(bf16_to_f32(f32_to_bf16(bf16)).is_nan());
        } else {
            assert_eq!(f32_to_bf16(bf16), bits);
        }
    }
}

#[test]
fn f16_and_bf16_round_to_nearest_even() {
    for (f, bits) in [
        (65519.99, 0x7bff),
        (65520.0, 0x7c00),
        (f32::MAX, 0x7c00),
        (-f32::INFINITY, 0xfc00),
        (1.0 + 1.0 / 2048.0, 0x3c00),
        (1.0 + 3.0 / 2048.0, 0x3c02),
        (2f32.powi(-25), 0),
        (3.0 * 2f32.powi(-25), 2),
        (-1.5 * 2f32.powi(-25), 0x8001),
        (2f32.powi(-14) - 2f32.powi(-26), 0x0400),
    ] {
        assert_eq!(f32_to_f16(f), bits, "{f}");
    }
    for (bits, bf16) in [(0x3f80_8000, 0x3f80), (0x3f81_8000, 0x3f82), (0x7f7f_ffff, 0x7f80), (0x0000_8001, 1)] {
        assert_eq!(f32_to_bf16(f32::from_bits(bits)), bf16, "{bits:x}");
    }
    assert_eq!(F16Le::saturating(1e9).to_f32(), 65504.0);
}

#[test]
fn wrong_lengths_are_errors() {
    for dtype in DType::ALL {
        let mut out = vec![0.0; dtype.block_len()];
        let bytes = vec![0; dtype.block_bytes()];
        assert!(dtype.decode_row(&bytes[1..], &mut out).is_err());
        assert!(dtype.decode_row(&bytes, &mut out[1..]).is_err());
        assert!(dtype.decode_row(&[], &mut out).is_err());
        assert!(dtype.decode_row(&[], &mut []).is_ok());
        if dtype.block_len() > 1 && dtype.format().encode.is_some() {
            assert!(dtype.encode_row(&out[1..], &mut Vec::new()).is_err());
        }
    }
}

#[test]
fn numbers_and_names_of_ggml() {
    for dtype in DType::ALL {
        let Some(number) = dtype.to_ggml() else {
            assert_eq!(dtype, DType::F8_E4M3);
            continue;
        };
        assert_eq!(DType::from_ggml(number), Some(dtype));
        let ty = GgmlType::from_number(number);
        assert_eq!((ty.name().as_ref(), ty.block()), (dtype.name(), Some((dtype.block_len(), dtype.block_bytes()))));
    }
    let q8_k = GgmlType::from_number(15);
    assert_eq!((q8_k.dtype(), q8_k.name().as_ref(), q8_k.block()), (None, "q8_k", Some((256, 292))));
    let unknown = GgmlType::from_number(4);
    assert_eq!((unknown.dtype(), unknown.name().as_ref(), unknown.block()), (None, "ggml type 4", None));
}

/// Formats that have an encoder.
fn writable() -> impl Iterator<Item = DType> {
    DType::ALL.into_iter().filter(|d| d.format().encode.is_some())
}

#[test]
fn a_format_without_an_encoder_says_what_can_be_written() {
    let mut out = vec![7];
    let error = DType::MXFP4_SPLIT.encode_row(&[0.0; 32], &mut out).unwrap_err();
    assert_eq!((&error, &out[..]), (&RowError::ReadOnly(DType::MXFP4_SPLIT), &[7][..]));
    assert!(error.to_string().contains("mxfp4_split") && error.to_string().contains("q4_k"), "{error}");
}

/// The numbers that scale a block lie in it, and apart from one another.
#[test]
fn declared_scales_lie_in_the_block() {
    for dtype in DType::ALL {
        let mut free = vec![true; dtype.block_bytes()];
        for scale in dtype.format().scales {
            let (at, n) = match *scale {
                Scale::Half { at, .. } => (at, 2),
                Scale::Exponent { at, .. } => (at, 1),
            };
            assert!(free[at..at + n].iter().all(|f| *f), "{dtype}");
            free[at..at + n].fill(false);
        }
    }
}

fn assert_round_trip(dtype: DType, x: &[f32]) {
    // FP8 has no scale: what is larger becomes its largest number.
    let most = if dtype == DType::F8_E4M3 { 448.0 } else { f32::INFINITY };
    let x: Vec<f32> = x.iter().map(|x| x.clamp(-most, most)).collect();
    let x = &x[..];
    let y = decode(dtype, &encode(dtype, x));
    let largest = x.iter().fold(0.0f32, |m, x| m.max(x.abs()));
    // Relative to the whole block: sub-block scales are rounded in units of the largest. f16 scales have a smallest
    // step of their own, 2^-24 a quant.
    let limit = 2.0 * largest * dtype.format().encode.unwrap().error + 256.0 * 6e-8;
    for (i, (x, y)) in x.iter().zip(&y).enumerate() {
        assert!((x - y).abs() <= limit, "{dtype} element {i}: {x} became {y}, limit {limit}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn round_trips_stay_within_the_step(
        x in prop::collection::vec(-1.0f32..1.0, 256), scale in -6i32..13, shift in -1.0f32..1.0,
    ) {
        let scale = 2f32.powi(scale);
        let x: Vec<f32> = x.iter().map(|x| (x + shift) * scale).collect();
        for dtype in writable() {
            // Beyond its range FP8 keeps its largest number.
            if dtype != DType::F8_E4M3 || x.iter().all(|v| v.abs() <= 448.0) {
                assert_round_trip(dtype, &x);
            }
        }
    }

    #[test]
    fn uneven_sub_blocks(exponents in prop::collection::vec(-9i32..4, 16), seed in any::<u32>()) {
        let mut state = seed;
        let x: Vec<f32> = (0..256).map(|i| {
            state = state.wrapping_mul(1664525).wrapping_add(1013904223);
            (state as f32 / u32::MAX as f32 - 0.5) * 2f32.powi(exponents[i / 16])
        }).collect();
        for dtype in [DType::Q4_K, DType::Q5_K, DType::Q6_K] {
            assert_round_trip(dtype, &x);
        }
    }

    #[test]
    fn any_values_encode_and_any_bytes_decode(
        x in prop::collection::vec(any::<f32>(), 256), bytes in prop::collection::vec(any::<u8>(), 1024),
    ) {
        for dtype in DType::ALL {
            if dtype.format().encode.is_some() {
                encode(dtype, &x);
            }
            let whole = bytes.len() / dtype.block_bytes() * dtype.block_bytes();
            decode(dtype, &bytes[..whole]);
        }
    }

    #[test]
    fn scales_pack_and_unpack(s in prop::array::uniform8(0u8..64), m in prop::array::uniform8(0u8..64)) {
        prop_assert_eq!(k_scales::unpack(&k_scales::pack(&s, &m)), (s, m));
    }
}

#[test]
fn constants_and_zeros_survive() {
    for dtype in writable() {
        assert_eq!(decode(dtype, &encode(dtype, &[0.0; 256])), [0.0; 256], "{dtype}");
        for v in [0.75f32, -0.75] {
            assert_round_trip(dtype, &[v; 256]);
        }
    }
}

/// Mean squared error on normal values relative to their power: what the search is for. Q4_0 has 4.5 bits a weight
/// like Q4_K, Q5_0 5.5 like Q5_K.
#[test]
fn k_formats_beat_plain_ones_of_their_size() {
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    let x: Vec<f32> = (0..256 * 64).map(|_| (0..12).map(|_| uniform()).sum()).collect();
    let error = |dtype: DType| {
        let y = decode(dtype, &encode(dtype, &x));
        x.iter().zip(&y).map(|(x, y)| (x - y).powi(2)).sum::<f32>() / x.iter().map(|x| x * x).sum::<f32>()
    };
    assert!(error(DType::Q4_K) < error(DType::Q4_0));
    assert!(error(DType::Q5_K) < error(DType::Q5_0));
    assert!(error(DType::Q6_K) < error(DType::Q5_K) / 3.0);
}
