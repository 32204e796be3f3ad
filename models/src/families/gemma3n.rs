//! Gemma 3n, text: a residual of several streams that every layer predicts and corrects (AltUp, Baykal et al. 2023), a
//! low-rank path beside attention (Laurel), per-layer inputs, sparse activations in the first layers, and keys and values
//! that the last layers share with earlier ones. Gemma Team 2025.

use handmill_runtime::{
    format::Checkpoint,
    graph::{Act, CacheId, GraphBuilder, NormKind, NormOp, Op, RopeLayout, StreamOp, ValueId},
};

use super::{
    Built, Dims, INNER,
    gemma::{GELU, embedding_scale, refuse_other_gemma},
    refuse_unless,
};
use crate::{
    Error,
    blocks::{
        Head, Loader, PerLayer, SharedAttention,
        decoder::logits,
        rope::{self, RopeDefaults},
        shared_attention,
        shared_kv::producers,
    },
    config::{Config, Key, LAYERS, key},
};

const SHARED: Key = key("attention.shared_kv_layers", "num_kv_shared_layers");
const STREAMS: Key = key("altup.num_inputs", "altup_num_inputs");
const ACTIVE: Key = key("altup.active_idx", "altup_active_idx");
const SPARSITY: Key = key("activation_sparsity_scale", "activation_sparsity_pattern");
const PER_LAYER: Key = key("embedding_length_per_layer_input", "hidden_size_per_layer_input");

/// Least mean square of a stream that is brought to another's magnitude.
const FLOOR: f32 = 1e-5;

/// The facts that layers share.
struct Model<'a> {
    l: &'a Loader<'a>,
    width: usize,
    /// Streams of the residual, and the one that the layers compute on.
    streams: usize,
    active: usize,
    /// Width of the low-rank path.
    rank: usize,
    corrects_scale: bool,
}

