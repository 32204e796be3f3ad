//! The sampling parameters that a model's publisher chose: `generation_config.json` of a folder, or the keys
//! `general.sampling.*` into which llama.cpp's converter copies it (`gguf-py/gguf/constants.py`).
//!
//! A model that states how it samples means what transformers makes of that, so fields that it leaves out have
//! transformers' values. Where it states nothing, [`SamplingParams::default`] holds.

use handmill_runtime::format::{Checkpoint, Kind, gguf::Value as GgufValue};
pub use handmill_runtime::sample::{SamplingError, SamplingParams};
use serde_json::Value;

/// Sampling parameters for a model.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SamplingDefaults {
    /// The parameters; all in range.
    pub params: SamplingParams,
    /// What states at least one of them; none where they are all this library's.
    pub source: Option<&'static str>,
    /// Values that are ignored, one line each.
    pub warnings: Vec<String>,
}

/// Names of the parameters in `generation_config.json` and in GGUF files.
const TEMPERATURE: [&str; 2] = ["temperature", "general.sampling.temp"];
const TOP_K: [&str; 2] = ["top_k", "general.sampling.top_k"];
const TOP_P: [&str; 2] = ["top_p", "general.sampling.top_p"];
const MIN_P: [&str; 2] = ["min_p", "general.sampling.min_p"];
const REPETITION: [&str; 2] = ["repetition_penalty", "general.sampling.penalty_repeat"];
const LAST_N: [&str; 2] = ["penalty_last_n", "general.sampling.penalty_last_n"];

/// Reads a number; `Err` is a value that is none, as text.
type Number<'a> = dyn Fn([&'static str; 2]) -> Option<Result<f64, String>> + 'a;

