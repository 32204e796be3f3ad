//! DeepSeek V4 as its converters write it: names and keys of its own throughout.

use handmill_runtime::{
    format::{Bytes, gguf::GgufWriter},
    quant::GgmlType,
};
use serde_json::Value;

use super::{experts::stack, fixture::Weight, gguf::tensor, gguf_rope::float};

/// All keys but the tokenizer's.
pub fn keys(out: &mut GgufWriter, config: &Value) {
    let mut put = |key: &str, value: u32| {
        out.put(&format!("deepseek4.{key}"), value);
    };
    for (key, name) in [
        ("num_hidden_layers", "block_count"),
        ("max_position_embeddings", "context_length"),
        ("hidden_size", "embedding_length"),
        ("vocab_size", "vocab_size"),
        ("num_attention_heads", "attention.head_count"),
        ("num_key_value_heads", "attention.head_count_kv"),
        ("head_dim", "attention.key_length"),
        ("head_dim", "attention.value_length"),
        ("q_lora_rank", "attention.q_lora_rank"),
        ("o_groups", "attention.output_group_count"),
        ("o_lora_rank", "attention.output_lora_rank"),
        ("index_n_heads", "attention.indexer.head_count"),
        ("index_head_dim", "attention.indexer.key_length"),
        ("index_topk", "attention.indexer.top_k"),
        ("sliding_window", "attention.sliding_window"),
        ("qk_rope_head_dim", "rope.dimension_count"),
        ("n_routed_experts", "expert_count"),
        ("num_experts_per_tok", "expert_used_count"),
        ("moe_intermediate_size", "expert_feed_forward_length"),
        ("n_shared_experts", "expert_shared_count"),
        ("hc_mult", "hyper_connection.count"),
        ("hc_sinkhorn_iters", "hyper_connection.sinkhorn_iterations"),
    ] {
        put(name, config[key].as_u64().unwrap_or_else(|| panic!("config has no {key}")) as u32);
    }
    put("expert_gating_func", 4);
    let types = |key: &str| config[key].as_array().expect("types of layers");
    put("hash_layer_count", types("mlp_layer_types").iter().filter(|t| *t == "hash_moe").count() as u32);
    let compress = &config["rope_parameters"]["compress"];
    put(
        "rope.scaling.original_context_length",
        compress["original_max_position_embeddings"].as_u64().expect("") as u32,
    );
    let rate = |t: &Value| config["compress_rates"][t.as_str().expect("a name")].as_u64().unwrap_or(0) as u32;
    let ratios: Vec<u32> = types("layer_types").iter().map(rate).collect();
    out.put("deepseek4.attention.compress_ratios", ratios);
    out.put("deepseek4.expert_weights_norm", true);
    out.put("deepseek4.rope.scaling.type", "yarn");
    for (value, name) in [
        (&config["rms_norm_eps"], "attention.layer_norm_rms_epsilon"),
        (&config["routed_scaling_factor"], "expert_weights_scale"),
        (&config["hc_eps"], "hyper_connection.epsilon"),
        (&config["swiglu_limit"], "swiglu_clamp_exp"),
        (&config["swiglu_limit"], "swiglu_clamp_shexp"),
        (&config["rope_parameters"]["main"]["rope_theta"], "rope.freq_base"),
        (&compress["rope_theta"], "attention.compress_rope_freq_base"),
        (&compress["factor"], "rope.scaling.factor"),
        (&compress["beta_fast"], "rope.scaling.yarn_beta_fast"),
        (&compress["beta_slow"], "rope.scaling.yarn_beta_slow"),
    ] {
        out.put(&format!("deepseek4.{name}"), float(value));
    }
}

/// All tensors, experts stacked.
pub fn tensors(out: &mut GgufWriter, weights: Vec<Weight>) {
    let mut named: Vec<Weight> = Vec::new();
    for weight in weights {
        if let Some((layer, expert)) = weight.name.split_once(".ffn.experts.") {
            let (number, part) = expert.split_once('.').expect("an expert's number");
            let layer = layer.strip_prefix("layers.").expect("a layer");
            let part = ["gate", "down", "up"][part[1..2].parse::<usize>().expect("w1, w2 or w3") - 1];
            stack(&mut named, format!("blk.{layer}.ffn_{part}_exps.weight"), number.parse().expect("a number"), weight);
            continue;
        }
        named.push(Weight { name: name(&weight.name), ..weight });
    }
    for w in named {
        if w.name.contains("tid2eid") {
            let bytes = w.values.iter().flat_map(|v| (*v as i32).to_le_bytes()).collect();
            // 26 is ggml's number for i32.
            out.raw_tensor(&w.name, GgmlType::from_number(26), &w.shape, Bytes::heap(bytes));
            continue;
        }
        tensor(out, &w.name, &w.shape, &w.values, w.bf16);
    }
}

fn name(name: &str) -> String {
    let Some((layer, part)) = name.strip_prefix("layers.").and_then(|n| n.split_once('.')) else {
        return match name {
            "embed.weight" => "token_embd.weight".to_owned(),
            "norm.weight" => "output_norm.weight".to_owned(),
            "head.weight" => "output.weight".to_owned(),
            other => format!("output_{}.weight", other.replace("hc_head", "hc")),
        };
    };
    let part = match part {
        "attn.wq_a.weight" => "attn_q_a",
        "attn.q_norm.weight" => "attn_q_a_norm",
        "attn.wq_b.weight" => "attn_q_b",
        "attn.wkv.weight" => "attn_kv",
        "attn.kv_norm.weight" => "attn_kv_a_norm",
        "attn.wo_a.weight" => "attn_output_a",
        "attn.wo_b.weight" => "attn_output_b",
        "attn.attn_sink" => "attn_sinks",
        "attn_norm.weight" => "attn_norm",
        "ffn_norm.weight" => "ffn_norm",
        "ffn.gate.weight" => "ffn_gate_inp",
        "ffn.gate.tid2eid" => "ffn_gate_tid2eid",
        "ffn.gate.bias" => return format!("blk.{layer}.exp_probs_b.bias"),
        "ffn.shared_experts.w1.weight" => "ffn_gate_shexp",
        "ffn.shared_experts.w2.weight" => "ffn_down_shexp",
        "ffn.shared_experts.w3.weight" => "ffn_up_shexp",
        "attn.indexer.wq_b.weight" => "indexer.attn_q_b",
        "attn.indexer.weights_proj.weight" => "indexer.proj",
        hyper if hyper.starts_with("hc_") => hyper,
        other => {
            let (whose, what) = other.rsplit_once("compressor.").unwrap_or_else(|| panic!("no GGUF name for {other}"));
            let whose = if whose.contains("indexer") { "indexer" } else { "attn" };
            let what = what.trim_end_matches(".weight").trim_start_matches('w');
            return format!("blk.{layer}.{whose}_compressor_{what}.weight");
        }
    };
    format!("blk.{layer}.{part}.weight")
}
