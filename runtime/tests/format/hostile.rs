//! Damaged and hostile GGUF files: an error or a model, never a panic, never an allocation of what a file claims.

use super::{Dir, alloc::largest_during, small_gguf};
use handmill_runtime::{
    format::{Bytes, FormatError, Gguf, gguf::GgufWriter},
    quant::GgmlType,
};
use proptest::prelude::*;
use std::path::Path;

/// The corpus files have about 2 KB; nothing needed for one is larger than this.
const MAX_ALLOCATION: usize = 1 << 20;

/// Opens the file and reads all of it that can be read.
fn open_and_read(path: &Path) -> Result<(), FormatError> {
    let gguf = Gguf::open(path)?;
    for (_, value) in gguf.metadata() {
        value.describe();
        if let handmill_runtime::format::gguf::Value::Array(array) = value {
            array.byte_strings().into_iter().flatten().for_each(drop);
            array.values().into_iter().flatten().for_each(drop);
            array.u32s().into_iter().flatten().for_each(drop);
        }
    }
    for t in gguf.tensors() {
        if let Ok(Some(tensor)) = gguf.find(t.name) {
            assert_eq!(tensor.bytes().len(), t.bytes);
            tensor.bytes().iter().fold(0u8, |sum, b| sum.wrapping_add(*b));
        }
    }
    Ok(())
}

/// [`open_and_read`], checked for large allocations.
fn tried(dir: &Dir, bytes: &[u8]) -> Result<(), FormatError> {
    let path = dir.write("m.gguf", bytes);
    let (result, largest) = largest_during(|| open_and_read(&path));
    assert!(largest <= MAX_ALLOCATION, "{largest} bytes were asked for at once");
    if let Err(error) = &result {
        assert!(error.to_string().contains("m.gguf"), "{error}");
    }
    result
}

fn header_len(file: &[u8]) -> usize {
    let needle = b"q.weight";
    file.windows(needle.len()).position(|w| w == needle).unwrap() + needle.len() + 4 + 16 + 4 + 8
}

#[test]
fn a_file_cut_anywhere_says_how_long_it_should_be() {
    let dir = Dir::new();
    let file = small_gguf().to_bytes();
    // The last tensor fills its alignment: nothing at the end is padding.
    let needed = file.len();
    assert!(tried(&dir, &file).is_ok());
    for len in 0..needed {
        match tried(&dir, &file[..len]).unwrap_err() {
            FormatError::Empty { .. } => assert_eq!(len, 0),
            FormatError::Truncated { expected, actual, .. } => {
                assert_eq!(actual, len as u64);
                assert!(expected > actual && expected <= needed as u64);
                assert!(len < header_len(&file) || expected == needed as u64, "cut at {len}: {expected}");
            }
            other => panic!("cut at {len}: {other}"),
        }
    }
}

#[test]
fn every_header_byte_damaged() {
    let dir = Dir::new();
    let file = small_gguf().to_bytes();
    for at in 0..header_len(&file) {
        for value in [0x00, 0x01, 0x7f, 0x80, 0xff, file[at] ^ 0x20] {
            let mut damaged = file.clone();
            damaged[at] = value;
            let _ = tried(&dir, &damaged);
        }
    }
}

