//! Gemma 4, text: sliding and full layers with heads of their own kinds, of which the last may share the keys and values
//! of earlier ones; per-layer inputs; a mixture of experts beside the dense feed-forward in the larger models. Gemma Team
//! 2026.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, CacheId, GraphBuilder, NormKind, NormOp, Op, RopeLayout, RouteOp, ValueId},
};

use super::{
    Built, Dims, EPS, INNER,
    gemma::{GELU, embedding_scale, refuse_other_gemma},
    refuse_unless,
};
use crate::{
    Error,
    blocks::{
        Experts, Head, Loader, Moe, PerLayer, SharedAttention,
        decoder::logits,
        gated_mlp,
        moe::routed,
        rope::{self, RopeDefaults},
        shared_attention,
        shared_kv::producers,
    },
    config::{Config, Key, LAYERS, key, whole},
};

const KV_HEADS: Key = key("attention.head_count_kv", "num_key_value_heads");
const HEAD_DIM: Key = key("attention.key_length", "head_dim");
const SHARED: Key = key("attention.shared_kv_layers", "num_kv_shared_layers");
const EXPERTS: Key = key("expert_count", "num_experts");
const CHOSEN: Key = key("expert_used_count", "top_k_experts");
const EXPERT_INNER: Key = key("expert_feed_forward_length", "moe_intermediate_size");
const OWN: Key = key("", "per_layer_config");
const PER_LAYER: Key = key("embedding_length_per_layer_input", "hidden_size_per_layer_input");

/// The facts that differ from layer to layer.
#[derive(Clone)]
struct Layer {
    sliding: bool,
    head_dim: usize,
    n_kv_heads: usize,
    inner: usize,
}

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = dims(c)?;
    refuse_other_gemma(c)?;
    rope::require_parameters(c)?;
    let l = Loader::new(checkpoint, d.eps);
    let layers = layers(c, &d)?;
    let n_shared = c.usize(SHARED)?.unwrap_or(0);
    let producer = producers(d.n_layers, n_shared, |i| layers[i].sliding)
        .ok_or_else(|| c.error(SHARED, format!("{n_shared} of {} layers have nothing to share", d.n_layers)))?;
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.unwrap_or(512);
    let k_is_v = c.bool(key("", "attention_k_eq_v"))?.unwrap_or(false);
    let experts = experts(c)?;
    let width = c.usize(PER_LAYER)?.unwrap_or(if c.is_gguf() { 0 } else { 256 });

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, embedding_scale(c, &l, d.width)?)?;
    let per_layer = match width {
        0 => None,
        p => Some(PerLayer::new(&mut b, &l, h, d.n_layers, p, embedding_scale(c, &l, p)?)?),
    };
    let mut caches: Vec<CacheId> = Vec::new();
    for (i, layer) in layers.iter().enumerate() {
        let last = i + 1 == d.n_layers;
        let attention = SharedAttention {
            n_heads: d.n_heads,
            n_kv_heads: layer.n_kv_heads,
            head_dim: layer.head_dim,
            window: layer.sliding.then_some(window),
            rope: rope::rope(c, &rope_of(&d, layer), &l)?,
            eps: d.eps,
            k_is_v: if c.is_gguf() { !l.has(i, "attn_v.weight", "")? } else { k_is_v && !layer.sliding },
            shared: caches.get(producer[i]).copied(),
        };
        h = b.layer(i, |b| {
            let norm = |b: &mut GraphBuilder, gguf: &str, hf: &str, x: ValueId| {
                let norm = l.layer_rms(b, i, &format!("{gguf}.weight"), &format!("{hf}.weight"), d.width)?;
                Ok::<_, Error>(b.norm(hf, x, norm)?)
            };
            let x = norm(b, "attn_norm", "input_layernorm", h)?;
            let (y, cache) = shared_attention(b, &l, i, x, &attention, last)?;
            caches.push(cache);
            let y = norm(b, "post_attention_norm", "post_attention_layernorm", y)?;
            let residual = if last { b.op("select_residual", Op::SelectOutputs, &[h])? } else { h };
            let mut h = b.add("attention_residual", residual, y)?;
            let x = norm(b, "ffn_norm", "pre_feedforward_layernorm", h)?;
            let mut y = gated_mlp(b, &l, i, x, layer.inner, Act::GeluTanh)?;
            if let Some(experts) = &experts {
                let dense = norm(b, "post_ffw_norm_1", "post_feedforward_layernorm_1", y)?;
                let x = norm(b, "pre_ffw_norm_2", "pre_feedforward_layernorm_2", h)?;
                let mixed = mixture(b, &l, i, (h, x), experts, d.eps)?;
                let mixed = norm(b, "post_ffw_norm_2", "post_feedforward_layernorm_2", mixed)?;
                y = b.add("mlp_and_experts", dense, mixed)?;
            }
            let y = norm(b, "post_ffw_norm", "post_feedforward_layernorm", y)?;
            h = b.add("mlp_residual", h, y)?;
            if let Some(per_layer) = &per_layer {
                let y = per_layer.apply(b, &l, i, h, last)?;
                h = b.add("per_layer_residual", h, y)?;
            }
            let scale = l.layer_scalar(i, "layer_output_scale.weight", "layer_scalar")?;
            Ok::<_, Error>(b.scale("layer_scale", h, scale)?)
        })?;
    }
    let cap = key("final_logit_softcapping", "final_logit_softcapping");
    let softcap = c.f32(cap)?.filter(|cap| *cap != 0.0);
    refuse_unless(c, cap, softcap.is_none_or(|cap| cap > 0.0), "a cap below zero")?;
    d.built(logits(b, &l, h, embedding, &Head { softcap, ..Head::new(c.tied(true)?) })?)
}

