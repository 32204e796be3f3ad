//! DeepSeek V2, V3 (and V3.1, R1), V3.2 and Mistral 4: latent attention (of V3.2 to chosen keys), then after a few dense
//! layers mixtures of many small experts with some that every token uses. DeepSeek-AI 2024a, 2024b.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, GraphBuilder, GroupScore, RopeLayout, RopeSpec, RouteGroups, RouteOp, RouteScore, ValueId},
};

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{
        self, Head, Indexer, LatentAttention, Loader, Norms,
        moe::{Experts, Moe, PROJECTIONS, Shared},
        rope::{RopeDefaults, THETA},
    },
    config::{Config, Key, key},
};

const NOPE: Key = key("attention.key_length_mla", "qk_nope_head_dim");
const ROTARY: Key = key("rope.dimension_count", "qk_rope_head_dim");
const VALUE: Key = key("attention.value_length_mla", "v_head_dim");
const METHOD: Key = key("", "topk_method");
const GATING: Key = key("expert_gating_func", "scoring_func");
const GROUPS: Key = key("expert_group_count", "n_group");
const KEPT: Key = key("expert_group_used_count", "topk_group");

/// The rule by which a family chooses experts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V2,
    V3,
    Mistral4,
}

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    // Heads have keys of their own for their sizes here; the common keys do not apply.
    let d = Dims::read(c, Some(1), 2048)?;
    // Files of the older architecture do not count the predictors.
    let d = if c.architecture() == "deepseek32" { d.without_predictors(c)? } else { d };
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let version = version(c)?;
    if version == Version::Mistral4 {
        blocks::rope::require_parameters(c)?;
    }
    let l = Loader::new(checkpoint, d.eps);
    let attention = attention(c, &d, &l)?;
    let experts = Mixture::read(c, version, d.n_layers)?;

    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let mut h = b.embed("embed", embedding, 1.0)?;
    for i in 0..d.n_layers {
        let last = i + 1 == d.n_layers;
        h = blocks::layer(
            &mut b,
            &l,
            i,
            h,
            (Norms::Pre, 1.0, last),
            |b, x| blocks::latent_attention(b, &l, i, x, &attention, last),
            |b, x| match experts.sparse[i] {
                true => experts.block(b, &l, i, x),
                false => blocks::gated_mlp(b, &l, i, x, d.inner, Act::Silu),
            },
        )?;
    }
    let tied = c.tied(false)?;
    let graph = blocks::logits(b, &l, h, embedding, &Head::new(tied))?;
    d.built(graph)
}

/// GGUF has one architecture for V2 and V3, which differ in how experts are scored, and one for V3.2.
fn version(c: &Config<'_>) -> Result<Version, Error> {
    Ok(match c.architecture() {
        "deepseek_v2" => Version::V2,
        "deepseek_v3" | "deepseek_v32" | "deepseek32" => Version::V3,
        "mistral4" => Version::Mistral4,
        // Files without the key are older than V3.
        _ => match c.usize(GATING)? {
            None | Some(0 | 1) => Version::V2,
            Some(2) => Version::V3,
            Some(n) => return Err(c.error(GATING, format!("the gating function {n} is not supported"))),
        },
    })
}

