//! Paths as people give them: files, folders, and what is neither.

use super::{Dir, ramp, safetensors::view, small_gguf, values};
use ::safetensors::{Dtype, tensor::serialize};
use handmill_runtime::format::{Checkpoint, FormatError, Kind, gguf::GgufWriter};
use std::path::Path;

fn safetensors(name: &str) -> Vec<u8> {
    let data: Vec<u8> = (0..4).flat_map(|i| (i as f32).to_le_bytes()).collect();
    let view = view(Dtype::F32, &[4], &data);
    serialize([(name, view)], None).unwrap()
}

fn error(path: &Path) -> String {
    Checkpoint::open(path).unwrap_err().to_string()
}

#[test]
fn a_gguf_file_under_any_name_or_alone_in_its_folder() {
    let dir = Dir::new();
    let file = dir.write("weights.bin", small_gguf().to_bytes());
    let checkpoint = Checkpoint::open(&file).unwrap();
    assert!(matches!(checkpoint.kind(), Kind::Gguf(gguf) if gguf.version() == 3));
    assert_eq!(checkpoint.file_size(), file.metadata().unwrap().len());
    assert_eq!(checkpoint.tensors().len(), 3);
    assert_eq!(checkpoint.path(), file);
    assert!(matches!(
        checkpoint.tensor("absent"),
        Err(FormatError::MissingTensor { tensor, path }) if tensor == "absent" && path == file
    ));

    let folder = Dir::new();
    folder.write("README.md", "words");
    folder.write("m.gguf", small_gguf().to_bytes());
    assert_eq!(values(&Checkpoint::open(folder.path()).unwrap().tensor("norm.weight").unwrap()).len(), 5);
    folder.write("n.gguf", small_gguf().to_bytes());
    assert!(error(folder.path()).contains("several models (m.gguf, n.gguf)"));
}

#[test]
fn a_split_gguf_is_one_model_of_its_folder() {
    let dir = Dir::new();
    for i in 0..2u16 {
        let mut w = GgufWriter::new();
        w.put("split.no", i).put("split.count", 2u16).tensor(&format!("t{i}"), &ramp(&[2]));
        dir.write(&format!("m-{:05}-of-00002.gguf", i + 1), w.to_bytes());
    }
    assert_eq!(Checkpoint::open(dir.path()).unwrap().tensors().len(), 2);
}

