//! A layer's linear by name.

use handmill_runtime::graph::{GraphBuilder, ValueId};

use super::Loader;
use crate::Error;

/// Projects `x` to `out` elements by layer `layer`'s weight, with a bias where the file has one; names in GGUF and in
/// safetensors without `.weight`.
///
/// # Errors
/// Missing tensors, and shapes that do not fit.
pub fn project(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    name: &str,
    x: ValueId,
    [gguf, hf]: [&str; 2],
    out: usize,
) -> Result<ValueId, Error> {
    let shape = [out, b.graph().value(x).width];
    let weight = l.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &shape)?;
    let bias = l.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("{hf}.bias"), &[out])?;
    Ok(b.linear(name, x, weight, bias)?)
}
