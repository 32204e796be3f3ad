//! Model families: one file each, which names the family's tensors and builds its graph.

mod claims;
mod deepseek;
mod deepseek_v4;
mod gemma;
mod gemma3n;
mod gemma4;
mod gpt_oss;
mod granite;
mod keys;
mod llama;
mod llama4;
mod mistral;
mod mixtral;
mod olmo;
mod phi;
mod phimoe;
mod qwen;
mod qwen_hybrid;
mod qwen_moe;
mod smollm3;

use handmill_runtime::{
    format::Checkpoint,
    graph::{Graph, RopeLayout},
};

use crate::{
    Error,
    blocks::{
        Attention,
        rope::{RopeDefaults, THETA},
    },
    config::{Config, Key, LAYERS, key},
};

/// A family's graph, and facts about the model.
#[derive(Debug)]
#[non_exhaustive]
pub struct Built {
    /// The graph from tokens to logits.
    pub graph: Graph,
    /// Width of the residual stream.
    pub width: usize,
    /// Longest context that the model was made for.
    pub context: usize,
}

type Build = fn(&Config<'_>, &Checkpoint) -> Result<Built, Error>;

/// Families by `general.architecture` (GGUF) or `model_type` (`config.json`).
const FAMILIES: &[(&str, Build)] = &[
    ("llama", llama::build),
    ("mistral", mistral::build),
    ("ministral", mistral::build),
    ("ministral3", mistral::build),
    ("mistral3", mistral::build),
    ("qwen2", qwen::build),
    ("qwen3", qwen::build),
    ("qwen3_5", qwen_hybrid::build),
    ("qwen3_5_text", qwen_hybrid::build),
    ("qwen35", qwen_hybrid::build),
    ("qwen3_next", qwen_hybrid::build),
    ("qwen3next", qwen_hybrid::build),
    ("qwen3_5_moe", qwen_hybrid::build),
    ("qwen3_5_moe_text", qwen_hybrid::build),
    ("qwen35moe", qwen_hybrid::build),
    ("gemma", gemma::build),
    ("gemma2", gemma::build),
    ("gemma3", gemma::build),
    ("gemma3_text", gemma::build),
    ("gemma3n", gemma3n::build),
    ("gemma3n_text", gemma3n::build),
    ("gemma4", gemma4::build),
    ("gemma4_text", gemma4::build),
    ("phi", phi::build_2),
    ("phi2", phi::build_2),
    ("phi3", phi::build_3),
    ("olmo2", olmo::build),
    ("olmo3", olmo::build),
    ("granite", granite::build),
    ("smollm3", smollm3::build),
    ("mixtral", mixtral::build),
    ("qwen2_moe", qwen_moe::build),
    ("qwen2moe", qwen_moe::build),
    ("qwen3_moe", qwen_moe::build),
    ("qwen3moe", qwen_moe::build),
    ("phimoe", phimoe::build),
    ("granitemoe", granite::build),
    ("gpt_oss", gpt_oss::build),
    ("gpt-oss", gpt_oss::build),
    ("llama4_text", llama4::build),
    ("llama4", llama4::build),
    ("deepseek_v2", deepseek::build),
    ("deepseek_v3", deepseek::build),
    ("deepseek_v32", deepseek::build),
    ("deepseek2", deepseek::build),
    ("deepseek_v4", deepseek_v4::build),
    ("deepseek4", deepseek_v4::build),
    ("deepseek32", deepseek::build),
    ("mistral4", deepseek::build),
];

/// Whether a family of that name is supported.
pub fn supported(architecture: &str) -> bool {
    FAMILIES.iter().any(|(name, _)| *name == architecture)
}

/// Builds the graph of `checkpoint`.
///
/// # Errors
/// An unknown architecture, by name; missing or contradictory tensors and keys.
pub fn build(checkpoint: &Checkpoint) -> Result<Built, Error> {
    let config = Config::new(checkpoint)?;
    let Some((_, build)) = FAMILIES.iter().find(|(name, _)| *name == config.architecture()) else {
        return Err(Error::UnknownArchitecture {
            path: config.path().into(),
            architecture: config.architecture().into(),
            known: FAMILIES.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        });
    };
    keys::refuse_others(&config)?;
    claims::quantisation(&config, checkpoint)?;
    claims::layers(&config, checkpoint)?;
    claims::values(&config)?;
    let built = build(&config, checkpoint).map_err(|error| claims::too_few_layers(&config, checkpoint, error))?;
    claims::biases_and_norms(&config, &built.graph, checkpoint)?;
    claims::shared_experts(&config, &built.graph, checkpoint)?;
    Ok(built)
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
const INNER: Key = key("feed_forward_length", "intermediate_size");

impl Dims {
    /// The norms' epsilon, or the family's own where the file leaves it out.
    fn eps_or(&self, c: &Config<'_>, default: f32) -> Result<f32, Error> {
        Ok(c.epsilon(EPS)?.unwrap_or(default))
    }

    /// Full attention of these heads, without positions.
    fn attention(&self) -> Attention {
        Attention::new(self.n_heads, self.n_kv_heads, self.head_dim)
    }

    /// Rotation of whole heads with the base `theta` unless the file says otherwise, in the layouts of safetensors and
    /// of GGUF.
    fn rope(&self, theta: f64, [layout, gguf_layout]: [RopeLayout; 2]) -> RopeDefaults {
        RopeDefaults {
            layout,
            gguf_layout,
            theta,
            head_dim: self.head_dim,
            partial: 1.0,
            context: self.context,
            layer_type: "full_attention",
            theta_key: THETA,
        }
    }

    fn built(&self, graph: Graph) -> Result<Built, Error> {
        Ok(Built { graph, width: self.width, context: self.context })
    }

    /// Reads the dimensions; `head_dim` and `context` are defaults for missing keys.
    fn read(c: &Config<'_>, head_dim: Option<usize>, context: usize) -> Result<Self, Error> {
        let inner = c.usize(INNER)?.unwrap_or(0);
        let read = Self { inner, ..Self::read_but_inner(c, head_dim, context)? };
        Self::not_too_much(c, INNER, inner).map(|()| read)
    }

    /// Refuses numbers far beyond any model, so that no product of two of them overflows.
    fn not_too_much(c: &Config<'_>, key: Key, n: usize) -> Result<(), Error> {
        if n > 1 << 24 { Err(c.error(key, format!("{n} is too much"))) } else { Ok(()) }
    }

    /// Without the blocks that predict tokens further ahead, which GGUF files count among the layers.
    fn without_predictors(self, c: &Config<'_>) -> Result<Self, Error> {
        const AHEAD: Key = key("nextn_predict_layers", "");
        let n_layers = self.n_layers.checked_sub(c.usize(AHEAD)?.unwrap_or(0)).filter(|n| *n > 0);
        Ok(Self { n_layers: n_layers.ok_or_else(|| c.error(AHEAD, "leaves no layer"))?, ..self })
    }

    /// As [`Dims::read`], without the width of feed-forwards, for families whose layers differ.
    fn read_but_inner(c: &Config<'_>, head_dim: Option<usize>, context: usize) -> Result<Self, Error> {
        const HEADS: Key = key("attention.head_count", "num_attention_heads");
        const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
        const HEAD_DIM: Key = key("attention.key_length", "head_dim");
        const WIDTH: Key = key("embedding_length", "hidden_size");
        let width = c.require_usize(WIDTH)?;
        let n_heads = c.require_usize(HEADS)?;
        let n_kv_heads = c.usize(KV_HEADS)?.unwrap_or(n_heads);
        if n_kv_heads == 0 || n_kv_heads > n_heads || !n_heads.is_multiple_of(n_kv_heads) {
            return Err(c.error(KV_HEADS, format!("{n_kv_heads} does not divide the {n_heads} query heads")));
        }
        // The family's own size is for files without the key; null means the width divided by the number of heads.
        let default = head_dim.filter(|_| !c.is_gguf() && !c.has(HEAD_DIM));
        let head_dim = c.usize(HEAD_DIM)?.or(default).unwrap_or(width / n_heads);
        if head_dim == 0 || head_dim > 1024 {
            return Err(c.error(HEAD_DIM, format!("{head_dim} is not a head's size")));
        }
        let n_layers = c.require_usize(LAYERS)?;
        Self::not_too_much(c, LAYERS, n_layers)?;
        Self::not_too_much(c, HEADS, n_heads)?;
        Self::not_too_much(c, WIDTH, width)?;
        Ok(Self {
            n_layers,
            width,
            inner: 0,
            n_heads,
            n_kv_heads,
            head_dim,
            eps: c.epsilon(EPS)?.unwrap_or(1e-6),
            context: c.context(context)?,
        })
    }
}

const EXPERTS: Key = key("expert_count", "num_local_experts");
const EXPERTS_CHOSEN: Key = key("expert_used_count", "num_experts_per_tok");

/// Number of experts, and of those that a token takes; `default` for missing keys.
fn choice(c: &Config<'_>, default: (usize, usize)) -> Result<[usize; 2], Error> {
    let other = c.usize(key("", "num_experts"))?;
    let n = c.usize(EXPERTS)?.or(other).unwrap_or(default.0);
    if let Some(other) = other.filter(|other| *other != n) {
        return Err(c.error(EXPERTS, format!("is {n}, and `num_experts` is {other}")));
    }
    let k = c.usize(EXPERTS_CHOSEN)?.unwrap_or(default.1);
    if n == 0 || n > 1 << 16 {
        return Err(c.error(EXPERTS, format!("{n} is not a number of experts")));
    }
    if k == 0 || k > n {
        return Err(c.error(EXPERTS_CHOSEN, format!("{k} of {n} experts")));
    }
    Ok([n, k])
}

/// Each layer's sliding window, if it has one: the value of `window`, in GGUF for the layers of its pattern. Files of
/// Mistral 7B v0.1 and of Ministral 8B have the keys, unless their converter dropped them.
fn windows(c: &Config<'_>, window: Key, n_layers: usize) -> Result<Vec<Option<usize>>, Error> {
    let window = c.usize(window)?.filter(|w| *w > 0);
    let sliding = match window.is_some() && c.is_gguf() {
        true => c.sliding_layers(n_layers, |_| true)?,
        false => vec![true; n_layers],
    };
    Ok(sliding.into_iter().map(|s| window.filter(|_| s)).collect())
}

/// Refuses a key whose value asks for maths that the family's graph does not have.
fn refuse_unless(c: &Config<'_>, k: Key, ok: bool, what: &str) -> Result<(), Error> {
    if ok { Ok(()) } else { Err(c.error(k, format!("{what} is not supported"))) }
}
