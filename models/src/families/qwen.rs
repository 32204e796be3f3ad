//! Qwen 2, 2.5 and 3, dense: the llama block with biases on q, k, v (2, 2.5) or per-head norms of q and k (3).
//! Yang et al. 2024, 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{GraphBuilder, RopeLayout},
};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{self, Attention, Loader, rope::RopeDefaults},
    config::{Config, key},
};

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let three = c.architecture() == "qwen3";
    let d = Dims::read(c, three.then_some(128), 32768)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let l = Loader::new(checkpoint, d.eps)?;
    let rope = RopeDefaults {
        layout: RopeLayout::Half,
        gguf_layout: RopeLayout::Half,
        theta: 1e4,
        head_dim: d.head_dim,
        context: d.context,
        layer_type: "full_attention",
    };
    let full = Attention {
        n_heads: d.n_heads,
        n_kv_heads: d.n_kv_heads,
        head_dim: d.head_dim,
        scale: (d.head_dim as f32).powf(-0.5),
        window: None,
        rope: Some(blocks::rope::rope(c, &rope, None)?),
        qk_norm: three,
    };
    // A window counts only where it is switched on, and then for the layers from `max_window_layers` on.
    let switched_on = c.bool(key("", "use_sliding_window"))?.unwrap_or(false);
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?;
    let window = window.filter(|w| *w > 0 && (switched_on || c.is_gguf()));
    let first_sliding = c.usize(key("", "max_window_layers"))?.unwrap_or(28);
    let sliding = c.sliding_layers(d.n_layers, |i| window.is_some() && i >= first_sliding)?;

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, 1.0)?;
    for (i, sliding) in sliding.iter().enumerate() {
        let attention = Attention { window: window.filter(|_| *sliding), ..full.clone() };
        h = blocks::pre_norm_layer(&mut b, &l, i, h, &attention, d.inner, i + 1 == d.n_layers)?;
    }
    let tied = c.bool(key("", "tie_word_embeddings"))?.unwrap_or(false);
    let graph = blocks::head(b, &l, h, embedding, tied)?;
    Ok(Built { graph, n_layers: d.n_layers, width: d.width, context: d.context })
}
