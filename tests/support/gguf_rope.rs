//! How GGUF files say what positions do: keys, and tensors of divisors.

use handmill_runtime::format::gguf::GgufWriter;
use serde_json::Value;

use super::gguf_gemma;

/// Keys of RoPE scaling; of llama3 scaling and longrope there are also (or only) tensors of divisors.
pub fn keys(
    out: &mut GgufWriter,
    arch: &str,
    rope: &Value,
    config: &Value,
    rotary_dims: usize,
) -> Vec<(&'static str, Vec<f32>)> {
    let mut number = |key: &str, value: f32| {
        out.put(&format!("{arch}.{key}"), value);
    };
    let original = rope["original_max_position_embeddings"].as_u64();
    let list = |key: &str| -> Vec<f32> { rope[key].as_array().expect("factors").iter().map(float).collect() };
    match rope["rope_type"].as_str().expect("rope_type") {
        "default" => {}
        "linear" => {
            number("rope.scaling.factor", float(&rope["factor"]));
            out.put(&format!("{arch}.rope.scaling.type"), "linear");
        }
        "yarn" => {
            for (key, name) in [
                ("factor", "rope.scaling.factor"),
                ("attention_factor", "rope.scaling.yarn_attn_factor"),
                ("mscale_all_dim", "rope.scaling.yarn_log_multiplier"),
                ("beta_fast", "rope.scaling.yarn_beta_fast"),
                ("beta_slow", "rope.scaling.yarn_beta_slow"),
                ("llama_4_scaling_beta", "attention.temperature_scale"),
            ] {
                if let Some(value) = rope[key].as_f64() {
                    // DeepSeek's files hold a tenth of it.
                    let tenth = key == "mscale_all_dim" && arch.starts_with("deepseek");
                    number(name, if tenth { 0.1 * value as f32 } else { value as f32 });
                }
            }
            if let (Some(m), Some(all)) = (rope["mscale"].as_f64(), rope["mscale_all_dim"].as_f64())
                && m != all
            {
                // The one multiplier is not enough: what the two make of cosines and sines has a key of its own.
                let growth = |m: f64| 1.0 + 0.1 * m * f64::from(float(&rope["factor"])).ln();
                number("rope.scaling.yarn_attn_factor", (growth(m) / growth(all)) as f32);
            }
            out.put(&format!("{arch}.rope.scaling.type"), "yarn");
            let original = original.expect("original length") as u32;
            out.put(&format!("{arch}.rope.scaling.original_context_length"), original);
            if !rope["llama_4_scaling_beta"].is_null() {
                out.put(&format!("{arch}.attention.temperature_length"), original);
            }
        }
        "longrope" => {
            let original = original.expect("original length") as f32;
            let stretch = float(&config["max_position_embeddings"]) / original;
            // No type: what says that there is scaling are the tensors.
            number("rope.scaling.attn_factor", (1.0 + stretch.ln() / original.ln()).sqrt());
            for (key, name) in [("short_mscale", "attn_factor_short"), ("long_mscale", "attn_factor_long")] {
                if let Some(value) = rope[key].as_f64() {
                    number(&format!("rope.scaling.{name}"), value as f32);
                }
            }
            out.put(&format!("{arch}.rope.scaling.original_context_length"), original as u32);
            return vec![
                ("rope_factors_long.weight", list("long_factor")),
                ("rope_factors_short.weight", list("short_factor")),
            ];
        }
        "llama3" => return vec![("rope_freqs.weight", llama3_divisors(rope, rotary_dims))],
        "proportional" => {
            let partial = rope["partial_rotary_factor"].as_f64().unwrap_or(1.0);
            return vec![("rope_freqs.weight", gguf_gemma::proportional(config, partial))];
        }
        "dynamic" => {
            number("rope.scaling.factor", float(&rope["factor"]));
            out.put(&format!("{arch}.rope.scaling.type"), "dynamic");
            let original = config["max_position_embeddings"].as_u64().expect("a length") as u32;
            out.put(&format!("{arch}.rope.scaling.original_context_length"), original);
        }
        other => panic!("no fixture has rope_type {other}"),
    }
    Vec::new()
}

/// What llama3 scaling divides each frequency by.
fn llama3_divisors(rope: &Value, rotary_dims: usize) -> Vec<f32> {
    let get = |key: &str| rope[key].as_f64().unwrap_or_else(|| panic!("rope has no {key}"));
    let (factor, low, high) = (get("factor"), get("low_freq_factor"), get("high_freq_factor"));
    let original = get("original_max_position_embeddings");
    (0..rotary_dims / 2)
        .map(|j| {
            let wavelength = std::f64::consts::TAU * get("rope_theta").powf(2.0 * j as f64 / rotary_dims as f64);
            if wavelength < original / high {
                1.0
            } else if wavelength > original / low {
                factor as f32
            } else {
                let smooth = (original / wavelength - low) / (high - low);
                (1.0 / ((1.0 - smooth) / factor + smooth)) as f32
            }
        })
        .collect()
}

/// A number of a configuration.
pub fn float(value: &Value) -> f32 {
    value.as_f64().expect("a number") as f32
}
