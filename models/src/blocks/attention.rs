//! Grouped-query attention with rotary positions.

use handmill_runtime::graph::{
    Act, AttentionOp, CacheSpec, GraphBuilder, NormKind, NormOp, Op, PositionScale, RopeSpec, ValueId, WeightId,
};

use super::Loader;
use crate::Error;

/// Normalisation of q and k.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum QkNorm {
    /// Nothing.
    None,
    /// Each head by itself; `q_norm`/`k_norm` `[head_dim]`.
    Heads,
    /// Each head by itself, by a norm of the residual stream's kind, biases included (Phi 1 and 2);
    /// `q_layernorm`/`k_layernorm` `[head_dim]`.
    LayerHeads,
    /// All heads of a token at once (OLMo 2); `q_norm` `[n_heads * head_dim]`, `k_norm` `[n_kv_heads * head_dim]`.
    Rows,
    /// Each head by itself, without scales and after the rotation (Llama 4); the number is added to the mean square.
    AfterRotation(f32),
}

/// One layer's attention. [`Attention::new`] gives the plain one, for struct update.
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
    /// Bound of the scores, if any.
    pub softcap: Option<f32>,
    /// Sliding window, if any.
    pub window: Option<usize>,
    /// Attention within chunks of so many tokens, if any.
    pub chunk: Option<usize>,
    /// Whether each head has a sink: a logit that joins the softmax's denominator.
    pub sinks: bool,
    /// Rotation; none for layers without positions.
    pub rope: Option<RopeSpec>,
    /// Normalisation of q and k.
    pub qk_norm: QkNorm,
    /// Whether the projection of q also makes a gate for each head, beside its query; the sigmoid of it multiplies the
    /// output (Qwen3-Next).
    pub gated: bool,
    /// Factor on q by position, after the rotation.
    pub q_scale: Option<PositionScale>,
    /// The output projection's name in safetensors, after `self_attn.`.
    pub output: &'static str,
}

impl Attention {
    /// Full attention without rotation or norms, scaled by `head_dim^-0.5`.
    pub fn new(n_heads: usize, n_kv_heads: usize, head_dim: usize) -> Self {
        Self {
            n_heads,
            n_kv_heads,
            head_dim,
            scale: (head_dim as f32).powf(-0.5),
            softcap: None,
            window: None,
            chunk: None,
            sinks: false,
            rope: None,
            qk_norm: QkNorm::None,
            gated: false,
            q_scale: None,
            output: "o_proj",
        }
    }
}

/// `o(attention(q(x), k(x), v(x)))` for layer `layer`, biases where the file has them, q, k and v from tensors of their
/// own or fused. After the last layer's attention only the output rows remain.
pub fn attention(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    a: &Attention,
    last: bool,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let [mut q, mut k, v] = project(b, l, layer, x, a)?;
    let mut gate = None;
    if a.gated {
        let (both, d) = (q, a.head_dim);
        q = b.columns("q_heads", both, [2 * d, 0, d])?;
        gate = Some(b.columns("gate", both, [2 * d, d, d])?);
    }
    if matches!(a.qk_norm, QkNorm::Heads | QkNorm::LayerHeads | QkNorm::Rows) {
        (q, k) = normalise(b, l, layer, (q, k), a)?;
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
    if let QkNorm::AfterRotation(eps) = a.qk_norm {
        let norm = NormOp { kind: NormKind::Rms, weight: None, weight_offset: 0.0, bias: None, eps, group: a.head_dim };
        // A rotation keeps the norm of keys, so keys that are rotated when they are read may be normalised first.
        (q, k) = (b.norm("q_norm", q, norm.clone())?, b.norm("k_norm", k, norm)?);
    }
    if let Some(scale) = a.q_scale {
        q = b.op("q_scale", Op::PositionScale(scale), &[q])?;
    }
    let sinks = match a.sinks {
        true => Some(l.layer(b, layer, "attn_sinks.weight", "self_attn.sinks", &[a.n_heads])?),
        false => None,
    };
    let cache =
        b.cache(CacheSpec { window: a.window.or(a.chunk), ..CacheSpec::new(a.n_kv_heads, a.head_dim, a.head_dim) });
    let op = AttentionOp {
        cache,
        n_heads: a.n_heads,
        n_kv_heads: a.n_kv_heads,
        head_dim: a.head_dim,
        v_dim: a.head_dim,
        scale: a.scale,
        softcap: a.softcap,
        window: a.window,
        chunk: a.chunk,
        sinks,
        rotate_on_read,
        blocks: None,
        v_in_k: false,
        selected: None,
        shared: false,
    };
    let mut y = b.attention("attention", [q, k, v], op)?;
    if let Some(gate) = gate {
        y = b.gated("gated", Act::Sigmoid, gate, y)?;
    }
    if last {
        y = b.op("select", Op::SelectOutputs, &[y])?;
    }
    let hf = format!("self_attn.{}", a.output);
    let shape = [width, a.n_heads * a.head_dim];
    let weight = l.layer(b, layer, "attn_output.weight", &format!("{hf}.weight"), &shape)?;
    let bias = l.layer_if_present(b, layer, "attn_output.bias", &format!("{hf}.bias"), &shape[..1])?;
    Ok(b.linear("o", y, weight, bias)?)
}

/// q, k and v: from three tensors, or from one that has the rows of all three.
fn project(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    a: &Attention,
) -> Result<[ValueId; 3], Error> {
    let width = b.graph().value(x).width;
    let q_rows = a.n_heads * a.head_dim * if a.gated { 2 } else { 1 };
    let rows = [q_rows, a.n_kv_heads * a.head_dim, a.n_kv_heads * a.head_dim];
    let fused = l.has(layer, "attn_qkv.weight", "self_attn.qkv_proj.weight")?;
    let mut first = 0;
    let mut made = Vec::with_capacity(3);
    for (name, out) in ["q", "k", "v"].into_iter().zip(rows) {
        let (weight, bias): (WeightId, Option<WeightId>) = if fused {
            let (all, part) = (rows.iter().sum(), first..first + out);
            let hf = "self_attn.qkv_proj";
            (
                l.layer_rows(b, layer, "attn_qkv.weight", &format!("{hf}.weight"), &[all, width], part.clone())?,
                l.layer_rows_if_present(b, layer, "attn_qkv.bias", &format!("{hf}.bias"), &[all], part)?,
            )
        } else {
            let (gguf, hf) = (format!("attn_{name}"), format!("self_attn.{name}_proj"));
            (
                l.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &[out, width])?,
                l.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("{hf}.bias"), &[out])?,
            )
        };
        first += out;
        made.push(b.linear(name, x, weight, bias)?);
    }
    Ok([made[0], made[1], made[2]])
}

fn normalise(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    (q, k): (ValueId, ValueId),
    a: &Attention,
) -> Result<(ValueId, ValueId), Error> {
    let norm = |b: &mut GraphBuilder, name: &str, x: ValueId| {
        let (gguf, hf) = (format!("attn_{name}_norm"), format!("self_attn.{name}_norm"));
        let op: NormOp = match a.qk_norm {
            QkNorm::LayerHeads => l.layer_norm(b, layer, &gguf, &format!("self_attn.{name}_layernorm"), a.head_dim)?,
            other => {
                let group = if other == QkNorm::Rows { b.graph().value(x).width } else { a.head_dim };
                l.layer_rms(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), group)?
            }
        };
        Ok::<_, Error>(b.norm(&format!("{name}_norm"), x, op)?)
    };
    Ok((norm(b, "q", q)?, norm(b, "k", k)?))
}
