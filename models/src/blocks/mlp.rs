//! The gated feed-forward, the layer that most families share, and the output head.

use handmill_runtime::graph::{Act, Graph, GraphBuilder, Op, ValueId, WeightId};

use super::{Attention, Loader, attention};
use crate::Error;

/// `down(act(gate(x)) * up(x))` for layer `layer`, `inner` wide between.
pub fn gated_mlp(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    inner: usize,
    act: Act,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let project = |b: &mut GraphBuilder, name: &str, x, out: usize| {
        let shape = [out, b.graph().value(x).width];
        let weight = l.layer(b, layer, &format!("ffn_{name}.weight"), &format!("mlp.{name}_proj.weight"), &shape)?;
        let bias =
            l.layer_if_present(b, layer, &format!("ffn_{name}.bias"), &format!("mlp.{name}_proj.bias"), &[out])?;
        Ok::<_, Error>(b.linear(name, x, weight, bias)?)
    };
    let gate = project(b, "gate", x, inner)?;
    let up = project(b, "up", x, inner)?;
    let y = b.op("gated", Op::GatedAct { act }, &[gate, up])?;
    project(b, "down", y, width)
}

/// One layer of the llama block: `h += attention(norm(h)); h += mlp(norm(h))`, the latter `inner` wide between. From the last layer's attention on only
/// the rows whose output was asked for are computed.
pub fn pre_norm_layer(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    h: ValueId,
    a: &Attention,
    inner: usize,
    last: bool,
) -> Result<ValueId, Error> {
    let width = b.graph().value(h).width;
    b.scoped(format!("layer.{layer}"), |b| {
        let norm = l.layer_rms(b, layer, "attn_norm.weight", "input_layernorm.weight", width)?;
        let n = b.norm("attention_norm", h, norm)?;
        let y = attention(b, l, layer, n, a, last)?;
        let residual = if last { b.op("select_residual", Op::SelectOutputs, &[h])? } else { h };
        let h = b.add("attention_residual", residual, y)?;
        let norm = l.layer_rms(b, layer, "ffn_norm.weight", "post_attention_layernorm.weight", width)?;
        let n = b.norm("mlp_norm", h, norm)?;
        let y = gated_mlp(b, l, layer, n, inner, Act::Silu)?;
        Ok(b.add("mlp_residual", h, y)?)
    })
}

/// The final norm and the output head over `x`, which finish the graph. `tied`: the head is the embedding table
/// whatever else the file has.
pub fn head(mut b: GraphBuilder, l: &Loader<'_>, x: ValueId, embedding: WeightId, tied: bool) -> Result<Graph, Error> {
    let width = b.graph().value(x).width;
    let norm = l.final_rms(&mut b, width)?;
    let x = b.norm("final_norm", x, norm)?;
    let head = if tied { embedding } else { l.head(&mut b, embedding)? };
    let logits = b.linear("head", x, head, None)?;
    Ok(b.finish(logits))
}
