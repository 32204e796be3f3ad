//! Gemma 1, 2 and 3, text: scaled embeddings, tanh-GELU, a tied head. Gemma 2 has a norm before and after each block,
//! bounds scores and logits, and alternates sliding and full layers; Gemma 3 has norms of q and k instead of bounds, and
//! five sliding layers, with a rotation of their own, to each full one. Gemma Team 2024, 2024, 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, RopeLayout},
    quant::DType,
};

use super::{Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{
        Attention, Decoder, Head, Loader, Norms, QkNorm,
        rope::{self, RopeDefaults},
    },
    config::{Config, Key, key},
};

/// Gemma's name of the activation.
pub(super) const GELU: Key = key("", "hidden_activation");
const LEGACY_ACT: Key = key("", "hidden_act");
const WINDOW: Key = key("attention.sliding_window", "sliding_window");
const SCORE_CAP: Key = key("attn_logit_softcapping", "attn_logit_softcapping");
const FINAL_CAP: Key = key("final_logit_softcapping", "final_logit_softcapping");
const SCALAR: Key = key("", "query_pre_attn_scalar");

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let (one, two) = (c.architecture() == "gemma", c.architecture() == "gemma2");
    let d = Dims::read(c, Some(256), if one || two { 8192 } else { 131072 })?;
    // In Gemma 1's first configurations "gelu" means its tanh form, too.
    let act = if one { c.str(GELU)?.or(c.str(LEGACY_ACT)?) } else { c.str(GELU)? };
    let known = act.is_none_or(|a| a == "gelu_pytorch_tanh" || (one && a == "gelu"));
    refuse_unless(c, GELU, known, "an activation other than tanh GELU")?;
    refuse_other_gemma(c)?;
    let l = Loader::new(checkpoint, d.eps).with_norm_offset(1.0);

    let theta = if one || two { 1e4 } else { 1e6 };
    let rope = d.rope(theta, [RopeLayout::Half; 2]);
    // For Gemma 2's caps, only null means none.
    let score_cap = cap(c, SCORE_CAP, two.then_some(50.0))?;
    let full = Attention {
        scale: if one { d.attention().scale } else { query_scale(c, &d, two)? },
        // Gemma 3's configurations have the key, and its reference ignores it.
        softcap: score_cap.filter(|_| two),
        rope: Some(rope::rope(c, &rope, &l)?),
        qk_norm: if one || two { QkNorm::None } else { QkNorm::Heads },
        ..d.attention()
    };
    let window = c.usize(WINDOW)?.unwrap_or(4096);
    refuse_unless(c, WINDOW, window > 0, "a window of no tokens")?;
    let local_rope = match two {
        true => full.rope.clone(),
        false => Some(rope::rope(c, &RopeDefaults { theta: 1e4, layer_type: "sliding_attention", ..rope }, &l)?),
    };
    let local = Attention { window: Some(window), rope: local_rope, ..full.clone() };
    let period = match c.usize(key("", "sliding_window_pattern"))? {
        _ if two => 2,
        None => c.usize(key("", "_sliding_window_pattern"))?.unwrap_or(6),
        Some(period) => period,
    };
    let sliding = match one {
        true => vec![false; d.n_layers],
        false => c.sliding_layers(d.n_layers, |i| period == 0 || !(i + 1).is_multiple_of(period))?,
    };

    let bound = cap(c, FINAL_CAP, two.then_some(30.0))?;
    refuse_unless(c, FINAL_CAP, !one || bound.is_none(), "a cap on the logits")?;
    let tied = c.tied(true)?;
    let decoder = Decoder {
        embedding_scale: embedding_scale(c, &l, d.width)?,
        norms: if one { Norms::Pre } else { Norms::Sandwich },
        act: Act::GeluTanh,
        head: Head { softcap: bound, ..Head::new(tied) },
        ..Decoder::new(d.n_layers, d.width, d.inner, tied)
    };
    d.built(decoder.build(&l, |i| if sliding[i] { local.clone() } else { full.clone() })?)
}

/// The bound of a soft cap, where there is one; `default` where the file does not have the key.
fn cap(c: &Config<'_>, k: Key, default: Option<f32>) -> Result<Option<f32>, Error> {
    let cap = if c.has(k) { c.f32(k)? } else { default };
    refuse_unless(c, k, cap.is_none_or(|cap| cap > 0.0 && cap.is_finite()), "a cap that is not above zero")?;
    Ok(cap)
}

/// Refuses settings that no Gemma here implements for text.
pub(super) fn refuse_other_gemma(c: &Config<'_>) -> Result<(), Error> {
    let later = key("", "use_bidirectional_attention");
    // Newer configurations name the kinds of tokens; those of images do not occur in text.
    let later_tokens = match c.json().and_then(|j| j.get(later.hf)) {
        Some(serde_json::Value::String(among)) => among != "vision",
        _ => c.bool(later)?.unwrap_or(false),
    };
    refuse_unless(c, later, !later_tokens, "attention to later tokens")
}

/// The square root of the width; the reference rounds it to the checkpoint's type.
pub(super) fn embedding_scale(c: &Config<'_>, l: &Loader<'_>, width: usize) -> Result<f32, Error> {
    let scale = (width as f32).sqrt();
    if c.is_gguf() || l.embedding_dtype()? != Some(DType::BF16) {
        return Ok(scale);
    }
    // The nearest bfloat16, ties to even.
    let bits = scale.to_bits();
    Ok(f32::from_bits((bits + 0x7fff + ((bits >> 16) & 1)) & 0xffff_0000))
}

/// `query_pre_attn_scalar^-0.5`. GGUF files lack it: it is the head's size, except in the 27B models.
fn query_scale(c: &Config<'_>, d: &Dims, two: bool) -> Result<f32, Error> {
    let default = match c.is_gguf() {
        true if d.n_layers == if two { 46 } else { 62 } => d.width / d.n_heads,
        true => d.head_dim,
        false => 256,
    };
    let scalar = c.f32(SCALAR)?.unwrap_or(default as f32);
    refuse_unless(c, SCALAR, scalar > 0.0 && scalar.is_finite(), "a root of it")?;
    Ok(scalar.powf(-0.5))
}
