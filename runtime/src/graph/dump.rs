//! Graphs for people and tools to look at: DOT (Graphviz) and JSON.

use std::fmt::Write;

use serde_json::{Value as Json, json};

use super::{
    builder::{Graph, Node},
    op::{Op, Rows, WeightId},
    streams::StreamOp,
};

/// Weights that a box of a drawing names at most: a stage of experts has hundreds.
const MOST_SHOWN: usize = 3;

impl Graph {
    /// The graph in Graphviz's DOT language: a box an op with its output's shape and its weight's format.
    pub fn to_dot(&self) -> String {
        let mut dot = String::from("digraph handmill {\n  node [shape=box, fontname=monospace];\n");
        for (i, node) in self.nodes().iter().enumerate() {
            let value = self.value(node.output);
            let mut label = format!("{}\\n{} [{}, {}]", node.name, node.op.kind(), rows(value.rows), value.width);
            for w in weights(node).take(MOST_SHOWN) {
                let _ = write!(label, "\\n{} {}", self.weight_name(w), self.weight(w).dtype());
            }
            if weights(node).nth(MOST_SHOWN).is_some() {
                let _ = write!(label, "\\n… {} in all", weights(node).count());
            }
            let label = label.replace('"', "\\\"");
            let _ = writeln!(dot, "  n{i} [label=\"{label}\"];");
            for input in &node.inputs {
                if let Some(from) = self.nodes().iter().position(|n| n.output == *input) {
                    let _ = writeln!(dot, "  n{from} -> n{i};");
                }
            }
        }
        dot.push_str("}\n");
        dot
    }

    /// The graph as JSON: `{"nodes": [{"name", "op", "inputs", "rows", "width", "weights", "attributes"}], "output"}`.
    pub fn to_json(&self) -> Json {
        let nodes: Vec<Json> = self
            .nodes()
            .iter()
            .map(|node| {
                let value = self.value(node.output);
                let weights: Vec<Json> = weights(node)
                    .map(|w| {
                        let t = self.weight(w);
                        json!({"name": self.weight_name(w), "dtype": t.dtype().name(), "shape": t.shape()})
                    })
                    .collect();
                json!({
                    "name": node.name,
                    "op": node.op.kind(),
                    "inputs": node.inputs.iter().map(|v| &self.value(*v).name).collect::<Vec<_>>(),
                    "rows": rows(value.rows),
                    "width": value.width,
                    "weights": weights,
                    "attributes": attributes(&node.op),
                })
            })
            .collect();
        json!({"nodes": nodes, "output": self.output.map(|v| &self.value(v).name)})
    }
}

fn rows(rows: Rows) -> &'static str {
    match rows {
        Rows::Token => "tokens",
        Rows::Output => "outputs",
    }
}

fn weights(node: &Node) -> impl Iterator<Item = WeightId> {
    let mut experts: &[WeightId] = &[];
    let some = match &node.op {
        Op::Embed { table, .. } => [Some(*table), None, None],
        Op::Norm(n) => [n.weight, n.bias, None],
        Op::Linear { weight, bias } => [Some(*weight), *bias, None],
        Op::HeadLinear(h) => [Some(h.weight), None, None],
        Op::Attention(a) => [a.sinks, None, None],
        Op::Pool(p) => [Some(p.bias), None, None],
        Op::Hyper(h) => [Some(h.scale), Some(h.base), None],
        Op::ShortConv(c) => [Some(c.weight), None, None],
        Op::GatedDelta(d) => [Some(d.decay), Some(d.dt_bias), None],
        Op::Route(r) => [r.bias, r.expert_scale, r.table],
        Op::ExpertLinear(e) => {
            experts = &e.experts;
            [e.bias, None, None]
        }
        _ => [None; 3],
    };
    experts.iter().copied().chain(some.into_iter().flatten())
}

fn attributes(op: &Op) -> Json {
    match op {
        Op::Embed { scale, or_first, .. } => json!({"scale": scale, "or_first": or_first}),
        Op::Norm(n) => json!({
            "kind": format!("{:?}", n.kind).to_lowercase(), "eps": n.eps, "group": n.group,
            "weight_offset": n.weight_offset,
        }),
        Op::Rope { rope, n_heads, head_dim } => json!({"rope": rope.0, "n_heads": n_heads, "head_dim": head_dim}),
        Op::Attention(a) => json!({
            "cache": a.cache.0, "n_heads": a.n_heads, "n_kv_heads": a.n_kv_heads, "head_dim": a.head_dim,
            "v_dim": a.v_dim, "scale": a.scale, "softcap": a.softcap, "window": a.window, "chunk": a.chunk,
            "v_in_k": a.v_in_k, "selected": a.selected, "shared": a.shared,
            "blocks": a.blocks.map(|c| c.0),
        }),
        Op::Pool(p) => json!({
            "cache": p.cache.0, "block": p.block, "width": p.width, "overlap": p.overlap,
        }),
        Op::SelectKeys(s) => json!({
            "cache": s.cache.0, "n_heads": s.n_heads, "head_dim": s.head_dim, "k": s.k,
        }),
        Op::HeadLinear(h) => json!({
            "heads": h.heads, "input": h.input, "output": h.output, "transposed": h.transposed,
        }),
        Op::ShortConv(c) => json!({"state": c.state.0, "taps": c.taps}),
        Op::GatedDelta(d) => json!({
            "state": d.state.0, "n_k_heads": d.n_k_heads, "n_v_heads": d.n_v_heads, "k_dim": d.k_dim, "v_dim": d.v_dim,
            "decay_log": d.decay_log, "tiled": d.tiled,
        }),
        Op::GatedAct { act } | Op::Act { act } => match act.parameters() {
            (_, f32::INFINITY) => json!({"act": act.name()}),
            (alpha, limit) => json!({"act": act.name(), "alpha": alpha, "limit": limit}),
        },
        Op::Columns { period, offset, len } => json!({"period": period, "offset": offset, "len": len}),
        Op::Join { a, b } => json!({"a": a, "b": b}),
        Op::PositionScale(s) => json!({"beta": s.beta, "length": s.length, "offset": s.offset}),
        Op::Streams(op) => match op {
            StreamOp::Mix { inputs, offset } => json!({"what": op.name(), "inputs": inputs, "offset": offset}),
            StreamOp::MatchRms { floor } => json!({"what": op.name(), "floor": floor}),
            StreamOp::Add => json!({"what": op.name()}),
        },
        Op::Hyper(h) => json!({"streams": h.streams, "iterations": h.iterations, "eps": h.eps}),
        Op::Sparsify { deviations } => json!({"deviations": deviations}),
        Op::Scale { factor } => json!({"factor": factor}),
        Op::Softcap { cap } => json!({"cap": cap}),
        Op::Route(r) => json!({
            "n_experts": r.n_experts, "k": r.k, "score": format!("{:?}", r.score).to_lowercase(),
            "weight": format!("{:?}", r.weight).to_lowercase(), "renormalise": r.renormalise, "scale": r.scale,
            "groups": r.groups.map(|g| json!([g.n, g.keep])), "by_token": r.table.is_some(),
        }),
        Op::ExpertLinear(e) => json!({
            "n_experts": e.experts.len(), "input_major": e.input_major, "scaled": e.scaled,
        }),
        Op::ExpertSum { weighted } => json!({"weighted": weighted}),
        Op::Linear { .. } | Op::Add | Op::Mul | Op::SelectOutputs => json!({}),
    }
}
