//! Claims of a configuration about the whole file, checked against the file's tensors: the quantisation of weights, the
//! number of layers, and the projections with biases and norms. A contradiction is refused by name.

use std::collections::HashSet;

use handmill_runtime::{
    format::{Checkpoint, FormatError, TensorInfo},
    graph::Graph,
};
use serde_json::Value;

use crate::{
    Error,
    blocks::loader::text_prefix,
    config::{Config, Key, LAYERS, key},
};

/// Refuses a `quant_method` that this crate does not read, or that the file's weights contradict.
///
/// # Errors
/// The method.
pub(super) fn quantisation(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<(), Error> {
    const METHOD: Key = key("", "quant_method");
    let said = match c.object("quantization_config")? {
        None => c.object("compression_config")?,
        said => said,
    };
    // Made-up weights have the format that was asked for.
    let Some(said) = said.filter(|_| !checkpoint.is_synthetic()) else { return Ok(()) };
    let on_load = ["load_in_4bit", "load_in_8bit"].iter().any(|k| said.get(k).and_then(Value::as_bool) == Some(true));
    let method = match said.get("quant_method") {
        Some(Value::String(method)) => method.to_lowercase(),
        None | Some(Value::Null) if on_load => "bitsandbytes".to_owned(),
        None | Some(Value::Null) if said.get("bits").is_none() => return Ok(()),
        other => return Err(c.error(METHOD, format!("should be a name and is {}", other.unwrap_or(&Value::Null)))),
    };
    let stored: fn(&TensorInfo<'_>) -> bool = match method.as_str() {
        "mxfp4" => |t| t.name.ends_with("_blocks") && t.dtype_name == "u8",
        // Each of these writes FP8 as well as formats of its own.
        "fp8" | "fbgemm_fp8" | "compressed-tensors" | "modelopt" => {
            |t| t.name.ends_with(".weight") && t.dtype_name == "f8_e4m3"
        }
        _ => {
            let what = format!("is `{method}`, which is not read; take the model unquantised, in FP8 or as GGUF");
            return Err(c.error(METHOD, what));
        }
    };
    if checkpoint.tensors().any(|t| stored(&t)) {
        return Ok(());
    }
    let what =
        format!("is `{method}`, and the file has no weights in a format of it that is read; fetch the two again");
    Err(c.error(METHOD, what))
}

/// Refuses GGUF metadata that gives values another size than keys, but in latent attention, which has both.
///
/// # Errors
/// The size of the values.
pub(super) fn values(c: &Config<'_>) -> Result<(), Error> {
    const LENGTHS: [Key; 2] = [key("attention.key_length", ""), key("attention.value_length", "")];
    if !c.is_gguf() || c.has(key("attention.kv_lora_rank", "")) {
        return Ok(());
    }
    match LENGTHS.map(|key| c.usize(key)) {
        [Ok(Some(of_keys)), Ok(Some(n))] if n != of_keys => Err(c.error(
            LENGTHS[1],
            format!("is {n}, and that of keys is {of_keys}, which is not supported for this family"),
        )),
        [_, Err(error)] => Err(error),
        _ => Ok(()),
    }
}

/// Refuses a file with a shared expert in a layer where the graph has none.
///
/// # Errors
/// The first such tensor.
pub(super) fn shared_experts(c: &Config<'_>, graph: &Graph, checkpoint: &Checkpoint) -> Result<(), Error> {
    let n = c.require_usize(LAYERS)?;
    let prefix = layer_prefix(c, checkpoint);
    let used: HashSet<&str> = graph.weights().map(|(name, _)| whole_name(name)).collect();
    let of_shared = |name: &str| {
        let marked = name.contains("shared_expert") || name.contains("_shexp.");
        marked && name.ends_with(".weight") && layer_of(name, &prefix).is_some_and(|(layer, _)| layer < n)
    };
    match checkpoint.tensors().find(|t| of_shared(t.name) && !used.contains(t.name)) {
        Some(t) => {
            let key = key("expert_shared_count", "n_shared_experts");
            Err(c.error(key, format!("gives no shared expert to a layer, and the file has the tensor `{}`", t.name)))
        }
        None => Ok(()),
    }
}

/// The name of the file's tensor that a weight is, or is rows of: these stand behind the name.
fn whole_name(weight: &str) -> &str {
    weight.split('[').next().unwrap_or(weight)
}

/// The layer that a tensor belongs to, and its name within.
fn layer_of<'n>(name: &'n str, prefix: &str) -> Option<(usize, &'n str)> {
    let (layer, name) = name.strip_prefix(prefix)?.split_once('.')?;
    Some((layer.parse().ok()?, name))
}

/// Prefix of the names of layers.
fn layer_prefix(c: &Config<'_>, checkpoint: &Checkpoint) -> String {
    if c.is_gguf() { "blk.".to_owned() } else { format!("{}layers.", text_prefix(checkpoint)) }
}

/// Refuses a file with more layers than the configuration counts, except blocks that predict tokens further ahead.
///
/// # Errors
/// The first tensor of such a layer.
pub(super) fn layers(c: &Config<'_>, checkpoint: &Checkpoint) -> Result<(), Error> {
    const AHEAD: Key = key("nextn_predict_layers", "num_nextn_predict_layers");
    /// Names of tensors that only predicting blocks have.
    const OF_PREDICTORS: [&str; 5] = ["nextn.", "eh_proj.", "enorm.", "hnorm.", "shared_head."];
    let n = c.require_usize(LAYERS)?;
    let counted = n.saturating_add(c.usize(AHEAD)?.unwrap_or(0));
    let prefix = layer_prefix(c, checkpoint);
    let beyond = || {
        let layers = checkpoint.tensors().filter_map(|t| Some((t.name, layer_of(t.name, &prefix)?)));
        layers.filter(|(_, (layer, _))| *layer >= counted)
    };
    let predicts = |name: &str| OF_PREDICTORS.iter().any(|mark| name.starts_with(mark));
    let predictors: HashSet<usize> = beyond().filter(|(_, (_, name))| predicts(name)).map(|(_, (i, _))| i).collect();
    match beyond().find(|(_, (layer, _))| !predictors.contains(layer)) {
        Some((name, _)) => {
            Err(c.error(LAYERS, format!("is {n}, and the file has the tensor `{name}` of a further layer")))
        }
        None => Ok(()),
    }
}

