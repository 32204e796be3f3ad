//! Per-layer inputs of Gemma 3n and 4: each token has a small vector for every layer, looked up and projected from its
//! embedding. It gates the last addition of the layer.

use handmill_runtime::graph::{Act, GraphBuilder, Op, ValueId};

use super::Loader;
use crate::{Error, config::key};

/// The inputs of all layers, `[n_layers * width]`.
#[derive(Clone, Copy, Debug)]
pub struct PerLayer {
    inputs: ValueId,
    n_layers: usize,
    /// Elements for one layer.
    width: usize,
}

impl PerLayer {
    /// `(scale * table[id] + norm(project(e) * H^-0.5)) * 2^-0.5` for the scaled token embeddings `e`. Ids beyond the
    /// table look up its first row.
    pub fn new(
        b: &mut GraphBuilder,
        l: &Loader<'_>,
        e: ValueId,
        n_layers: usize,
        width: usize,
        scale: f32,
    ) -> Result<Self, Error> {
        let (hidden, all) = (b.graph().value(e).width, n_layers * width);
        b.scoped("per_layer", |b| {
            let names = ["per_layer_token_embd.weight", "embed_tokens_per_layer.weight"];
            let table = l.table(b, names, all, key("", "vocab_size_per_layer_input"))?;
            let own = b.op("embed", Op::Embed { table, scale, or_first: true }, &[])?;
            let names = ["per_layer_model_proj.weight", "per_layer_model_projection.weight"];
            let weight = l.global(b, names[0], names[1], &[all, hidden])?;
            let x = b.linear("project", e, weight, None)?;
            let x = b.scale("project_scale", x, (hidden as f32).powf(-0.5))?;
            let names = ["per_layer_proj_norm.weight", "per_layer_projection_norm.weight"];
            let weight = l.global(b, names[0], names[1], &[width])?;
            let x = b.norm("norm", x, l.rms(weight, width))?;
            let x = b.add("sum", own, x)?;
            Ok(Self { inputs: b.scale("scale", x, 0.5f32.sqrt())?, n_layers, width })
        })
    }

    /// `norm(project(gelu(gate(x)) * input))` with layer `layer`'s input. `last`: `x` has only the output rows.
    pub fn apply(
        &self,
        b: &mut GraphBuilder,
        l: &Loader<'_>,
        layer: usize,
        x: ValueId,
        last: bool,
    ) -> Result<ValueId, Error> {
        let hidden = b.graph().value(x).width;
        let period = self.n_layers * self.width;
        let mut own = b.columns("per_layer_input", self.inputs, [period, layer * self.width, self.width])?;
        if last {
            own = b.op("select_per_layer", Op::SelectOutputs, &[own])?;
        }
        let weight = l.layer(b, layer, "inp_gate.weight", "per_layer_input_gate.weight", &[self.width, hidden])?;
        let gate = b.linear("per_layer_gate", x, weight, None)?;
        let y = b.gated("per_layer_gated", Act::GeluTanh, gate, own)?;
        let weight = l.layer(b, layer, "proj.weight", "per_layer_projection.weight", &[hidden, self.width])?;
        let y = b.linear("per_layer_project", y, weight, None)?;
        let norm = l.layer_rms(b, layer, "post_norm.weight", "post_per_layer_input_norm.weight", hidden)?;
        Ok(b.norm("per_layer_norm", y, norm)?)
    }
}
