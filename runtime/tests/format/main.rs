//! Files as strangers bring them: GGUF, safetensors and folders, whole, split, damaged and hostile.

mod alloc;
mod checkpoint;
mod gguf;
mod hostile;
mod safetensors;

use handmill_runtime::{
    format::{Tensor, gguf::GgufWriter},
    quant::DType,
};
use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
};

#[global_allocator]
static ALLOCATOR: alloc::Counting = alloc::Counting;

/// A folder that goes with the test.
struct Dir(tempfile::TempDir);

impl Dir {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let (path, bytes) = (self.path().join(name), bytes.as_ref());
        // Thousands of damaged files are written over each other: without truncation that takes a tenth of the time.
        let mut file = File::options().write(true).create(true).truncate(false).open(&path).unwrap();
        file.write_all(bytes).unwrap();
        file.set_len(bytes.len() as u64).unwrap();
        path
    }
}

/// `n` values 0, 1, 2, … as f32.
fn ramp(shape: &[usize]) -> Tensor {
    let values: Vec<f32> = (0..shape.iter().product()).map(|i| i as f32).collect();
    Tensor::from_f32(shape.to_vec(), &values).unwrap()
}

fn values(tensor: &Tensor) -> Vec<f32> {
    let mut out = vec![f32::NAN; tensor.shape().iter().product()];
    tensor.dtype().decode_row(tensor.bytes(), &mut out).unwrap();
    out
}

/// A small file with every kind of value and several formats.
fn small_gguf() -> GgufWriter {
    let mut bytes = Vec::new();
    DType::Q4_K.encode_row(&[1.0; 512], &mut bytes).unwrap();
    let q4_k = Tensor::new(DType::Q4_K, vec![2, 256], handmill_runtime::format::Bytes::heap(bytes)).unwrap();
    let mut w = GgufWriter::new();
    w.put("general.architecture", "llama")
        .put("llama.block_count", 30u32)
        .put("llama.rope.freq_base", 10000.0f32)
        .put("a.u8", 200u8)
        .put("a.i8", -3i8)
        .put("a.u16", 65535u16)
        .put("a.i16", -300i16)
        .put("a.i32", -70000i32)
        .put("a.u64", u64::MAX)
        .put("a.i64", i64::MIN)
        .put("a.f64", 0.25f64)
        .put("a.bool", true)
        .put("tokenizer.ggml.tokens", vec!["<s>", "", "ä", "hello"])
        .put("tokenizer.ggml.scores", vec![0.0f32, -1.5])
        .put("tokenizer.ggml.token_type", vec![1i32, 3, 6])
        .put("pattern", vec![true, false])
        .put("nested", vec![vec![1u32, 2], vec![3]])
        .tensor("norm.weight", &ramp(&[5]))
        .tensor("w.weight", &ramp(&[2, 3]))
        .tensor("q.weight", &q4_k);
    w
}

#[test]
fn rows_are_viewed_in_place() {
    let t = ramp(&[4, 3]);
    let view = t.rows_view(1..3).unwrap();
    assert_eq!((view.shape(), values(&view)), (&[2, 3][..], vec![3.0, 4.0, 5.0, 6.0, 7.0, 8.0]));
    assert_eq!(view.bytes().as_ptr(), t.bytes()[12..].as_ptr(), "nothing is copied");
    // A view of a view; of a stack, whose outer dimensions count as one; of a vector's elements.
    assert_eq!(values(&view.rows_view(1..2).unwrap()), [6.0, 7.0, 8.0]);
    let stack = ramp(&[2, 2, 2]);
    let second = stack.rows_view(2..4).unwrap();
    assert_eq!((second.shape(), values(&second)), (&[2, 2][..], vec![4.0, 5.0, 6.0, 7.0]));
    let vector = ramp(&[5]).rows_view(2..5).unwrap();
    assert_eq!((vector.shape(), values(&vector)), (&[3][..], vec![2.0, 3.0, 4.0]));
    assert_eq!(t.rows_view(4..4).unwrap().shape(), [0, 3]);
    for (from, to) in [(3, 5), (5, 6), (0, usize::MAX), (3, 2)] {
        assert!(t.rows_view(from..to).is_none(), "{from}..{to}");
    }
    let mut bytes = Vec::new();
    DType::Q4_K.encode_row(&[1.0; 512], &mut bytes).unwrap();
    let blocks = Tensor::new(DType::Q4_K, vec![512], handmill_runtime::format::Bytes::heap(bytes.clone())).unwrap();
    assert!(blocks.rows_view(0..256).is_none(), "a vector of blocks is not cut");
    let blocks = Tensor::new(DType::Q4_K, vec![2, 256], handmill_runtime::format::Bytes::heap(bytes)).unwrap();
    assert_eq!(blocks.rows_view(1..2).unwrap().bytes(), &blocks.bytes()[144..]);
}
