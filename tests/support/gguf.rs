//! Turns a fixture into the GGUF file that a converter would write of it: its keys, its tensor names, and what
//! converters do to the weights of each architecture.

use std::path::Path;

use handmill_runtime::{
    format::{Bytes, Tensor, gguf::GgufWriter},
    quant::DType,
};
use serde_json::Value;

use super::{
    Fixture, experts,
    fixture::{Weight, fixtures_dir, json},
    gguf_gemma, gguf_hybrid, gguf_latent, gguf_rope, gguf_v4,
};

/// Writes `fixture` to `path` as GGUF; `Err` says what of it GGUF has no words for.
pub fn write_gguf(fixture: &Fixture, path: &Path) -> Result<(), &'static str> {
    let config = &fixture.config;
    let rope = config["rope_parameters"].get("full_attention").unwrap_or(&config["rope_parameters"]);
    let arch = match config["model_type"].as_str().expect("model_type") {
        "gemma3_text" => "gemma3",
        "gemma3n_text" => "gemma3n",
        "gemma4_text" => "gemma4",
        "qwen3_next" => "qwen3next",
        "qwen3_5_text" => "qwen35",
        "qwen3_5_moe_text" => "qwen35moe",
        "mistral" | "ministral" | "mixtral" => "llama",
        "ministral3" => "mistral3",
        "phi" if config["qk_layernorm"] == true => return Err("GGUF has no key for layer norms of queries and keys"),
        "phi" => "phi2",
        "olmo3" => "olmo2",
        "deepseek_v2" | "deepseek_v3" => "deepseek2",
        "deepseek_v4" => "deepseek4",
        "deepseek_v32" => "deepseek32",
        "qwen2_moe" => "qwen2moe",
        "qwen3_moe" => "qwen3moe",
        "gpt_oss" => "gpt-oss",
        "llama4_text" => "llama4",
        other => other,
    };
    let mut out = GgufWriter::new();
    out.put("general.architecture", arch);
    out.put("general.name", fixture.name);
    if arch == "deepseek4" {
        gguf_v4::keys(&mut out, config);
        tokenizer(&mut out, fixture, config["vocab_size"].as_u64().expect("a number") as usize);
        gguf_v4::tensors(&mut out, fixture.weights());
        std::fs::write(path, out.to_bytes()).expect("writing GGUF");
        return Ok(());
    }
    gguf_hybrid::keys(&mut out, arch, config);
    gguf_gemma::keys(&mut out, arch, config);
    let int = |key: &str| config[key].as_u64().unwrap_or_else(|| panic!("config has no {key}")) as u32;
    let head_dim = config["head_dim"].as_u64().map_or(int("hidden_size") / int("num_attention_heads"), |d| d as u32);
    let partial = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
    let rotary_dims = (f64::from(head_dim) * partial) as u32;
    let latent = gguf_latent::cached(config);
    let [key_length, value_length] = latent.unwrap_or([head_dim; 2]);
    let kv_heads = if latent.is_some() { 1 } else { int("num_key_value_heads") };
    for (key, value) in [
        ("block_count", int("num_hidden_layers")),
        ("context_length", int("max_position_embeddings")),
        ("embedding_length", int("hidden_size")),
        ("vocab_size", int("vocab_size")),
        ("attention.head_count", int("num_attention_heads")),
        ("attention.head_count_kv", kv_heads),
        ("attention.key_length", key_length),
        ("attention.value_length", value_length),
        ("rope.dimension_count", rotary_dims),
    ] {
        if gguf_gemma::own_key(arch, key) {
            continue;
        }
        out.put(&format!("{arch}.{key}"), value);
    }
    let inner = if arch == "llama4" { "intermediate_size_mlp" } else { "intermediate_size" };
    if let Some(inner) = config[inner].as_u64().filter(|_| arch != "gemma4") {
        out.put(&format!("{arch}.feed_forward_length"), inner as u32);
    }
    if arch == "llama4" {
        out.put(&format!("{arch}.expert_feed_forward_length"), int("intermediate_size"));
    }
    if let Some(limit) = config["swiglu_limit"].as_f64() {
        // The writer of the gguf package takes a list alone.
        out.put(&format!("{arch}.swiglu_clamp_exp"), vec![limit as f32; int("num_hidden_layers") as usize]);
    }
    for (key, name) in [
        ("rms_norm_eps", "attention.layer_norm_rms_epsilon"),
        ("layer_norm_eps", "attention.layer_norm_epsilon"),
        ("attn_logit_softcapping", "attn_logit_softcapping"),
        ("final_logit_softcapping", "final_logit_softcapping"),
        ("attention_multiplier", "attention.scale"),
        ("embedding_multiplier", "embedding_scale"),
        ("residual_multiplier", "residual_scale"),
        ("logits_scaling", "logit_scale"),
        ("attn_scale", "attention.temperature_scale"),
    ] {
        if let Some(value) = config[key].as_f64() {
            out.put(&format!("{arch}.{name}"), value as f32);
        }
    }
    for (key, name) in [
        ("num_experts", "expert_count"),
        ("num_local_experts", "expert_count"),
        ("num_experts_per_tok", "expert_used_count"),
        ("moe_intermediate_size", "expert_feed_forward_length"),
        ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"),
        ("interleave_moe_layer_step", "interleave_moe_layer_step"),
        ("floor_scale", "attention.temperature_length"),
    ] {
        if let Some(value) = config[key].as_u64() {
            out.put(&format!("{arch}.{name}"), value as u32);
        }
    }
    out.put(&format!("{arch}.rope.freq_base"), gguf_rope::float(&rope["rope_theta"]));
    if latent.is_some() {
        gguf_latent::keys(&mut out, arch, config);
    }
    windows(&mut out, arch, config);
    let divisors = gguf_rope::keys(&mut out, arch, rope, config, rotary_dims as usize);
    tokenizer(&mut out, fixture, int("vocab_size") as usize);
    for (name, divisors) in divisors {
        tensor(&mut out, name, &[divisors.len()], &divisors, false);
    }
    let weights = match latent {
        // Half of the files are as old converters wrote them.
        Some(_) => gguf_latent::weights(config, fixture.weights(), fixture.name != "deepseek-v2-lite"),
        None => {
            let weights = fused(arch, experts::as_in_gguf(fixture.weights()));
            gguf_gemma::stacked(arch, gguf_hybrid::reordered(arch, config, weights))
        }
    };
    for mut weight in weights {
        let Some(name) = gguf_name(arch, &weight.name) else { continue };
        if let Some(blocks) = &weight.mxfp4 {
            let tensor = Tensor::new(DType::MXFP4, weight.shape.clone(), Bytes::heap(blocks.clone()));
            out.tensor(&name, &tensor.expect("bytes fit the shape"));
            continue;
        }
        convert(arch, config, head_dim as usize, &mut weight);
        tensor(&mut out, &name, &weight.shape, &weight.values, weight.bf16);
    }
    std::fs::write(path, out.to_bytes()).expect("writing GGUF");
    Ok(())
}