#[test]
fn a_hugging_face_folder() {
    let dir = Dir::new();
    dir.write("config.json", r#"{"model_type":"llama"}"#);
    dir.write("generation_config.json", r#"{"eos_token_id":[1,2]}"#);
    dir.write("tokenizer.json", "{}");
    let file = dir.write("model.safetensors", safetensors("w"));
    for path in [dir.path(), &file] {
        let checkpoint = Checkpoint::open(path).unwrap();
        assert_eq!(values(&checkpoint.tensor("w").unwrap()), [0.0, 1.0, 2.0, 3.0]);
        let Kind::HuggingFace(folder) = checkpoint.kind() else { panic!("not a folder") };
        assert_eq!(folder.config["model_type"], "llama");
        assert_eq!(folder.generation_config.as_ref().unwrap()["eos_token_id"][1], 2);
        assert!(folder.tokenizer_config.is_none());
        assert_eq!(folder.file("tokenizer.json"), Some(dir.path().join("tokenizer.json")));
        assert_eq!(folder.file("tokenizer.model"), None);
        assert_eq!(folder.dir(), dir.path());
    }
}

#[test]
fn one_shard_stands_for_the_whole_checkpoint() {
    let dir = Dir::new();
    dir.write("config.json", "{}");
    let first = dir.write("model-00001-of-00002.safetensors", safetensors("a"));
    dir.write("model-00003-of-00003.safetensors", safetensors("c"));
    assert!(error(dir.path()).contains("no model.safetensors.index.json"));
    // All parts are a model without an index as well, whatever else lies there.
    dir.write("model-00002-of-00002.safetensors", safetensors("b"));
    for path in [dir.path(), &first] {
        assert_eq!(Checkpoint::open(path).unwrap().tensors().len(), 2);
    }
    dir.write(
        "model.safetensors.index.json",
        r#"{"weight_map":{"a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors"}}"#,
    );
    for path in [dir.path(), &first] {
        assert_eq!(Checkpoint::open(path).unwrap().tensors().len(), 2);
    }
}

/// An index that is older than its files, or younger: what is there and whole is used.
#[test]
fn a_whole_file_beside_a_stale_index_is_used() {
    const INDEX: &str = "model.safetensors.index.json";
    const POINTER: &str = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n";
    let map = |entries: &str| format!(r#"{{"metadata": {{"total_size": 4.0}}, "weight_map": {{{entries}}}}}"#);
    let parts = map(r#""a":"model-00001-of-00002.safetensors","b":"model-00002-of-00002.safetensors""#);
    let folder = |files: &[(&str, &[u8])]| {
        let dir = Dir::new();
        dir.write("config.json", "{}");
        files.iter().for_each(|(name, bytes)| drop(dir.write(name, bytes)));
        dir
    };
    let (first, second) = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors");
    let whole = "model.safetensors";
    let [a, b] = ["a", "b"].map(safetensors);
    let data: Vec<u8> = [7.0f32; 4].iter().flat_map(|v| v.to_le_bytes()).collect();
    let tensors = ["a", "b"].map(|name| (name, view(Dtype::F32, &[4], &data)));
    let both = serialize(tensors, None).unwrap();
    let parts = parts.as_bytes();
    // What is used: whether it is the whole file, whose values are 7.
    for (i, (files, is_whole)) in [
        (vec![(INDEX, parts), (whole, &both[..])], true),
        (vec![(INDEX, parts), (whole, &both), (first, &a)], true),
        (vec![(INDEX, parts), (whole, &both), (first, &a), (second, &b[..40])], true),
        (vec![(INDEX, parts), (whole, &both), (first, &a), (second, POINTER.as_bytes())], true),
        (vec![(INDEX, POINTER.as_bytes()), (whole, &both)], true),
        (vec![(INDEX, b"{"), (whole, &both)], true),
        (vec![(INDEX, b"{\"weight_map\": {}}"), (whole, &both)], true),
        (vec![(INDEX, parts), (whole, &both), (first, &a), (second, &b)], false),
        (vec![(INDEX, parts), (whole, &both[..60]), (first, &a), (second, &b)], false),
        (vec![(INDEX, parts), (whole, POINTER.as_bytes()), (first, &a), (second, &b)], false),
        // Parts of a later conversion.
        (vec![(INDEX, parts), (first, &a), ("model-00001-of-00001.safetensors", &both)], true),
    ]
    .into_iter()
    .enumerate()
    {
        let dir = folder(&files);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(values(&checkpoint.tensor("a").unwrap())[0] == 7.0, is_whole, "{i}");
        assert_eq!(checkpoint.tensors().len(), 2, "{i}");
        if files.iter().any(|(name, bytes)| is_whole && *name == whole && !bytes.is_empty()) {
            assert_eq!(Checkpoint::open(&dir.path().join(whole)).unwrap().tensors().len(), 2, "{i} by its name");
        }
    }
    for (files, expected) in [
        (vec![(INDEX, parts), (first, &a[..])], second),
        (vec![(INDEX, parts), (whole, &both[..60]), (first, &a)], second),
        (vec![(INDEX, parts), (whole, POINTER.as_bytes()), (first, &a)], "LFS"),
        (vec![(INDEX, POINTER.as_bytes()), (first, &a)], "LFS"),
    ] {
        let message = error(folder(&files).path());
        assert!(message.contains(expected), "expected {expected}: {message}");
    }
    // A tensor that the whole file lacks as well is missed by the part that should have it; or by the index, which is wrong.
    let dir = folder(&[(INDEX, parts), (whole, &a)]);
    let message = Checkpoint::open(dir.path()).unwrap().tensor("b").unwrap_err().to_string();
    assert!(message.contains(second) && message.contains("missing"), "{message}");
    let lying = map(r#""a":"model-00001-of-00002.safetensors","b":"model-00001-of-00002.safetensors""#);
    let dir = folder(&[(INDEX, lying.as_bytes()), (first, &a)]);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let message = checkpoint.tensor("b").unwrap_err().to_string();
    assert!(message.contains(first) && message.contains("holds tensor `b`, and it does not"), "{message}");
    assert!(checkpoint.find("b").unwrap().is_none());
}

/// A clone without Git LFS has pointers for large files; any file of a checkpoint may be one (exllama#242).
#[test]
fn pointers_of_git_lfs_are_called_that() {
    let pointer = |size: &str| format!("version https://git-lfs.github.com/spec/v1\noid sha256:ab12\n{size}");
    let old = "version https://hawser.github.com/spec/v1\noid sha256:ab12\nsize 5\n".to_owned();
    let dir = Dir::new();
    for (text, size) in [(pointer("size 499723\n"), "499723 bytes"), (pointer(""), "git lfs pull"), (old, "5 bytes")] {
        for name in ["m.gguf", "m.safetensors", "m.bin"] {
            let message = error(&dir.write(name, &text));
            assert!(message.contains(name) && message.contains("LFS") && message.contains(size), "{message}");
        }
    }
    let text = pointer("size 9\n");
    for name in ["model.safetensors", "config.json", "generation_config.json", "tokenizer_config.json"] {
        let dir = Dir::new();
        dir.write("config.json", "{}");
        dir.write("model.safetensors", safetensors("a"));
        dir.write(name, &text);
        let message = error(dir.path());
        assert!(message.contains(name) && message.contains("LFS"), "{message}");
    }
    let dir = Dir::new();
    dir.write("m-00001-of-00002.gguf", GgufWriter::new().put("split.no", 0u16).put("split.count", 2u16).to_bytes());
    dir.write("m-00002-of-00002.gguf", &text);
    let message = error(dir.path());
    assert!(message.contains("m-00002-of-00002.gguf") && message.contains("LFS"), "{message}");
    // What begins like one and is longer is not.
    let message = error(&dir.write("long.gguf", text + &" ".repeat(1024)));
    assert!(message.contains("not a model file"), "{message}");
}

#[test]
fn what_is_not_a_checkpoint_says_why() {
    let dir = Dir::new();
    assert!(error(&dir.path().join("gone")).contains("no such file"));
    assert!(error(dir.path()).contains("no model.safetensors and no .gguf"));
    assert!(error(&dir.write("empty.gguf", "")).contains("empty"));
    assert!(error(&dir.write("page.gguf", "<!DOCTYPE html>")).contains("\"<!DOCTYP\""));
    assert!(error(&dir.write("short.gguf", "abc")).contains("\"abc\""));

    let dir = Dir::new();
    dir.write("pytorch_model.bin", "x");
    assert!(error(dir.path()).contains("convert to safetensors"));
    let file = dir.write("model.safetensors", safetensors("w"));
    assert!(error(dir.path()).contains("no config.json"));
    assert!(error(&file).contains("no config.json"));
    dir.write("config.json", "{");
    assert!(error(&file).contains("config.json: not valid JSON"));
    dir.write("config.json", "[]");
    assert!(error(&file).contains("config.json: a JSON object was expected"));
}

#[cfg(unix)]
#[test]
fn a_device_is_refused_before_it_is_opened() {
    assert!(error(Path::new("/dev/zero")).contains("not a regular file"));
}

/// DeepSeek V4's: FP8 in blocks and FP4 of two elements a byte, scaled by powers of two in `X.scale`.
#[test]
fn powers_of_two_beside_a_matrix_are_its_scales() {
    let dir = Dir::new();
    // 1.0, -2.0 and 0.5 in E4M3, over and over.
    let fp8: Vec<u8> = [0x38, 0xc0, 0x30].into_iter().cycle().take(3 * 130).collect();
    // Two rows of 32: element 2 i is i, 2 i + 1 is i + 1, as numbers of E2M1.
    let fp4: Vec<u8> = (0..32).map(|i| (i % 16) | ((i + 1) % 16) << 4).collect();
    let tensors = [
        ("a.weight", view(Dtype::F8_E4M3, &[3, 130], &fp8)),
        ("a.scale", view(Dtype::F8_E8M0, &[2, 2], &[127, 128, 126, 130])),
        ("b.weight", view(Dtype::I8, &[2, 16], &fp4)),
        ("b.scale", view(Dtype::F8_E8M0, &[2, 1], &[129, 126])),
        ("c.weight", view(Dtype::I8, &[2, 16], &fp4)),
        ("d.weight", view(Dtype::I8, &[2, 16], &fp4)),
        ("d.scale", view(Dtype::F8_E8M0, &[1, 1], &[127])),
    ];
    dir.write("model.safetensors", serialize(tensors, None).unwrap());
    let config = r#"{"model_type": "x", "quantization_config": {"weight_block_size": [2, 128]}}"#;
    dir.write("config.json", config);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    let rows = |name: &str| {
        let tensor = checkpoint.tensor(name).unwrap();
        let decode = |row| {
            let mut out = vec![f32::NAN; tensor.row_len()];
            tensor.decode_row(row, &mut out);
            out
        };
        (0..tensor.rows()).map(decode).collect::<Vec<_>>()
    };
    let scale = |row: usize, i: usize| [[1.0, 2.0], [0.5, 8.0]][row / 2][i / 128];
    for (row, got) in rows("a.weight").iter().enumerate() {
        let expected = |i: usize| [1.0, -2.0, 0.5][(row * 130 + i) % 3] * scale(row, i);
        assert_eq!(*got, (0..130).map(expected).collect::<Vec<f32>>());
    }
    let e2m1 = [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, -0.0, -0.5, -1.0, -1.5, -2.0, -3.0, -4.0, -6.0];
    for (row, got) in rows("b.weight").iter().enumerate() {
        let expected = |i: usize| e2m1[(row * 16 + i / 2 + i % 2) % 16] * [4.0, 0.5][row];
        assert_eq!(*got, (0..32).map(expected).collect::<Vec<f32>>());
    }
    for (name, why) in [("c.weight", "i8"), ("d.weight", "[1, 1]")] {
        let message = checkpoint.tensor(name).unwrap_err().to_string();
        assert!(message.contains(name) && message.contains(why), "{message}");
    }
}