impl SamplingDefaults {
    /// The parameters that the checkpoint's publisher chose, for what it leaves out as the module says.
    pub fn of_checkpoint(checkpoint: &Checkpoint) -> Self {
        match checkpoint.kind() {
            Kind::Gguf(gguf) => {
                let number = |[_, key]: [&'static str; 2]| Some(gguf_number(gguf.get(key)?));
                Self::read("general.sampling", 1, &number, None)
            }
            Kind::HuggingFace(folder) => {
                let Some(config) = &folder.generation_config else { return Self::default() };
                let number = |[name, _]: [&'static str; 2]| match &config[name] {
                    Value::Null => None,
                    value => Some(value.as_f64().ok_or_else(|| shortened(value.to_string()))),
                };
                Self::read("generation_config.json", 0, &number, config["do_sample"].as_bool())
            }
        }
    }

    fn read(source: &'static str, spelling: usize, number: &Number, do_sample: Option<bool>) -> Self {
        let mut params = SamplingParams::default();
        let stated = |names: &[&'static str; 2]| number(*names).is_some();
        if do_sample.is_some() || [TEMPERATURE, TOP_K, TOP_P, MIN_P].iter().any(stated) {
            // transformers' GenerationConfig.
            params = SamplingParams { temperature: 1.0, top_k: 50, top_p: 1.0, min_p: 0.0, ..params };
        }
        let (mut any, mut warnings) = (do_sample.is_some(), Vec::new());
        let mut take = |names: [&'static str; 2], set: &dyn Fn(&mut SamplingParams, f64) -> bool| {
            let Some(value) = number(names) else { return };
            any = true;
            let mut tried = params.clone();
            let reason = match &value {
                Err(_) => "it must be a number".to_owned(),
                Ok(value) => match (set(&mut tried, *value), tried.validate()) {
                    (true, Ok(())) => return params = tried,
                    (_, Err(error)) => error.to_string(),
                    (false, Ok(())) => "it must be a whole number from -1 up".to_owned(),
                },
            };
            let value = value.map_or_else(|text| text, |number| number.to_string());
            let file = if spelling == 0 { "generation_config.json: " } else { "" };
            warnings.push(format!("{file}{} is {value}, which is ignored: {reason}", names[spelling]));
        };
        let mut number = |names, field: fn(&mut SamplingParams) -> &mut f32| {
            take(names, &|params, value| {
                *field(params) = value as f32;
                true
            });
        };
        number(TEMPERATURE, |params| &mut params.temperature);
        number(TOP_P, |params| &mut params.top_p);
        number(MIN_P, |params| &mut params.min_p);
        number(REPETITION, |params| &mut params.repetition_penalty);
        // -1 keeps all tokens, as 0 does, and penalises all.
        let mut count = |names, field: fn(&mut SamplingParams) -> &mut usize, all: usize| {
            take(names, &|params, value| {
                let count = whole(value);
                *field(params) = count.flatten().unwrap_or(all);
                count.is_some()
            });
        };
        count(TOP_K, |params| &mut params.top_k, 0);
        count(LAST_N, |params| &mut params.penalty_last_n, usize::MAX);
        if do_sample == Some(false) {
            params = SamplingParams { temperature: 0.0, ..params };
        }
        Self { params, source: any.then_some(source), warnings }
    }
}

/// A count; `Some(None)` for -1.
fn whole(value: f64) -> Option<Option<usize>> {
    // Above 2^53 not every number is a float, and no vocabulary is so large.
    let count = value.fract() == 0.0 && (0.0..=(1u64 << 53) as f64).contains(&value);
    if value == -1.0 { Some(None) } else { count.then_some(Some(value as usize)) }
}

fn gguf_number(value: GgufValue) -> Result<f64, String> {
    match value {
        GgufValue::F32(number) => Ok(number.into()),
        GgufValue::F64(number) => Ok(number),
        other => other.as_i128().map(|number| number as f64).ok_or_else(|| shortened(other.describe())),
    }
}

fn shortened(text: String) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use handmill_runtime::format::gguf::GgufWriter;
    use std::fs;

    /// The defaults of a folder with that generation_config.json.
    fn of_json(config: &str) -> SamplingDefaults {
        let folder = tempfile::tempdir().unwrap();
        let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let files: [(&str, &[u8]); 3] = [
            ("config.json", br#"{"model_type":"llama"}"#),
            ("model.safetensors", &weights),
            ("generation_config.json", config.as_bytes()),
        ];
        files.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
        SamplingDefaults::of_checkpoint(&Checkpoint::open(folder.path()).unwrap())
    }

    fn of_gguf(gguf: &GgufWriter) -> SamplingDefaults {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.gguf");
        fs::write(&path, gguf.to_bytes()).unwrap();
        SamplingDefaults::of_checkpoint(&Checkpoint::open(&path).unwrap())
    }

    /// Temperature, top-k, top-p, min-p, repetition penalty.
    fn five(defaults: &SamplingDefaults) -> (f32, usize, f32, f32, f32) {
        let SamplingParams { temperature, top_k, top_p, min_p, repetition_penalty, .. } = defaults.params;
        (temperature, top_k, top_p, min_p, repetition_penalty)
    }

    #[test]
    fn a_generation_config_says_how_to_sample() {
        let ours = (0.8, 40, 0.95, 0.05, 1.0);
        for (config, expected, stated) in [
            (r#"{"bos_token_id":1}"#, ours, false),
            (r#"{"do_sample":true,"temperature":0.6,"top_p":0.9}"#, (0.6, 50, 0.9, 0.0, 1.0), true),
            (r#"{"do_sample":true,"top_k":64,"top_p":0.95}"#, (1.0, 64, 0.95, 0.0, 1.0), true),
            (r#"{"repetition_penalty":1.1,"temperature":0.7,"top_p":0.8,"top_k":20}"#, (0.7, 20, 0.8, 0.0, 1.1), true),
            (r#"{"min_p":0.1,"temperature":null,"top_k":-1}"#, (1.0, 0, 1.0, 0.1, 1.0), true),
            (r#"{"repetition_penalty":1.05}"#, (0.8, 40, 0.95, 0.05, 1.05), true),
            (r#"{"do_sample":false,"temperature":0.9,"repetition_penalty":1.2}"#, (0.0, 50, 1.0, 0.0, 1.2), true),
        ] {
            let found = of_json(config);
            assert_eq!(five(&found), expected, "{config}");
            assert_eq!((found.source.is_some(), &found.warnings), (stated, &Vec::new()), "{config}");
        }
    }

    #[test]
    fn keys_of_gguf_files_mean_the_same() {
        let mut gguf = GgufWriter::new();
        gguf.put("general.architecture", "llama");
        assert_eq!(of_gguf(&gguf), SamplingDefaults::default());
        gguf.put("general.sampling.temp", 0.5f32).put("general.sampling.top_k", 20i32);
        gguf.put("general.sampling.top_p", 0.75f32).put("general.sampling.penalty_repeat", 1.25f32);
        gguf.put("general.sampling.penalty_last_n", -1i32);
        let found = of_gguf(&gguf);
        assert_eq!(five(&found), (0.5, 20, 0.75, 0.0, 1.25));
        assert_eq!((found.params.penalty_last_n, found.source), (usize::MAX, Some("general.sampling")));
    }

    #[test]
    fn hostile_values_are_ignored_and_named() {
        for (config, name) in [
            (r#"{"temperature":-1}"#, "temperature is -1"),
            (r#"{"temperature":1e300}"#, "temperature is"),
            (r#"{"temperature":"hot"}"#, "temperature is \"hot\""),
            (r#"{"top_p":0}"#, "top_p is 0"),
            (r#"{"top_p":1.5}"#, "top_p is 1.5"),
            (r#"{"min_p":[1]}"#, "min_p is [1]"),
            (r#"{"top_k":2.5}"#, "top_k is 2.5"),
            (r#"{"top_k":-7}"#, "top_k is -7"),
            (r#"{"top_k":1e30}"#, "top_k is"),
            (r#"{"repetition_penalty":0}"#, "repetition_penalty is 0"),
            (r#"{"repetition_penalty":{}}"#, "repetition_penalty is {}"),
        ] {
            let found = of_json(config);
            assert!(found.params.validate().is_ok(), "{config}: {found:?}");
            assert_eq!(found.warnings.len(), 1, "{config}: {found:?}");
            let warning = &found.warnings[0];
            assert!(warning.starts_with("generation_config.json: ") && warning.contains(name), "{config}: {warning}");
        }
        let mut gguf = GgufWriter::new();
        gguf.put("general.architecture", "llama").put("general.sampling.temp", f32::NAN);
        gguf.put("general.sampling.top_k", "many").put("general.sampling.min_p", 3.0f32);
        let found = of_gguf(&gguf);
        assert_eq!(five(&found), (1.0, 50, 1.0, 0.0, 1.0));
        assert_eq!(found.warnings.len(), 3, "{:?}", found.warnings);
        assert!(found.warnings[0].contains("general.sampling.temp is NaN"), "{:?}", found.warnings);
    }
}