pub(super) fn build(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<Built, Error> {
    // The widths of feed-forwards may be a list.
    let n_layers = c.require_usize(LAYERS)?;
    let inner = c.layer_usizes(INNER, n_layers)?.ok_or_else(|| c.error(INNER, "is missing"))?;
    refuse_unless(c, INNER, inner.iter().all(|n| (1..=1 << 24).contains(n)), "a feed-forward of such a width")?;
    let d = Dims::read_but_inner(c, Some(256), 32768)?;
    refuse_unless(
        c,
        GELU,
        c.str(GELU)?.is_none_or(|a| a == "gelu_pytorch_tanh"),
        "an activation other than tanh GELU",
    )?;
    refuse_other_gemma(c)?;
    let l = Loader::new(checkpoint, d.eps);
    let window = c.usize(key("attention.sliding_window", "sliding_window"))?.unwrap_or(512);
    let sliding = c.sliding_layers(n_layers, |i| !(i + 1).is_multiple_of(5))?;
    // Files without the key belong to models that share from layer 20 on.
    let shared = if c.is_gguf() { n_layers.saturating_sub(20) } else { 15 };
    let shared = c.usize(SHARED)?.unwrap_or(shared);
    let producer = producers(n_layers, shared, |i| sliding[i])
        .ok_or_else(|| c.error(SHARED, format!("{shared} of {n_layers} layers have nothing to share")))?;
    let sparsity = sparsity(c, n_layers)?;
    let full = d.rope(1e6, [RopeLayout::Half; 2]);
    let local = RopeDefaults { theta: 1e4, layer_type: "sliding_attention", ..full };
    let ropes = [rope::rope(c, &full, &l)?, rope::rope(c, &local, &l)?];

    let (streams, active) = (c.usize(STREAMS)?.unwrap_or(4), c.usize(ACTIVE)?.unwrap_or(0));
    refuse_unless(c, STREAMS, (2..=16).contains(&streams), "so many streams")?;
    refuse_unless(c, ACTIVE, active < streams, "a stream that is not there")?;
    let mut b = GraphBuilder::new();
    let rank = match c.is_gguf() {
        true => l.layer_rows_of(0, "laurel_l.weight")?,
        false => c.usize(key("", "laurel_rank"))?.unwrap_or(64),
    };
    let corrects_scale = c.bool(key("", "altup_correct_scale"))?.unwrap_or(true);
    let m = Model { l: &l, width: d.width, streams, active, rank, corrects_scale };
    let embedding = l.embedding(&mut b, d.width)?;
    let e = b.embed("embed", embedding, embedding_scale(c, &l, d.width)?)?;
    let p = c.usize(PER_LAYER)?.unwrap_or(256);
    refuse_unless(c, PER_LAYER, p > 0, "a model without per-layer inputs")?;
    let per_layer = PerLayer::new(&mut b, &l, e, n_layers, p, embedding_scale(c, &l, p)?)?;
    let mut h = m.widen(&mut b, e)?;
    let mut caches: Vec<CacheId> = Vec::new();
    for i in 0..n_layers {
        let last = i + 1 == n_layers;
        let attention = SharedAttention {
            n_heads: d.n_heads,
            n_kv_heads: d.n_kv_heads,
            head_dim: d.head_dim,
            window: sliding[i].then_some(window),
            rope: ropes[usize::from(sliding[i])].clone(),
            eps: d.eps,
            k_is_v: false,
            shared: caches.get(producer[i]).copied(),
        };
        h = b.layer(i, |b| {
            // Each layer predicts all streams, computes on one, and corrects the others by the result.
            let (mut predicted, x) = m.predict(b, i, h)?;
            let n = m.norm(b, i, "attn_norm", "input_layernorm", x)?;
            let (y, cache) = shared_attention(b, &l, i, n, &attention, last)?;
            caches.push(cache);
            let (mut x, mut n) = (x, n);
            if last {
                let mut select = |name: &str, x: ValueId| b.op(name, Op::SelectOutputs, &[x]);
                predicted = select("select_streams", predicted)?;
                (x, n) = (select("select_residual", x)?, select("select_norm", n)?);
            }
            let y = m.norm(b, i, "post_attention_norm", "post_attention_layernorm", y)?;
            let low = m.laurel(b, i, n)?;
            let y = b.add("attention_residual", x, y)?;
            let y = b.add("laurel_residual", y, low)?;
            let x_mid = b.scale("residual_scale", y, 0.5f32.sqrt())?;
            let n = m.norm(b, i, "ffn_norm", "pre_feedforward_layernorm", x_mid)?;
            let y = m.mlp(b, i, n, inner[i], sparsity[i])?;
            let y = m.norm(b, i, "post_ffw_norm", "post_feedforward_layernorm", y)?;
            let y = b.add("mlp_residual", x_mid, y)?;
            let corrected = m.correct(b, i, (predicted, x), y)?;
            let mut z = m.stream(b, "corrected", corrected, m.active)?;
            if m.corrects_scale {
                z = m.scaled(b, i, z)?;
            }
            let z = per_layer.apply(b, &l, i, z, last)?;
            m.add_to_others(b, corrected, z)
        })?;
    }
    let x = m.narrow(&mut b, h)?;
    let cap = key("final_logit_softcapping", "final_logit_softcapping");
    let softcap = c.f32(cap)?.or((!c.is_gguf()).then_some(30.0)).filter(|cap| *cap != 0.0);
    refuse_unless(c, cap, softcap.is_none_or(|cap| cap > 0.0), "a cap below zero")?;
    d.built(logits(b, &l, x, embedding, &Head { softcap, ..Head::new(c.tied(true)?) })?)
}

impl Model<'_> {
    fn norm(&self, b: &mut GraphBuilder, layer: usize, gguf: &str, hf: &str, x: ValueId) -> Result<ValueId, Error> {
        let norm = self.l.layer_rms(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), self.width)?;
        Ok(b.norm(hf, x, norm)?)
    }

    fn linear(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        x: ValueId,
        [gguf, hf]: [&str; 2],
        out: usize,
    ) -> Result<ValueId, Error> {
        let shape = [out, b.graph().value(x).width];
        let weight = self.l.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &shape)?;
        Ok(b.linear(hf, x, weight, None)?)
    }

    /// One of the streams.
    fn stream(&self, b: &mut GraphBuilder, name: &str, h: ValueId, s: usize) -> Result<ValueId, Error> {
        Ok(b.columns(name, h, [self.streams * self.width, s * self.width, self.width])?)
    }

    /// The embedding `e`, and projections of it with its magnitude, as streams.
    fn widen(&self, b: &mut GraphBuilder, e: ValueId) -> Result<ValueId, Error> {
        let mut h = e;
        for s in 1..self.streams {
            let y = self.project_stream(b, e, ["altup_proj", "altup_projections"], s)?;
            let y = b.streams("altup_magnitude", y, e, StreamOp::MatchRms { floor: FLOOR })?;
            h = b.join("altup_streams", (h, s * self.width), (y, self.width))?;
        }
        Ok(h)
    }

    /// The mean of the first stream and projections of the others with its magnitude.
    fn narrow(&self, b: &mut GraphBuilder, h: ValueId) -> Result<ValueId, Error> {
        let first = self.stream(b, "first", h, 0)?;
        let mut sum = first;
        for s in 1..self.streams {
            let x = self.stream(b, "other", h, s)?;
            let y = self.project_stream(b, x, ["altup_unembd_proj", "altup_unembed_projections"], s)?;
            let y = b.streams("altup_magnitude", y, first, StreamOp::MatchRms { floor: FLOOR })?;
            sum = b.add("altup_sum", sum, y)?;
        }
        Ok(b.scale("altup_mean", sum, 1.0 / self.streams as f32)?)
    }

    /// The projection to or from stream `s`: a tensor of its own, or a part of one.
    fn project_stream(
        &self,
        b: &mut GraphBuilder,
        x: ValueId,
        [gguf, hf]: [&str; 2],
        s: usize,
    ) -> Result<ValueId, Error> {
        let shape = [self.streams - 1, self.width, self.width];
        let hf = format!("{hf}.{}.weight", s - 1);
        let weight = self.l.global_part(b, &format!("{gguf}.weight"), &hf, shape, s - 1)?;
        Ok(b.linear("altup_project", x, weight, None)?)
    }

    /// `tanh(router(norm(x) / width))`, from which a token's mixtures are made.
    fn modalities(&self, b: &mut GraphBuilder, layer: usize, x: ValueId) -> Result<ValueId, Error> {
        let x = self.norm(b, layer, "altup_router_norm", "altup.router_norm", x)?;
        let x = b.scale("router_scale", x, 1.0 / self.width as f32)?;
        let y = self.linear(b, layer, x, ["altup_router", "altup.modality_router"], self.streams)?;
        Ok(b.act("modalities", Act::Tanh, y)?)
    }

    /// All streams as mixtures of themselves, and the active one of the result.
    fn predict(&self, b: &mut GraphBuilder, layer: usize, h: ValueId) -> Result<(ValueId, ValueId), Error> {
        let x = self.stream(b, "active", h, self.active)?;
        let m = self.modalities(b, layer, x)?;
        let names = ["altup_predict_coef", "altup.prediction_coefs"];
        let coefs = self.linear(b, layer, m, names, self.streams * self.streams)?;
        let mix = StreamOp::Mix { inputs: self.streams, offset: 0.0 };
        let y = b.streams("mix", h, coefs, mix)?;
        let predicted = b.add("predicted", y, h)?;
        Ok((predicted, self.stream(b, "predicted_active", predicted, self.active)?))
    }

    /// The predicted streams, each corrected by a part of the difference between `y` and the prediction `x`.
    fn correct(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        (predicted, x): (ValueId, ValueId),
        y: ValueId,
    ) -> Result<ValueId, Error> {
        let m = self.modalities(b, layer, y)?;
        let coefs = self.linear(b, layer, m, ["altup_correct_coef", "altup.correction_coefs"], self.streams)?;
        let minus = b.scale("minus_prediction", x, -1.0)?;
        let innovation = b.add("innovation", y, minus)?;
        let parts = b.streams("corrections", innovation, coefs, StreamOp::Mix { inputs: 1, offset: 1.0 })?;
        Ok(b.add("corrected_streams", predicted, parts)?)
    }

    /// `x` times the layer's scale of the corrected stream.
    fn scaled(&self, b: &mut GraphBuilder, layer: usize, x: ValueId) -> Result<ValueId, Error> {
        let names = ["altup_correct_scale.weight", "altup.correct_output_scale"];
        let weight = Some(self.l.layer(b, layer, names[0], names[1], &[self.width])?);
        let only = NormOp { kind: NormKind::None, weight, weight_offset: 0.0, bias: None, eps: 0.0, group: self.width };
        Ok(b.norm("correct_scale", x, only)?)
    }

    /// `z` added to all streams but the first.
    fn add_to_others(&self, b: &mut GraphBuilder, h: ValueId, z: ValueId) -> Result<ValueId, Error> {
        let (all, w) = (self.streams * self.width, self.width);
        let first = self.stream(b, "first", h, 0)?;
        let others = b.columns("others", h, [all, w, all - w])?;
        let others = b.streams("others_residual", others, z, StreamOp::Add)?;
        Ok(b.join("streams", (first, w), (others, all - w))?)
    }

    /// `x + norm(right(left(x)))`.
    fn laurel(&self, b: &mut GraphBuilder, layer: usize, x: ValueId) -> Result<ValueId, Error> {
        let y = self.linear(b, layer, x, ["laurel_l", "laurel.linear_left"], self.rank)?;
        let y = self.linear(b, layer, y, ["laurel_r", "laurel.linear_right"], self.width)?;
        let y = self.norm(b, layer, "laurel_post_norm", "laurel.post_laurel_norm", y)?;
        Ok(b.add("laurel", x, y)?)
    }

    /// `down(gelu(gate(x)) * up(x))`, the gate sparse where `deviations` says so.
    fn mlp(
        &self,
        b: &mut GraphBuilder,
        layer: usize,
        x: ValueId,
        inner: usize,
        deviations: Option<f32>,
    ) -> Result<ValueId, Error> {
        let mut gate = self.linear(b, layer, x, ["ffn_gate", "mlp.gate_proj"], inner)?;
        let up = self.linear(b, layer, x, ["ffn_up", "mlp.up_proj"], inner)?;
        if let Some(deviations) = deviations {
            gate = b.op("sparse_gate", Op::Sparsify { deviations }, &[gate])?;
        }
        let y = b.gated("gated", Act::GeluTanh, gate, up)?;
        self.linear(b, layer, y, ["ffn_down", "mlp.down_proj"], self.width)
    }
}

