//! GGUF files as they should be, in one piece and in several.

use super::{Dir, alloc::largest_during, ramp, small_gguf, values};
use handmill_runtime::{
    format::{
        Bytes, FormatError, Gguf,
        gguf::{GgufWriter, Value, ValueType},
    },
    quant::{DType, GgmlType},
};

#[test]
fn both_versions_and_all_values() {
    let dir = Dir::new();
    for version in [2, 3] {
        let path = dir.write("m.gguf", small_gguf().version(version).to_bytes());
        let gguf = Gguf::open(&path).unwrap();
        assert_eq!(gguf.version(), version);
        assert_eq!(gguf.get_str("general.architecture").unwrap(), Some("llama"));
        assert_eq!(gguf.get_u32("llama.block_count").unwrap(), Some(30));
        assert_eq!(gguf.get_f32("llama.rope.freq_base").unwrap(), Some(10000.0));
        assert_eq!(gguf.get_u32("a.u8").unwrap(), Some(200));
        assert_eq!(gguf.get_u32("a.u16").unwrap(), Some(65535));
        assert_eq!(gguf.get_as::<i32>("a.i8").unwrap(), Some(-3));
        assert_eq!(gguf.get_as::<i32>("a.i16").unwrap(), Some(-300));
        assert_eq!(gguf.require::<i32>("a.i32").unwrap(), -70000);
        assert_eq!(gguf.require::<u64>("a.u64").unwrap(), u64::MAX);
        assert_eq!(gguf.get("a.i64"), Some(Value::Signed(ValueType::I64, i64::MIN)));
        assert_eq!(gguf.get_f32("a.f64").unwrap(), Some(0.25));
        assert_eq!(gguf.get_bool("a.bool").unwrap(), Some(true));
        assert_eq!(gguf.get_u32("absent").unwrap(), None);
        assert_eq!(gguf.metadata().count(), 17);
    }
}

#[test]
fn arrays_are_read_from_the_map() {
    let dir = Dir::new();
    let path = dir.write("m.gguf", small_gguf().to_bytes());
    let gguf = Gguf::open(&path).unwrap();
    let array = |key: &str| gguf.get_array(key).unwrap().unwrap();
    let tokens = array("tokenizer.ggml.tokens");
    assert_eq!((tokens.len(), tokens.element()), (4, ValueType::Str));
    assert_eq!(tokens.strings().unwrap().collect::<Vec<_>>(), ["<s>", "", "ä", "hello"]);
    assert_eq!(tokens.byte_strings().unwrap().nth(2), Some("ä".as_bytes()));
    assert!(tokens.i32s().is_none() && tokens.values().is_none());
    assert_eq!(array("tokenizer.ggml.scores").f32s().unwrap().collect::<Vec<_>>(), [0.0, -1.5]);
    assert_eq!(array("tokenizer.ggml.token_type").u32s().unwrap().collect::<Vec<_>>(), [1, 3, 6]);
    assert!(array("tokenizer.ggml.token_type").f32s().is_none());
    assert_eq!(array("pattern").bools().unwrap().collect::<Vec<_>>(), [true, false]);
    assert_eq!((array("nested").len(), array("nested").element()), (2, ValueType::Array));
}

#[test]
fn negative_integers_are_no_u32() {
    let dir = Dir::new();
    let path = dir.write("m.gguf", GgufWriter::new().put("a", vec![1i32, -1]).put("b", -1i32).to_bytes());
    let gguf = Gguf::open(&path).unwrap();
    assert!(gguf.get_array("a").unwrap().unwrap().u32s().is_none());
    assert_eq!(gguf.get_array("a").unwrap().unwrap().i32s().unwrap().collect::<Vec<_>>(), [1, -1]);
    let message = gguf.get_u32("b").unwrap_err().to_string();
    assert!(message.contains("m.gguf") && message.contains("`b`") && message.contains("i32 -1"), "{message}");
    assert!(matches!(gguf.require::<u32>("c"), Err(FormatError::MissingKey { key, .. }) if key == "c"));
    assert!(matches!(gguf.get_str("b"), Err(FormatError::WrongType { .. })));
}

