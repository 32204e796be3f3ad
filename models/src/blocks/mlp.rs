//! Feed-forwards.

use handmill_runtime::graph::{Act, GraphBuilder, ValueId};

use super::{Loader, project};
use crate::Error;

/// `down(act(gate(x)) * up(x))` for layer `layer`, `inner` wide between; gate and up from tensors of their own or fused.
pub fn gated_mlp(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    inner: usize,
    act: Act,
) -> Result<ValueId, Error> {
    gated_mlp_named(b, l, layer, x, ("mlp", inner), act)
}

/// As [`gated_mlp`], of that name in safetensors.
pub fn gated_mlp_named(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    (hf, inner): (&str, usize),
    act: Act,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    // Phi 3's GGUF files have gate and up in `ffn_up`.
    let fused = match l.is_gguf() {
        true => !l.has(layer, "ffn_gate.weight", "")?,
        false => l.has(layer, "", &format!("{hf}.gate_up_proj.weight"))?,
    };
    let mut halves = Vec::with_capacity(2);
    for (i, name) in ["gate", "up"].into_iter().enumerate() {
        if fused {
            let (all, rows) = ([2 * inner, width], i * inner..(i + 1) * inner);
            let weight = l.layer_rows(b, layer, "ffn_up.weight", &format!("{hf}.gate_up_proj.weight"), &all, rows)?;
            halves.push(b.linear(name, x, weight, None)?);
        } else {
            halves.push(feed(b, l, layer, x, [name, &format!("{hf}.{name}_proj")], inner)?);
        }
    }
    let y = b.gated("gated", act, halves[0], halves[1])?;
    feed(b, l, layer, y, ["down", &format!("{hf}.down_proj")], width)
}

/// `fc2(act(fc1(x)))` for layer `layer`, `inner` wide between.
pub fn mlp(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    inner: usize,
    act: Act,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let y = feed(b, l, layer, x, ["up", "mlp.fc1"], inner)?;
    let y = b.act("act", act, y)?;
    feed(b, l, layer, y, ["down", "mlp.fc2"], width)
}

/// A linear of the feed-forward by its name in GGUF (after `ffn_`) and in safetensors, with a bias where
/// the file has one.
fn feed(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    [name, hf]: [&str; 2],
    out: usize,
) -> Result<ValueId, Error> {
    project(b, l, layer, name, x, [&format!("ffn_{name}"), hf], out)
}
