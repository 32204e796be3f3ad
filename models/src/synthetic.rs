//! Models of published dimensions with random weights, for timing: as many layers as fit.

use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use handmill_runtime::{
    cpu::Pool,
    format::{Bytes, Checkpoint, FormatError, Tensor, TensorSource},
    quant::DType,
};
use serde_json::{Map, Value};

use crate::{Error, Model};

/// Options of a made-up model.
#[derive(Clone, Debug)]
pub struct SyntheticOptions {
    /// Layers; by default all that the configuration has.
    pub layers: Option<NonZeroUsize>,
    /// Format of the matrices whose rows its blocks divide; see [`fallback`] for the others.
    pub format: DType,
    /// Seed of the values.
    pub seed: u64,
    /// Most bytes of weights.
    pub limit: Option<u64>,
    /// Threads that write them.
    pub threads: NonZeroUsize,
}

impl Default for SyntheticOptions {
    fn default() -> Self {
        Self {
            layers: None,
            format: DType::Q4_K,
            seed: 0,
            limit: None,
            threads: NonZeroUsize::new(Pool::hardware_threads()).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// A model that was made up.
pub struct Synthetic {
    /// The model; it has no tokenizer.
    pub model: Model,
    /// Layers that it has.
    pub layers: usize,
    /// Layers that the configuration has.
    pub of_layers: usize,
    /// Bytes of weights by format.
    pub bytes: BTreeMap<DType, u64>,
}

impl Synthetic {
    /// Makes up weights for the configuration in `path`, a `config.json`. Vectors, routers and short convolutions are
    /// f32 as converters write them; biases and other tensors that a file may lack are left out.
    ///
    /// # Errors
    /// Errors of the configuration, and weights of more than [`SyntheticOptions::limit`], before any memory is taken.
    pub fn new(path: &Path, options: &SyntheticOptions) -> Result<Self, Error> {
        let mut config = read(path)?;
        let (layers, of_layers) = cut_layers(path, &mut config, options.layers)?;
        let build = |filled: bool| {
            let source = Source { options: options.clone(), path: path.into(), filled, made: Mutex::default() };
            Model::from_checkpoint(Checkpoint::synthetic(path, config.clone(), Box::new(source)))
        };
        // The same graph over untouched memory gives the total number of bytes.
        let total = bytes_of(&build(false)?).values().sum::<u64>();
        if let Some(limit) = options.limit.filter(|limit| total > *limit) {
            let what = format!(
                "{layers} layers take {:.1} GB of weights as {}, and {:.1} GB can be had; take fewer",
                total as f64 / 1e9,
                options.format,
                limit as f64 / 1e9
            );
            return Err(problem(path, LAYERS, what));
        }
        let model = build(true)?;
        Ok(Self { layers, of_layers, bytes: bytes_of(&model), model })
    }
}

/// Bytes of a model's weights by format.
fn bytes_of(model: &Model) -> BTreeMap<DType, u64> {
    let mut bytes = BTreeMap::new();
    for (_, tensor) in model.graph().weights() {
        *bytes.entry(tensor.dtype()).or_default() += tensor.bytes().len() as u64;
    }
    bytes
}

const LAYERS: &str = "num_hidden_layers";
/// Most layers of any model; more is a mistake.
const MAX_LAYERS: usize = 10_000;

fn problem(path: &Path, key: &str, what: String) -> Error {
    Error::Config { path: path.display().to_string(), key: key.to_owned(), what }
}

fn read(path: &Path) -> Result<Map<String, Value>, Error> {
    let object = handmill_runtime::format::read_json_object(path)?;
    Ok(object.ok_or_else(|| FormatError::NotFound { path: path.into() })?)
}

/// Keeps the first `layers` layers of the configuration; returns their number and the former number.
fn cut_layers(
    path: &Path,
    config: &mut Map<String, Value>,
    layers: Option<NonZeroUsize>,
) -> Result<(usize, usize), Error> {
    let inner = match config.get_mut("text_config") {
        Some(Value::Object(inner)) => inner,
        _ => config,
    };
    let all = inner.get(LAYERS).and_then(Value::as_u64).and_then(|n| usize::try_from(n).ok());
    let all = all.filter(|n| (1..=MAX_LAYERS).contains(n));
    let all = all.ok_or_else(|| problem(path, LAYERS, format!("should be a number of layers, 1 to {MAX_LAYERS}")))?;
    let kept = layers.map_or(all, usize::from);
    if kept > all {
        return Err(problem(path, LAYERS, format!("the model has {all} layers, fewer than the {kept} asked for")));
    }
    inner.insert(LAYERS.into(), kept.into());
    for value in inner.values_mut() {
        // Lists with an entry for each layer.
        if let Value::Array(entries) = value
            && entries.len() == all
        {
            entries.truncate(kept);
        }
    }
    Ok((kept, all))
}

/// Makes tensors.
#[derive(Debug)]
struct Source {
    options: SyntheticOptions,
    path: PathBuf,
    /// Whether values are written.
    filled: bool,
    /// The tensors made so far: the parts of fused ones are asked for one by one.
    made: Mutex<HashMap<String, Tensor>>,
}

impl TensorSource for Source {
    /// Floats have the layout of safetensors; blocks have a row for each output, like files with blocks. So the graph
    /// is the one that real weights of the format run.
    fn tensor(&self, name: &str, shapes: &[&[usize]]) -> Result<Tensor, FormatError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tensor) = made.get(name).filter(|t| shapes.contains(&t.shape())) {
            return Ok(tensor.clone());
        }
        let [own, others @ ..] = shapes else { return Err(self.cannot(name, &[], "it would have no shape")) };
        let shape = others.first().filter(|_| self.options.format.block_len() > 1).unwrap_or(own);
        let tensor = self.make(name, shape, format_of(name, shape, self.options.format), values(shape))?;
        made.insert(name.to_owned(), tensor.clone());
        Ok(tensor)
    }

    /// MXFP4 in the layout of checkpoints: numbers in one tensor, exponents in another.
    fn bytes(&self, name: &str, dtype: &str, shape: &[usize]) -> Result<Option<Bytes>, FormatError> {
        if self.options.format != DType::MXFP4 || dtype != "u8" {
            return Ok(None);
        }
        // The largest number, before its exponent.
        const LARGEST: f32 = 6.0;
        if let (true, [n, rows, groups, _]) = (name.ends_with("_blocks"), shape) {
            let shape = [*n, *rows, 32 * groups];
            let tensor = self.make(name, &shape, DType::MXFP4_SPLIT, [-LARGEST, LARGEST])?;
            return Ok(Some(tensor.shared_bytes().clone()));
        }
        let (true, [_, _, groups]) = (name.ends_with("_scales"), shape) else { return Ok(None) };
        let [_, most] = values(&[1, 32 * groups]);
        let exponent = (127.0 + (most / LARGEST).log2().round()) as u8;
        let fill = |bytes: &mut [u8]| {
            if self.filled {
                bytes.fill(exponent)
            }
        };
        let bytes = Bytes::anonymous(shape.iter().product(), fill);
        bytes.map(Some).map_err(|e| self.cannot(name, shape, &format!("no memory for it: {e}")))
    }
}

impl Source {
    fn make(&self, name: &str, shape: &[usize], dtype: DType, range: [f32; 2]) -> Result<Tensor, FormatError> {
        let made = if self.filled {
            // FNV-1a of the name.
            let seed = name.bytes().fold(self.options.seed ^ 0xcbf2_9ce4_8422_2325, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            Tensor::random(dtype, shape, range, seed, self.options.threads)
        } else {
            Tensor::untouched(dtype, shape)
        };
        made.map_err(|e| self.cannot(name, shape, &format!("no memory for it: {e}")))?
            .ok_or_else(|| self.cannot(name, shape, "more than can be addressed"))
    }

    fn cannot(&self, name: &str, shape: &[usize], why: &str) -> FormatError {
        let what = format!("tensor `{name}` would have the shape {shape:?}: {why}");
        FormatError::Json { path: self.path.clone(), what }
    }
}

/// The format of a tensor: `wanted` for matrices (MXFP4 for experts, beside q8_0), f32 for tensors that converters
/// leave unquantised.
fn format_of(name: &str, shape: &[usize], wanted: DType) -> DType {
    let stem = name.strip_suffix(".weight").unwrap_or(name);
    let router = stem.ends_with(".gate") || stem.ends_with("router") || stem.contains("router.");
    let small = stem.ends_with("conv1d") || stem.ends_with("shared_expert_gate") || stem.ends_with(".ape");
    // The coefficients of hyper-connections.
    let small = small || stem.rsplit('.').next().is_some_and(|last| last.starts_with("hc_"));
    let bias = stem.ends_with("bias");
    let row = shape.last().copied().unwrap_or(1);
    let expert = stem.contains("experts") && !stem.contains("shared_expert");
    match wanted {
        _ if shape.len() < 2 || router || small || bias => DType::F32,
        DType::MXFP4 if !expert => fallback(DType::Q8_0, row),
        _ => fallback(wanted, row),
    }
}

/// `wanted`, or the nearest format whose blocks divide a row of `row` elements: for 256-element formats first the
/// 32-element one that llama.cpp's quantiser takes, then f16.
pub fn fallback(wanted: DType, row: usize) -> DType {
    let smaller = wanted.format().smaller.unwrap_or(DType::Q8_0);
    let mut candidates = [wanted, smaller].into_iter();
    candidates.find(|d| d.row_bytes(row).is_some()).unwrap_or(DType::F16)
}

/// Least and largest value: products with matrices keep the variance of their inputs, and vectors are scales around 1.
fn values(shape: &[usize]) -> [f32; 2] {
    if shape.len() < 2 {
        return [0.5, 1.5];
    }
    let row = shape.last().copied().unwrap_or(1).max(1);
    let most = (3.0 / row as f32).sqrt();
    [-most, most]
}