/// Sliding windows, and the chunks that llama4 calls so; the patterns of gemma2 and gemma3 are the architectures' and stand
/// in no key.
fn windows(out: &mut GgufWriter, arch: &str, config: &Value) {
    let window = config["sliding_window"].as_u64().or(config["attention_chunk_size"].as_u64());
    let Some(window) = window else { return };
    out.put(&format!("{arch}.attention.sliding_window"), window as u32);
    if let Some(types) = config["layer_types"].as_array().filter(|_| !arch.starts_with("gemma")) {
        if arch == "llama4" {
            // Its readers take the period.
            let full = types.iter().position(|t| t == "full_attention").expect("a layer without chunks");
            out.put(&format!("{arch}.attention.sliding_window_pattern"), full as u32 + 1);
            return;
        }
        let pattern: Vec<bool> = types.iter().map(|t| t != "full_attention").collect();
        out.put(&format!("{arch}.attention.sliding_window_pattern"), pattern);
    }
}

/// Phi 2's q, k and v as one tensor, which its GGUF files have.
fn fused(arch: &str, weights: Vec<Weight>) -> Vec<Weight> {
    if arch != "phi2" {
        return weights;
    }
    let mut out: Vec<Weight> = Vec::new();
    let part = |w: &Weight, which: &str| w.name.contains(&format!("self_attn.{which}_proj."));
    for q in weights.iter().filter(|w| part(w, "q")) {
        let mut whole = Weight { name: q.name.replace("q_proj", "qkv_proj"), ..q.clone() };
        for other in ["k_proj", "v_proj"] {
            let name = q.name.replace("q_proj", other);
            let other = weights.iter().find(|w| w.name == name).expect("k and v beside q");
            whole.values.extend(&other.values);
            whole.shape[0] += other.shape[0];
        }
        out.push(whole);
    }
    out.extend(weights.into_iter().filter(|w| !["q", "k", "v"].iter().any(|p| part(w, p))));
    out
}