fn attention(c: &Config<'_>, d: &Dims, l: &Loader<'_>) -> Result<LatentAttention, Error> {
    let rotary = c.require_usize(ROTARY)?;
    let (nope, v_dim) = if c.is_gguf() {
        // Old files give the sizes of heads where newer ones give those of latents.
        let (long, short) = (key("attention.key_length", ""), key("attention.value_length", ""));
        let query = match c.usize(NOPE)? {
            None => c.require_usize(long)?,
            Some(n) => n,
        };
        let value = match c.usize(VALUE)? {
            None => c.require_usize(short)?,
            Some(n) => n,
        };
        let what = || c.error(ROTARY, format!("{rotary} of {query} elements of a head"));
        (query.checked_sub(rotary).filter(|n| *n > 0).ok_or_else(what)?, value)
    } else {
        (c.require_usize(NOPE)?, c.require_usize(VALUE)?)
    };
    let kv_rank = c.require_usize(key("attention.kv_lora_rank", "kv_lora_rank"))?;
    let heads = key("attention.head_count", "num_attention_heads");
    refuse_unless(c, heads, d.n_heads <= 1 << 16, "so many heads")?;
    for (k, n) in [(NOPE, nope), (ROTARY, rotary), (VALUE, v_dim)] {
        refuse_unless(c, k, n <= 1024 && kv_rank <= 4096, "a head of that size")?;
    }
    // Mistral 4 gives the rotated part as a fraction of the head.
    let head_dim = if c.architecture() == "mistral4" && !c.is_gguf() { nope + rotary } else { rotary };
    let interleaved = c.bool(key("", "rope_interleave"))?.unwrap_or(true);
    let defaults = RopeDefaults {
        layout: if interleaved { RopeLayout::Interleaved } else { RopeLayout::Half },
        gguf_layout: RopeLayout::Interleaved,
        theta: 1e4,
        head_dim,
        // Half a dimension more, so that rounding down keeps all of them.
        partial: if head_dim == rotary { 1.0 } else { (rotary as f64 + 0.5) / head_dim as f64 },
        context: d.context,
        layer_type: "full_attention",
        theta_key: THETA,
    };
    let rope = blocks::rope::rope(c, &defaults, l)?;
    refuse_unless(c, ROTARY, rope.rotary_dims == rotary && !rope.length_dependent(), "this way to rotate")?;
    let growth = blocks::rope::attention_growth(c, &defaults)?;
    Ok(LatentAttention {
        n_heads: d.n_heads,
        nope,
        rotary,
        v_dim,
        q_rank: c.usize(key("attention.q_lora_rank", "q_lora_rank"))?.filter(|r| *r > 0),
        kv_rank,
        scale: ((nope + rotary) as f32).powf(-0.5) * growth * growth,
        rope: rope.clone(),
        q_scale: blocks::rope::query_scale(c)?,
        indexer: indexer(c, rope)?,
    })
}

/// The indexer of V3.2, whose rotation is `rope` in halves.
fn indexer(c: &Config<'_>, rope: RopeSpec) -> Result<Option<Indexer>, Error> {
    if !matches!(c.architecture(), "deepseek_v32" | "deepseek32") {
        return Ok(None);
    }
    const HEADS: Key = key("attention.indexer.head_count", "index_n_heads");
    const DIM: Key = key("attention.indexer.key_length", "index_head_dim");
    const CHOSEN: Key = key("attention.indexer.top_k", "index_topk");
    const RANK: Key = key("attention.q_lora_rank", "q_lora_rank");
    let (n_heads, head_dim, k) = (c.require_usize(HEADS)?, c.require_usize(DIM)?, c.require_usize(CHOSEN)?);
    refuse_unless(c, DIM, (rope.rotary_dims..=1024).contains(&head_dim), "an index head of that size")?;
    refuse_unless(c, HEADS, n_heads <= 4096, "so many index heads")?;
    refuse_unless(c, CHOSEN, k <= 1 << 20, "so many chosen keys")?;
    c.require_usize(RANK)?;
    Ok(Some(Indexer { n_heads, head_dim, k, rope: RopeSpec { layout: RopeLayout::Half, ..rope } }))
}

/// For each layer, whether it is a mixture: all after the first few, or in V3.2 as a list says.
fn sparse_layers(c: &Config<'_>, version: Version, n_layers: usize) -> Result<Vec<bool>, Error> {
    const DENSE: Key = key("leading_dense_block_count", "first_k_dense_replace");
    let default = if version == Version::V3 && !c.is_gguf() { 3 } else { 0 };
    let dense = c.usize(DENSE)?.unwrap_or(default);
    match c.architecture() {
        "deepseek_v32" => c.layer_flags(key("", "mlp_layer_types"), n_layers, ["sparse", "dense"], |i| i >= dense),
        _ => Ok((0..n_layers).map(|i| i >= dense).collect()),
    }
}

/// The experts of a model.
struct Mixture {
    /// For each layer, whether it is a mixture.
    sparse: Vec<bool>,
    /// Without the bias, which differs from layer to layer.
    route: RouteOp,
    /// Width between the halves of an expert.
    inner: usize,
    /// Experts that every token uses, joined into one.
    shared: usize,
    biased: bool,
}

