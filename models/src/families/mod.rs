//! Model families: one file each, which names the family's tensors and builds its graph.

mod gemma3;
mod llama;
mod qwen;

use handmill_runtime::{format::Checkpoint, graph::Graph};

use crate::{
    Error,
    config::{Config, Key, key},
};

/// A family's graph and what is worth saying about the model.
#[derive(Debug)]
pub struct Built {
    /// Tokens in, logits out.
    pub graph: Graph,
    /// Layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Longest context that the model was made for.
    pub context: usize,
}

type Build = fn(&Config<'_>, &Checkpoint) -> Result<Built, Error>;

/// Families by `general.architecture` (GGUF) or `model_type` (`config.json`).
const FAMILIES: [(&str, Build); 5] = [
    ("llama", llama::build),
    ("qwen2", qwen::build),
    ("qwen3", qwen::build),
    ("gemma3", gemma3::build),
    ("gemma3_text", gemma3::build),
];

/// Whether a family of that name is supported.
pub fn supported(architecture: &str) -> bool {
    FAMILIES.iter().any(|(name, _)| *name == architecture)
}

/// Builds the graph of `checkpoint`.
///
/// # Errors
/// An unknown architecture by name; whatever is missing or does not fit.
pub fn build(checkpoint: &Checkpoint) -> Result<Built, Error> {
    let config = Config::new(checkpoint)?;
    let Some((_, build)) = FAMILIES.iter().find(|(name, _)| *name == config.architecture()) else {
        return Err(Error::UnknownArchitecture {
            path: config.path().into(),
            architecture: config.architecture().into(),
            known: FAMILIES.map(|(name, _)| name).join(", "),
        });
    };
    build(&config, checkpoint)
}

/// The dimensions that all families share.
struct Dims {
    n_layers: usize,
    width: usize,
    /// Width between the two halves of a dense feed-forward.
    inner: usize,
    n_heads: usize,
    n_kv_heads: usize,
    head_dim: usize,
    eps: f32,
    context: usize,
}

const EPS: Key = key("attention.layer_norm_rms_epsilon", "rms_norm_eps");
const ACT: Key = key("", "hidden_act");

impl Dims {
    /// Reads the dimensions; `head_dim` and `context` where the file leaves them out.
    fn read(c: &Config<'_>, head_dim: Option<usize>, context: usize) -> Result<Self, Error> {
        const HEADS: Key = key("attention.head_count", "num_attention_heads");
        const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
        const HEAD_DIM: Key = key("attention.key_length", "head_dim");
        let width = c.require_usize(key("embedding_length", "hidden_size"))?;
        let n_heads = c.require_usize(HEADS)?;
        let n_kv_heads = c.usize(KV_HEADS)?.unwrap_or(n_heads);
        if n_kv_heads == 0 || !n_heads.is_multiple_of(n_kv_heads) {
            return Err(c.error(KV_HEADS, format!("{n_kv_heads} does not divide the {n_heads} query heads")));
        }
        let head_dim = c.usize(HEAD_DIM)?.or(head_dim.filter(|_| !c.is_gguf())).unwrap_or(width / n_heads);
        if head_dim == 0 || head_dim > 1024 {
            return Err(c.error(HEAD_DIM, format!("{head_dim} is not a head's size")));
        }
        Ok(Self {
            n_layers: c.require_usize(key("block_count", "num_hidden_layers"))?,
            width,
            inner: c.usize(key("feed_forward_length", "intermediate_size"))?.unwrap_or(0),
            n_heads,
            n_kv_heads,
            head_dim,
            eps: c.f32(EPS)?.unwrap_or(1e-6),
            context: c.usize(key("context_length", "max_position_embeddings"))?.unwrap_or(context),
        })
    }
}

/// Refuses a key whose value asks for maths that the family's graph does not have.
fn refuse_unless(c: &Config<'_>, k: Key, ok: bool, what: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(c.error(k, format!("{what} is not supported"))) }
}
