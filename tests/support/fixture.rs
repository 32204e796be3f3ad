//! The family fixtures of `tests/fixtures/families`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use handmill_runtime::quant::{F8E4M3, f16_to_f32};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// Every family fixture; the tests run all of them.
pub const FAMILIES: &[&str] = &[
    "llama2",
    "llama3",
    "llama3-bf16",
    "llama-linear",
    "llama-dynamic",
    "qwen2",
    "qwen3",
    "qwen3-sharded",
    "gemma3",
    "mm-gemma3",
    "mistral",
    "ministral",
    "ministral3",
    "mm-ministral3",
    "mm-mistral3",
    "phi2",
    "phi2-qk-norm",
    "phi3-longrope",
    "phi3-swa",
    "phi4-mini",
    "gemma",
    "gemma2",
    "olmo2",
    "olmo3",
    "granite",
    "smollm3",
    "qwen3_5",
    "mm-qwen3_5",
    "qwen3-next",
    "qwen3_5-moe",
    "deepseek-v2-lite",
    "deepseek-v2",
    "deepseek-v3",
    "mistral4",
    "deepseek-v3-fp8",
    "deepseek-v3.2",
    "deepseek-v4",
    "gemma4",
    "mm-gemma4",
    "gemma4-moe",
    "gemma3n",
    "mixtral",
    "qwen2-moe",
    "qwen3-moe",
    "phimoe",
    "granitemoe",
    "gpt-oss",
    "gpt-oss-mxfp4",
    "llama4",
    "mm-llama4",
];

/// Fixtures that cannot be written as GGUF, with why.
pub const NOT_IN_GGUF: &[(&str, &str)] = &[("phi2-qk-norm", "GGUF has no key for layer norms of queries and keys")];

/// Fixtures that no GPU runs, with why. `families_gpu.rs` runs all others.
pub const NOT_ON_GPU: &[(&str, &str)] = &[];

