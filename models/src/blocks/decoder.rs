//! The decoder that most families share: embedding, layers of attention and feed-forward around a residual stream,
//! final norm and head. Its fields are the differences between families.

use handmill_runtime::graph::{Act, Graph, GraphBuilder, Op, ValueId, WeightId};

use super::{Attention, Loader, Moe, attention, gated_mlp_named, mlp, moe};
use crate::Error;

/// Places of a layer's norms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Norms {
    /// `h += attention(n1(h)); h += mlp(n2(h))`.
    Pre,
    /// `h += n1(attention(h)); h += n2(mlp(h))` (OLMo 2).
    Post,
    /// `h += n2(attention(n1(h))); h += n4(mlp(n3(h)))` (Gemma 2).
    Sandwich,
    /// `h += attention(n1(h)) + mlp(n1(h))` (Phi 1, 2).
    Parallel,
}

/// The end of a decoder, after its last layer.
#[derive(Clone, Copy, Debug)]
pub struct Head {
    /// Whether the head is the embedding table, whatever head the file has.
    pub tied: bool,
    /// Name of the final norm in safetensors.
    pub norm: &'static str,
    /// Factor on the logits.
    pub scale: f32,
    /// Bound of the logits, if any.
    pub softcap: Option<f32>,
}

impl Head {
    /// A head without scale or cap.
    pub fn new(tied: bool) -> Self {
        Self { tied, norm: "norm", scale: 1.0, softcap: None }
    }
}

/// A decoder. [`Decoder::new`] gives the llama block, for struct update.
#[derive(Clone, Copy, Debug)]
pub struct Decoder {
    /// Layers.
    pub n_layers: usize,
    /// Width of the residual stream.
    pub width: usize,
    /// Width between the halves of the feed-forward.
    pub inner: usize,
    /// The feed-forward's name in safetensors.
    pub mlp: &'static str,
    /// Factor on embeddings.
    pub embedding_scale: f32,
    /// Places of norms.
    pub norms: Norms,
    /// Factor on results before they are added to the residual stream.
    pub residual_scale: f32,
    /// The feed-forward's activation.
    pub act: Act,
    /// Whether the feed-forward is gated.
    pub gated: bool,
    /// After the last layer.
    pub head: Head,
}

impl Decoder {
    /// Pre-norm layers with SwiGLU.
    pub fn new(n_layers: usize, width: usize, inner: usize, tied: bool) -> Self {
        Self {
            n_layers,
            width,
            inner,
            mlp: "mlp",
            embedding_scale: 1.0,
            norms: Norms::Pre,
            residual_scale: 1.0,
            act: Act::Silu,
            gated: true,
            head: Head::new(tied),
        }
    }

    /// The whole graph; `attention_of` gives each layer's attention.
    ///
    /// # Errors
    /// Missing tensors, and shapes that do not fit.
    pub fn build(&self, l: &Loader<'_>, attention_of: impl Fn(usize) -> Attention) -> Result<Graph, Error> {
        self.build_with_experts(l, attention_of, |_| None)
    }

    /// The whole graph; `experts_of` gives the mixture of experts of the layers that have one.
    ///
    /// # Errors
    /// As [`Decoder::build`].
    pub fn build_with_experts<'m>(
        &self,
        l: &Loader<'_>,
        attention_of: impl Fn(usize) -> Attention,
        experts_of: impl Fn(usize) -> Option<&'m Moe<'m>>,
    ) -> Result<Graph, Error> {
        let mut b = GraphBuilder::new();
        let embedding = l.embedding(&mut b, self.width)?;
        let mut h = b.embed("embed", embedding, self.embedding_scale)?;
        for i in 0..self.n_layers {
            let last = i + 1 == self.n_layers;
            let a = attention_of(i);
            h = layer(
                &mut b,
                l,
                i,
                h,
                (self.norms, self.residual_scale, last),
                |b, x| attention(b, l, i, x, &a, last),
                |b, x| match (experts_of(i), self.gated) {
                    (Some(m), _) => moe(b, l, i, x, m),
                    (None, true) => gated_mlp_named(b, l, i, x, (self.mlp, self.inner), self.act),
                    (None, false) => mlp(b, l, i, x, self.inner, self.act),
                },
            )?;
        }
        logits(b, l, h, embedding, &self.head)
    }
}

