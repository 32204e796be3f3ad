//! Phi-3.5-MoE: layer norms, longrope, two of sixteen experts that are chosen one after the other. Abdin et al. 2024.

use handmill_runtime::{
    format::Checkpoint,
    graph::{RopeFreqs, RopeLayout, RopeSpec, RouteOp, RouteScore},
};

use super::{ACT, Built, Dims, choice, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Loader, Moe, rope},
    config::{Config, Key, key},
};

const JITTER: Key = key("", "router_jitter_noise");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, None, 131072)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps).with_layer_norms();
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.filter(|w| *w > 0);
    let spec = rope::rope(c, &d.rope(1e6, [RopeLayout::Half; 2]), &l)?;
    let attention = Attention { window, rope: Some(magnitudes(c, spec)?), ..d.attention() };
    let [n, k] = choice(c, (16, 2))?;
    let jitter = c.f32(JITTER)?.unwrap_or(0.01);
    refuse_unless(c, JITTER, jitter >= 0.0 && jitter.is_finite(), "a distance of that size")?;
    let route = RouteOp { score: RouteScore::SparseMixer { jitter }, ..RouteOp::softmax(n, k) };
    let experts = Experts::Each("block_sparse_moe.experts", ["w1", "w3", "w2"]);
    let moe = Moe::new(route, "block_sparse_moe.gate", experts, d.inner);
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    d.built(decoder.build_with_experts(&l, |_| attention.clone(), |_| Some(&moe))?)
}

/// The rotation with the file's own magnitudes for short and long sequences; GGUF files may have them in keys of their
/// own beside the common one. Angles are always those of short sequences, as in the reference, whose frequencies do not
/// depend on the length.
fn magnitudes(c: &Config<'_>, mut spec: RopeSpec) -> Result<RopeSpec, Error> {
    const SCALING: Key = key("", "rope_scaling");
    const SHORT: Key = key("rope.scaling.attn_factor_short", "");
    const LONG: Key = key("rope.scaling.attn_factor_long", "");
    let RopeFreqs::ByLength { short, long, long_attention_factor, .. } = &mut spec.freqs else { return Ok(spec) };
    long.clone_from(short);
    let dict = match c.object("rope_parameters")? {
        None => c.object("rope_scaling")?,
        dict => dict,
    };
    let get = |gguf: Key, k: &str| match dict.and_then(|d| d.get(k)).filter(|v| !v.is_null()) {
        None => c.f32(gguf),
        Some(v) => match v.as_f64() {
            Some(v) => Ok(Some(v as f32)),
            None => Err(c.error(SCALING, format!("`{k}` should be a number and is {v}"))),
        },
    };
    if let Some(factor) = get(LONG, "long_mscale")? {
        *long_attention_factor = factor;
    }
    if let Some(factor) = get(SHORT, "short_mscale")? {
        spec.attention_factor = factor;
    }
    Ok(spec)
}
