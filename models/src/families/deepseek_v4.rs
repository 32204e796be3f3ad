//! DeepSeek V4: a residual of several streams that hyper-connections read, write and mix; attention whose one key head is
//! its value as well, over a short window and over blocks of tokens pooled into one key each; mixtures of experts, in the
//! first layers chosen by the token itself. DeepSeek-AI 2026.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, GraphBuilder, HyperOp, Op, RopeLayout, RopeSpec, RouteOp, RouteScore, ValueId},
};
use serde_json::Value as Json;

use super::{ACT, Built, Dims, refuse_unless};
use crate::{
    Error,
    blocks::{
        Experts, HyperConnections, Loader, Moe, Shared,
        compressed::{Blocks, CompressedAttention},
        hyper::plain_norm,
        moe::moe,
        rope::{self, RopeDefaults, THETA, UNSCALED},
    },
    config::{Config, Key, key, whole},
};

const RATIOS: Key = key("attention.compress_ratios", "compress_ratios");
const TYPES: Key = key("", "layer_types");
const RATES: Key = key("", "compress_rates");
const GATING: Key = key("expert_gating_func", "scoring_func");
const ROTARY: Key = key("rope.dimension_count", "qk_rope_head_dim");
const SPARSE: &str = "compressed_sparse_attention";
const HEAVY: &str = "heavily_compressed_attention";

/// The facts that layers share.
struct Model<'a> {
    l: &'a Loader<'a>,
    d: Dims,
    streams: HyperConnections,
    attention: CompressedAttention,
    route: RouteOp,
    inner: usize,
    shared: usize,
    limit: f32,
    vocab: usize,
}

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    let d = Dims::read_but_inner(c, Some(512), 1 << 20)?;
    let blocks = c.usize(key("nextn_predict_layers", ""))?.unwrap_or(0);
    let d = Dims { n_layers: d.n_layers.saturating_sub(blocks).max(1), ..d };
    refuse(c, &d)?;
    let l = Loader::new(checkpoint, d.eps).bare("embed.weight", "head.weight");
    let kinds = kinds(c, d.n_layers)?;
    let hashed = hashed(c, d.n_layers)?;
    let mut b = GraphBuilder::new();
    let embedding = l.embedding(&mut b, d.width)?;
    let vocab = b.graph().weight(embedding).rows();
    let m = Model::read(c, &l, d, vocab)?;
    let e = b.embed("embed", embedding, 1.0)?;
    let mut h = m.streams.widen(&mut b, e)?;
    for i in 0..m.d.n_layers {
        let last = i + 1 == m.d.n_layers;
        h = b.layer(i, |b| {
            let (x, mut gets) = m.streams.read(b, &l, i, h, "attn")?;
            let x = m.norm(b, i, "attention_norm", x, "attn_norm")?;
            let attention = m.attention.layer(&l, i);
            let mut y = attention.heads(b, x, kinds[i])?;
            if last {
                for value in [&mut y, &mut h, &mut gets.write, &mut gets.mix] {
                    *value = b.op("select", Op::SelectOutputs, &[*value])?;
                }
            }
            let y = attention.output(b, y, m.d.width)?;
            let h = m.streams.write(b, "attention", h, y, gets)?;
            let (x, gets) = m.streams.read(b, &l, i, h, "ffn")?;
            let x = m.norm(b, i, "mlp_norm", x, "ffn_norm")?;
            let y = m.experts(b, i, x, hashed[i])?;
            m.streams.write(b, "mlp", h, y, gets)
        })?;
    }
    let x = m.streams.narrow(&mut b, &l, h)?;
    let norm = l.final_norm(&mut b, "norm", m.d.width)?;
    let x = b.norm("final_norm", x, norm)?;
    let (head, bias) = l.head(&mut b, embedding, c.tied(false)?)?;
    let logits = b.head("head", x, head, bias)?;
    m.d.built(b.finish(logits))
}