/// One layer: the results of `attend` and `feed` on the residual stream `h` are added to it, with norms around them and
/// a factor. From the last layer's attention on (which selects them) only the output rows remain.
pub fn layer(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    h: ValueId,
    (norms, scale, last): (Norms, f32, bool),
    attend: impl FnOnce(&mut GraphBuilder, ValueId) -> Result<ValueId, Error>,
    feed: impl FnOnce(&mut GraphBuilder, ValueId) -> Result<ValueId, Error>,
) -> Result<ValueId, Error> {
    b.layer(layer, |b| {
        let norm = |b: &mut GraphBuilder, name: &str, gguf: &str, hf: &str, x: ValueId| {
            let norm = l.layer_norm(b, layer, gguf, hf, b.graph().value(x).width)?;
            Ok::<_, Error>(b.norm(name, x, norm)?)
        };
        let select = |b: &mut GraphBuilder, name: &str, x: ValueId| match last {
            true => b.op(name, Op::SelectOutputs, &[x]),
            false => Ok(x),
        };
        let add = |b: &mut GraphBuilder, name: &str, h: ValueId, y: ValueId| {
            let y = b.scale(&format!("{name}_scale"), y, scale)?;
            b.add(name, h, y)
        };
        let mut x = h;
        if norms != Norms::Post {
            x = norm(b, "attention_norm", "attn_norm", "input_layernorm", x)?;
        }
        let normed = x;
        let mut y = attend(b, x)?;
        if matches!(norms, Norms::Post | Norms::Sandwich) {
            y = norm(b, "attention_post_norm", "post_attention_norm", "post_attention_layernorm", y)?;
        }
        let residual = select(b, "select_residual", h)?;
        let h = add(b, "attention_residual", residual, y)?;
        x = match norms {
            Norms::Pre => {
                // gpt-oss and Qwen3-Next name this norm after its place.
                let own = !l.is_gguf() || !l.has(layer, "post_attention_norm.weight", "")?;
                let gguf = if own { "ffn_norm" } else { "post_attention_norm" };
                norm(b, "mlp_norm", gguf, "post_attention_layernorm", h)?
            }
            Norms::Sandwich => norm(b, "mlp_norm", "ffn_norm", "pre_feedforward_layernorm", h)?,
            Norms::Post => h,
            Norms::Parallel => select(b, "select_norm", normed)?,
        };
        let mut y = feed(b, x)?;
        if matches!(norms, Norms::Post | Norms::Sandwich) {
            y = norm(b, "mlp_post_norm", "post_ffw_norm", "post_feedforward_layernorm", y)?;
        }
        Ok(add(b, "mlp_residual", h, y)?)
    })
}

/// The final norm and the output head over `x`, which finish the graph.
pub fn logits(
    mut b: GraphBuilder,
    l: &Loader<'_>,
    x: ValueId,
    embedding: WeightId,
    head: &Head,
) -> Result<Graph, Error> {
    let width = b.graph().value(x).width;
    let norm = l.final_norm(&mut b, head.norm, width)?;
    let x = b.norm("final_norm", x, norm)?;
    let (weight, bias) = l.head(&mut b, embedding, head.tied)?;
    let mut y = b.head("head", x, weight, bias)?;
    y = b.scale("head_scale", y, head.scale)?;
    if let Some(cap) = head.softcap {
        y = b.op("head_softcap", Op::Softcap { cap }, &[y])?;
    }
    Ok(b.finish(y))
}
