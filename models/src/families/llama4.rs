//! Llama 4, text: attention within chunks and, on every fourth layer, over everything without positions; experts in all
//! layers or every other one, whose inputs are scaled by the route, beside one that all tokens share. Meta 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{PositionScale, RopeLayout, RouteOp, RouteScore, RouteWeight},
};

use super::{ACT, Built, Dims, choice, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Loader, Moe, QkNorm, Shared, moe::PROJECTIONS, rope},
    config::{Config, Key, key},
};

const CHUNK: Key = key("attention.sliding_window", "attention_chunk_size");
const FLOOR: Key = key("attention.temperature_length", "floor_scale");
const STEP: Key = key("interleave_moe_layer_step", "interleave_moe_layer_step");
const INNER: Key = key("expert_feed_forward_length", "intermediate_size");
const DENSE_INNER: Key = key("feed_forward_length", "intermediate_size_mlp");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, Some(128), 131072)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    let [n, k] = choice(c, (16, 1))?;
    // GGUF files call the chunk a window. A file with a window of 0 rotates all layers and has no chunks.
    let chunk = c.usize(CHUNK)?.unwrap_or(8192);
    let plain = c.is_gguf() && chunk == 0;
    refuse_unless(c, CHUNK, chunk > 0 || plain, "a chunk of no tokens")?;
    let (rotated, chunked) = match (plain, c.is_gguf()) {
        (true, _) => (vec![true; d.n_layers], vec![false; d.n_layers]),
        // GGUF files have one pattern for both.
        (false, true) => {
            let rotated = c.local_layers(d.n_layers, "", |i| !(i + 1).is_multiple_of(4))?;
            (rotated.clone(), rotated)
        }
        (false, false) => {
            let rotated = c.rotated_layers(d.n_layers, 4)?;
            let chunked = c.local_layers(d.n_layers, "chunked_attention", |i| rotated[i])?;
            (rotated, chunked)
        }
    };
    // GGUF files leave it out: all but the model with 128 experts have it.
    let qk_norm = c.bool(key("", "use_qk_norm"))?.unwrap_or(!(c.is_gguf() && n == 128));
    let spec = rope::rope(c, &d.rope(5e5, [RopeLayout::Interleaved; 2]), &l)?;
    let temperature = temperature(c)?.filter(|_| !plain);
    let attention = |i: usize| Attention {
        chunk: chunked[i].then_some(chunk),
        rope: rotated[i].then(|| spec.clone()),
        qk_norm: if qk_norm && rotated[i] { QkNorm::AfterRotation(d.eps) } else { QkNorm::None },
        q_scale: temperature.filter(|_| !rotated[i]),
        ..d.attention()
    };

    let inner = c.usize(INNER)?.unwrap_or(8192);
    refuse_unless(c, INNER, inner > 0, "an expert of width 0")?;
    let dense = c.usize(DENSE_INNER)?.unwrap_or(16384);
    let route = RouteOp { score: RouteScore::Raw, weight: RouteWeight::Sigmoid, ..RouteOp::softmax(n, k) };
    let experts = Experts::InputMajor(["feed_forward.experts.gate_up_proj", "feed_forward.experts.down_proj"]);
    let moe = Moe {
        scale_inputs: true,
        shared: Some(Shared { inner, hf: "feed_forward.shared_expert", names: PROJECTIONS, gate: None }),
        ..Moe::new(route, "feed_forward.router", experts, inner)
    };
    let step = c.usize(STEP)?.unwrap_or(1);
    refuse_unless(c, STEP, step > 0, "a step of 0")?;
    let listed = c.indices(key("", "moe_layers"))?;
    let sparse = |i: usize| match &listed {
        Some(layers) => layers.contains(&i),
        None => (i + 1).is_multiple_of(step),
    };
    let decoder = Decoder { mlp: "feed_forward", ..Decoder::new(d.n_layers, d.width, dense, c.tied(false)?) };
    d.built(decoder.build_with_experts(&l, attention, |i| sparse(i).then_some(&moe))?)
}

/// The factor by position on the queries of layers without rotation.
fn temperature(c: &Config<'_>) -> Result<Option<PositionScale>, Error> {
    // The first files have a number here.
    const TUNING: Key = key("", "attn_temperature_tuning");
    let on = match c.usize(TUNING) {
        Ok(Some(number)) => number != 0,
        _ => c.bool(TUNING)?.unwrap_or(true),
    };
    if !on {
        return Ok(None);
    }
    let length = match c.is_gguf() {
        true => c.usize(FLOOR)?.map(|n| n as f32),
        false => c.f32(FLOOR)?,
    };
    let length = length.unwrap_or(8192.0);
    refuse_unless(c, FLOOR, length >= 1.0 && length.fract() == 0.0, "a length that is no whole number")?;
    let beta = c.f32(key("attention.temperature_scale", "attn_scale"))?.unwrap_or(0.1);
    Ok(Some(PositionScale { beta, length: length as usize, offset: 1 }))
}