/// Refuses settings that the graph does not implement.
fn refuse(c: &Config<'_>, d: &Dims) -> Result<(), Error> {
    refuse_unless(c, ACT, c.str(ACT)?.is_none_or(|a| a == "silu"), "an activation other than silu")?;
    let heads = key("attention.head_count_kv", "num_key_value_heads");
    refuse_unless(c, heads, d.n_kv_heads == 1 || c.usize(heads)?.is_none(), "more than one key head")?;
    for flag in ["attention_bias", "mlp_bias"] {
        refuse_unless(c, key("", flag), !c.bool(key("", flag))?.unwrap_or(false), "that")?;
    }
    Ok(())
}

/// The blocks of each layer: from the names of layers' types, from the ratios of older configurations, or as in V4-Pro.
fn kinds(c: &Config<'_>, n_layers: usize) -> Result<Vec<Blocks>, Error> {
    let rates = c.object(RATES.hf)?;
    let rate = |name: &str, default: usize| match rates.and_then(|r| r.get(name)) {
        None => Ok(default),
        Some(v) => match whole(v) {
            Some(v) if (1..=1 << 16).contains(&v) => Ok(v),
            _ => Err(c.error(RATES, format!("`{name}` should be a number of tokens and is {v}"))),
        },
    };
    let old = |hf| c.usize(key("", hf));
    let sparse = Blocks::Sparse(rate(SPARSE, old("compress_rate_csa")?.unwrap_or(4))?);
    let heavy = rate(HEAVY, old("compress_rate_hca")?.unwrap_or(128))?;
    let types = c.json().and_then(|j| j.get(TYPES.hf)).filter(|t| !t.is_null());
    if let Some(types) = types {
        let types = types.as_array().filter(|t| t.len() >= n_layers);
        let types = types.ok_or_else(|| c.error(TYPES, format!("should be an array of {n_layers} names")))?;
        let kind = |t: &Json| match t.as_str() {
            Some("sliding_attention") => Ok(Blocks::None),
            Some(SPARSE) => Ok(sparse),
            Some(HEAVY) => Ok(Blocks::Heavy(heavy)),
            _ => Err(c.error(TYPES, format!("the layer type {t} is not known for this family"))),
        };
        return types[..n_layers].iter().map(kind).collect();
    }
    if let Some(ratios) = c.indices(RATIOS)? {
        if ratios.len() < n_layers || ratios.iter().any(|r| *r > 1 << 16) {
            return Err(c.error(RATIOS, format!("{ratios:?} should be the tokens of a block in {n_layers} layers")));
        }
        let kind = |r: &usize| match (r, c.is_gguf()) {
            (0, _) => Blocks::None,
            (4, _) => sparse,
            // GGUF has no other key for the length of blocks.
            (r, true) => Blocks::Heavy(*r),
            (_, false) => Blocks::Heavy(heavy),
        };
        return Ok(ratios[..n_layers].iter().map(kind).collect());
    }
    Ok((0..n_layers).map(|i| if i >= 2 && !i.is_multiple_of(2) { sparse } else { Blocks::Heavy(heavy) }).collect())
}

/// Whether each layer's experts are chosen by the token itself.
fn hashed(c: &Config<'_>, n_layers: usize) -> Result<Vec<bool>, Error> {
    let first = c.usize(key("hash_layer_count", "num_hash_layers"))?.unwrap_or(3);
    c.layer_flags(key("", "mlp_layer_types"), n_layers, ["hash_moe", "moe"], |i| i < first)
}

