//! Mixtures of experts: a router, the feed-forwards of the chosen experts, and a feed-forward for all tokens.

use handmill_runtime::graph::{Act, ExpertLinearOp, GraphBuilder, Op, RouteOp, ValueId, WeightId};

use super::Loader;
use crate::Error;

/// The tensors of the experts in safetensors; names after the layer's. GGUF files have them in
/// `ffn_{gate,up,down}_exps`, or gate and up in `ffn_gate_up_exps`.
#[derive(Clone, Copy, Debug)]
pub enum Experts<'a> {
    /// A tensor for each, `{prefix}.{e}.{name}.weight`; the names of gate, up and down.
    Each(&'a str, [&'a str; 3]),
    /// `[experts, 2 inner, width]`, gate above up, and `[experts, width, inner]`.
    Fused([&'a str; 2]),
    /// `[experts, width, 2 inner]`, gate before up, and `[experts, inner, width]`: rows belong to inputs.
    InputMajor([&'a str; 2]),
    /// As `{0}.gate_up_proj` and `{0}.down_proj`, of gpt-oss: as [`Experts::InputMajor`], but gate and up take turns; with
    /// biases `[experts, 2 inner]` and `[experts, width]` in `…_bias`. Or in MXFP4 with a row per output, the blocks in
    /// `…_blocks` and their scales in `…_scales`.
    Interleaved(&'a str),
}

/// A feed-forward that all tokens go through beside their experts.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    /// Width between its halves.
    pub inner: usize,
    /// Its name in safetensors, as `mlp.shared_expert`; GGUF files have it in `ffn_{gate,up,down}_shexp`.
    pub hf: &'a str,
    /// The names of gate, up and down there.
    pub names: [&'a str; 3],
    /// The name in safetensors of its gate (`ffn_gate_inp_shexp` in GGUF), if it has one: the sigmoid of the gate
    /// multiplies the result.
    pub gate: Option<&'a str>,
}

/// The most common names of gate, up and down.
pub const PROJECTIONS: [&str; 3] = ["gate_proj", "up_proj", "down_proj"];

/// A mixture of experts. [`Moe::new`] gives the plain one, for struct update.
#[derive(Clone, Debug)]
pub struct Moe<'a> {
    /// The rule of choice.
    pub route: RouteOp,
    /// The router's name in safetensors, without `.weight`; `ffn_gate_inp` in GGUF.
    pub router: &'a str,
    /// Whether the router has a bias, where the file has one of its name.
    pub router_bias: bool,
    /// The experts.
    pub experts: Experts<'a>,
    /// Width between the halves of an expert.
    pub inner: usize,
    /// The activation of all experts, the shared one included.
    pub act: Act,
    /// Whether the weights of the route multiply the experts' inputs, not their results.
    pub scale_inputs: bool,
    /// The feed-forward that all tokens go through, if any.
    pub shared: Option<Shared<'a>>,
}

impl<'a> Moe<'a> {
    /// SwiGLU experts whose results are weighted.
    pub fn new(route: RouteOp, router: &'a str, experts: Experts<'a>, inner: usize) -> Self {
        Self { route, router, router_bias: true, experts, inner, act: Act::Silu, scale_inputs: false, shared: None }
    }
}

/// The mixture of experts of layer `layer` over `x`.
///
/// # Errors
/// Missing tensors, and shapes that do not fit.
pub fn moe(b: &mut GraphBuilder, l: &Loader<'_>, layer: usize, x: ValueId, m: &Moe<'_>) -> Result<ValueId, Error> {
    let width = b.graph().value(x).width;
    let n = m.route.n_experts;
    let weight = l.layer(b, layer, "ffn_gate_inp.weight", &format!("{}.weight", m.router), &[n, width])?;
    let bias = match m.router_bias {
        true => l.layer_if_present(b, layer, "ffn_gate_inp.bias", &format!("{}.bias", m.router), &[n])?,
        false => None,
    };
    let logits = b.linear("router", x, weight, bias)?;
    // Right after the router, so that one pass over x makes all of them.
    let halves = match &m.shared {
        Some(s) => Some(shared_halves(b, l, layer, x, s)?),
        None => None,
    };
    let route = b.route("route", logits, m.route.clone())?;
    let y = routed(b, l, layer, x, route, m)?;
    match (&m.shared, halves) {
        (Some(s), Some(halves)) => shared(b, l, layer, y, s, halves, m.act),
        _ => Ok(y),
    }
}

/// The sum of the results of the experts of `route` on `x`.
///
/// # Errors
/// Missing tensors, and shapes that do not fit.
pub fn routed(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    route: ValueId,
    m: &Moe<'_>,
) -> Result<ValueId, Error> {
    let (width, n, inner) = (b.graph().value(x).width, m.route.n_experts, m.inner);
    let scaled = m.scale_inputs;
    if let (Experts::Interleaved(prefix), false) = (m.experts, l.is_gguf()) {
        return interleaved(b, l, layer, x, route, m, prefix);
    }
    let plain = |experts: Vec<WeightId>| ExpertLinearOp { experts, bias: None, input_major: false, scaled: false };
    let halves = match m.experts {
        Experts::InputMajor([gate_up, _]) if l.rows_are_inputs(layer, gate_up, [n, width, 2 * inner])? => {
            let experts = l.stacked(b, layer, "", gate_up, [n, width, 2 * inner], 0..width)?;
            let op = ExpertLinearOp { input_major: true, scaled, ..plain(experts) };
            let both = b.expert_linear("gate_up", x, route, op)?;
            [0, inner].map(|offset| {
                let half = Op::Columns { period: 2 * inner, offset, len: inner };
                b.op(if offset == 0 { "gate" } else { "up" }, half, &[both])
            })
        }
        _ => {
            let mut half = |i: usize| {
                let name = ["gate", "up"][i];
                let experts = l.experts(b, layer, &m.experts, i, [n, inner, width])?;
                let bias = l.layer_if_present(b, layer, &format!("ffn_{name}_exps.bias"), "", &[n, inner])?;
                Ok::<_, Error>(b.expert_linear(name, x, route, ExpertLinearOp { scaled, bias, ..plain(experts) }))
            };
            [half(0)?, half(1)?]
        }
    };
    let [gate, up] = halves;
    let y = b.gated("gated", m.act, gate?, up?)?;
    let down = match m.experts {
        Experts::InputMajor([_, down]) if l.rows_are_inputs(layer, down, [n, inner, width])? => {
            let experts = l.stacked(b, layer, "", down, [n, inner, width], 0..inner)?;
            ExpertLinearOp { input_major: true, ..plain(experts) }
        }
        _ => {
            let bias = l.layer_if_present(b, layer, "ffn_down_exps.bias", "", &[n, width])?;
            ExpertLinearOp { bias, ..plain(l.experts(b, layer, &m.experts, 2, [n, width, inner])?) }
        }
    };
    let y = b.expert_linear("down", y, route, down)?;
    Ok(b.op("experts", Op::ExpertSum { weighted: !scaled }, &[y, route])?)
}

/// As [`routed`] for [`Experts::Interleaved`].
fn interleaved(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    route: ValueId,
    m: &Moe<'_>,
    prefix: &str,
) -> Result<ValueId, Error> {
    let (width, n, inner) = (b.graph().value(x).width, m.route.n_experts, m.inner);
    let linear = |b: &mut GraphBuilder, name: &str, x: ValueId, [out, inner]: [usize; 2]| {
        let hf = format!("{prefix}.{name}_proj");
        let blocks = l.mxfp4(b, layer, &hf, [n, out, inner])?;
        let input_major = blocks.is_none() && l.rows_are_inputs(layer, &hf, [n, inner, out])?;
        let experts = match blocks {
            Some(experts) => experts,
            None if input_major => l.stacked(b, layer, "", &hf, [n, inner, out], 0..inner)?,
            None => l.stacked(b, layer, "", &hf, [n, out, inner], 0..out)?,
        };
        let bias = Some(l.layer(b, layer, "", &format!("{hf}_bias"), &[n, out])?);
        Ok::<_, Error>(b.expert_linear(name, x, route, ExpertLinearOp { experts, bias, input_major, scaled: false })?)
    };
    let both = linear(b, "gate_up", x, [2 * inner, width])?;
    let gate = b.op("gate", Op::Columns { period: 2, offset: 0, len: 1 }, &[both])?;
    let up = b.op("up", Op::Columns { period: 2, offset: 1, len: 1 }, &[both])?;
    let y = b.gated("gated", m.act, gate, up)?;
    let y = linear(b, "down", y, [width, inner])?;
    Ok(b.op("experts", Op::ExpertSum { weighted: true }, &[y, route])?)
}

/// Gate and up of the shared feed-forward, and the factor on its result.
fn shared_halves(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    s: &Shared<'_>,
) -> Result<(ValueId, ValueId, Option<ValueId>), Error> {
    let width = b.graph().value(x).width;
    let gate = shared_part(b, l, layer, x, s, 0, [s.inner, width])?;
    let up = shared_part(b, l, layer, x, s, 1, [s.inner, width])?;
    let factor = match s.gate {
        Some(name) => {
            // The matrix has one row; GGUF files have it as a vector.
            let weight = l.row(b, layer, "ffn_gate_inp_shexp.weight", &format!("{name}.weight"), width)?;
            Some(b.linear("shared_factor", x, weight, None)?)
        }
        None => None,
    };
    Ok((gate, up, factor))
}

fn shared_part(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    x: ValueId,
    s: &Shared<'_>,
    part: usize,
    shape: [usize; 2],
) -> Result<ValueId, Error> {
    let (name, part) = (s.names[part], ["gate", "up", "down"][part]);
    let (gguf, hf) = (format!("ffn_{part}_shexp"), format!("{}.{name}", s.hf));
    let weight = l.layer(b, layer, &format!("{gguf}.weight"), &format!("{hf}.weight"), &shape)?;
    let bias = l.layer_if_present(b, layer, &format!("{gguf}.bias"), &format!("{hf}.bias"), &shape[..1])?;
    Ok(b.linear(&format!("shared_{part}"), x, weight, bias)?)
}

/// `y` plus the result of the shared feed-forward.
fn shared(
    b: &mut GraphBuilder,
    l: &Loader<'_>,
    layer: usize,
    y: ValueId,
    s: &Shared<'_>,
    (gate, up, factor): (ValueId, ValueId, Option<ValueId>),
    act: Act,
) -> Result<ValueId, Error> {
    let width = b.graph().value(y).width;
    let gated = b.gated("shared_gated", act, gate, up)?;
    let mut z = shared_part(b, l, layer, gated, s, 2, [width, s.inner])?;
    if let Some(factor) = factor {
        let factor = b.act("shared_sigmoid", Act::Sigmoid, factor)?;
        z = b.op("shared", Op::Mul, &[z, factor])?;
    }
    Ok(b.add("experts_and_shared", y, z)?)
}
