//! What converters to GGUF do to experts: one tensor for those of a layer, `[experts, out, in]`, gate and up apart.

use handmill_runtime::quant::BlockMXFP4Split;

use super::fixture::Weight;

/// `weights` with experts stacked, turned and taken apart. Those get names behind `gguf:`.
pub fn as_in_gguf(weights: Vec<Weight>) -> Vec<Weight> {
    let mut out: Vec<Weight> = Vec::new();
    let scales: Vec<Weight> = weights.iter().filter(|w| w.name.ends_with("_scales")).cloned().collect();
    for weight in weights {
        let stacks = [".mlp.experts.", ".feed_forward.experts."].iter().find_map(|s| weight.name.split_once(s));
        let Some((layer, part)) = stacks.or_else(|| sparse(&weight.name)) else {
            out.push(weight);
            continue;
        };
        let (layer, part) = (layer.to_owned(), part.to_owned());
        let named =
            |name: &str, kind: &str, w: Weight| Weight { name: format!("{layer}.gguf:ffn_{name}_exps.{kind}"), ..w };
        match part.as_str() {
            "gate_up_proj" if weight.name.contains(".feed_forward.") => {
                let w = turned(&weight);
                out.push(named("gate", "weight", rows(&w, |r, n| (r < n / 2).then_some(r))));
                out.push(named("up", "weight", rows(&w, |r, n| (r < n / 2).then_some(n / 2 + r))));
            }
            "gate_up_proj" => {
                let w = turned(&weight);
                out.push(named("gate", "weight", rows(&w, |r, n| (r < n / 2).then_some(2 * r))));
                out.push(named("up", "weight", rows(&w, |r, n| (r < n / 2).then_some(2 * r + 1))));
            }
            "down_proj" => out.push(named("down", "weight", turned(&weight))),
            "gate_up_proj_bias" => {
                out.push(named("gate", "bias", every_other(&weight, 0)));
                out.push(named("up", "bias", every_other(&weight, 1)));
            }
            "down_proj_bias" => out.push(named("down", "bias", weight)),
            "input_linear.weight" => {
                out.push(named("gate", "weight", rows(&weight, |r, n| (r < n / 2).then_some(r))));
                out.push(named("up", "weight", rows(&weight, |r, n| (r < n / 2).then_some(n / 2 + r))));
            }
            "output_linear.weight" => out.push(named("down", "weight", weight)),
            "gate_up_proj_blocks" => {
                out.push(named("gate", "weight", mxfp4(&weight, &scales, |r, n| (r < n / 2).then_some(2 * r))));
                out.push(named("up", "weight", mxfp4(&weight, &scales, |r, n| (r < n / 2).then_some(2 * r + 1))));
            }
            "down_proj_blocks" => {
                out.push(named("down", "weight", mxfp4(&weight, &scales, |r, n| (r < n).then_some(r))))
            }
            "gate_up_proj_scales" | "down_proj_scales" => {}
            one => {
                let mut parts = one.split('.');
                let expert: usize = parts.next().and_then(|e| e.parse().ok()).expect("an expert's number");
                let name = match parts.next().expect("a part of an expert") {
                    "gate_proj" | "w1" => "gate",
                    "up_proj" | "w3" => "up",
                    "down_proj" | "w2" => "down",
                    other => panic!("no GGUF name for an expert's {other}"),
                };
                stack(&mut out, format!("{layer}.gguf:ffn_{name}_exps.weight"), expert, weight);
            }
        }
    }
    out
}

fn sparse(name: &str) -> Option<(&str, &str)> {
    name.split_once(".block_sparse_moe.experts.").or_else(|| {
        let (layer, part) = name.split_once(".block_sparse_moe.")?;
        part.ends_with("put_linear.weight").then_some((layer, part))
    })
}

/// Puts an expert's matrix at its place in the stack `name`. Names are sorted as text, so numbers may come out of order.
pub(super) fn stack(out: &mut Vec<Weight>, name: String, expert: usize, weight: Weight) {
    let (rows, len) = (weight.shape[0], weight.shape[1]);
    let at = match out.iter().position(|w| w.name == name) {
        Some(at) => at,
        None => {
            out.push(Weight { name, shape: vec![0, rows, len], values: Vec::new(), ..weight.clone() });
            out.len() - 1
        }
    };
    let (stack, each) = (&mut out[at], rows * len);
    stack.shape[0] = stack.shape[0].max(expert + 1);
    stack.values.resize(stack.shape[0] * each, 0.0);
    stack.values[expert * each..(expert + 1) * each].copy_from_slice(&weight.values);
}

/// `[experts, in, out]` as `[experts, out, in]`.
fn turned(w: &Weight) -> Weight {
    let [n, inner, outer] = w.shape[..] else { panic!("{} is no stack", w.name) };
    let at = |e: usize, o: usize, i: usize| w.values[(e * inner + i) * outer + o];
    let values = (0..n).flat_map(|e| (0..outer).flat_map(move |o| (0..inner).map(move |i| at(e, o, i)))).collect();
    Weight { shape: vec![n, outer, inner], values, ..w.clone() }
}

/// Of each expert, for each row r in turn the row that `from` names, until there is none. It is told how many there are.
fn rows(w: &Weight, from: impl Fn(usize, usize) -> Option<usize>) -> Weight {
    let [n, rows, len] = w.shape[..] else { panic!("{} is no stack", w.name) };
    let chosen: Vec<usize> = (0..rows).map_while(|r| from(r, rows)).collect();
    let row = |e: usize, r: usize| &w.values[(e * rows + r) * len..][..len];
    let values = (0..n).flat_map(|e| chosen.iter().flat_map(move |r| row(e, *r))).copied().collect();
    Weight { shape: vec![n, chosen.len(), len], values, ..w.clone() }
}

/// Every other element of each row of a bias.
fn every_other(w: &Weight, first: usize) -> Weight {
    let values: Vec<f32> = w.values.iter().skip(first).step_by(2).copied().collect();
    Weight { shape: vec![w.shape[0], w.shape[1] / 2], values, ..w.clone() }
}

/// GGUF's blocks of some rows.
fn mxfp4(blocks: &Weight, scales: &[Weight], from: impl Fn(usize, usize) -> Option<usize>) -> Weight {
    let name = blocks.name.replace("_blocks", "_scales");
    let scales = scales.iter().find(|s| s.name == name).expect("scales beside blocks");
    let [n, rows, of_row, 16] = blocks.shape[..] else { panic!("{} are no blocks", blocks.name) };
    let mut bytes = Vec::new();
    for e in 0..n {
        for r in (0..rows).map_while(|r| from(r, rows)) {
            for block in (e * rows + r) * of_row..(e * rows + r + 1) * of_row {
                let qs = std::array::from_fn(|i| blocks.values[16 * block + i] as u8);
                let whole = BlockMXFP4Split { qs }.with_scale(scales.values[block] as u8);
                bytes.push(whole.e);
                bytes.extend(whole.qs);
            }
        }
    }
    let chosen = (0..rows).map_while(|r| from(r, rows)).count();
    Weight { shape: vec![n, chosen, 32 * of_row], values: Vec::new(), mxfp4: Some(bytes), ..blocks.clone() }
}
