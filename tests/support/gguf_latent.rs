//! What converters do to DeepSeek's checkpoints: keys of latent attention and of experts, `kv_b` split and its first part
//! turned, experts stacked.

use handmill_runtime::format::gguf::GgufWriter;
use serde_json::Value;

use super::fixture::Weight;

/// Keys beside the common ones.
pub fn keys(out: &mut GgufWriter, arch: &str, config: &Value) {
    let int = |key: &str| config[key].as_u64().map(|v| v as u32);
    for (key, name) in [
        ("q_lora_rank", "attention.q_lora_rank"),
        ("kv_lora_rank", "attention.kv_lora_rank"),
        ("first_k_dense_replace", "leading_dense_block_count"),
        ("n_routed_experts", "expert_count"),
        ("n_shared_experts", "expert_shared_count"),
        ("n_group", "expert_group_count"),
        ("topk_group", "expert_group_used_count"),
        ("v_head_dim", "attention.value_length_mla"),
        ("index_n_heads", "attention.indexer.head_count"),
        ("index_head_dim", "attention.indexer.key_length"),
        ("index_topk", "attention.indexer.top_k"),
    ] {
        if let Some(value) = int(key) {
            out.put(&format!("{arch}.{name}"), value);
        }
    }
    let head = int("qk_nope_head_dim").zip(int("qk_rope_head_dim")).map(|(n, r)| n + r);
    out.put(&format!("{arch}.attention.key_length_mla"), head.expect("the size of a head"));
    let sigmoid = config["model_type"] == "deepseek_v3" || config["model_type"] == "deepseek_v32";
    out.put(&format!("{arch}.expert_gating_func"), if sigmoid { 2u32 } else { 1 });
    let norm = config["norm_topk_prob"].as_bool().unwrap_or(false) && config["model_type"] != "deepseek_v2";
    out.put(&format!("{arch}.expert_weights_norm"), norm);
    let scale = config["routed_scaling_factor"].as_f64().expect("a factor");
    out.put(&format!("{arch}.expert_weights_scale"), scale as f32);
}

/// The cached key's and value's sizes, which such files call a head's.
pub fn cached(config: &Value) -> Option<[u32; 2]> {
    let rank = config["kv_lora_rank"].as_u64()? as u32;
    Some([rank + config["qk_rope_head_dim"].as_u64()? as u32, rank])
}

/// `weights` with experts stacked and `kv_b` split; of an old converter, not split.
pub fn weights(config: &Value, weights: Vec<Weight>, split: bool) -> Vec<Weight> {
    let int = |key: &str| config[key].as_u64().expect("a number") as usize;
    let (heads, nope, v) = (int("num_attention_heads"), int("qk_nope_head_dim"), int("v_head_dim"));
    let mut out: Vec<Weight> = Vec::new();
    for w in weights {
        if let Some((layer, expert)) = w.name.split_once(".experts.")
            && let Some((number, part)) = expert.split_once('.')
            && let Ok(number) = number.parse::<usize>()
        {
            let name = format!("{layer}.experts.{part}");
            let n = int("n_routed_experts");
            let len = w.values.len();
            let at = out.iter().position(|o| o.name == name).unwrap_or_else(|| {
                let shape = vec![n, w.shape[0], w.shape[1]];
                out.push(Weight { name, shape, bf16: w.bf16, values: vec![0.0; n * len], mxfp4: None });
                out.len() - 1
            });
            out[at].values[number * len..][..len].copy_from_slice(&w.values);
            continue;
        }
        if !split || !w.name.ends_with("kv_b_proj.weight") {
            out.push(w);
            continue;
        }
        let rank = w.shape[1];
        let (mut k, mut values) = (Vec::new(), Vec::new());
        for head in w.values.chunks_exact((nope + v) * rank) {
            let (keys, rest) = head.split_at(nope * rank);
            k.extend((0..rank).flat_map(|i| keys.iter().skip(i).step_by(rank).copied()));
            values.extend_from_slice(rest);
        }
        let name = |part: &str| w.name.replace("kv_b_proj", part);
        out.push(Weight {
            name: name("k_b_proj"),
            shape: vec![heads, rank, nope],
            bf16: w.bf16,
            values: k,
            mxfp4: None,
        });
        out.push(Weight { name: name("v_b_proj"), shape: vec![heads, v, rank], bf16: w.bf16, values, mxfp4: None });
    }
    out
}

/// The name that GGUF has for a part of a layer, if it is one of these.
pub fn part(name: &str) -> Option<&'static str> {
    Some(match name {
        "self_attn.q_a_proj.weight" => "attn_q_a.weight",
        "self_attn.q_a_layernorm.weight" => "attn_q_a_norm.weight",
        "self_attn.q_b_proj.weight" => "attn_q_b.weight",
        "self_attn.kv_a_proj_with_mqa.weight" => "attn_kv_a_mqa.weight",
        "self_attn.kv_a_layernorm.weight" => "attn_kv_a_norm.weight",
        "self_attn.kv_b_proj.weight" => "attn_kv_b.weight",
        "self_attn.k_b_proj.weight" => "attn_k_b.weight",
        "self_attn.v_b_proj.weight" => "attn_v_b.weight",
        "self_attn.indexer.wk.weight" => "indexer.attn_k.weight",
        "self_attn.indexer.wq_b.weight" => "indexer.attn_q_b.weight",
        "self_attn.indexer.weights_proj.weight" => "indexer.proj.weight",
        "self_attn.indexer.k_norm.weight" => "indexer.k_norm.weight",
        "self_attn.indexer.k_norm.bias" => "indexer.k_norm.bias",
        "mlp.gate.weight" => "ffn_gate_inp.weight",
        "mlp.gate.e_score_correction_bias" => "exp_probs_b.bias",
        "mlp.experts.gate_proj.weight" => "ffn_gate_exps.weight",
        "mlp.experts.up_proj.weight" => "ffn_up_exps.weight",
        "mlp.experts.down_proj.weight" | "mlp.experts.down_proj" => "ffn_down_exps.weight",
        "mlp.experts.gate_up_proj" => "ffn_gate_up_exps.weight",
        "mlp.shared_experts.gate_proj.weight" => "ffn_gate_shexp.weight",
        "mlp.shared_experts.up_proj.weight" => "ffn_up_shexp.weight",
        "mlp.shared_experts.down_proj.weight" => "ffn_down_shexp.weight",
        _ => return None,
    })
}
