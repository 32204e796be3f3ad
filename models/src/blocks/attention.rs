//! Grouped-query attention with rotary positions.

use handmill_runtime::graph::{AttentionOp, CacheSpec, GraphBuilder, Op, RopeSpec, ValueId};

use super::Loader;
use crate::Error;

/// One layer's attention.
#[derive(Clone, Debug)]
pub struct Attention {
    /// Query heads.
    pub n_heads: usize,
    /// Key/value heads.
    pub n_kv_heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on `q · k`.
    pub scale: f32,
    /// Sliding window, if any.
    pub window: Option<usize>,
    /// Rotation; none for layers without positions.
    pub rope: Option<RopeSpec>,
    /// Whether q and k are normalised head by head before they rotate.
    pub qk_norm: bool,
}

/// `o(attention(q(x), k(x), v(x)))` for layer `layer`, biases wherever the file has them. After the last layer's
/// attention only the rows whose output was asked for go on.
pub fn attention(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    a: &Attention,
    last: bool,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let project = |b: &mut GraphBuilder, name: &str, gguf: &str, hf: &str, x, out: usize| {
        let shape = [out, b.graph().value(x).width];
        let weight = l.layer(b, layer, &format!("{gguf}.weight"), &format!("self_attn.{hf}.weight"), &shape)?;
        let bias = l.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("self_attn.{hf}.bias"), &[out])?;
        Ok::<_, Error>(b.linear(name, x, weight, bias)?)
    };
    let mut q = project(b, "q", "attn_q", "q_proj", x, a.n_heads * a.head_dim)?;
    let mut k = project(b, "k", "attn_k", "k_proj", x, a.n_kv_heads * a.head_dim)?;
    let v = project(b, "v", "attn_v", "v_proj", x, a.n_kv_heads * a.head_dim)?;
    if a.qk_norm {
        let norm = l.layer_rms(b, layer, "attn_q_norm.weight", "self_attn.q_norm.weight", a.head_dim)?;
        q = b.norm("q_norm", q, norm)?;
        let norm = l.layer_rms(b, layer, "attn_k_norm.weight", "self_attn.k_norm.weight", a.head_dim)?;
        k = b.norm("k_norm", k, norm)?;
    }
    let mut rotate_on_read = None;
    if let Some(spec) = &a.rope {
        let rope = b.rope_spec(spec.clone());
        q = b.rope("q_rope", q, rope, a.head_dim)?;
        if spec.length_dependent() {
            rotate_on_read = Some(rope);
        } else {
            k = b.rope("k_rope", k, rope, a.head_dim)?;
        }
    }
    let cache = b.cache(CacheSpec { window: a.window, ..CacheSpec::new(a.n_kv_heads, a.head_dim, a.head_dim) });
    let op = AttentionOp {
        cache,
        n_heads: a.n_heads,
        n_kv_heads: a.n_kv_heads,
        head_dim: a.head_dim,
        v_dim: a.head_dim,
        scale: a.scale,
        softcap: None,
        window: a.window,
        chunk: None,
        sinks: None,
        rotate_on_read,
        v_in_k: false,
    };
    let mut y = b.attention("attention", [q, k, v], op)?;
    if last {
        y = b.op("select", Op::SelectOutputs, &[y])?;
    }
    project(b, "o", "attn_output", "o_proj", y, width)
}
