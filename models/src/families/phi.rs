//! Phi 1, 1.5 and 2: attention and feed-forward side by side behind one layer norm, biases everywhere, a plain GELU
//! feed-forward, rotation of part of each head; in some files layer norms of queries and keys. Phi 3, 3.5-mini, 4 and 4-mini: the llama block with fused q/k/v and
//! gate/up, a window, longrope. Gunasekar et al. 2023; Abdin et al. 2024.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, RopeLayout},
};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Head, Loader, Norms, QkNorm, rope},
    config::{Config, key},
};

/// Phi 1, 1.5, 2.
pub(super) fn build_2(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, None, 2048)?;
    d.eps = c.epsilon(key("attention.layer_norm_epsilon", "layer_norm_eps"))?.unwrap_or(1e-5);
    let act = c.str(ACT)?;
    refuse_unless(c, ACT, act.is_none_or(|a| a == "gelu_new"), "an activation other than gelu_new")?;
    let qk_norm = match c.bool(key("", "qk_layernorm"))? {
        Some(true) => QkNorm::LayerHeads,
        None | Some(false) => QkNorm::None,
    };
    let l = Loader::new(checkpoint, d.eps).with_layer_norms();
    let rope = d.rope(1e4, [RopeLayout::Half; 2]).with_partial(0.5);
    let attention = Attention { rope: Some(rope::rope(c, &rope, &l)?), qk_norm, output: "dense", ..d.attention() };
    let decoder = Decoder {
        norms: Norms::Parallel,
        act: Act::GeluTanh,
        gated: false,
        head: Head { norm: "final_layernorm", ..Head::new(c.tied(false)?) },
        ..Decoder::new(d.n_layers, d.width, d.inner, false)
    };
    d.built(decoder.build(&l, |_| attention.clone())?)
}

/// Phi 3 and 4.
pub(super) fn build_3(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, None, 4096)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    let rope = d.rope(1e4, [RopeLayout::Half; 2]);
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.filter(|w| *w > 0);
    let attention = Attention { window, rope: Some(rope::rope(c, &rope, &l)?), ..d.attention() };
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    d.built(decoder.build(&l, |_| attention.clone())?)
}
