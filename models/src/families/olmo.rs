//! OLMo 2 and 3: norms only behind attention and feed-forward, q and k normalised as whole rows; in 3 three sliding
//! layers to each full one, with yarn on the full ones. OLMo Team 2024, 2025.

use handmill_runtime::{format::Checkpoint, graph::RopeLayout};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Loader, Norms, QkNorm, rope},
    config::{Config, Key, key},
};

const WINDOW: Key = key("attention.sliding_window", "sliding_window");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let three = c.architecture() == "olmo3";
    let mut d = Dims::read(c, None, 2048)?;
    d.eps = d.eps_or(c, 1e-5)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps);
    // GGUF files of both are `olmo2`; those of 3 have a window. One base serves layers of both kinds.
    let base = c.f32(key("rope.freq_base", "rope_theta"))?.map_or(if three { 5e5 } else { 1e4 }, f64::from);
    let rope = d.rope(base, [RopeLayout::Half; 2]);
    let local_rope = rope::RopeDefaults { layer_type: "sliding_attention", ..rope };
    let window = match c.usize(WINDOW)? {
        None if three => Some(4096),
        window => window.filter(|_| three || c.is_gguf()),
    };
    refuse_unless(c, WINDOW, window != Some(0), "a window of no tokens")?;
    let sliding = c.sliding_layers(d.n_layers, |i| window.is_some() && !(i + 1).is_multiple_of(4))?;
    let full = Attention { qk_norm: QkNorm::Rows, rope: Some(rope::rope(c, &rope, &l)?), ..d.attention() };
    let local = Attention { window, rope: Some(rope::rope(c, &local_rope, &l)?), ..full.clone() };
    let decoder = Decoder { norms: Norms::Post, ..Decoder::new(d.n_layers, d.width, d.inner, c.tied(false)?) };
    d.built(decoder.build(&l, |i| if window.is_some() && sliding[i] { local.clone() } else { full.clone() })?)
}