impl<'a> Model<'a> {
    fn read(c: &Config<'_>, l: &'a Loader<'a>, d: Dims, vocab: usize) -> Result<Self, Error> {
        const STREAMS: Key = key("hyper_connection.count", "hc_mult");
        const TURNS: Key = key("hyper_connection.sinkhorn_iterations", "hc_sinkhorn_iters");
        const EPS: Key = key("hyper_connection.epsilon", "hc_eps");
        const LIMIT: Key = key("swiglu_clamp_exp", "swiglu_limit");
        const GROUPS: Key = key("attention.output_group_count", "o_groups");
        const CHOSEN: Key = key("attention.indexer.top_k", "index_topk");
        const INDEX: Key = key("attention.indexer.key_length", "index_head_dim");
        let or = |k: Key, default: usize| Ok::<_, Error>(c.usize(k)?.unwrap_or(default));
        let streams = or(STREAMS, 4)?;
        refuse_unless(c, STREAMS, (1..=HyperOp::MAX_STREAMS).contains(&streams), "so many streams")?;
        let turns = or(TURNS, 20)?;
        refuse_unless(c, TURNS, (1..=1000).contains(&turns), "so many turns")?;
        let groups = or(GROUPS, 8)?;
        refuse_unless(
            c,
            GROUPS,
            groups > 0 && d.n_heads.is_multiple_of(groups),
            "groups that do not divide the heads",
        )?;
        let index = [or(key("attention.indexer.head_count", "index_n_heads"), 64)?, or(INDEX, 128)?, or(CHOSEN, 512)?];
        refuse_unless(c, CHOSEN, (1..=1 << 20).contains(&index[2]), "so many chosen blocks")?;
        refuse_unless(c, INDEX, index[1] <= 1024 && index[0] <= 4096, "an index head of that size")?;
        let window = or(key("attention.sliding_window", "sliding_window"), 128)?.max(1);
        // One limit serves all experts; a file with another limit for the shared one is refused.
        let limit = c.f32(LIMIT)?.unwrap_or(10.0);
        let of_shared = key("swiglu_clamp_shexp", "");
        refuse_unless(c, of_shared, c.f32(of_shared)?.is_none_or(|s| s == limit), "a limit of its own")?;
        let ropes = ropes(c, l, &d, index[1])?;
        let back = ropes.each_ref().map(RopeSpec::inverse);
        let [Some(main), Some(compress)] = back else { return Err(c.error(ROTARY, "cannot be undone")) };
        let back = [main, compress];
        let rank = |k: Key| c.usize(k).map(|n| n.filter(|n| *n > 0).unwrap_or(1024));
        Ok(Self {
            l,
            streams: HyperConnections {
                streams,
                iterations: turns,
                eps: c.epsilon(EPS)?.unwrap_or(1e-6),
                norm: plain_norm(d.width * streams, d.eps),
            },
            attention: CompressedAttention {
                n_heads: d.n_heads,
                head_dim: d.head_dim,
                q_rank: rank(key("attention.q_lora_rank", "q_lora_rank"))?,
                window,
                out: [groups, rank(key("attention.output_lora_rank", "o_lora_rank"))?],
                index,
                ropes,
                back,
                eps: d.eps,
            },
            route: route(c)?,
            inner: c.require_usize(key("expert_feed_forward_length", "moe_intermediate_size"))?,
            // The reference has one, in every configuration.
            shared: or(key("expert_shared_count", ""), 1)?,
            limit,
            vocab,
            d,
        })
    }

    /// A layer's norm; both kinds of file call it `of`.
    fn norm(&self, b: &mut GraphBuilder, i: usize, name: &str, x: ValueId, of: &str) -> Result<ValueId, Error> {
        let norm = self.l.layer_norm(b, i, of, of, self.d.width)?;
        Ok(b.norm(name, x, norm)?)
    }

