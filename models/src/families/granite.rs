//! Granite 3, dense and with experts: the llama block with four multipliers, on embeddings, attention's scores, what is added to the
//! residual stream, and (dividing) logits. IBM 2024.

use handmill_runtime::{
    format::Checkpoint,
    graph::{RopeLayout, RouteOp, RouteScore, RouteWeight},
};

use super::{ACT, Built, Dims, choice, refuse_unless};
use crate::{
    Error,
    blocks::{Attention, Decoder, Experts, Head, Loader, Moe, rope},
    config::{Config, Key, key},
};

const LOGITS: Key = key("logit_scale", "logits_scaling");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = Dims::read(c, None, 2048)?;
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let sparse = c.architecture() == "granitemoe";
    let experts = key("expert_count", "num_local_experts");
    refuse_unless(c, experts, sparse || c.usize(experts)?.unwrap_or(0) == 0, "a mixture of experts")?;
    let l = Loader::new(checkpoint, d.eps);
    // Conversion to GGUF permutes the rows of q and k.
    let rope = d.rope(1e4, [RopeLayout::Half, RopeLayout::Interleaved]);
    let multiplier = |gguf, hf| Ok::<f32, Error>(c.f32(key(gguf, hf))?.unwrap_or(1.0));
    let attention = Attention {
        // Without the key the scores are not scaled at all.
        scale: multiplier("attention.scale", "attention_multiplier")?,
        rope: Some(rope::rope(c, &rope, &l)?),
        ..d.attention()
    };
    let divisor = c.f32(LOGITS)?.unwrap_or(1.0);
    refuse_unless(c, LOGITS, divisor > 0.0 && divisor.is_finite(), "a division by it")?;
    let tied = c.tied(false)?;
    let decoder = Decoder {
        embedding_scale: multiplier("embedding_scale", "embedding_multiplier")?,
        residual_scale: multiplier("residual_scale", "residual_multiplier")?,
        head: Head { scale: 1.0 / divisor, ..Head::new(tied) },
        ..Decoder::new(d.n_layers, d.width, d.inner, tied)
    };
    let [n, k] = if sparse { choice(c, (8, 2))? } else { [1, 1] };
    let route = RouteOp { score: RouteScore::Raw, weight: RouteWeight::Softmax, ..RouteOp::softmax(n, k) };
    let names = ["block_sparse_moe.input_linear.weight", "block_sparse_moe.output_linear.weight"];
    let inner = c.usize(key("expert_feed_forward_length", ""))?.unwrap_or(d.inner);
    let moe = Moe::new(route, "block_sparse_moe.router.layer", Experts::Fused(names), inner);
    d.built(decoder.build_with_experts(&l, |_| attention.clone(), |_| sparse.then_some(&moe))?)
}
