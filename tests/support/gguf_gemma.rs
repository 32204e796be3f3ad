//! What converters to GGUF do to checkpoints of Gemma 3n and 4.

use handmill_runtime::format::gguf::GgufWriter;
use serde_json::Value;

use super::fixture::Weight;

/// Whether this is one of the two.
pub fn is_one(arch: &str) -> bool {
    matches!(arch, "gemma3n" | "gemma4")
}

/// Keys that other families have too, but in another form: they are written here.
pub fn own_key(arch: &str, key: &str) -> bool {
    let own = ["attention.head_count_kv", "attention.key_length", "attention.value_length", "rope.dimension_count"];
    arch == "gemma4" && own.contains(&key)
}

/// The full layers' head dimension and key/value heads.
fn full_heads(config: &Value) -> (u64, u64) {
    let full = config["per_layer_config"].as_object().and_then(|o| o.values().next()).expect("a full layer");
    let heads = full["num_key_value_heads"].as_u64().or(config["num_key_value_heads"].as_u64());
    (full["head_dim"].as_u64().expect("head_dim"), heads.expect("heads"))
}

pub fn keys(out: &mut GgufWriter, arch: &str, config: &Value) {
    if !is_one(arch) {
        return;
    }
    let int = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("config has no {key}"));
    let (n, shared) = (int("num_hidden_layers") as usize, int("num_kv_shared_layers"));
    let sliding: Vec<bool> =
        config["layer_types"].as_array().expect("types").iter().map(|t| t == "sliding_attention").collect();
    out.put(&format!("{arch}.attention.sliding_window_pattern"), sliding.clone());
    out.put(&format!("{arch}.attention.shared_kv_layers"), shared as u32);
    out.put(&format!("{arch}.embedding_length_per_layer_input"), int("hidden_size_per_layer_input") as u32);
    if arch == "gemma3n" {
        let inner = config["intermediate_size"].as_array().expect("a list");
        let inner: Vec<u32> = inner.iter().map(|v| v.as_u64().expect("a width") as u32).collect();
        out.put(&format!("{arch}.feed_forward_length"), inner);
        out.put(&format!("{arch}.altup.num_inputs"), int("altup_num_inputs") as u32);
        out.put(&format!("{arch}.altup.active_idx"), int("altup_active_idx") as u32);
        // What a standard normal variable is below with that probability.
        let deviations = |s: &Value| match s.as_f64().expect("a sparsity") {
            0.0 => f32::NEG_INFINITY,
            0.8 => 0.841_621_2,
            other => panic!("no fixture has the sparsity {other}"),
        };
        let pattern = config["activation_sparsity_pattern"].as_array().expect("a list");
        out.put(&format!("{arch}.activation_sparsity_scale"), pattern.iter().map(deviations).collect::<Vec<f32>>());
        return;
    }
    let (head_dim, kv_heads) = full_heads(config);
    for (key, full, local) in [
        ("attention.key_length", head_dim, int("head_dim")),
        ("attention.value_length", head_dim, int("head_dim")),
        ("rope.dimension_count", head_dim, int("head_dim")),
    ] {
        out.put(&format!("{arch}.{key}"), full as u32);
        out.put(&format!("{arch}.{key}_swa"), local as u32);
    }
    let kv = |sliding: &bool| if *sliding { int("num_key_value_heads") } else { kv_heads } as u32;
    out.put(&format!("{arch}.attention.head_count_kv"), sliding.iter().map(kv).collect::<Vec<u32>>());
    out.put(&format!("{arch}.rope.freq_base_swa"), 1e4f32);
    let double = config["use_double_wide_mlp"] == true;
    let inner = |i: usize| int("intermediate_size") as u32 * if double && i + shared as usize >= n { 2 } else { 1 };
    out.put(&format!("{arch}.feed_forward_length"), (0..n).map(inner).collect::<Vec<u32>>());
    if let Some(k) = config["top_k_experts"].as_u64() {
        out.put(&format!("{arch}.expert_used_count"), k as u32);
    }
}

/// The divisors that leave the rest of the full layers' heads unturned.
pub fn proportional(config: &Value, partial: f64) -> Vec<f32> {
    let (head_dim, _) = full_heads(config);
    let turning = (head_dim as f64 * partial) as u64 / 2;
    (0..head_dim / 2).map(|j| if j < turning { 1.0 } else { 1e30 }).collect()
}

/// The name of a tensor outside the layers.
pub fn global(name: &str) -> Option<String> {
    let name = match name {
        "model.embed_tokens_per_layer.weight" => "per_layer_token_embd.weight",
        "model.per_layer_model_projection.weight" => "per_layer_model_proj.weight",
        "model.per_layer_projection_norm.weight" => "per_layer_proj_norm.weight",
        "model.altup_projections.weight" => "altup_proj.weight",
        "model.altup_unembed_projections.weight" => "altup_unembd_proj.weight",
        _ => return None,
    };
    Some(name.to_owned())
}

/// The name of a layer's tensor, behind the layer's number, where it differs from other families'.
pub fn name(arch: &str, part: &str) -> Option<String> {
    if !is_one(arch) {
        return None;
    }
    let name = match part {
        "post_attention_layernorm.weight" => "post_attention_norm.weight",
        "per_layer_input_gate.weight" => "inp_gate.weight",
        "per_layer_projection.weight" => "proj.weight",
        "post_per_layer_input_norm.weight" => "post_norm.weight",
        "altup.correction_coefs.weight" => "altup_correct_coef.weight",
        "altup.correct_output_scale" => "altup_correct_scale.weight",
        "altup.prediction_coefs.weight" => "altup_predict_coef.weight",
        "altup.modality_router.weight" => "altup_router.weight",
        "altup.router_norm.weight" => "altup_router_norm.weight",
        "laurel.linear_left.weight" => "laurel_l.weight",
        "laurel.linear_right.weight" => "laurel_r.weight",
        "laurel.post_laurel_norm.weight" => "laurel_post_norm.weight",
        "layer_scalar" => "layer_output_scale.weight",
        "pre_feedforward_layernorm_2.weight" => "pre_ffw_norm_2.weight",
        "post_feedforward_layernorm_1.weight" => "post_ffw_norm_1.weight",
        "post_feedforward_layernorm_2.weight" => "post_ffw_norm_2.weight",
        "router.proj.weight" => "ffn_gate_inp.weight",
        "router.scale" => "ffn_gate_inp.scale",
        "router.per_expert_scale" => "ffn_down_exps.scale",
        "experts.gate_up_proj" => "ffn_gate_up_exps.weight",
        "experts.down_proj" => "ffn_down_exps.weight",
        _ => return None,
    };
    Some(name.to_owned())
}

/// `weights` with the projections of all streams in one tensor.
pub fn stacked(arch: &str, weights: Vec<Weight>) -> Vec<Weight> {
    if !is_one(arch) {
        return weights;
    }
    let mut out: Vec<Weight> = Vec::new();
    // By name, so that parts come in order.
    for w in weights {
        let stack = w.name.strip_suffix(".weight").and_then(|n| n.rsplit_once("projections."));
        let Some((name, _)) = stack else {
            out.push(w);
            continue;
        };
        let name = format!("{name}projections.weight");
        match out.iter_mut().find(|o| o.name == name) {
            Some(all) => {
                all.values.extend(&w.values);
                all.shape[0] += 1;
            }
            None => out.push(Weight { name, shape: [&[1], &w.shape[..]].concat(), ..w }),
        }
    }
    out
}