/// For each layer, the standard deviations above the mean that an element of the gate must exceed; none without
/// sparsity.
fn sparsity(c: &Config<'_>, n_layers: usize) -> Result<Vec<Option<f32>>, Error> {
    let list = c.layer_f32s(SPARSITY, n_layers)?;
    if c.is_gguf() {
        // The key gives the number of deviations; 0 and minus infinity mean no sparsity.
        let list = list.unwrap_or_else(|| vec![0.0; n_layers]);
        return Ok(list.into_iter().map(|d| (d != 0.0 && d.is_finite()).then_some(d)).collect());
    }
    let default = |i: usize| if n_layers > 10 && i < 10 { 0.95 } else { 0.0 };
    let list = list.unwrap_or_else(|| (0..n_layers).map(default).collect());
    refuse_unless(c, SPARSITY, list.iter().all(|s| (0.0..1.0).contains(s)), "a sparsity outside 0..1")?;
    Ok(list.into_iter().map(|s| (s > 0.0).then(|| normal_quantile(f64::from(s)) as f32)).collect())
}

/// The number that a standard normal variable is below with probability `p`, 0 < p < 1: Acklam's rational
/// approximations, within 1.2e-9 of it.
fn normal_quantile(p: f64) -> f64 {
    const A: [f64; 6] = [
        -3.969683028665376e1,
        2.209460984245205e2,
        -2.759285104469687e2,
        1.38357751867269e2,
        -3.066479806614716e1,
        2.506628277459239,
    ];
    const B: [f64; 5] =
        [-5.447609879822406e1, 1.615858368580409e2, -1.556989798598866e2, 6.680131188771972e1, -1.328068155288572e1];
    const C: [f64; 6] = [
        -7.784894002430293e-3,
        -3.223964580411365e-1,
        -2.400758277161838,
        -2.549732539343734,
        4.374664141464968,
        2.938163982698783,
    ];
    const D: [f64; 4] = [7.784695709041462e-3, 3.224671290700398e-1, 2.445134137142996, 3.754408661907416];
    let horner = |c: &[f64], x: f64| c.iter().fold(0.0, |sum, c| sum * x + c);
    if p < 0.02425 {
        let q = (-2.0 * p.ln()).sqrt();
        horner(&C, q) / (horner(&D, q) * q + 1.0)
    } else if p > 1.0 - 0.02425 {
        -normal_quantile(1.0 - p)
    } else {
        let q = p - 0.5;
        let r = q * q;
        horner(&A, r) * q / (horner(&B, r) * r + 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::normal_quantile;

    #[test]
    fn quantiles_of_the_normal_distribution() {
        for (p, x) in [(0.5, 0.0), (0.8, 0.8416212335729143), (0.95, 1.6448536269514722), (0.99, 2.3263478740408408)] {
            assert!((normal_quantile(p) - x).abs() < 1e-8, "{p}");
            assert!((normal_quantile(1.0 - p) + x).abs() < 1e-8, "{p}");
        }
    }
}
