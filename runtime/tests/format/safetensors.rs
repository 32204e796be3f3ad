//! Safetensors, against the format's own library and against damage.

use super::{Dir, alloc::largest_during, values};
use handmill_runtime::format::{FormatError, SafeTensors};
use proptest::prelude::*;
use safetensors::{
    Dtype,
    tensor::{TensorView, serialize},
};
use std::{collections::HashMap, path::Path};

pub(super) fn view<'a>(dtype: Dtype, shape: &[usize], data: &'a [u8]) -> TensorView<'a> {
    TensorView::new(dtype, shape.into(), data).unwrap()
}

fn f32_bytes(n: usize) -> Vec<u8> {
    (0..n).flat_map(|i| (i as f32).to_le_bytes()).collect()
}

/// A file with `header` and `data`, whatever they are.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

fn error(path: &Path) -> FormatError {
    SafeTensors::open(path).unwrap_err()
}

#[test]
fn what_the_library_writes_is_read() {
    let data = f32_bytes(6);
    let tensors = [
        ("b", view(Dtype::F32, &[2, 3], &data)),
        ("a", view(Dtype::BF16, &[12], &data)),
        ("h", view(Dtype::F16, &[3, 4], &data)),
        ("ids", view(Dtype::I64, &[3], &data)),
        ("mask", view(Dtype::BOOL, &[24], &data)),
        ("fp8", view(Dtype::F8_E5M2, &[24], &data)),
        ("fp4", view(Dtype::F4, &[48], &data)),
        ("scalar", view(Dtype::F32, &[], &data[4..8])),
        ("none", view(Dtype::F32, &[0, 4], &[])),
    ];
    let dir = Dir::new();
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let path = dir.write("model.safetensors", serialize(tensors, Some(metadata)).unwrap());
    let st = SafeTensors::open(&path).unwrap();
    assert_eq!(st.tensors().len(), 9);
    let b = st.find("b").unwrap().unwrap();
    assert_eq!((b.shape(), values(&b)), (&[2, 3][..], vec![0.0, 1.0, 2.0, 3.0, 4.0, 5.0]));
    assert_eq!(values(&st.find("a").unwrap().unwrap()).len(), 12);
    assert_eq!(values(&st.find("scalar").unwrap().unwrap()), [1.0]);
    assert!(st.find("absent").unwrap().is_none());
    // Types without kernels do not keep the file from opening; they are listed and refused by name.
    for (name, dtype) in [("ids", "i64"), ("mask", "bool"), ("fp8", "f8_e5m2"), ("fp4", "f4")] {
        let info = st.tensors().find(|t| t.name == name).unwrap();
        assert_eq!((info.dtype, info.dtype_name, info.bytes), (None, dtype, 24));
        let message = st.find(name).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(dtype), "{message}");
    }
}

#[test]
fn data_at_any_address() {
    let dir = Dir::new();
    for odd in 0..4 {
        let header = format!(
            r#"{{"pad":{{"dtype":"U8","shape":[{odd}],"data_offsets":[0,{odd}]}},"t":{{"dtype":"F32","shape":[3],"data_offsets":[{odd},{}]}}}}"#,
            odd + 12
        );
        let data = [vec![7; odd], f32_bytes(3)].concat();
        let path = dir.write("model.safetensors", file(&header, &data));
        assert_eq!(values(&SafeTensors::open(&path).unwrap().find("t").unwrap().unwrap()), [0.0, 1.0, 2.0]);
    }
}

