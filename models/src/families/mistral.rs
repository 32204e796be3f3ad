//! Mistral (7B, Nemo, Small), Ministral and Ministral 3: the llama block with a sliding window on all layers or some, and
//! from Ministral 3 on yarn and queries that are scaled by position. Jiang et al. 2023; Mistral AI 2024, 2025.
//!
//! GGUF files of Mistral are of the architecture `llama`, which has no window; those of Ministral 3 are `mistral3`.

use handmill_runtime::{format::Checkpoint, graph::RopeLayout};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Loader, rope},
    config::{Config, Key, key},
};

const WINDOW: Key = key("attention.sliding_window", "sliding_window");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let third = matches!(c.architecture(), "ministral3" | "mistral3");
    let mut d = Dims::read(c, third.then_some(128), if third { 262144 } else { 131072 })?;
    d.eps = d.eps_or(c, if third { 1e-5 } else { 1e-6 })?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let experts = key("expert_count", "num_local_experts");
    refuse_unless(c, experts, c.usize(experts)?.unwrap_or(0) == 0, "a mixture of experts")?;
    if third {
        rope::require_parameters(c)?;
    }
    let l = Loader::new(checkpoint, d.eps);
    // Conversion to GGUF permutes the rows of q and k.
    let theta = if third { 1e6 } else { 1e4 };
    let rope = d.rope(theta, [RopeLayout::Half, RopeLayout::Interleaved]);
    // No key at all means the class's default; null means no window.
    let window = match c.usize(WINDOW)? {
        None if !third && !c.has(WINDOW) => Some(4096),
        window => window,
    };
    refuse_unless(c, WINDOW, window != Some(0), "a window of no tokens")?;
    let sliding = match c.architecture() {
        "ministral" => c.sliding_layers(d.n_layers, |_| true)?,
        _ => {
            let types = key("", "layer_types");
            let ok = !c.sliding_layers(d.n_layers, |_| window.is_some())?.contains(&window.is_none());
            refuse_unless(c, types, ok, "layers of several kinds of attention")?;
            vec![true; d.n_layers]
        }
    };
    let q_scale = rope::query_scale(c)?;
    let beta = key("attention.temperature_scale", "llama_4_scaling_beta");
    refuse_unless(c, beta, third || q_scale.is_none(), "a scale of the queries by position")?;
    let full = Attention { rope: Some(rope::rope(c, &rope, &l)?), q_scale, ..d.attention() };
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    d.built(decoder.build(&l, |i| Attention { window: window.filter(|_| sliding[i]), ..full.clone() })?)
}
