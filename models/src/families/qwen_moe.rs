//! Qwen 1.5, 2 and 3 with mixtures of experts: the dense models' layers with experts in all of them or some, beside one
//! that all tokens share (1.5, 2). Yang et al. 2024, 2025.

use handmill_runtime::{format::Checkpoint, graph::RouteOp};

use super::{ACT, Built, Dims, choice, qwen, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Loader, Moe, Shared, moe::PROJECTIONS},
    config::{Config, Key, key},
};

pub(super) const INNER: Key = key("expert_feed_forward_length", "moe_intermediate_size");
pub(super) const SHARED: Key = key("expert_shared_feed_forward_length", "shared_expert_intermediate_size");
const STEP: Key = key("", "decoder_sparse_step");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let three = matches!(c.architecture(), "qwen3_moe" | "qwen3moe");
    let d = Dims::read(c, three.then_some(128), 32768)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    let (full, window) = qwen::attention(c, &d, &l, three)?;
    // In Qwen 3 all layers have the window; in older models every other one below `max_window_layers`.
    let below = c.usize(key("", "max_window_layers"))?.unwrap_or(28);
    let sliding = c.sliding_layers(d.n_layers, |i| window.is_some() && (three || i % 2 == 0 && i < below))?;

    let [n, k] = choice(c, if three { (128, 8) } else { (60, 4) })?;
    let inner = c.usize(INNER)?.unwrap_or(if three { 768 } else { 1408 });
    refuse_unless(c, INNER, inner > 0, "an expert of width 0")?;
    // GGUF files lack the key: Qwen 3's weights are divided by their sum.
    let renormalise = c.bool(key("expert_weights_norm", "norm_topk_prob"))?.unwrap_or(three && c.is_gguf());
    let route = RouteOp { renormalise: renormalise.then_some(0.0), ..RouteOp::softmax(n, k) };
    let shared = match three {
        true => None,
        false => {
            let inner = c.usize(SHARED)?.unwrap_or(5632);
            refuse_unless(c, SHARED, inner > 0, "a shared expert of width 0")?;
            Some(Shared { inner, hf: "mlp.shared_expert", names: PROJECTIONS, gate: Some("mlp.shared_expert_gate") })
        }
    };
    let experts = Experts::Each("mlp.experts", ["gate_proj", "up_proj", "down_proj"]);
    let moe = Moe { shared, ..Moe::new(route, "mlp.gate", experts, inner) };
    let sparse = sparse_layers(c, &l, d.n_layers)?;
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    let attention = |i: usize| Attention { window: window.filter(|_| sliding[i]), ..full.clone() };
    d.built(decoder.build_with_experts(&l, attention, |i| sparse[i].then_some(&moe))?)
}

/// For each layer, whether it has experts: every `decoder_sparse_step`th without those of `mlp_only_layers`. GGUF files
/// have no keys for it: layers without experts have no router there.
pub(super) fn sparse_layers(c: &Config<'_>, l: &Loader<'_>, n_layers: usize) -> Result<Vec<bool>, Error> {
    const DENSE: Key = key("", "mlp_only_layers");
    if c.is_gguf() {
        return (0..n_layers).map(|i| l.has(i, "ffn_gate_inp.weight", "")).collect();
    }
    let step = c.usize(STEP)?.unwrap_or(1);
    refuse_unless(c, STEP, step > 0, "a step of 0")?;
    let dense = c.indices(DENSE)?.unwrap_or_default();
    Ok((0..n_layers).map(|i| (i + 1).is_multiple_of(step) && !dense.contains(&i)).collect())
}
