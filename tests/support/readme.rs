//! The README's table of families, made from what the tests run.

use super::{FAMILIES, NOT_IN_GGUF, NOT_ON_GPU, why_not};

/// Row names and the fixtures that stand for them.
const ROWS: &[(&str, &[&str])] = &[
    ("Llama 2", &["llama2"]),
    ("Llama 3, 3.1, 3.2, 3.3", &["llama3", "llama3-bf16"]),
    ("Llama, linear RoPE scaling", &["llama-linear"]),
    ("Llama, dynamic RoPE scaling", &["llama-dynamic"]),
    ("Llama 4", &["llama4", "mm-llama4"]),
    ("Mistral 7B v0.2 and later, Nemo, Small", &["mm-mistral3"]),
    ("Mistral 7B v0.1 (sliding window)", &["mistral"]),
    ("Mixtral", &["mixtral"]),
    ("Ministral 8B", &["ministral"]),
    ("Ministral 3", &["ministral3", "mm-ministral3"]),
    ("Mistral 4", &["mistral4"]),
    ("Qwen 2, 2.5", &["qwen2"]),
    ("Qwen 1.5 MoE, 2 MoE", &["qwen2-moe"]),
    ("Qwen 3", &["qwen3", "qwen3-sharded"]),
    ("Qwen 3 MoE", &["qwen3-moe"]),
    ("Qwen3-Next", &["qwen3-next"]),
    ("Qwen 3.5", &["qwen3_5", "mm-qwen3_5"]),
    ("Qwen 3.5 MoE", &["qwen3_5-moe"]),
    ("Gemma", &["gemma"]),
    ("Gemma 2", &["gemma2"]),
    ("Gemma 3", &["gemma3", "mm-gemma3"]),
    ("Gemma 3n", &["gemma3n"]),
    ("Gemma 4", &["gemma4", "mm-gemma4"]),
    ("Gemma 4 MoE", &["gemma4-moe"]),
    ("Phi 1, 1.5, 2", &["phi2", "phi2-qk-norm"]),
    ("Phi 3, 3.5, 4", &["phi3-swa", "phi3-longrope"]),
    ("Phi 4 mini", &["phi4-mini"]),
    ("Phi 3.5 MoE", &["phimoe"]),
    ("DeepSeek V2-Lite", &["deepseek-v2-lite"]),
    ("DeepSeek V2", &["deepseek-v2"]),
    ("DeepSeek V3, V3.1, R1", &["deepseek-v3"]),
    ("DeepSeek V3, FP8 as published", &["deepseek-v3-fp8"]),
    ("DeepSeek V3.2", &["deepseek-v3.2"]),
    ("DeepSeek V4", &["deepseek-v4"]),
    ("gpt-oss", &["gpt-oss"]),
    ("gpt-oss, MXFP4 as published", &["gpt-oss-mxfp4"]),
    ("SmolLM3", &["smollm3"]),
    ("OLMo 2", &["olmo2"]),
    ("OLMo 3", &["olmo3"]),
    ("Granite 3", &["granite"]),
    ("Granite 3 MoE", &["granitemoe"]),
];

/// The table. Every tested fixture stands for a row, and a row is there once all of its fixtures are tested.
pub fn family_table() -> String {
    for name in FAMILIES {
        let rows = ROWS.iter().filter(|(_, fixtures)| fixtures.contains(name)).count();
        assert_eq!(rows, 1, "{name} stands in {rows} rows of the README's table");
    }
    let mut table = String::from(
        "| family | safetensors, CPU | safetensors, GPU | GGUF, CPU | GGUF, GPU | fixtures |\n|---|---|---|---|---|---|\n",
    );
    for (family, fixtures) in ROWS {
        if !fixtures.iter().all(|name| FAMILIES.contains(name)) {
            continue;
        }
        // A reason where all fixtures of the row have one, a tick with the reason where some have.
        let tick = |why: &dyn Fn(&str) -> Option<&'static str>| {
            let missing: Vec<&str> = fixtures.iter().filter_map(|name| why(name)).collect();
            match missing.first() {
                None => "✓".to_owned(),
                Some(why) if missing.len() == fixtures.len() => (*why).to_owned(),
                Some(why) => format!("✓ ({why})"),
            }
        };
        let (gpu, gguf) = (|name: &str| why_not(NOT_ON_GPU, name), |name: &str| why_not(NOT_IN_GGUF, name));
        let in_gguf = fixtures.iter().any(|name| gguf(name).is_none());
        let both = if in_gguf { tick(&gpu) } else { "–".to_owned() };
        let columns = [tick(&gpu), tick(&gguf), both].join(" | ");
        let names = fixtures.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        table += &format!("| {family} | ✓ | {columns} | {names} |\n");
    }
    table
}