#[test]
fn tensors_are_views_with_the_outermost_dimension_first() {
    let dir = Dir::new();
    for alignment in [1, 32, 4096] {
        let path = dir.write("m.gguf", small_gguf().alignment(alignment).to_bytes());
        let gguf = Gguf::open(&path).unwrap();
        let w = gguf.find("w.weight").unwrap().unwrap();
        assert_eq!((w.dtype(), w.shape(), w.rows(), w.row_len()), (DType::F32, &[2, 3][..], 2, 3));
        assert_eq!(values(&w), [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
        assert_eq!(values(&gguf.find("q.weight").unwrap().unwrap()).len(), 512);
        assert!(gguf.find("absent").unwrap().is_none());
        for t in gguf.tensors() {
            assert!(t.offset.is_multiple_of(alignment as usize), "{t:?}");
        }
    }
}

#[test]
fn a_vocabulary_without_tensors_opens() {
    let dir = Dir::new();
    let path = dir.write("vocab.gguf", GgufWriter::new().put("tokenizer.ggml.tokens", vec!["a"]).to_bytes());
    assert_eq!(Gguf::open(&path).unwrap().tensors().len(), 0);
}

#[test]
fn types_without_kernels_are_listed_and_refused_by_name() {
    let dir = Dir::new();
    let mut w = GgufWriter::new();
    w.raw_tensor("old", GgmlType::from_number(15), &[256], Bytes::heap(vec![0; 292]))
        .raw_tensor("new", GgmlType::from_number(99), &[256], Bytes::heap(vec![0; 8]))
        .tensor("good", &ramp(&[4]));
    let path = dir.write("m.gguf", w.to_bytes());
    let gguf = Gguf::open(&path).unwrap();
    let listed: Vec<_> = gguf.tensors().map(|t| (t.dtype_name.to_string(), t.dtype, t.bytes)).collect();
    assert_eq!(listed[0], ("q8_k".into(), None, 292));
    assert_eq!(listed[1], ("ggml type 99".into(), None, 0));
    assert_eq!(values(&gguf.find("good").unwrap().unwrap()), [0.0, 1.0, 2.0, 3.0]);
    let message = gguf.find("old").unwrap_err().to_string();
    assert!(message.contains("q8_k") && message.contains("`old`") && message.contains("q4_k"), "{message}");
    assert!(gguf.find("new").is_err());
}

/// Part `i` of `n` with one tensor `t<i>`.
fn part(i: u16, n: u16) -> GgufWriter {
    let mut w = GgufWriter::new();
    if i == 0 {
        w.put("general.architecture", "llama");
    }
    w.put("split.no", i).put("split.count", n).put("split.tensors.count", i32::from(n));
    w.tensor(&format!("t{i}"), &ramp(&[i as usize + 1]));
    w
}

fn part_name(i: u16, n: u16) -> String {
    format!("model-{:05}-of-{n:05}.gguf", i + 1)
}

#[test]
fn any_part_opens_the_whole_split_model() {
    let dir = Dir::new();
    let paths: Vec<_> = (0..3).map(|i| dir.write(&part_name(i, 3), part(i, 3).to_bytes())).collect();
    for path in &paths {
        let gguf = Gguf::open(path).unwrap();
        assert_eq!(gguf.get_str("general.architecture").unwrap(), Some("llama"));
        assert_eq!(gguf.tensors().len(), 3);
        assert_eq!(values(&gguf.find("t2").unwrap().unwrap()), [0.0, 1.0, 2.0]);
        assert!(gguf.files().eq(paths.iter()));
        assert_eq!(gguf.file_size(), paths.iter().map(|p| p.metadata().unwrap().len()).sum::<u64>());
    }
}

#[test]
fn parts_that_do_not_fit_are_named() {
    let dir = Dir::new();
    let first = dir.write(&part_name(0, 3), part(0, 3).to_bytes());
    dir.write(&part_name(2, 3), part(2, 3).to_bytes());
    let error = |path| Gguf::open(path).unwrap_err();
    assert!(matches!(error(&first), FormatError::MissingShard { shard, .. } if shard.ends_with(part_name(1, 3))));

    // A part under the name of another.
    dir.write(&part_name(1, 3), part(2, 3).to_bytes());
    assert!(matches!(error(&first), FormatError::Split { path, .. } if path.ends_with(part_name(1, 3))));

    // A file that is no part at all.
    dir.write(&part_name(1, 3), GgufWriter::new().to_bytes());
    assert!(error(&first).to_string().contains("says none of none"));

    // Fewer tensors than announced.
    let mut none = GgufWriter::new();
    none.put("split.no", 1u16).put("split.count", 3u16);
    dir.write(&part_name(1, 3), none.to_bytes());
    assert!(error(&first).to_string().contains("announces 3 tensors"));

    // The same tensor in two parts.
    none.tensor("t0", &ramp(&[1]));
    dir.write(&part_name(1, 3), none.to_bytes());
    assert!(matches!(error(&first), FormatError::BadTensor { tensor, .. } if tensor == "t0"));

    // A renamed part cannot find the others.
    let renamed = dir.write("renamed.gguf", part(0, 3).to_bytes());
    assert!(error(&renamed).to_string().contains("-00001-of-00003.gguf"));
}

/// What "lazy" means: opening allocates nothing that grows with a vocabulary.
#[test]
fn a_large_vocabulary_stays_in_the_map() {
    let dir = Dir::new();
    let tokens: Vec<String> = (0..262_144).map(|i| format!("token{i}")).collect();
    let mut w = GgufWriter::new();
    w.put("tokenizer.ggml.tokens", tokens).put("tokenizer.ggml.scores", vec![0.5f32; 262_144]);
    let path = dir.write("m.gguf", w.to_bytes());
    let (last, largest) = largest_during(|| {
        let gguf = Gguf::open(&path).unwrap();
        let scores = gguf.get_array("tokenizer.ggml.scores").unwrap().unwrap();
        assert_eq!(scores.f32s().unwrap().sum::<f32>(), 131_072.0);
        let tokens = gguf.get_array("tokenizer.ggml.tokens").unwrap().unwrap();
        tokens.strings().unwrap().last().unwrap().into_owned()
    });
    assert_eq!(last, "token262143");
    assert!(largest < 8192, "{largest} bytes at once");
}
