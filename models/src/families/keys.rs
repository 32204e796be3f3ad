//! Keys of `config.json` that ask for maths which only some families have. Other families refuse them by name: a file
//! with such a key is not of the family that its `model_type` names.

use serde_json::Value;

use crate::{
    Error,
    config::{Config, key},
};

/// Key, the number that means "off" (beside null and false), and the families that know the key.
type Rule = (&'static str, Option<f64>, &'static [&'static str]);

const RULES: &[Rule] = &[
    // Gemma's reference from 3 on, or its files, have this key, and it has no effect.
    ("attn_logit_softcapping", None, &["gemma2", "gemma3", "gemma3n", "gemma4"]),
    ("final_logit_softcapping", None, &["gemma2", "gemma3", "gemma3n", "gemma4"]),
    ("query_pre_attn_scalar", None, &["gemma2", "gemma3", "gemma3n", "gemma4"]),
    ("use_bidirectional_attention", None, &["gemma", "gemma2", "gemma3", "gemma3n", "gemma4"]),
    ("embedding_multiplier", Some(1.0), &["granite", "granitemoe"]),
    ("residual_multiplier", Some(1.0), &["granite", "granitemoe"]),
    ("attention_multiplier", None, &["granite", "granitemoe"]),
    ("logits_scaling", Some(1.0), &["granite", "granitemoe"]),
    ("qk_layernorm", None, &["phi"]),
    ("clip_qkv", None, &[]),
    // Families that read `num_local_experts` take either.
    ("num_experts", Some(0.0), MIXTURES),
    ("n_routed_experts", Some(0.0), &["deepseek_v2", "deepseek_v3", "deepseek_v32", "deepseek_v4", "mistral4"]),
];

/// Families with mixtures of experts, except DeepSeek's.
const MIXTURES: &[&str] = &[
    "gemma4",
    "gpt_oss",
    "granitemoe",
    "llama4",
    "mixtral",
    "phimoe",
    "qwen2_moe",
    "qwen3_5_moe",
    "qwen3_moe",
    "qwen3_next",
];

/// Families without layers of several kinds.
const ALIKE: &[&str] = &["llama", "gemma", "phi", "granite", "granitemoe", "deepseek_v2", "deepseek_v3", "mistral4"];

/// Refuses keys that the family does not know, unless their values mean "off".
///
/// # Errors
/// The key.
pub(super) fn refuse_others(c: &Config<'_>) -> Result<(), Error> {
    let Some(config) = c.json() else { return Ok(()) };
    let family = c.architecture().trim_end_matches("_text");
    for (name, neutral, families) in RULES {
        let known = families.contains(&family);
        let asks = match config.get(*name) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(value) => value.as_f64() != *neutral || neutral.is_none(),
        };
        if asks && !known {
            return Err(c.error(key("", name), "is not supported for this family"));
        }
    }
    if ALIKE.contains(&c.architecture())
        && let Some(types) = config.get("layer_types").and_then(Value::as_array)
        && let Some(other) = types.iter().find(|t| *t != "full_attention")
    {
        return Err(c.error(key("", "layer_types"), format!("the layer type {other} is not known for this family")));
    }
    Ok(())
}