/// The name that GGUF has for the tensor, none for those of other towers.
fn gguf_name(arch: &str, name: &str) -> Option<String> {
    let name = name.strip_prefix("language_model.").unwrap_or(name);
    let name = &name.replace("model.language_model.", "model.");
    match name.as_str() {
        "model.embed_tokens.weight" => return Some("token_embd.weight".into()),
        "model.norm.weight" | "model.final_layernorm.weight" => return Some("output_norm.weight".into()),
        "model.norm.bias" | "model.final_layernorm.bias" => return Some("output_norm.bias".into()),
        "lm_head.bias" => return Some("output.bias".into()),
        "lm_head.weight" => return Some("output.weight".into()),
        _ => {}
    }
    if let Some(name) = gguf_gemma::global(name) {
        return Some(name);
    }
    let (layer, part) = name.strip_prefix("model.layers.")?.split_once('.')?;
    if let Some(part) = gguf_latent::part(part) {
        return Some(format!("blk.{layer}.{part}"));
    }
    if let Some(named) = part.strip_prefix("gguf:") {
        return Some(format!("blk.{layer}.{named}"));
    }
    if let Some(part) = gguf_hybrid::name(arch, part).or_else(|| gguf_gemma::name(arch, part)) {
        return Some(format!("blk.{layer}.{part}"));
    }
    if part == "self_attn.sinks" {
        return Some(format!("blk.{layer}.attn_sinks.weight"));
    }
    let (part, kind) = part.rsplit_once('.')?;
    let late = arch.starts_with("gemma2") || matches!(arch, "gemma3" | "olmo2" | "gpt-oss");
    let part = match part {
        "input_layernorm" => "attn_norm",
        "post_attention_layernorm" if late => "post_attention_norm",
        "post_attention_layernorm" | "pre_feedforward_layernorm" => "ffn_norm",
        "post_feedforward_layernorm" => "post_ffw_norm",
        "self_attn.q_proj" => "attn_q",
        "self_attn.k_proj" => "attn_k",
        "self_attn.v_proj" => "attn_v",
        "self_attn.o_proj" | "self_attn.dense" => "attn_output",
        "self_attn.qkv_proj" => "attn_qkv",
        "self_attn.q_norm" => "attn_q_norm",
        "self_attn.k_norm" => "attn_k_norm",
        "mlp.gate"
        | "mlp.router"
        | "block_sparse_moe.gate"
        | "block_sparse_moe.router.layer"
        | "feed_forward.router" => "ffn_gate_inp",
        "mlp.shared_expert_gate" => "ffn_gate_inp_shexp",
        "mlp.shared_expert.gate_proj" | "feed_forward.shared_expert.gate_proj" => "ffn_gate_shexp",
        "mlp.shared_expert.up_proj" | "feed_forward.shared_expert.up_proj" => "ffn_up_shexp",
        "mlp.shared_expert.down_proj" | "feed_forward.shared_expert.down_proj" => "ffn_down_shexp",
        "mlp.gate_proj" | "feed_forward.gate_proj" => "ffn_gate",
        "mlp.up_proj" | "feed_forward.up_proj" | "mlp.gate_up_proj" | "mlp.fc1" => "ffn_up",
        "mlp.down_proj" | "feed_forward.down_proj" | "mlp.fc2" => "ffn_down",
        other => panic!("no GGUF name for {other}"),
    };
    Some(format!("blk.{layer}.{part}.{kind}"))
}