/// Why `name` is one of `exceptions`, if it is.
pub fn why_not(exceptions: &[(&str, &'static str)], name: &str) -> Option<&'static str> {
    exceptions.iter().find(|(n, _)| *n == name).map(|(_, why)| *why)
}

/// `tests/fixtures`.
pub fn fixtures_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

/// A dense matrix, rows in order.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub rows: usize,
    pub cols: usize,
    pub data: Vec<f32>,
}

impl Matrix {
    pub fn new(cols: usize, data: Vec<f32>) -> Self {
        assert!(cols > 0 && data.len().is_multiple_of(cols), "{} values in rows of {cols}", data.len());
        Self { rows: data.len() / cols, cols, data }
    }

    pub fn row(&self, i: usize) -> &[f32] {
        &self.data[i * self.cols..(i + 1) * self.cols]
    }

    /// Rows `range` as a matrix of their own.
    pub fn slice(&self, range: std::ops::Range<usize>) -> Self {
        Self::new(self.cols, self.data[range.start * self.cols..range.end * self.cols].to_vec())
    }
}

/// How a config spells its RoPE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spelling {
    /// `rope_parameters`, as transformers 5 writes it.
    V5,
    /// `rope_theta`, `rope_scaling`, … as in published checkpoints.
    Legacy,
}

/// A checkpoint and what transformers computes with it.
pub struct Fixture {
    pub name: &'static str,
    pub dir: PathBuf,
    /// The text config (of a multimodal wrapper: the nested one).
    pub config: Value,
    pub prompt_ids: Vec<u32>,
    pub gen_ids: Vec<u32>,
    /// Top 1 − top 2 logit of each generated token.
    pub gen_margins: Vec<f32>,
    /// Whether RoPE of all positions depends on the current length, so that only full recomputation is defined.
    pub length_dependent_rope: bool,
    /// [prompt, vocab]
    pub logits: Matrix,
    /// [generated, vocab]; row k follows the prompt and k generated ids.
    pub gen_step_logits: Matrix,
}

impl Fixture {
    pub fn load(name: &'static str) -> Self {
        let dir = fixtures_dir().join("families").join(name);
        let expected = json(&dir.join("expected.json"));
        let mut config = json(&dir.join("config.json"));
        if let Some(text) = config.get_mut("text_config") {
            config = text.take();
        }
        let ids = |key: &str| numbers(&expected[key]).map(|n| n as u32).collect();
        let bytes = read(&dir.join("expected.safetensors"));
        let tensors = SafeTensors::deserialize(&bytes).expect("expected.safetensors");
        Self {
            name,
            config,
            prompt_ids: ids("prompt_ids"),
            gen_ids: ids("gen_ids"),
            gen_margins: numbers(&expected["gen_margins"]).map(|n| n as f32).collect(),
            length_dependent_rope: expected["length_dependent_rope"].as_bool().expect("length_dependent_rope"),
            logits: matrix(&tensors, "logits"),
            gen_step_logits: matrix(&tensors, "gen_step_logits"),
            dir,
        }
    }

    /// The checkpoint folder with its config in `spelling`; the guard keeps a temporary one alive.
    pub fn folder(&self, spelling: Spelling) -> (PathBuf, Option<TempDir>) {
        if spelling == Spelling::V5 {
            return (self.dir.clone(), None);
        }
        let temp = TempDir::new().expect("temporary folder");
        for entry in fs::read_dir(&self.dir).expect("fixture folder") {
            let path = entry.expect("fixture folder").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("file name");
            let target = match name {
                "config.json" => continue,
                "config.legacy.json" => "config.json",
                _ if name.starts_with("expected") => continue,
                _ => name,
            };
            fs::copy(&path, temp.path().join(target)).expect("copying the fixture");
        }
        (temp.path().to_owned(), Some(temp))
    }

    /// The checkpoint folder with a text config that `change` has changed.
    pub fn changed(&self, change: impl FnOnce(&mut Value)) -> TempDir {
        let temp = TempDir::new().expect("temporary folder");
        for entry in fs::read_dir(&self.dir).expect("fixture folder") {
            let path = entry.expect("fixture folder").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("file name");
            if name.starts_with("model") {
                fs::copy(&path, temp.path().join(name)).expect("copying the fixture");
            }
        }
        let mut config = json(&self.dir.join("config.json"));
        change(match config.get_mut("text_config") {
            Some(Value::Object(_)) => &mut config["text_config"],
            _ => &mut config,
        });
        fs::write(temp.path().join("config.json"), config.to_string()).expect("writing");
        temp
    }

    /// All weights by name, as f32, with shape and whether the file has them as bfloat16.
    pub fn weights(&self) -> Vec<Weight> {
        let mut out = Vec::new();
        for entry in fs::read_dir(&self.dir).expect("fixture folder") {
            let path = entry.expect("fixture folder").path();
            let name = path.file_name().and_then(|n| n.to_str()).expect("file name");
            if name.starts_with("model") && name.ends_with(".safetensors") {
                let bytes = read(&path);
                let file = SafeTensors::deserialize(&bytes).expect("model.safetensors");
                for (name, view) in file.iter() {
                    if name.ends_with("_scale_inv") {
                        continue;
                    }
                    let (shape, bf16) = (view.shape().to_vec(), view.dtype() == Dtype::BF16);
                    let mut values = floats(view.dtype(), view.data());
                    if let Ok(scales) = file.tensor(&format!("{name}_scale_inv")) {
                        let (columns, scales) = (scales.shape()[1], floats(scales.dtype(), scales.data()));
                        for (i, v) in values.iter_mut().enumerate() {
                            *v *= scales[i / shape[1] / 128 * columns + i % shape[1] / 128];
                        }
                    }
                    out.push(Weight { name: name.to_owned(), shape, bf16, values, mxfp4: None });
                }
            }
        }
        out.sort_by(|a, b| a.name.cmp(&b.name));
        out
    }
}

/// A weight of a checkpoint.
#[derive(Clone)]
pub struct Weight {
    pub name: String,
    pub shape: Vec<usize>,
    pub bf16: bool,
    pub values: Vec<f32>,
    /// GGUF's blocks of MXFP4, instead of values.
    pub mxfp4: Option<Vec<u8>>,
}

fn matrix(file: &SafeTensors<'_>, name: &str) -> Matrix {
    let view = file.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}"));
    Matrix::new(*view.shape().last().expect("a matrix"), floats(view.dtype(), view.data()))
}

fn floats(dtype: Dtype, bytes: &[u8]) -> Vec<f32> {
    match dtype {
        Dtype::F32 => bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Dtype::F16 => bytes.chunks_exact(2).map(|b| f16_to_f32(u16::from_le_bytes([b[0], b[1]]))).collect(),
        // Blocks and scales of MXFP4.
        Dtype::U8 => bytes.iter().map(|b| f32::from(*b)).collect(),
        // Experts' numbers.
        Dtype::I64 => {
            bytes.chunks_exact(8).map(|b| i64::from_le_bytes(b.try_into().expect("8 bytes")) as f32).collect()
        }
        Dtype::BF16 => bytes.chunks_exact(2).map(|b| f32::from_le_bytes([0, 0, b[0], b[1]])).collect(),
        Dtype::F8_E4M3 => bytes.iter().map(|b| F8E4M3(*b).to_f32()).collect(),
        other => panic!("no fixture stores {other:?}"),
    }
}

fn numbers(value: &Value) -> impl Iterator<Item = f64> + '_ {
    value.as_array().expect("an array").iter().map(|v| v.as_f64().expect("a number"))
}

/// Parses the JSON file `path`.
pub fn json(path: &Path) -> Value {
    serde_json::from_slice(&read(path)).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
