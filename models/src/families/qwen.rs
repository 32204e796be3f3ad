//! Qwen 2, 2.5 and 3, dense: the llama block with biases on q, k, v (2, 2.5) or per-head norms of q and k (3).
//! Yang et al. 2024, 2025.

use handmill_runtime::{format::Checkpoint, graph::RopeLayout};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Loader, QkNorm, rope},
    config::{Config, key},
};

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let three = c.architecture() == "qwen3";
    let d = Dims::read(c, three.then_some(128), 32768)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    let (full, window) = attention(c, &d, &l, three)?;
    // Layers from `max_window_layers` on have the window.
    let first_sliding = c.usize(key("", "max_window_layers"))?.unwrap_or(28);
    let sliding = c.sliding_layers(d.n_layers, |i| window.is_some() && i >= first_sliding)?;
    let decoder = Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?);
    d.built(decoder.build(&l, |i| Attention { window: window.filter(|_| sliding[i]), ..full.clone() })?)
}

/// Attention of the layers without a window, and the window, which counts only where it is switched on.
pub(super) fn attention(
    c: &Config<'_>,
    d: &Dims,
    l: &Loader<'_>,
    three: bool,
) -> Result<(Attention, Option<usize>), Error> {
    let full = Attention {
        rope: Some(rope::rope(c, &d.rope(1e4, [RopeLayout::Half; 2]), l)?),
        qk_norm: if three { QkNorm::Heads } else { QkNorm::None },
        ..d.attention()
    };
    let switched_on = c.bool(key("", "use_sliding_window"))?.unwrap_or(false);
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?;
    Ok((full, window.filter(|w| *w > 0 && (switched_on || c.is_gguf()))))
}
