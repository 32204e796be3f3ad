//! Gated DeltaNet: linear attention whose state forgets by a gate and learns by the delta rule, behind a short
//! convolution of q, k and v. Yang et al. 2024.

use handmill_runtime::graph::{Act, GatedDeltaOp, GraphBuilder, NormOp, Op, StateId, ValueId};

use super::Loader;
use crate::Error;

/// The tensors of the projections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeltaProjections {
    /// `in_proj_qkvz` and `in_proj_ba`: rows key head by key head, each with its q, k, and the v, z, b and a of its value
    /// heads. GGUF has q‖k‖v and z apart, but b and a as they are (Qwen3-Next).
    ByKeyHead,
    /// `in_proj_qkv` (all q, all k, all v), `in_proj_z`, `in_proj_b`, `in_proj_a`. GGUF reorders the value heads so that
    /// those of a key head lie `k_heads` apart (Qwen 3.5).
    Apart,
}

/// A layer's dimensions.
#[derive(Clone, Copy, Debug)]
pub struct DeltaNet {
    /// Heads of q and k.
    pub k_heads: usize,
    /// Heads of v, a multiple.
    pub v_heads: usize,
    /// Elements of a q or k.
    pub k_dim: usize,
    /// Elements of a v.
    pub v_dim: usize,
    /// Tokens that the convolution reaches over.
    pub taps: usize,
    /// The tensors of the projections.
    pub projections: DeltaProjections,
}

/// Results of a layer's projections: q‖k‖v, z, b, a.
type Projected = [ValueId; 4];

/// `out(norm(delta(silu(conv(qkv(x))))) * silu(z(x)))` for layer `layer`. After the last layer only the output rows
/// remain.
pub fn delta_net(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    d: &DeltaNet,
    last: bool,
) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let [qkv, z, beta, alpha] = match d.projections {
        DeltaProjections::ByKeyHead => by_key_head(b, l, layer, x, d)?,
        DeltaProjections::Apart => apart(b, l, layer, x, d)?,
    };
    let channels = b.graph().value(qkv).width;
    let taps = l.layer_taps(b, layer, "ssm_conv1d.weight", "linear_attn.conv1d.weight", [channels, d.taps])?;
    let qkv = b.short_conv("conv", qkv, taps, d.taps)?;
    let op = GatedDeltaOp {
        state: StateId(0),
        n_k_heads: d.k_heads,
        n_v_heads: d.v_heads,
        k_dim: d.k_dim,
        v_dim: d.v_dim,
        decay: l.layer(b, layer, "ssm_a", "linear_attn.A_log", &[d.v_heads])?,
        // Safetensors store the logarithm, GGUF the number itself.
        decay_log: !l.is_gguf(),
        dt_bias: l.layer(b, layer, "ssm_dt.bias", "linear_attn.dt_bias", &[d.v_heads])?,
        tiled: l.is_gguf() && d.projections == DeltaProjections::Apart,
    };
    let y = b.gated_delta("delta", [qkv, beta, alpha], op)?;
    let weight = l.layer(b, layer, "ssm_norm.weight", "linear_attn.norm.weight", &[d.v_dim])?;
    // This norm's scale is stored without the offset of the family's other norms.
    let y = b.norm("norm", y, NormOp { weight_offset: 0.0, ..l.rms(weight, d.v_dim) })?;
    let mut y = b.gated("gate", Act::Silu, z, y)?;
    if last {
        y = b.op("select", Op::SelectOutputs, &[y])?;
    }
    let shape = [width, d.v_heads * d.v_dim];
    let weight = l.layer(b, layer, "ssm_out.weight", "linear_attn.out_proj.weight", &shape)?;
    Ok(b.linear("out", y, weight, None)?)
}

/// A linear without bias.
fn project(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    [name, gguf, hf]: [&str; 3],
    out: usize,
) -> Result<ValueId, Error> {
    let shape = [out, b.graph().value(x).width];
    let weight = l.layer(b, layer, &format!("{gguf}.weight"), &format!("linear_attn.{hf}.weight"), &shape)?;
    Ok(b.linear(name, x, weight, None)?)
}

fn apart(b: &mut GraphBuilder, l: &Loader<'_>, layer: usize, x: ValueId, d: &DeltaNet) -> Result<Projected, Error> {
    let (keys, values) = (d.k_heads * d.k_dim, d.v_heads * d.v_dim);
    Ok([
        project(b, l, layer, x, ["qkv", "attn_qkv", "in_proj_qkv"], 2 * keys + values)?,
        project(b, l, layer, x, ["z", "attn_gate", "in_proj_z"], values)?,
        project(b, l, layer, x, ["b", "ssm_beta", "in_proj_b"], d.v_heads)?,
        project(b, l, layer, x, ["a", "ssm_alpha", "in_proj_a"], d.v_heads)?,
    ])
}

fn by_key_head(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    d: &DeltaNet,
) -> Result<Projected, Error> {
    let (keys, values) = (d.k_heads * d.k_dim, d.v_heads * d.v_dim);
    let per_key = d.v_heads / d.k_heads;
    let (qkv, z, ba) = if l.is_gguf() {
        let qkv = project(b, l, layer, x, ["qkv", "attn_qkv", ""], 2 * keys + values)?;
        let z = project(b, l, layer, x, ["z", "attn_gate", ""], values)?;
        (qkv, z, project(b, l, layer, x, ["ba", "ssm_ba", ""], 2 * d.v_heads)?)
    } else {
        let all = project(b, l, layer, x, ["qkvz", "", "in_proj_qkvz"], 2 * (keys + values))?;
        let ba = project(b, l, layer, x, ["ba", "", "in_proj_ba"], 2 * d.v_heads)?;
        let v = per_key * d.v_dim;
        let period = 2 * (d.k_dim + v);
        let q = b.columns("q", all, [period, 0, d.k_dim])?;
        let k = b.columns("k", all, [period, d.k_dim, d.k_dim])?;
        let qk = b.join("qk", (q, keys), (k, keys))?;
        let values_of = b.columns("v", all, [period, 2 * d.k_dim, v])?;
        let qkv = b.join("qkv", (qk, 2 * keys), (values_of, values))?;
        (qkv, b.columns("z", all, [period, 2 * d.k_dim + v, v])?, ba)
    };
    let beta = b.columns("b", ba, [2 * per_key, 0, per_key])?;
    Ok([qkv, z, beta, b.columns("a", ba, [2 * per_key, per_key, per_key])?])
}
