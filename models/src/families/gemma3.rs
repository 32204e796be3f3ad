//! Gemma 3, text: a norm before and after each block, per-head norms of q and k, five sliding layers to each full
//! one with a rotation of their own, tanh-GELU, scaled embeddings, tied head. Gemma Team 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, GraphBuilder, Op, RopeLayout},
    quant::DType,
};

use super::{Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{self, Attention, Loader, rope::RopeDefaults},
    config::{Config, Key, key},
};

const ACT: Key = key("", "hidden_activation");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = Dims::read(c, Some(256), 131072)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "gelu_pytorch_tanh"), "an activation other than tanh GELU")?;
    let bidirectional = key("", "use_bidirectional_attention");
    refuse_unless(c, bidirectional, !c.bool(bidirectional)?.unwrap_or(false), "attention to later tokens")?;
    let l = Loader::new(checkpoint, d.eps)?.with_norm_offset(1.0);
    let rope = RopeDefaults {
        layout: RopeLayout::Half,
        gguf_layout: RopeLayout::Half,
        theta: 1e6,
        head_dim: d.head_dim,
        context: d.context,
        layer_type: "full_attention",
    };
    let sliding_rope = RopeDefaults { theta: 1e4, layer_type: "sliding_attention", ..rope };
    let full = Attention {
        n_heads: d.n_heads,
        n_kv_heads: d.n_kv_heads,
        head_dim: d.head_dim,
        scale: query_scale(c, &d)?,
        window: None,
        rope: Some(blocks::rope::rope(c, &rope, None)?),
        qk_norm: true,
    };
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.unwrap_or(4096);
    let local =
        Attention { window: Some(window), rope: Some(blocks::rope::rope(c, &sliding_rope, None)?), ..full.clone() };
    let period = match c.usize(key("", "sliding_window_pattern"))? {
        None => c.usize(key("", "_sliding_window_pattern"))?.unwrap_or(6),
        Some(period) => period,
    };
    let sliding = c.sliding_layers(d.n_layers, |i| period == 0 || !(i + 1).is_multiple_of(period))?;

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    // The reference rounds the scale to the checkpoint's type.
    let scale = (d.width as f32).sqrt();
    let scale = match b.graph().weight(embedding).dtype() {
        DType::BF16 if !c.is_gguf() => to_bf16(scale),
        _ => scale,
    };
    let mut h = b.embed("embed", embedding, scale)?;
    for (i, sliding) in sliding.iter().enumerate() {
        let attention = if *sliding { &local } else { &full };
        let last = i + 1 == d.n_layers;
        h = b.scoped(format!("layer.{i}"), |b| {
            let norm = |b: &mut GraphBuilder, name: &str, gguf: &str, x| {
                let norm = l.layer_rms(b, i, &format!("{gguf}.weight"), &format!("{name}.weight"), d.width)?;
                Ok::<_, Error>(b.norm(name, x, norm)?)
            };
            let n = norm(b, "input_layernorm", "attn_norm", h)?;
            let y = blocks::attention(b, &l, i, n, attention, last)?;
            let y = norm(b, "post_attention_layernorm", "post_attention_norm", y)?;
            let residual = if last { b.op("select_residual", Op::SelectOutputs, &[h])? } else { h };
            let x = b.add("attention_residual", residual, y)?;
            let n = norm(b, "pre_feedforward_layernorm", "ffn_norm", x)?;
            let y = blocks::gated_mlp(b, &l, i, n, d.inner, Act::GeluTanh)?;
            let y = norm(b, "post_feedforward_layernorm", "post_ffw_norm", y)?;
            Ok::<_, Error>(b.add("mlp_residual", x, y)?)
        })?;
    }
    let tied = c.bool(key("", "tie_word_embeddings"))?.unwrap_or(true);
    let cap = key("final_logit_softcapping", "final_logit_softcapping");
    refuse_unless(c, cap, c.f32(cap)?.is_none(), "a cap on the logits")?;
    let graph = blocks::head(b, &l, h, embedding, tied)?;
    Ok(Built { graph, n_layers: d.n_layers, width: d.width, context: d.context })
}

/// `query_pre_attn_scalar^-0.5`. GGUF files lack it: it is the head's size but for the 27B model.
fn query_scale(c: &Config<'_>, d: &Dims) -> Result<f32, Error> {
    let by_heads = c.is_gguf() && d.n_layers == 62;
    let default = if by_heads {
        d.width / d.n_heads
    } else if c.is_gguf() {
        d.head_dim
    } else {
        256
    };
    Ok(c.f32(key("", "query_pre_attn_scalar"))?.unwrap_or(default as f32).powf(-0.5))
}

/// The nearest bfloat16, ties to even.
fn to_bf16(x: f32) -> f32 {
    let bits = x.to_bits();
    f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000)
}
