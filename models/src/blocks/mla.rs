//! Multi-head latent attention (DeepSeek-AI 2024) in its absorbed form.
//!
//! Keys and values of all heads are linear in one latent vector a token. So the key matrix moves to the query's side
//! and the value matrix behind the sum: attention itself runs over the latents. The cache holds only the latents and
//! one rotated key that all heads share.
//!
//! ```text
//! q  [heads][nope | rope]                      latent [kv_rank], key [rope]  = split(kv_a x), latent normalised
//! q' [heads][W_kᵀ nope | rotated rope]         cache: [latent | rotated key], one head; its value is the latent
//! o  = W_o [heads] W_v (softmax(scale q'·k) latents)
//! ```

use handmill_runtime::graph::{
    AttentionOp, CacheSpec, GraphBuilder, HeadLinearOp, NormKind, NormOp, Op, PositionScale, RopeSpec, SelectOp,
    ValueId,
};

use super::{Loader, project};
use crate::Error;

/// Epsilon of the latents' norms, the same for all models.
const EPS: f32 = 1e-6;

/// The latent attention of a model.
#[derive(Clone, Debug)]
pub struct LatentAttention {
    /// Query heads.
    pub n_heads: usize,
    /// Elements of a head of q and k that are not rotated.
    pub nope: usize,
    /// Elements of a head that are rotated.
    pub rotary: usize,
    /// Elements of a value.
    pub v_dim: usize,
    /// Elements of the latent that queries are made of, if there is one.
    pub q_rank: Option<usize>,
    /// Elements of the latent that keys and values are made of.
    pub kv_rank: usize,
    /// Factor on `q · k`.
    pub scale: f32,
    /// Rotation of the rotary parts.
    pub rope: RopeSpec,
    /// Factor on q by position.
    pub q_scale: Option<PositionScale>,
    /// The choice of the keys to attend to; none where tokens attend to all.
    pub indexer: Option<Indexer>,
}

/// The lightning indexer of DeepSeek V3.2. The first `rotary` elements of its heads are rotated, in halves.
#[derive(Clone, Debug)]
pub struct Indexer {
    /// Index heads.
    pub n_heads: usize,
    /// Elements of an index head.
    pub head_dim: usize,
    /// Keys chosen.
    pub k: usize,
    /// Its rotation.
    pub rope: RopeSpec,
}

impl LatentAttention {
    /// Elements of a cached key.
    fn key_dim(&self) -> usize {
        self.kv_rank + self.rotary
    }
}

/// Latent attention for layer `layer`. After the last layer's attention only the output rows remain.
pub fn latent_attention(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    a: &LatentAttention,
    last: bool,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let names = Names { l, layer };
    let q_width = a.n_heads * (a.nope + a.rotary);
    // All linears of x come first, so that one stage holds them.
    let q = match a.q_rank {
        None => names.linear(b, "q", x, ["attn_q", "q_proj"], q_width)?,
        Some(rank) => names.linear(b, "q_a", x, ["attn_q_a", "q_a_proj"], rank)?,
    };
    let index = match &a.indexer {
        None => None,
        Some(i) => Some((
            names.linear(b, "index_k", x, ["indexer.attn_k", "indexer.wk"], i.head_dim)?,
            names.linear(b, "index_weights", x, ["indexer.proj", "indexer.weights_proj"], i.n_heads)?,
        )),
    };
    let kv = names.linear(b, "kv_a", x, ["attn_kv_a_mqa", "kv_a_proj_with_mqa"], a.key_dim())?;
    let mut selected = None;
    let q = match a.q_rank {
        None => q,
        Some(_) => {
            let latent = names.norm(b, "q_a_norm", q, ["attn_q_a_norm", "q_a_layernorm"])?;
            let q = names.linear(b, "q_b", latent, ["attn_q_b", "q_b_proj"], q_width)?;
            if let (Some(i), Some((k, weights))) = (&a.indexer, index) {
                selected = Some(choose(b, &names, i, latent, k, weights)?);
            }
            q
        }
    };
    let rope = b.rope_spec(a.rope.clone());

    let latent = b.columns("latent", kv, [a.key_dim(), 0, a.kv_rank])?;
    let latent = names.norm(b, "kv_a_norm", latent, ["attn_kv_a_norm", "kv_a_layernorm"])?;
    let shared = b.columns("k_rotary", kv, [a.key_dim(), a.kv_rank, a.rotary])?;
    let shared = b.rope("k_rope", shared, rope, a.rotary)?;
    let key = b.join("k", (latent, a.kv_rank), (shared, a.rotary))?;

    let [to_latent, to_value] = matrices(b, l, layer, a)?;
    let nope = b.columns("q_nope", q, [a.nope + a.rotary, 0, a.nope])?;
    let absorbed = b.head_linear("k_b", nope, to_latent)?;
    let rotary = b.columns("q_rotary", q, [a.nope + a.rotary, a.nope, a.rotary])?;
    let rotary = b.rope("q_rope", rotary, rope, a.rotary)?;
    let mut query = b.join("q_absorbed", (absorbed, a.kv_rank), (rotary, a.rotary))?;
    if let Some(scale) = a.q_scale {
        query = b.op("q_scale", Op::PositionScale(scale), &[query])?;
    }

    let cache = b.cache(CacheSpec { v_in_k: true, ..CacheSpec::new(1, a.key_dim(), a.kv_rank) });
    let op = AttentionOp {
        cache,
        n_heads: a.n_heads,
        n_kv_heads: 1,
        head_dim: a.key_dim(),
        v_dim: a.kv_rank,
        scale: a.scale,
        softcap: None,
        window: None,
        chunk: None,
        sinks: None,
        rotate_on_read: None,
        blocks: None,
        v_in_k: true,
        selected: a.indexer.as_ref().map(|i| i.k),
        shared: false,
    };
    let inputs: Vec<ValueId> = [query, key].into_iter().chain(selected).collect();
    let mut y = b.op("attention", Op::Attention(op), &inputs)?;
    if last {
        y = b.op("select", Op::SelectOutputs, &[y])?;
    }
    let values = b.head_linear("v_b", y, to_value)?;
    names.linear(b, "o", values, ["attn_output", "o_proj"], width)
}

