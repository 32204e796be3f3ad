//! Mixtral: the llama block with eight experts of which every token takes two. Jiang et al. 2024.
//!
//! GGUF files are of the architecture `llama`, with experts.

use handmill_runtime::{
    format::Checkpoint,
    graph::{RopeLayout, RouteOp},
};

use super::{ACT, Built, Dims, choice, refuse_unless, windows};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Loader, Moe, rope},
    config::{Config, key},
};

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let mut d = Dims::read(c, None, 131072)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    // Conversion to GGUF permutes the rows of q and k.
    let rope = d.rope(1e6, [RopeLayout::Half, RopeLayout::Interleaved]);
    let windows = windows(c, key("attention.sliding_window", "sliding_window"), d.n_layers)?;
    let attention = Attention { rope: Some(rope::rope(c, &rope, &l)?), ..d.attention() };
    let [n, k] = choice(c, (8, 2))?;
    let route = RouteOp { renormalise: Some(0.0), ..RouteOp::softmax(n, k) };
    let experts = Experts::Each("block_sparse_moe.experts", ["w1", "w3", "w2"]);
    let moe = Moe::new(route, "block_sparse_moe.gate", experts, d.inner);
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    let attention = |i: usize| Attention { window: windows[i], ..attention.clone() };
    d.built(decoder.build_with_experts(&l, attention, |_| Some(&moe))?)
}
