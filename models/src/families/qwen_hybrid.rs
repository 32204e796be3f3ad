//! Qwen3-Next and Qwen 3.5: Gated DeltaNet in most layers, and in every fourth full attention with per-head norms of q
//! and k, a rotation of a quarter of each head, and a gate on the output. Dense, or with experts beside one that all
//! tokens share. Qwen Team 2025, 2026.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, GraphBuilder, RopeLayout, RouteOp},
};

use super::{
    ACT, Built, Dims, choice,
    qwen_moe::{INNER, SHARED, sparse_layers},
    refuse_unless,
};
use crate::{
    Error,
    blocks::{
        Attention, DeltaNet, DeltaProjections, Experts, Head, Loader, Moe, Norms, QkNorm, Shared, attention,
        decoder::{layer, logits},
        delta_net, gated_mlp, moe,
        moe::PROJECTIONS,
        rope,
    },
    config::{Config, Key, key},
};

const LAYER_TYPES: Key = key("attention.recurrent_layers", "layer_types");
const INTERVAL: Key = key("full_attention_interval", "full_attention_interval");
const V_HEADS: Key = key("ssm.time_step_rank", "linear_num_value_heads");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = Dims::read(c, Some(256), 32768)?.without_predictors(c)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps).with_norm_offset(1.0);
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
    let experts = match c.architecture() {
        "qwen3_5" | "qwen3_5_text" | "qwen35" => None,
        _ => Some((moe_of(c, &l)?, sparse_layers(c, &l, d.n_layers)?)),
    };

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, 1.0)?;
    for (i, is_linear) in is_linear.into_iter().enumerate() {
        let last = i + 1 == d.n_layers;
        let attend = |b: &mut GraphBuilder, x| match is_linear {
            true => b.scoped("delta_net", |b| delta_net(b, &l, i, x, &linear, last)),
            false => attention(b, &l, i, x, &full, last),
        };
        let feed = |b: &mut GraphBuilder, x| match &experts {
            Some((experts, sparse)) if sparse[i] => moe(b, &l, i, x, experts),
            _ => gated_mlp(b, &l, i, x, d.inner, Act::Silu),
        };
        h = layer(&mut b, &l, i, h, (Norms::Pre, 1.0, last), attend, feed)?;
    }
    d.built(logits(b, &l, h, embedding, &Head::new(c.tied(false)?))?)
}

/// The experts.
fn moe_of(c: &Config<'_>, l: &Loader<'_>) -> Result<Moe<'static>, Error> {
    let next = is_next(c);
    let [n, k] = choice(c, if next { (512, 10) } else { (256, 8) })?;
    let width = |key| {
        let width = c.usize(key)?.unwrap_or(512);
        refuse_unless(c, key, width > 0, "an expert of width 0").map(|()| width)
    };
    // Qwen 3.5 always divides weights by their sum, and so do all files without the key.
    let renormalise = !next || c.bool(key("", "norm_topk_prob"))?.unwrap_or(true);
    let route = RouteOp { renormalise: renormalise.then_some(0.0), ..RouteOp::softmax(n, k) };
    // Qwen 3.5 is published with its experts fused, but some tools write them one by one.
    let experts = match next || !l.is_gguf() && l.has(0, "", "mlp.experts.0.gate_proj.weight")? {
        true => Experts::Each("mlp.experts", ["gate_proj", "up_proj", "down_proj"]),
        false => Experts::Fused(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
    };
    let shared = Shared {
        inner: width(SHARED)?,
        hf: "mlp.shared_expert",
        names: PROJECTIONS,
        gate: Some("mlp.shared_expert_gate"),
    };
    Ok(Moe { shared: Some(shared), ..Moe::new(route, "mlp.gate", experts, width(INNER)?) })
}

/// Whether this is Qwen3-Next, not Qwen 3.5.
fn is_next(c: &Config<'_>) -> bool {
    matches!(c.architecture(), "qwen3_next" | "qwen3next")
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
    let net = DeltaNet {
        k_heads,
        v_heads,
        k_dim: dim("ssm.state_size", "linear_key_head_dim", 128)?,
        v_dim,
        taps: dim(taps.gguf, taps.hf, 4)?,
        projections: if is_next(c) { DeltaProjections::ByKeyHead } else { DeltaProjections::Apart },
    };
    refuse_unless(c, taps, (2..=16).contains(&net.taps), "a convolution over so many tokens")?;
    let size = [net.k_heads, net.v_heads, net.k_dim, net.v_dim].into_iter().max().unwrap_or(0);
    refuse_unless(c, V_HEADS, size <= 4096 && net.v_dim > 0, "heads so many or so long")?;
    Ok(net)
}