/// The keys that each token attends to, from the latent `q` of its queries, its index key and the heads' weights.
fn choose(
    b: &mut GraphBuilder,
    names: &Names<'_, '_>,
    i: &Indexer,
    q: ValueId,
    k: ValueId,
    weights: ValueId,
) -> Result<ValueId, Error> {
    let q = names.linear(b, "index_q", q, ["indexer.attn_q_b", "indexer.wq_b"], i.n_heads * i.head_dim)?;
    let rope = b.rope_spec(i.rope.clone());
    let q = b.rope("index_q_rope", q, rope, i.head_dim)?;
    let (l, hf) = (names.l, "self_attn.indexer.k_norm");
    let weight = l.layer(b, names.layer, "indexer.k_norm.weight", &format!("{hf}.weight"), &[i.head_dim])?;
    let bias = l.layer(b, names.layer, "indexer.k_norm.bias", &format!("{hf}.bias"), &[i.head_dim])?;
    let norm = NormOp { kind: NormKind::Layer, bias: Some(bias), eps: EPS, ..l.rms(weight, i.head_dim) };
    let k = b.norm("index_k_norm", k, norm)?;
    let k = b.rope("index_k_rope", k, rope, i.head_dim)?;
    let cache = b.cache(CacheSpec::new(1, i.head_dim, 0));
    let op = SelectOp { cache, n_heads: i.n_heads, head_dim: i.head_dim, k: i.k };
    Ok(b.op("index", Op::SelectKeys(op), &[q, k, weights])?)
}

/// W_kᵀ and W_v of every head: rows of one tensor, or (newer GGUF files) two tensors, the first already transposed.
fn matrices(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    a: &LatentAttention,
) -> Result<[HeadLinearOp; 2], Error> {
    let heads = a.n_heads;
    if l.is_gguf() && l.has(layer, "attn_k_b.weight", "")? {
        let k = l.layer(b, layer, "attn_k_b.weight", "", &[heads, a.kv_rank, a.nope])?;
        let v = l.layer(b, layer, "attn_v_b.weight", "", &[heads, a.v_dim, a.kv_rank])?;
        let plain = |weight, input, output| HeadLinearOp {
            weight,
            heads,
            period: output,
            first: 0,
            input,
            output,
            transposed: false,
        };
        return Ok([plain(k, a.nope, a.kv_rank), plain(v, a.kv_rank, a.v_dim)]);
    }
    let period = a.nope + a.v_dim;
    let shape = [heads * period, a.kv_rank];
    let weight = l.layer(b, layer, "attn_kv_b.weight", "self_attn.kv_b_proj.weight", &shape)?;
    let part =
        |first, input, output, transposed| HeadLinearOp { weight, heads, period, first, input, output, transposed };
    Ok([part(0, a.nope, a.kv_rank, true), part(a.nope, a.kv_rank, a.v_dim, false)])
}

/// A layer's weights by their names in GGUF and, after `self_attn.`, in safetensors.
struct Names<'a, 'l> {
    l: &'a Loader<'l>,
    layer: usize,
}

impl Names<'_, '_> {
    fn linear(
        &self,
        b: &mut GraphBuilder,
        name: &str,
        x: ValueId,
        [gguf, hf]: [&str; 2],
        out: usize,
    ) -> Result<ValueId, Error> {
        project(b, self.l, self.layer, name, x, [gguf, &format!("self_attn.{hf}")], out)
    }

    fn norm(&self, b: &mut GraphBuilder, name: &str, x: ValueId, [gguf, hf]: [&str; 2]) -> Result<ValueId, Error> {
        let (gguf, hf) = (format!("{gguf}.weight"), format!("self_attn.{hf}.weight"));
        let norm = self.l.layer_rms(b, self.layer, &gguf, &hf, b.graph().value(x).width)?;
        Ok(b.norm(name, x, NormOp { eps: EPS, ..norm })?)
    }
}
