//! An opened checkpoint.

use std::{
    path::Path,
    sync::{Arc, OnceLock},
};

use handmill_runtime::{
    format::{Checkpoint, Kind},
    graph::Graph,
    quant::DType,
};

use crate::{Error, config::Config, families, text::Tokenizer};

/// Facts about a model, for people.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct ModelInfo {
    /// `general.architecture` or `model_type`.
    pub architecture: String,
    /// Layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Rows of the head: tokens that have a logit; 0 without a head.
    pub vocab_size: usize,
    /// Longest context that the model was made for.
    pub context: usize,
    /// Parameters, all tensors of the graph counted once.
    pub parameters: u64,
    /// Bytes of weights that one decoded token reads.
    pub bytes_per_token: u64,
}

/// A model: its checkpoint, graph and tokenizer. Cloning shares them.
#[derive(Clone)]
pub struct Model {
    inner: Arc<Inner>,
}

struct Inner {
    checkpoint: Checkpoint,
    graph: Graph,
    info: ModelInfo,
    tokenizer: OnceLock<Arc<Tokenizer>>,
}

impl Model {
    /// Opens a `.gguf` file, a `.safetensors` file beside its `config.json`, or a checkpoint folder. Costs no more
    /// than reading the metadata: weights stay in the file.
    ///
    /// # Errors
    /// Errors of the file, and architectures that are not supported.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::from_checkpoint(Checkpoint::open(path)?)
    }

    /// The model in an opened checkpoint.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn from_checkpoint(checkpoint: Checkpoint) -> Result<Self, Error> {
        let built = families::build(&checkpoint)?;
        let graph = built.graph;
        let info = ModelInfo {
            architecture: Config::new(&checkpoint)?.architecture().to_owned(),
            n_layers: graph.n_layers(),
            width: built.width,
            vocab_size: graph.head().map_or(0, |head| graph.weight(head).rows()),
            context: built.context,
            parameters: graph.weights().map(|(_, t)| t.shape().iter().product::<usize>() as u64).sum(),
            bytes_per_token: graph.bytes_per_token(),
        };
        Ok(Self { inner: Arc::new(Inner { checkpoint, graph, info, tokenizer: OnceLock::new() }) })
    }

    /// The files.
    pub fn checkpoint(&self) -> &Checkpoint {
        &self.inner.checkpoint
    }

    /// The graph from tokens to logits.
    pub fn graph(&self) -> &Graph {
        &self.inner.graph
    }

    /// Facts about the model.
    pub fn info(&self) -> &ModelInfo {
        &self.inner.info
    }

    /// The tokenizer, read at the first call.
    ///
    /// # Errors
    /// A checkpoint without a tokenizer, or with one of an unknown kind.
    pub fn tokenizer(&self) -> Result<&Arc<Tokenizer>, Error> {
        if let Some(tokenizer) = self.inner.tokenizer.get() {
            return Ok(tokenizer);
        }
        // Two threads may read it at the same time; the first to finish is kept.
        let tokenizer = Arc::new(Tokenizer::from_checkpoint(&self.inner.checkpoint)?);
        Ok(self.inner.tokenizer.get_or_init(|| tokenizer))
    }

    /// Whether all matrices are stored as f32, so that rounding the cache to f16 would be the coarsest step.
    pub fn is_f32(&self) -> bool {
        let mut matrices = self.inner.graph.weights().filter(|(_, t)| t.shape().len() > 1);
        matrices.all(|(_, t)| t.dtype() == DType::F32)
    }

    /// Whether this is a GGUF file.
    pub fn is_gguf(&self) -> bool {
        matches!(self.inner.checkpoint.kind(), Kind::Gguf(_))
    }
}
