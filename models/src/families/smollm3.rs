//! SmolLM 3: the llama block, every fourth layer without positions. Hugging Face 2025.

use handmill_runtime::{format::Checkpoint, graph::RopeLayout};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Loader, rope},
    config::{Config, key},
};

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = Dims::read(c, None, 32768)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    // Conversion to GGUF permutes the rows of q and k.
    let rope = d.rope(2e6, [RopeLayout::Half, RopeLayout::Interleaved]);
    let rotated = c.rotated_layers(d.n_layers, 4)?;
    // A window counts only where it is switched on, and then on the layers without positions.
    let switched_on = c.bool(key("", "use_sliding_window"))?.unwrap_or(false);
    let window = c.usize(key("", "sliding_window"))?.filter(|w| *w > 0 && switched_on);
    let sliding = c.sliding_layers(d.n_layers, |i| window.is_some() && !rotated[i])?;
    let full = Attention { rope: Some(rope::rope(c, &rope, &l)?), ..d.attention() };
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(true)?);
    d.built(decoder.build(&l, |i| Attention {
        window: window.filter(|_| sliding[i]),
        rope: full.rope.clone().filter(|_| rotated[i]),
        ..full.clone()
    })?)
}