/// What converters do to the values.
fn convert(arch: &str, config: &Value, head_dim: usize, weight: &mut Weight) {
    let query_or_key = weight.name.contains(".q_proj.") || weight.name.contains(".k_proj.");
    if weight.name.ends_with("shared_expert_gate.weight") {
        // A row is a vector.
        weight.shape.remove(0);
    }
    if query_or_key && matches!(arch, "llama" | "mistral3" | "granite" | "granitemoe" | "smollm3") {
        weight.values = interleave_heads(&weight.values, weight.shape[0], head_dim);
    }
    let gemma = arch.starts_with("gemma") && !gguf_gemma::is_one(arch);
    if gguf_hybrid::plus_one(arch, &weight.name) || gemma && weight.name.ends_with("norm.weight") {
        weight.values.iter_mut().for_each(|w| *w += 1.0);
    }
    // Gemma's attention scale stands in no key: readers use head_dim^-0.5. The rest of query_pre_attn_scalar^-0.5 goes
    // into the norm of the queries, or what makes them, which is the same function.
    let queries = if arch == "gemma3" { "q_norm.weight" } else { "q_proj.weight" };
    if let (true, Some(scalar)) = (gemma && weight.name.ends_with(queries), config["query_pre_attn_scalar"].as_f64()) {
        let rest = (head_dim as f64 / scalar).sqrt() as f32;
        weight.values.iter_mut().for_each(|w| *w *= rest);
    }
}

/// Reorders the rows of each head from (first half, second half) to pairs: [2, d/2] becomes [d/2, 2].
fn interleave_heads(values: &[f32], rows: usize, head_dim: usize) -> Vec<f32> {
    let width = values.len() / rows;
    (0..rows)
        .flat_map(|row| {
            let (head, r) = (row / head_dim, row % head_dim);
            let from = head * head_dim + r % 2 * (head_dim / 2) + r / 2;
            &values[from * width..(from + 1) * width]
        })
        .copied()
        .collect()
}

/// The fixtures' tokenizer as converters write a byte-level BPE; ids beyond it are unused.
fn tokenizer(out: &mut GgufWriter, fixture: &Fixture, vocab_size: usize) {
    let path = fixtures_dir().join("families").join(fixture.name).join("tokenizer.json");
    // Those whose vocabulary is too small for it have none.
    if !path.exists() {
        return;
    }
    let file = json(&path);
    let mut tokens: Vec<String> = (0..vocab_size).map(|i| format!("[PAD{i}]")).collect();
    let mut types = vec![5i32; vocab_size];
    for (token, id) in file["model"]["vocab"].as_object().expect("vocab") {
        let id = id.as_u64().expect("id") as usize;
        tokens[id] = token.clone();
        types[id] = if id < 3 { 3 } else { 1 };
    }
    let merges: Vec<String> = file["model"]["merges"]
        .as_array()
        .expect("merges")
        .iter()
        .map(|m| match m {
            Value::Array(pair) => pair.iter().map(|p| p.as_str().expect("merge")).collect::<Vec<_>>().join(" "),
            other => other.as_str().expect("merge").to_owned(),
        })
        .collect();
    out.put("tokenizer.ggml.model", "gpt2");
    out.put("tokenizer.ggml.pre", "gpt-2");
    out.put("tokenizer.ggml.tokens", tokens);
    out.put("tokenizer.ggml.token_type", types);
    out.put("tokenizer.ggml.merges", merges);
    out.put("tokenizer.ggml.bos_token_id", 1u32);
    out.put("tokenizer.ggml.eos_token_id", 2u32);
    out.put("tokenizer.ggml.padding_token_id", 0u32);
    out.put("tokenizer.ggml.add_bos_token", true);
}

/// Matrices of a bfloat16 checkpoint stay bfloat16 unless a conversion has changed their values; vectors are f32 in GGUF.
pub(super) fn tensor(out: &mut GgufWriter, name: &str, shape: &[usize], values: &[f32], bf16: bool) {
    let exact = values.iter().all(|v| v.to_bits() & 0xffff == 0);
    let (dtype, bytes): (_, Vec<u8>) = if bf16 && shape.len() > 1 && exact {
        (DType::BF16, values.iter().flat_map(|v| ((v.to_bits() >> 16) as u16).to_le_bytes()).collect())
    } else {
        (DType::F32, values.iter().flat_map(|v| v.to_le_bytes()).collect())
    };
    out.tensor(name, &Tensor::new(dtype, shape.to_vec(), Bytes::heap(bytes)).expect("bytes fit the shape"));
}
