//! gpt-oss: every other layer with a window, attention with a sink for each head, yarn, experts with biases and a clamped
//! activation of their own, stored in MXFP4 or bfloat16. OpenAI 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, RopeLayout, RouteOp, RouteScore, RouteWeight},
};

use super::{ACT, Built, Dims, choice, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Loader, Moe, rope},
    config::{Config, Key, key},
};

const LIMIT: Key = key("swiglu_clamp_exp", "swiglu_limit");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, Some(64), 131072)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    rope::require_parameters(c)?;
    let l = Loader::new(checkpoint, d.eps);
    let full = Attention {
        rope: Some(rope::rope(c, &d.rope(1.5e5, [RopeLayout::Half; 2]), &l)?),
        sinks: true,
        ..d.attention()
    };
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.unwrap_or(128);
    refuse_unless(c, key("attention.sliding_window", "sliding_window"), window > 0, "a window of no tokens")?;
    let sliding = c.sliding_layers(d.n_layers, |i| i % 2 == 0)?;

    let [n, k] = choice(c, (128, 4))?;
    let route = RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..RouteOp::softmax(n, k) };
    // GGUF files have a list of them or, mostly, leave it out.
    let limits = c.layer_f32s(LIMIT, d.n_layers)?.unwrap_or_else(|| vec![7.0; d.n_layers]);
    refuse_unless(c, LIMIT, limits.iter().all(|l| *l > 0.0), "a limit that is not above 0")?;
    let alpha = c.f32(key("", "swiglu_alpha"))?.unwrap_or(1.702);
    let inner = match c.usize(key("expert_feed_forward_length", ""))? {
        Some(inner) => inner,
        None => d.inner,
    };
    let experts = Experts::Interleaved("mlp.experts");
    let moe = Moe::new(route, "mlp.router", experts, inner);
    let moes = limits.into_iter().map(|limit| Moe { act: Act::SwigluOss { alpha, limit }, ..moe.clone() });
    let moes: Vec<Moe<'_>> = moes.collect();
    let decoder = Decoder::new(d.n_layers, d.width, inner, c.tied(false)?);
    let attention = |i: usize| Attention { window: sliding[i].then_some(window), ..full.clone() };
    d.built(decoder.build_with_experts(&l, attention, |i| moes.get(i))?)
}
