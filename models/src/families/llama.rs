//! Llama 1 to 3.3 and all that shares its architecture (SmolLM, SmolLM2, TinyLlama, R1 distillations): pre-norm,
//! rotary grouped-query attention, SwiGLU. Touvron et al. 2023; Grattafiori et al. 2024.

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
    let d = Dims::read(c, None, 2048)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let experts = key("expert_count", "num_local_experts");
    refuse_unless(c, experts, c.usize(experts)?.unwrap_or(0) == 0, "a mixture of experts")?;
    let l = Loader::new(checkpoint, d.eps)?;
    let rope = RopeDefaults {
        layout: RopeLayout::Half,
        // Conversion to GGUF permutes the rows of q and k.
        gguf_layout: RopeLayout::Interleaved,
        theta: 1e4,
        head_dim: d.head_dim,
        context: d.context,
        layer_type: "full_attention",
    };
    let attention = Attention {
        n_heads: d.n_heads,
        n_kv_heads: d.n_kv_heads,
        head_dim: d.head_dim,
        scale: (d.head_dim as f32).powf(-0.5),
        window: None,
        rope: Some(blocks::rope::rope(c, &rope, l.gguf_tensor("rope_freqs.weight")?)?),
        qk_norm: false,
    };

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, 1.0)?;
    for i in 0..d.n_layers {
        h = blocks::pre_norm_layer(&mut b, &l, i, h, &attention, d.inner, i + 1 == d.n_layers)?;
    }
    let tied = c.bool(key("", "tie_word_embeddings"))?.unwrap_or(false);
    let graph = blocks::head(b, &l, h, embedding, tied)?;
    Ok(Built { graph, n_layers: d.n_layers, width: d.width, context: d.context })
}