/// The dimensions that all layers share.
fn dims(c: &Config<'_>) -> Result<Dims, Error> {
    refuse_unless(
        c,
        GELU,
        c.str(GELU)?.is_none_or(|a| a == "gelu_pytorch_tanh"),
        "an activation other than tanh GELU",
    )?;
    const HEADS: Key = key("attention.head_count", "num_attention_heads");
    const WIDTH: Key = key("embedding_length", "hidden_size");
    let (n_heads, width) = (c.require_usize(HEADS)?, c.require_usize(WIDTH)?);
    Dims::not_too_much(c, HEADS, n_heads)?;
    Dims::not_too_much(c, WIDTH, width)?;
    Ok(Dims {
        n_layers: c.require_usize(LAYERS)?,
        width,
        inner: 0,
        n_heads,
        n_kv_heads: 0,
        head_dim: 0,
        eps: c.epsilon(EPS)?.unwrap_or(1e-6),
        context: c.context(131072)?,
    })
}

fn layers(c: &Config<'_>, d: &Dims) -> Result<Vec<Layer>, Error> {
    let n = d.n_layers;
    let mut sliding = c.sliding_layers(n, |i| !(i + 1).is_multiple_of(6))?;
    if !c.is_gguf() {
        // The last layer is full, whatever the file says about it.
        if let Some(last) = sliding.last_mut() {
            *last = false;
        }
    }
    let kv_heads = c.layer_usizes(KV_HEADS, n)?.unwrap_or_else(|| vec![d.n_heads; n]);
    let inner = c.layer_usizes(INNER, n)?.ok_or_else(|| c.error(INNER, "is missing"))?;
    // Configurations that describe each layer's differences describe full layers in this way alone.
    let by_layer = c.object(OWN.hf)?.is_some();
    // Heads of sliding layers, and of full ones.
    let head_dims = if c.is_gguf() {
        let full = c.require_usize(HEAD_DIM)?;
        [c.usize(key("attention.key_length_swa", ""))?.unwrap_or(full), full]
    } else {
        let head_dim = c.usize(HEAD_DIM)?.unwrap_or(256);
        [head_dim, if by_layer { head_dim } else { c.usize(key("", "global_head_dim"))?.unwrap_or(512) }]
    };
    let n_shared = c.usize(SHARED)?.unwrap_or(0);
    let double = c.bool(key("", "use_double_wide_mlp"))?.unwrap_or(false);
    let full_kv_heads = match c.bool(key("", "attention_k_eq_v"))?.unwrap_or(false) {
        true if !by_layer => c.usize(key("", "num_global_key_value_heads"))?,
        _ => None,
    };
    let layer = |i: usize| {
        let mut layer = Layer {
            sliding: sliding[i],
            head_dim: head_dims[usize::from(!sliding[i])],
            n_kv_heads: full_kv_heads.filter(|_| !sliding[i]).unwrap_or(kv_heads[i]),
            // Layers without keys and values of their own may be wider instead.
            inner: inner[i].checked_mul(if double && i + n_shared >= n { 2 } else { 1 }).unwrap_or(0),
        };
        own_config(c, i, &mut layer)?;
        let heads = layer.n_kv_heads;
        if heads == 0 || !d.n_heads.is_multiple_of(heads) {
            return Err(c.error(KV_HEADS, format!("{heads} does not divide the {} query heads", d.n_heads)));
        }
        refuse_unless(c, HEAD_DIM, (1..=1024).contains(&layer.head_dim), "a head so long")?;
        refuse_unless(c, INNER, (1..=1 << 24).contains(&layer.inner), "a feed-forward of such a width")?;
        Ok(layer)
    };
    (0..n).map(layer).collect()
}

