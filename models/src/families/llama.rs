//! Llama 1 to 3.3 and all that shares its architecture (SmolLM, SmolLM2, TinyLlama, R1 distillations, GGUF files of
//! Mistral, of which some state a window): pre-norm, rotary grouped-query attention, SwiGLU. Touvron et al. 2023;
//! Grattafiori et al. 2024.

use handmill_runtime::{format::Checkpoint, graph::RopeLayout};

use super::{ACT, Built, Dims, mixtral, refuse_unless, windows};
use crate::{
    Error,
    blocks::{Attention, Decoder, Loader, rope},
    config::{Config, key},
};

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    if c.is_gguf() && c.usize(key("expert_count", ""))?.unwrap_or(0) > 0 {
        return mixtral::build(c, checkpoint);
    }
    let d = Dims::read(c, None, 2048)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let experts = key("expert_count", "num_local_experts");
    refuse_unless(c, experts, c.usize(experts)?.unwrap_or(0) == 0, "a mixture of experts")?;
    let l = Loader::new(checkpoint, d.eps);
    // Conversion to GGUF permutes the rows of q and k.
    let rope = d.rope(1e4, [RopeLayout::Half, RopeLayout::Interleaved]);
    let attention = Attention { rope: Some(rope::rope(c, &rope, &l)?), ..d.attention() };
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    let windows = windows(c, key("attention.sliding_window", ""), d.n_layers)?;
    d.built(decoder.build(&l, |i| Attention { window: windows[i], ..attention.clone() })?)
}