/// `error`, or where a tensor is missing because the file has fewer layers than the configuration counts, an error that
/// says so.
pub(super) fn too_few_layers(c: &Config<'_>, checkpoint: &Checkpoint, error: Error) -> Error {
    let Error::Format(FormatError::MissingTensor { tensor, .. }) = &error else { return error };
    let prefix = layer_prefix(c, checkpoint);
    let last = checkpoint.tensors().filter_map(|t| Some(layer_of(t.name, &prefix)?.0)).max();
    match (layer_of(tensor, &prefix), last, c.usize(LAYERS)) {
        (Some((layer, _)), Some(last), Ok(Some(n))) if layer > last => {
            c.error(LAYERS, format!("is {n}, and the file has {} layers: there is no tensor `{tensor}`", last + 1))
        }
        _ => error,
    }
}

/// A key of `config.json`, the families whose class reads it, and the projections that have a bias if and only if it is
/// true.
type Biases = (&'static str, &'static [&'static str], &'static [&'static str]);

const ATTENTION: &[&str] = &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj"];
const BIASES: &[Biases] = &[
    (
        "attention_bias",
        &[
            "llama",
            "llama4",
            "qwen3",
            "qwen3_moe",
            "qwen3_next",
            "qwen3_5",
            "qwen3_5_moe",
            "gemma",
            "gemma2",
            "gemma3",
            "gemma3n",
            "gemma4",
            "phimoe",
            "gpt_oss",
            "smollm3",
            "olmo2",
            "olmo3",
            "granite",
            "granitemoe",
        ],
        ATTENTION,
    ),
    (
        "attention_bias",
        &["deepseek_v2", "deepseek_v3", "deepseek_v32", "mistral4"],
        &["self_attn.q_a_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.o_proj"],
    ),
    ("qkv_bias", &["qwen2_moe"], &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]),
    ("mlp_bias", &["llama", "granite", "smollm3"], &["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"]),
    ("lm_head_bias", &["phimoe"], &["lm_head"]),
];

/// Families whose head has a bias.
const HEAD_BIAS: &[&str] = &["phi", "phimoe"];

/// Norms of queries and keys, by the projections in front of them; names after their common prefix.
const NORMS: &[(&str, &[&str])] = &[
    ("q_proj.weight", &["q_norm.weight", "q_layernorm.weight"]),
    ("k_proj.weight", &["k_norm.weight", "k_layernorm.weight"]),
    ("qkv_proj.weight", &["q_norm.weight", "k_norm.weight"]),
    ("attn_q.weight", &["attn_q_norm.weight"]),
    ("attn_k.weight", &["attn_k_norm.weight"]),
    ("attn_qkv.weight", &["attn_q_norm.weight", "attn_k_norm.weight"]),
];

/// Refuses a file with a bias or a norm that the graph does not have, where the graph uses the weight in front of it.
/// Refuses biases that the configuration denies, and biases that it promises and the file lacks.
///
/// # Errors
/// The tensor, or the key.
pub(super) fn biases_and_norms(c: &Config<'_>, graph: &Graph, checkpoint: &Checkpoint) -> Result<(), Error> {
    // Made-up weights have no biases, whatever the configuration claims.
    if checkpoint.is_synthetic() {
        return Ok(());
    }
    let family = c.architecture().trim_end_matches("_text");
    let mut said = Vec::new();
    for (name, _, projections) in BIASES.iter().filter(|(_, families, _)| families.contains(&family)) {
        if let Some(biased) = c.bool(key("", name))? {
            said.push((key("", name), biased, *projections));
        }
    }
    let refuse = |tensor: String, what: &str| {
        let path = checkpoint.path().display().to_string();
        Err(Error::Config { path, key: tensor, what: format!("is a {what} that this family does not have") })
    };
    let used: HashSet<&str> = graph.weights().map(|(name, _)| whole_name(name)).collect();
    // In the graph's order, so that the message is the same in every run.
    for (weight, _) in graph.weights() {
        let Some(stem) = whole_name(weight).strip_suffix(".weight") else { continue };
        let (weight, bias) = (format!("{stem}.weight"), format!("{stem}.bias"));
        let has_bias = used.contains(bias.as_str());
        // In GGUF, converters of further families write one, and llama.cpp adds it.
        let denied = !c.is_gguf() && stem.ends_with("lm_head") && !HEAD_BIAS.contains(&family);
        if (!has_bias || denied) && checkpoint.find(&bias)?.is_some() {
            return refuse(bias, "bias");
        }
        for (key, biased, projections) in &said {
            if *biased != has_bias && projections.iter().any(|projection| stem.ends_with(projection)) {
                let has = if has_bias { "has" } else { "lacks" };
                return Err(c.error(*key, format!("is {biased}, and the file {has} the tensor `{bias}`")));
            }
        }
        for (projection, norms) in NORMS {
            let Some(before) = weight.strip_suffix(projection) else { continue };
            for norm in norms.iter().map(|norm| format!("{before}{norm}")) {
                if !used.contains(norm.as_str()) && checkpoint.find(&norm)?.is_some() {
                    return refuse(norm, "norm");
                }
            }
        }
    }
    Ok(())
}
