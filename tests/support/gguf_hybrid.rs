//! What converters to GGUF do to checkpoints with Gated DeltaNet layers (Qwen3-Next, Qwen 3.5).

use handmill_runtime::format::gguf::GgufWriter;
use serde_json::Value;

use super::fixture::Weight;

fn hybrid(arch: &str) -> bool {
    matches!(arch, "qwen3next" | "qwen35" | "qwen35moe")
}

/// Dimensions of the linear layers.
struct Dims {
    hk: usize,
    hv: usize,
    dk: usize,
    dv: usize,
}

impl Dims {
    fn new(config: &Value) -> Self {
        let int = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("config has no {key}")) as usize;
        Self {
            hk: int("linear_num_key_heads"),
            hv: int("linear_num_value_heads"),
            dk: int("linear_key_head_dim"),
            dv: int("linear_value_head_dim"),
        }
    }
}

/// Keys of the linear layers.
pub fn keys(out: &mut GgufWriter, arch: &str, config: &Value) {
    if !hybrid(arch) {
        return;
    }
    let d = Dims::new(config);
    for (key, value) in [
        ("ssm.conv_kernel", config["linear_conv_kernel_dim"].as_u64().expect("a kernel") as usize),
        ("ssm.state_size", d.dk),
        ("ssm.group_count", d.hk),
        ("ssm.time_step_rank", d.hv),
        ("ssm.inner_size", d.hv * d.dv),
        ("full_attention_interval", 4),
    ] {
        out.put(&format!("{arch}.{key}"), value as u32);
    }
}

/// The name of a layer's tensor, behind the layer's number, where it differs from other families'.
pub fn name(arch: &str, part: &str) -> Option<String> {
    if !hybrid(arch) {
        return None;
    }
    let name = match part {
        "post_attention_layernorm.weight" => "post_attention_norm.weight",
        "linear_attn.A_log" => "ssm_a",
        "linear_attn.dt_bias" => "ssm_dt.bias",
        "linear_attn.conv1d.weight" => "ssm_conv1d.weight",
        "linear_attn.norm.weight" => "ssm_norm.weight",
        "linear_attn.out_proj.weight" => "ssm_out.weight",
        "linear_attn.in_proj_qkv.weight" => "attn_qkv.weight",
        "linear_attn.in_proj_z.weight" => "attn_gate.weight",
        "linear_attn.in_proj_ba.weight" => "ssm_ba.weight",
        "linear_attn.in_proj_b.weight" => "ssm_beta.weight",
        "linear_attn.in_proj_a.weight" => "ssm_alpha.weight",
        _ => return None,
    };
    Some(name.to_owned())
}

/// Whether the norm is stored with 1 added.
pub fn plus_one(arch: &str, name: &str) -> bool {
    hybrid(arch) && name.ends_with("norm.weight") && !name.ends_with("linear_attn.norm.weight")
}

/// Regroups, reorders and precomputes.
pub fn reordered(arch: &str, config: &Value, weights: Vec<Weight>) -> Vec<Weight> {
    if !hybrid(arch) {
        return weights;
    }
    let d = Dims::new(config);
    let mut out = Vec::new();
    for mut w in weights {
        if w.name.ends_with("A_log") {
            w.values.iter_mut().for_each(|a| *a = -a.exp());
        }
        if w.name.ends_with("conv1d.weight") {
            w.shape.remove(1);
        }
        if w.name.ends_with("in_proj_qkvz.weight") {
            // Rows key head by key head, [q, k, v, z], become q‖k‖v and z.
            let (v, period) = (d.hv / d.hk * d.dv, 2 * (d.dk + d.hv / d.hk * d.dv));
            let part = |from: usize, len: usize| {
                (0..d.hk).flat_map(move |h| h * period + from..h * period + from + len).collect::<Vec<_>>()
            };
            let qkv = [part(0, d.dk), part(d.dk, d.dk), part(2 * d.dk, v)].concat();
            let z = part(2 * d.dk + v, v);
            for (which, rows) in [("in_proj_qkv", qkv), ("in_proj_z", z)] {
                out.push(rows_of(&w, &w.name.replace("in_proj_qkvz", which), &rows));
            }
            continue;
        }
        if arch != "qwen3next" {
            w = tiled(&d, w);
        }
        out.push(w);
    }
    out
}

/// Value heads in the order that puts head `j` of key head `k` at `j * hk + k`.
fn tiled(d: &Dims, w: Weight) -> Weight {
    let per_key = d.hv / d.hk;
    // The head that comes to each place.
    let order: Vec<usize> = (0..d.hv).map(|h| h % d.hk * per_key + h / d.hk).collect();
    let heads = |first: usize, len: usize| -> Vec<usize> {
        let head = |h: &usize| first + h * len..first + (h + 1) * len;
        (0..first).chain(order.iter().flat_map(head)).collect()
    };
    let keys = 2 * d.hk * d.dk;
    let Some((_, part)) = w.name.split_once("linear_attn.") else { return w };
    let name = w.name.clone();
    match part {
        "in_proj_qkv.weight" | "conv1d.weight" => rows_of(&w, &name, &heads(keys, d.dv)),
        "in_proj_z.weight" => rows_of(&w, &name, &heads(0, d.dv)),
        "in_proj_a.weight" | "in_proj_b.weight" => rows_of(&w, &name, &heads(0, 1)),
        "A_log" | "dt_bias" => {
            let values = order.iter().map(|h| w.values[*h]).collect();
            Weight { values, ..w }
        }
        "out_proj.weight" => {
            let width = w.shape[1];
            let columns = heads(0, d.dv);
            let values = (0..w.values.len()).map(|i| w.values[i / width * width + columns[i % width]]).collect();
            Weight { values, ..w }
        }
        _ => w,
    }
}

/// Rows `rows` of a matrix, in that order, as a tensor of its own.
fn rows_of(w: &Weight, name: &str, rows: &[usize]) -> Weight {
    let width = w.shape[1..].iter().product::<usize>();
    let values = rows.iter().flat_map(|r| w.values[r * width..(r + 1) * width].iter().copied()).collect();
    let mut shape = w.shape.clone();
    shape[0] = rows.len();
    Weight { name: name.to_owned(), shape, values, bf16: w.bf16, mxfp4: None }
}