impl Mixture {
    fn read(c: &Config<'_>, version: Version, n_layers: usize) -> Result<Self, Error> {
        const EXPERTS: Key = key("expert_count", "n_routed_experts");
        const USED: Key = key("expert_used_count", "num_experts_per_tok");
        const SHARED: Key = key("expert_shared_count", "n_shared_experts");
        const STEP: Key = key("", "moe_layer_freq");
        let (n, k) = (c.require_usize(EXPERTS)?, c.require_usize(USED)?);
        refuse_unless(c, USED, k <= n, "more experts a token than there are")?;
        refuse_unless(c, STEP, c.usize(STEP)?.is_none_or(|s| s == 1), "a period of mixtures")?;
        let method = c.str(METHOD)?;
        let known: &[&str] = if version == Version::V2 { &["greedy", "group_limited_greedy"] } else { &["noaux_tc"] };
        refuse_unless(c, METHOD, method.is_none_or(|m| known.contains(&m)), "this way to choose experts")?;
        // Defaults of `config.json` by version: groups and those kept, experts for all tokens, factor.
        let (n_groups, n_kept, n_shared, factor) = match version {
            _ if c.is_gguf() => (None, None, 0, 1.0),
            Version::V2 => (None, None, 2, 1.0),
            Version::V3 => (Some(8), Some(4), 1, 2.5),
            Version::Mistral4 => (Some(1), Some(1), 1, 1.0),
        };
        let renormalise = match version {
            // The reference ignores the key; converters apply it.
            Version::V2 if !c.is_gguf() => false,
            _ => c.bool(key("expert_weights_norm", "norm_topk_prob"))?.unwrap_or(!c.is_gguf()),
        };
        let score = if version == Version::V3 { RouteScore::Sigmoid } else { RouteScore::Softmax };
        let expected = if version == Version::V3 { "sigmoid" } else { "softmax" };
        if !c.is_gguf() {
            refuse_unless(c, GATING, c.str(GATING)?.is_none_or(|s| s == expected), "this score of experts")?;
        }
        // V2 without the key chooses greedily; its GGUF files have groups only where they apply.
        let greedy = version == Version::V2 && !c.is_gguf() && method != Some("group_limited_greedy");
        let groups = match c.usize(GROUPS)?.or(n_groups) {
            None | Some(0 | 1) => None,
            _ if greedy => None,
            Some(groups) => {
                let keep = match c.usize(KEPT)?.or(n_kept) {
                    Some(keep) if keep > 0 => keep,
                    _ => return Err(c.error(KEPT, "is missing or zero")),
                };
                let each = n / groups;
                let fits = n.is_multiple_of(groups) && keep <= groups && keep * each >= k;
                refuse_unless(c, GROUPS, fits, "experts in so many groups")?;
                let score = if version == Version::V2 { GroupScore::Best } else { GroupScore::BestTwo };
                Some(RouteGroups { n: groups, keep, score })
            }
        };
        let sparse = sparse_layers(c, version, n_layers)?;
        let inner = c.require_usize(key("expert_feed_forward_length", "moe_intermediate_size"))?;
        let shared = c.usize(SHARED)?.unwrap_or(n_shared);
        let shared = shared.checked_mul(inner).ok_or_else(|| c.error(SHARED, format!("is {shared}")))?;
        Ok(Self {
            sparse,
            route: RouteOp {
                score,
                groups,
                renormalise: renormalise.then_some(1e-20),
                scale: c.f32(key("expert_weights_scale", "routed_scaling_factor"))?.unwrap_or(factor),
                ..RouteOp::softmax(n, k)
            },
            inner,
            shared,
            biased: version == Version::V3,
        })
    }
}

impl Mixture {
    /// The result on `x` of layer `layer`'s experts: the chosen ones and those that every token uses.
    fn block(&self, b: &mut GraphBuilder, l: &Loader<'_>, layer: usize, x: ValueId) -> Result<ValueId, Error> {
        let bias = match self.biased {
            true => {
                let (gguf, hf) = ("exp_probs_b.bias", "mlp.gate.e_score_correction_bias");
                Some(l.layer(b, layer, gguf, hf, &[self.route.n_experts])?)
            }
            false => None,
        };
        let experts = match l.has(layer, "", "mlp.experts.gate_up_proj")? {
            true => Experts::Fused(["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]),
            false => Experts::Each("mlp.experts", ["gate_proj", "up_proj", "down_proj"]),
        };
        let route = RouteOp { bias, ..self.route.clone() };
        let shared = Shared { inner: self.shared, hf: "mlp.shared_experts", names: PROJECTIONS, gate: None };
        let shared = Some(shared).filter(|s| s.inner > 0);
        blocks::moe::moe(b, l, layer, x, &Moe { shared, ..Moe::new(route, "mlp.gate", experts, self.inner) })
    }
}