/// Reads the description of one layer in newer configurations.
fn own_config(c: &Config<'_>, i: usize, layer: &mut Layer) -> Result<(), Error> {
    let own = c.object(OWN.hf)?.and_then(|o| o.get(i.to_string()));
    let Some(own) = own.filter(|o| !o.is_null()) else { return Ok(()) };
    let own = own.as_object().ok_or_else(|| c.error(OWN, format!("`{i}` should be an object")))?;
    for (name, value) in own {
        let number = whole(value);
        match (name.as_str(), number) {
            ("head_dim", Some(v)) => layer.head_dim = v,
            ("num_key_value_heads", Some(v)) => layer.n_kv_heads = v,
            _ => return Err(c.error(OWN, format!("`{name}: {value}` of layer {i} is not supported"))),
        }
    }
    Ok(())
}

fn rope_of(d: &Dims, layer: &Layer) -> RopeDefaults {
    let (theta, layer_type) = match layer.sliding {
        true => (1e4, "sliding_attention"),
        false => (1e6, "full_attention"),
    };
    RopeDefaults { head_dim: layer.head_dim, layer_type, ..d.rope(theta, [RopeLayout::Half; 2]) }
}

/// The experts, if there are any.
fn experts(c: &Config<'_>) -> Result<Option<Moe<'static>>, Error> {
    let n = c.usize(EXPERTS)?.unwrap_or(0);
    let on = if c.is_gguf() { n > 0 } else { c.bool(key("", "enable_moe_block"))?.unwrap_or(false) };
    if !on {
        return Ok(None);
    }
    let k = c.require_usize(CHOSEN)?;
    refuse_unless(c, CHOSEN, k <= n && n <= 1 << 16, "such a choice of experts")?;
    let route = RouteOp { renormalise: Some(0.0), ..RouteOp::softmax(n, k) };
    let names = Experts::Fused(["experts.gate_up_proj", "experts.down_proj"]);
    let inner = c.require_usize(EXPERT_INNER)?;
    Ok(Some(Moe { act: Act::GeluTanh, ..Moe::new(route, "router.proj", names, inner) }))
}

/// The experts' result on `x`; the residual stream `h` chooses them.
fn mixture(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    (h, x): (ValueId, ValueId),
    m: &Moe<'_>,
    eps: f32,
) -> Result<ValueId, Error> {
    let (width, n) = (b.graph().value(h).width, m.route.n_experts);
    let scale = Some(l.layer(b, layer, "ffn_gate_inp.scale", "router.scale", &[width])?);
    let norm = NormOp { kind: NormKind::Rms, weight: scale, weight_offset: 0.0, bias: None, eps, group: width };
    let y = b.norm("router_norm", h, norm)?;
    let y = b.scale("router_scale", y, (width as f32).powf(-0.5))?;
    let weight = l.layer(b, layer, "ffn_gate_inp.weight", "router.proj.weight", &[n, width])?;
    let y = b.linear("router", y, weight, None)?;
    let expert_scale = Some(l.layer(b, layer, "ffn_down_exps.scale", "router.per_expert_scale", &[n])?);
    let route = b.route("route", y, RouteOp { expert_scale, ..m.route.clone() })?;
    routed(b, l, layer, x, route, m)
}