#[test]
fn every_header_word_absurd() {
    let dir = Dir::new();
    let file = small_gguf().to_bytes();
    for at in 0..header_len(&file) - 8 {
        for value in [u64::MAX, i64::MAX as u64, 1 << 63, u64::from(u32::MAX), 1 << 40, 1 << 60, u64::MAX / 4] {
            let mut damaged = file.clone();
            damaged[at..at + 8].copy_from_slice(&value.to_le_bytes());
            let _ = tried(&dir, &damaged);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn bytes_after_the_magic_at_random(tail in prop::collection::vec(any::<u8>(), 0..256), version in 2u8..4) {
        let head = [b'G', b'G', b'U', b'F', version, 0, 0, 0];
        let _ = tried(&Dir::new(), &[&head[..], &tail].concat());
    }
}

/// The header of an otherwise empty file, with these counts.
fn head(n_tensors: u64, n_keys: u64) -> Vec<u8> {
    let mut file = b"GGUF\x03\0\0\0".to_vec();
    file.extend(n_tensors.to_le_bytes());
    file.extend(n_keys.to_le_bytes());
    file
}

fn string(s: &[u8]) -> Vec<u8> {
    [&(s.len() as u64).to_le_bytes()[..], s].concat()
}

/// A tensor description as it stands in a file, dimensions innermost first.
fn described(name: &[u8], dims: &[u64], ty: u32, offset: u64) -> Vec<u8> {
    let mut out = string(name);
    out.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|d| out.extend(d.to_le_bytes()));
    out.extend(ty.to_le_bytes());
    out.extend(offset.to_le_bytes());
    out
}

#[test]
fn what_is_wrong_is_said() {
    let one = |tensor: Vec<u8>| [head(1, 0), tensor, vec![0; 4096]].concat();
    let two = |a: Vec<u8>, b: Vec<u8>| [head(2, 0), a, b, vec![0; 4096]].concat();
    let key = |ty: u32, rest: &[u8]| [head(0, 1), string(b"k"), ty.to_le_bytes().into(), rest.into()].concat();
    let array = |ty: u32, n: u64| key(9, &[&ty.to_le_bytes()[..], &n.to_le_bytes()].concat());
    let keys = |w: &mut GgufWriter| w.to_bytes();
    let nested: Vec<u8> =
        (0..2000).flat_map(|_| [9u32.to_le_bytes().to_vec(), vec![1, 0, 0, 0, 0, 0, 0, 0]].concat()).collect();
    let table: Vec<(Vec<u8>, &str)> = vec![
        (b"".into(), "empty"),
        (b"GG".into(), "needs at least 4"),
        (b"ggml1234".into(), "not a model file: it starts with \"ggml1234\""),
        (b"GGUF\0\0\0\x03".into(), "big-endian"),
        (b"GGUF\x01\0\0\0".into(), "version 1"),
        (b"GGUF\x04\0\0\0".into(), "version 4"),
        (b"GGUF\0\0\0\0".into(), "version 0"),
        (head(u64::MAX, 0), "ends too early"),
        (head(0, u64::MAX), "ends too early"),
        (key(13, &[0; 8]), "13 is no metadata type"),
        (array(8, u64::MAX), "ends too early"),
        (array(4, u64::MAX), "ends too early"),
        (array(10, 1 << 61), "ends too early"),
        (array(9, u64::MAX), "ends too early"),
        (array(77, 1), "77 is no metadata type"),
        (key(9, &nested), "nested"),
        (key(8, &u64::MAX.to_le_bytes()), "ends too early"),
        ([head(0, 1), string(b"\xff\xfe"), vec![0; 64]].concat(), "not UTF-8"),
        ([head(0, 1), string(&[b'k'; 70_000]), vec![0; 64]].concat(), "70000 bytes"),
        (keys(GgufWriter::new().put("a", 1u32).put("a", 2u32)), "`a` occurs twice"),
        (keys(GgufWriter::new().put("general.alignment", 0u32)), "general.alignment"),
        (keys(GgufWriter::new().put("general.alignment", 48u32)), "general.alignment"),
        (keys(GgufWriter::new().put("general.alignment", -1i32)), "general.alignment"),
        (keys(GgufWriter::new().put("general.alignment", "32")), "general.alignment"),
        (one(described(b"t", &[1, 1, 1, 1, 1], 0, 0)), "5 dimensions"),
        (one(described(b"t", &[u64::MAX, 2], 0, 0)), "overflows"),
        (one(described(b"t", &[1 << 32, 1 << 31], 0, 0)), "overflows"),
        (one(described(b"t", &[1 << 62], 0, 0)), "overflows"),
        (one(described(b"t", &[1 << 40], 0, 0)), "ends too early"),
        (one(described(b"t", &[33], 2, 0)), "not whole q4_0 blocks of 32"),
        (one(described(b"t", &[8], 0, 8)), "multiple of the alignment"),
        (one(described(b"t", &[8], 0, u64::MAX - 31)), "overflows"),
        (one(described(b"t", &[8], 0, 1 << 50)), "ends too early"),
        (one(described(b"t", &[8], 99, 1 << 50)), "ends too early"),
        (one(described(b"\xff", &[8], 0, 0)), "not UTF-8"),
        (two(described(b"t", &[8], 0, 0), described(b"t", &[8], 0, 32)), "twice"),
        (two(described(b"t", &[16], 0, 0), described(b"u", &[8], 0, 32)), "overlaps"),
        (two(described(b"t", &[8], 0, 0), described(b"u", &[8], 0, 0)), "overlaps"),
        (two(described(b"t", &[8], 99, 32), described(b"u", &[16], 0, 0)), "overlaps"),
    ];
    let dir = Dir::new();
    for (file, expected) in table {
        let error = tried(&dir, &file).expect_err(expected).to_string();
        assert!(error.contains(expected), "expected {expected}: {error}");
    }
}

#[test]
fn empty_tensors_and_absurd_empty_shapes_are_harmless() {
    let dir = Dir::new();
    for dims in [&[0u64][..], &[0, 1 << 62], &[], &[1, 1, 1, 1]] {
        let file = [head(1, 0), described(b"t", dims, 0, 0), vec![0; 256]].concat();
        assert!(tried(&dir, &file).is_ok(), "{dims:?}");
    }
}

#[test]
fn a_value_that_is_not_utf8_does_not_keep_the_model_from_opening() {
    let dir = Dir::new();
    let file = [head(0, 1), string(b"general.author"), 8u32.to_le_bytes().into(), string(b"\xff\xff")].concat();
    let path = dir.write("m.gguf", file);
    let gguf = Gguf::open(&path).unwrap();
    assert!(gguf.get_str("general.author").unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn a_truncated_unknown_type_at_the_end_cannot_reach_beyond() {
    let dir = Dir::new();
    let mut w = GgufWriter::new();
    w.raw_tensor("t", GgmlType::from_number(99), &[256], Bytes::heap(Vec::new()));
    assert!(tried(&dir, &w.to_bytes()).is_ok());
}