    fn experts(&self, b: &mut GraphBuilder, i: usize, x: ValueId, hashed: bool) -> Result<ValueId, Error> {
        let [n, k] = [self.route.n_experts, self.route.k];
        let mut route = self.route.clone();
        if hashed {
            let names = ["ffn_gate_tid2eid.weight", "ffn.gate.tid2eid"];
            route.table = Some(self.l.layer_integers(b, i, names[0], names[1], [self.vocab, k], n)?);
        } else {
            route.bias = Some(self.l.layer(b, i, "exp_probs_b.bias", "ffn.gate.bias", &[n])?);
        }
        let names = ["w1", "w3", "w2"];
        let shared = Shared { inner: self.shared * self.inner, hf: "ffn.shared_experts", names, gate: None };
        let mixture = Moe {
            act: Act::SiluClamped { limit: self.limit },
            shared: Some(shared).filter(|s| s.inner > 0),
            router_bias: false,
            ..Moe::new(route, "ffn.gate", Experts::Each("ffn.experts", names), self.inner)
        };
        moe(b, self.l, i, x, &mixture)
    }
}

/// The rotations of sliding layers and of all others; they rotate a head's last dimensions.
fn ropes(c: &Config<'_>, l: &Loader<'_>, d: &Dims, index_dim: usize) -> Result<[RopeSpec; 2], Error> {
    let rotary = c.usize(ROTARY)?.unwrap_or(d.head_dim / 8);
    refuse_unless(c, ROTARY, rotary <= d.head_dim, "more of a head than there is")?;
    let main = RopeDefaults {
        // Half a dimension more, so that rounding down keeps all of them.
        partial: (rotary as f64 + 0.5).min(d.head_dim as f64) / d.head_dim as f64,
        layer_type: UNSCALED,
        theta_key: THETA,
        ..d.rope(1e4, [RopeLayout::Interleaved; 2])
    };
    let theta_key = key("attention.compress_rope_freq_base", "compress_rope_theta");
    let compress = RopeDefaults { theta: 160_000.0, layer_type: "compress", theta_key, ..main };
    let mut ropes = [rope::rope(c, &main, l)?, rope::rope(c, &compress, l)?];
    // Cosines grow only by parameters of this name; yarn's own factor does not apply.
    if c.object("rope_parameters")?.is_none_or(|p| p.get("compress").is_none()) {
        ropes[1].attention_factor = 1.0;
    }
    for rope in &mut ropes {
        let dims = rope.rotary_dims;
        refuse_unless(c, ROTARY, dims <= index_dim && !rope.length_dependent(), "this way to rotate")?;
        rope.first_dim = d.head_dim - dims;
    }
    Ok(ropes)
}

/// The rule by which experts are chosen, without each layer's own bias or table.
fn route(c: &Config<'_>) -> Result<RouteOp, Error> {
    const EXPERTS: Key = key("expert_count", "n_routed_experts");
    const USED: Key = key("expert_used_count", "num_experts_per_tok");
    let (n, k) = (c.require_usize(EXPERTS)?, c.require_usize(USED)?);
    refuse_unless(c, USED, k <= n && n <= 1 << 16, "more experts a token than there are")?;
    let score = if c.is_gguf() {
        match c.usize(GATING)? {
            None | Some(4) => RouteScore::SqrtSoftplus,
            Some(1) => RouteScore::Softmax,
            Some(2) => RouteScore::Sigmoid,
            Some(n) => return Err(c.error(GATING, format!("the gating function {n} is not supported"))),
        }
    } else {
        match c.str(GATING)? {
            None | Some("sqrtsoftplus") => RouteScore::SqrtSoftplus,
            Some("softmax") => RouteScore::Softmax,
            Some("sigmoid") => RouteScore::Sigmoid,
            Some(s) => return Err(c.error(GATING, format!("the score `{s}` is not supported"))),
        }
    };
    let scale = c.f32(key("expert_weights_scale", "routed_scaling_factor"))?.unwrap_or(1.5);
    // The reference ignores the key in safetensors.
    let renormalise = !c.is_gguf() || c.bool(key("expert_weights_norm", ""))?.unwrap_or(true);
    Ok(RouteOp { score, renormalise: renormalise.then_some(1e-20), scale, ..RouteOp::softmax(n, k) })
}
