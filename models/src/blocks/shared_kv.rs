//! Attention of Gemma 3n and 4: every head of q, k and v is normalised, scores are unscaled, and the last layers share
//! the keys and values of earlier ones. Gemma Team 2025.

use handmill_runtime::graph::{AttentionOp, CacheId, CacheSpec, GraphBuilder, NormKind, NormOp, Op, RopeSpec, ValueId};

use super::Loader;
use crate::Error;

/// One layer's attention.
#[derive(Clone, Debug)]
pub struct SharedAttention {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Sliding window, if any.
    pub window: Option<usize>,
    /// Rotation.
    pub rope: RopeSpec,
    /// Added to the mean square by norms.
    pub eps: f32,
    /// Whether values are made of the keys' projection and have none of their own.
    pub k_is_v: bool,
    /// The cache of an earlier layer, where this layer reads its keys and values.
    pub shared: Option<CacheId>,
}

/// `o(attention(norm(q(x)), norm(k(x)), norm(v(x))))` for layer `layer`, biases where the file has them, and the cache
/// that it reads. After the last layer's attention only the output rows remain.
pub fn shared_attention(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    a: &SharedAttention,
    last: bool,
) -> Result<(ValueId, CacheId), Error> {
    let (width, d) = (b.graph().value(x).width, a.head_dim);
    let rope = b.rope_spec(a.rope.clone());
    let project = |b: &mut GraphBuilder, name: &str, heads: usize| {
        let (gguf, hf) = (format!("attn_{name}"), format!("self_attn.{name}_proj"));
        let shape = [heads * d, width];
        let weight = l.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &shape)?;
        let bias = l.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("{hf}.bias"), &shape[..1])?;
        Ok::<_, Error>(b.linear(name, x, weight, bias)?)
    };
    let turned = |b: &mut GraphBuilder, name: &str, x: ValueId| {
        let (gguf, hf) = (format!("attn_{name}_norm.weight"), format!("self_attn.{name}_norm.weight"));
        let norm = l.layer_rms(b, layer, &gguf, &hf, d)?;
        let x = b.norm(&format!("{name}_norm"), x, norm)?;
        Ok::<_, Error>(b.rope(&format!("{name}_rope"), x, rope, d)?)
    };
    let q = project(b, "q", a.n_heads)?;
    let (mut inputs, cache) = (Vec::with_capacity(3), a.shared);
    if cache.is_none() {
        let k = project(b, "k", a.n_kv_heads)?;
        let v = if a.k_is_v { k } else { project(b, "v", a.n_kv_heads)? };
        let plain = NormOp { kind: NormKind::Rms, weight: None, weight_offset: 0.0, bias: None, eps: a.eps, group: d };
        inputs = vec![turned(b, "k", k)?, b.norm("v_norm", v, plain)?];
    }
    inputs.insert(0, turned(b, "q", q)?);
    let spec = CacheSpec { window: a.window, ..CacheSpec::new(a.n_kv_heads, d, d) };
    let cache = cache.unwrap_or_else(|| b.cache(spec));
    let op = AttentionOp {
        cache,
        n_heads: a.n_heads,
        n_kv_heads: a.n_kv_heads,
        head_dim: d,
        v_dim: d,
        scale: 1.0,
        softcap: None,
        window: a.window,
        chunk: None,
        sinks: None,
        rotate_on_read: None,
        blocks: None,
        v_in_k: false,
        selected: None,
        shared: a.shared.is_some(),
    };
    let mut y = b.op("attention", Op::Attention(op), &inputs)?;
    if last {
        y = b.op("select", Op::SelectOutputs, &[y])?;
    }
    let weight = l.layer(b, layer, "attn_output.weight", "self_attn.o_proj.weight", &[width, a.n_heads * d])?;
    let bias = l.layer_if_present(b, layer, "attn_output.bias", "self_attn.o_proj.bias", &[width])?;
    Ok((b.linear("o", y, weight, bias)?, cache))
}

/// For each layer, the layer whose keys and values it reads: itself, or for the last `n_shared` layers the last earlier
/// layer of the same kind; none where there is no such layer. `kind` tells layers apart.
pub fn producers<K: PartialEq>(n_layers: usize, n_shared: usize, kind: impl Fn(usize) -> K) -> Option<Vec<usize>> {
    let first = n_layers.checked_sub(n_shared)?;
    (0..n_layers).map(|i| if i < first { Some(i) } else { (0..first).rev().find(|j| kind(*j) == kind(i)) }).collect()
}