#[test]
fn a_type_of_the_future_is_listed() {
    let dir = Dir::new();
    let path =
        dir.write("model.safetensors", file(r#"{"t":{"dtype":"F3_X","shape":[8],"data_offsets":[0,3]}}"#, &[0; 3]));
    let st = SafeTensors::open(&path).unwrap();
    assert_eq!(st.tensors().next().unwrap().dtype_name, "f3_x");
    assert!(matches!(st.find("t"), Err(FormatError::UnsupportedType { .. })));
}

#[test]
fn what_is_wrong_is_said() {
    let one = |info: &str, data: &[u8]| file(&format!(r#"{{"t":{{{info}}}}}"#), data);
    let f32_at = |shape: &str, begin: u64, end: u64| {
        one(&format!(r#""dtype":"F32","shape":{shape},"data_offsets":[{begin},{end}]"#), &[0; 16])
    };
    let two = r#"{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]}}"#;
    let table: Vec<(Vec<u8>, &str)> = vec![
        (vec![1, 2, 3], "not a model file"),
        (b"PK\x03\x04 a zip archive".to_vec(), "not a model file"),
        (file("[1]", &[]), "not a model file"),
        (file("{} {", &[]), "not valid JSON"),
        ([&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "not a model file"),
        ([&1000u64.to_le_bytes()[..], b"{}"].concat(), "needs at least 1008 bytes and the file has 10"),
        (file(r#"{"t":3}"#, &[]), "`t`"),
        (f32_at("[-1]", 0, 16), "`t`"),
        (f32_at("[1.5]", 0, 16), "`t`"),
        (f32_at("[4]", 16, 0), "ends before it begins"),
        (f32_at("[5]", 0, 16), "is not 16 bytes"),
        (f32_at("[4294967296,4294967296]", 0, 16), "overflows"),
        (f32_at("[4611686018427387904]", 0, 16), "overflows"),
        (f32_at("[5]", 0, 20), "ends too early"),
        (f32_at("[3]", 4, 16), "starts at byte"),
        (f32_at("[3]", 0, 12), "belong to no tensor"),
        (f32_at("[0]", u64::MAX, u64::MAX), "overflow"),
        (file(two, &[0; 16]), "starts at byte"),
    ];
    let dir = Dir::new();
    for (bytes, expected) in table {
        let path = dir.write("m.safetensors", bytes);
        let message = error(&path).to_string();
        assert!(message.contains(expected) && message.contains("m.safetensors"), "expected {expected}: {message}");
    }
}

#[test]
fn a_file_cut_or_damaged_anywhere_is_an_error_or_a_model() {
    let data = f32_bytes(6);
    let whole = serialize([("a", view(Dtype::F32, &[2, 3], &data))], None).unwrap();
    let dir = Dir::new();
    let open = |bytes: &[u8]| {
        let path = dir.write("m.safetensors", bytes);
        let (result, largest) = largest_during(|| SafeTensors::open(&path).and_then(|st| st.find("a")));
        assert!(largest < 1 << 20);
        result
    };
    for len in 0..whole.len() {
        assert!(open(&whole[..len]).is_err(), "cut at {len}");
    }
    for at in 0..whole.len() {
        for value in [0, 0x7f, 0xff, b'9', whole[at] ^ 1] {
            let mut damaged = whole.clone();
            damaged[at] = value;
            let _ = open(&damaged);
        }
    }
}

/// An index and the shards `{0}.safetensors` and `{1}.safetensors` with a tensor each.
fn sharded(dir: &Dir, weight_map: &str) -> std::path::PathBuf {
    let data = f32_bytes(2);
    for name in ["x", "y"] {
        let bytes = serialize([(name, view(Dtype::F32, &[2], &data))], None).unwrap();
        dir.write(&format!("{name}.safetensors"), bytes);
    }
    dir.write("model.safetensors.index.json", format!(r#"{{"metadata":{{}},"weight_map":{weight_map}}}"#))
}

#[test]
fn shards_are_one_model() {
    let dir = Dir::new();
    let index = sharded(&dir, r#"{"x":"x.safetensors","y":"y.safetensors"}"#);
    let st = SafeTensors::open_index(&index).unwrap();
    assert_eq!((st.tensors().len(), st.files().len()), (2, 2));
    assert_eq!(values(&st.find("y").unwrap().unwrap()), [0.0, 1.0]);
}

/// As for the libraries that read them, the index says which files there are, and files what is in them: one of them may
/// have been written anew since.
#[test]
fn files_count_more_than_their_index() {
    let dir = Dir::new();
    for (map, expected) in [
        (r#"{"x":"y.safetensors","y":"x.safetensors"}"#, &["x", "y"][..]),
        (r#"{"x":"x.safetensors","gone":"y.safetensors"}"#, &["x", "y"]),
        (r#"{"gone":"y.safetensors"}"#, &["y"]),
        (r#"{}"#, &[]),
    ] {
        let st = SafeTensors::open_index(&sharded(&dir, map)).unwrap();
        assert_eq!(st.tensors().map(|t| t.name).collect::<Vec<_>>(), expected, "{map}");
    }
    // A name in two files is the index's, or the first's.
    let ones: Vec<u8> = [1.0f32; 2].iter().flat_map(|v| v.to_le_bytes()).collect();
    for (map, expected) in [
        (r#"{"x":"x.safetensors","y":"y.safetensors"}"#, [0.0, 1.0]),
        (r#"{"x":"y.safetensors","z":"x.safetensors"}"#, [1.0, 1.0]),
        (r#"{"y":"y.safetensors","z":"x.safetensors"}"#, [0.0, 1.0]),
    ] {
        let index = sharded(&dir, map);
        let both = [("x", view(Dtype::F32, &[2], &ones)), ("y", view(Dtype::F32, &[2], &ones))];
        dir.write("y.safetensors", serialize(both, None).unwrap());
        let st = SafeTensors::open_index(&index).unwrap();
        assert_eq!(values(&st.find("x").unwrap().unwrap()), expected, "{map}");
        assert_eq!(st.tensors().len(), 2);
    }
}

#[test]
fn indexes_that_lie_are_refused() {
    let dir = Dir::new();
    for (map, expected) in [
        (r#"{"x":"x.safetensors","z":"gone.safetensors"}"#, "gone.safetensors is missing"),
        (r#"{"x":"../x.safetensors"}"#, "not in its folder"),
        (r#"{"x":"/etc/passwd"}"#, "not in its folder"),
        (r#"{"x":"sub/../../x.safetensors"}"#, "not in its folder"),
        (r#"{"x":".."}"#, "not in its folder"),
        (r#"{"x":""}"#, "not in its folder"),
        (r#"{"x":"..\\x.safetensors"}"#, "not in its folder"),
        (r#"{"x":1}"#, "names no file"),
        (r#"[]"#, "weight_map"),
    ] {
        let message = SafeTensors::open_index(&sharded(&dir, map)).unwrap_err().to_string();
        assert!(message.contains(expected), "expected {expected}: {message}");
    }
}

proptest! {
    #[test]
    fn any_header_is_an_error_or_a_model(header in r#"\{("[ab]":\{"dtype":"F(16|32)","shape":\[[0-9]{0,3}\],"data_offsets":\[[0-9],[0-9]{1,2}\]\},?){0,2}\}"#) {
        let dir = Dir::new();
        let path = dir.write("m.safetensors", file(&header, &[0; 16]));
        if let Ok(st) = SafeTensors::open(&path) {
            for t in st.tensors() {
                st.find(t.name).unwrap().unwrap();
            }
        }
    }
}
