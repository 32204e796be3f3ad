//! Qwen3-Next and Qwen 3.5: Gated DeltaNet in most layers, and in every fourth full attention with per-head norms of q
//! and k, a rotation of a quarter of each head, and a gate on the output. Qwen Team 2025, 2026.

use handmill_runtime::{
    format::Checkpoint,
    graph::{GraphBuilder, RopeLayout},
};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{
        Attention, DeltaNet, DeltaProjections, Head, Loader, Norms, QkNorm, attention,
        decoder::{layer, logits},
        delta_net, gated_mlp, rope,
    },
    config::{Config, Key, key},
};

const LAYER_TYPES: Key = key("attention.recurrent_layers", "layer_types");
const INTERVAL: Key = key("full_attention_interval", "full_attention_interval");
const V_HEADS: Key = key("ssm.time_step_rank", "linear_num_value_heads");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, Some(256), 32768)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    // Blocks that predict tokens further ahead are counted among the layers.
    let ahead = key("nextn_predict_layers", "");
    let n_ahead = c.usize(ahead)?.unwrap_or(0);
    d.n_layers = d.n_layers.checked_sub(n_ahead).filter(|n| *n > 0).ok_or_else(|| c.error(ahead, "leaves no layer"))?;
    let l = Loader::new(checkpoint, d.eps)?.with_norm_offset(1.0);
    let full = Attention {
        rope: Some(rope::rope(c, &d.rope(1e4, [RopeLayout::Half; 2]).with_partial(0.25), &l)?),
        qk_norm: QkNorm::Heads,
        gated: true,
        ..d.attention()
    };
    let linear = delta_net_of(c)?;
    let interval = c.usize(INTERVAL)?.unwrap_or(4);
    let linear_layer = |i: usize| interval == 0 || !(i + 1).is_multiple_of(interval);
    let is_linear = c.layer_flags(LAYER_TYPES, d.n_layers, ["linear_attention", "full_attention"], linear_layer)?;

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, 1.0)?;
    for (i, is_linear) in is_linear.into_iter().enumerate() {
        let last = i + 1 == d.n_layers;
        let attend = |b: &mut GraphBuilder, x| match is_linear {
            true => b.scoped("delta_net", |b| delta_net(b, &l, i, x, &linear, last)),
            false => attention(b, &l, i, x, &full, last),
        };
        let feed = |b: &mut GraphBuilder, x| gated_mlp(b, &l, i, x, d.inner, handmill_runtime::graph::Act::Silu);
        h = layer(&mut b, &l, i, h, (Norms::Pre, 1.0, last), attend, feed)?;
    }
    d.built(logits(b, &l, h, embedding, &Head::new(c.tied(false)?))?)
}

/// The dimensions of the linear layers.
fn delta_net_of(c: &Config<'_>) -> Result<DeltaNet, Error> {
    let dim = |gguf, hf, default: usize| match c.usize(key(gguf, hf))? {
        Some(0) => Err(c.error(key(gguf, hf), "is zero")),
        None if c.is_gguf() => Err(c.error(key(gguf, hf), "is missing")),
        v => Ok(v.unwrap_or(default)),
    };
    let k_heads = dim("ssm.group_count", "linear_num_key_heads", 16)?;
    let v_heads = dim(V_HEADS.gguf, V_HEADS.hf, 32)?;
    if !v_heads.is_multiple_of(k_heads) {
        return Err(c.error(V_HEADS, format!("{v_heads} is no multiple of the {k_heads} key heads")));
    }
    let v_dim = match c.is_gguf() {
        true => dim("ssm.inner_size", "", 0)? / v_heads,
        false => dim("", "linear_value_head_dim", 128)?,
    };
    let taps = key("ssm.conv_kernel", "linear_conv_kernel_dim");
    let next = matches!(c.architecture(), "qwen3_next" | "qwen3next");
    let net = DeltaNet {
        k_heads,
        v_heads,
        k_dim: dim("ssm.state_size", "linear_key_head_dim", 128)?,
        v_dim,
        taps: dim(taps.gguf, taps.hf, 4)?,
        projections: if next { DeltaProjections::ByKeyHead } else { DeltaProjections::Apart },
    };
    refuse_unless(c, taps, (2..=16).contains(&net.taps), "a convolution over so many tokens")?;
    let size = [net.k_heads, net.v_heads, net.k_dim, net.v_dim].into_iter().max().unwrap_or(0);
    refuse_unless(c, V_HEADS, size <= 4096 && net.v_dim > 0, "heads so many or so long")?;
    Ok(net)
}
