//! Reads the parameters of a rotation from GGUF metadata or `config.json`, in all published spellings.

use serde_json::Value as Json;

use super::{RopeDefaults, SCALING, Scaling, THETA, UNSCALED};
use crate::{
    Error,
    config::{Config, key},
};

impl Scaling {
    /// Parameters from GGUF metadata, as llama.cpp reads it.
    pub(super) fn from_gguf(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
        let mut s = Self::new(d);
        let f = |k: &'static str| c.f32(key(k, "")).map(|v| v.map(f64::from));
        let sliding = d.layer_type == "sliding_attention";
        // Sliding layers whose heads have their own size have their own key for it.
        let own = key("rope.dimension_count_swa", "");
        let dims = if sliding && c.has(own) { own } else { key("rope.dimension_count", "") };
        if let Some(dims) = c.usize(dims)? {
            s.rotary_dims = dims;
        }
        if sliding {
            // Only the newest files have this key. Scaling is for full attention only.
            s.theta = f("rope.freq_base_swa")?.unwrap_or(d.theta);
            return Ok(s);
        }
        // A file without the base has this one, in all families.
        let theta = if d.theta_key.gguf == THETA.gguf { 1e4 } else { d.theta };
        s.theta = c.f32(d.theta_key)?.map_or(theta, f64::from);
        if d.layer_type == UNSCALED {
            return Ok(s);
        }
        // The first files name the factor otherwise (llama.cpp#2772), and a factor of 0 means no scaling.
        let factor = match f("rope.scaling.factor")? {
            None => f("rope.scale_linear")?,
            factor => factor,
        };
        s.factor = factor.filter(|f| *f != 0.0);
        s.kind = match (c.str(SCALING)?.unwrap_or("linear"), s.factor) {
            ("none", _) | ("linear", None) => "default".into(),
            (kind, _) => kind.into(),
        };
        if s.kind == "yarn" {
            s.factor.get_or_insert(1.0);
        }
        // GGUF has no key for it: of all models only gpt-oss has it, and its value is false.
        s.truncate = c.architecture() != "gpt-oss";
        if let Some(v) = c.usize(key("rope.scaling.original_context_length", ""))?.filter(|v| *v > 0) {
            s.original = v as f64;
            if s.kind == "dynamic" {
                // The original context counts, not the length that it has been stretched to since.
                s.context = v;
            }
        }
        if let Some(v) = f("rope.scaling.yarn_beta_fast")? {
            s.beta_fast = v;
        }
        if let Some(v) = f("rope.scaling.yarn_beta_slow")? {
            s.beta_slow = v;
        }
        s.attention_factor = f("rope.scaling.yarn_attn_factor")?;
        s.gain = f("rope.scaling.attn_factor")?;
        if let Some(v) = f("rope.scaling.yarn_log_multiplier")? {
            // DeepSeek's files hold a tenth of `mscale_all_dim`; `mscale` has the same value.
            s.mscale = if c.architecture().starts_with("deepseek") { [v / 0.1; 2] } else { [1.0, v] };
        }
        Ok(s)
    }

    /// Parameters from `config.json`.
    pub(super) fn from_json(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
        let mut s = Self::new(d);
        let number = |hf| c.f32(key("", hf)).map(|v| v.map(f64::from));
        let mut partial = number("partial_rotary_factor")?;
        if let Some(v) = c.f32(d.theta_key)? {
            s.theta = v.into();
        }
        let phi3 = c.architecture() == "phi3";
        let outer_original = number("original_max_position_embeddings")?;
        let sliding = d.layer_type == "sliding_attention";
        let local = number("rope_local_base_freq")?;
        let scaled = d.layer_type != UNSCALED;
        let mut by_type = false;
        let dict = match c.object("rope_parameters")? {
            // Parameters per layer type, or one set for all.
            Some(all) => {
                let own = all.get(d.layer_type).filter(|v| v.is_object());
                by_type = own.is_some();
                own.or(Some(all).filter(|_| scaled))
            }
            // The older form: scaling is for full attention only, and sliding layers have a base of their own.
            None if sliding => {
                s.theta = local.unwrap_or(d.theta);
                None
            }
            None => c.object("rope_scaling")?.filter(|_| scaled),
        };
        s.original = outer_original.unwrap_or(s.original);
        let Some(dict) = dict else { return s.with_partial(c, d, partial) };
        let get = |k: &str| dict.get(k).filter(|v| !v.is_null());
        let num = |k: &'static str| match get(k) {
            None => Ok(None),
            Some(v) => match v.as_f64() {
                Some(v) => Ok(Some(v)),
                None => Err(c.error(SCALING, format!("`{k}` should be a number and is {v}"))),
            },
        };
        if let Some(kind) = get("rope_type").or_else(|| get("type")) {
            s.kind = kind.as_str().unwrap_or_default().to_owned();
            // Names from before the method had one.
            if s.kind == "su" || (phi3 && s.kind == "yarn") {
                s.kind = "longrope".to_owned();
            }
        }
        partial = num("partial_rotary_factor")?.or(partial);
        s.theta = num("rope_theta")?.unwrap_or(s.theta);
        s.factor = num("factor")?;
        // A key beside the one set for all takes precedence over the same key within it.
        if by_type || outer_original.is_none() {
            s.original = num("original_max_position_embeddings")?.unwrap_or(s.original);
        }
        s.low_freq_factor = num("low_freq_factor")?.unwrap_or(s.low_freq_factor);
        s.high_freq_factor = num("high_freq_factor")?.unwrap_or(s.high_freq_factor);
        s.beta_fast = num("beta_fast")?.unwrap_or(s.beta_fast);
        s.beta_slow = num("beta_slow")?.unwrap_or(s.beta_slow);
        s.attention_factor = num("attention_factor")?;
        s.mscale = [num("mscale")?.unwrap_or(0.0), num("mscale_all_dim")?.unwrap_or(0.0)];
        let list = |k: &'static str| match get(k) {
            None => Ok(Vec::new()),
            Some(v) => match v.as_array().map(|v| v.iter().map(Json::as_f64).collect::<Option<Vec<_>>>()) {
                Some(Some(list)) => Ok(list),
                _ => Err(c.error(SCALING, format!("`{k}` should be an array of numbers"))),
            },
        };
        (s.short, s.long) = (list("short_factor")?, list("long_factor")?);
        // The reference looks for this key beside the layer types, where no file has it.
        let truncate = match get("truncate") {
            None => true,
            Some(v) => {
                v.as_bool().ok_or_else(|| c.error(SCALING, format!("`truncate` should be true or false and is {v}")))?
            }
        };
        s.truncate = by_type || truncate;
        s.with_partial(c, d, partial)
    }

    fn with_partial(mut self, c: &Config<'_>, d: &RopeDefaults, partial: Option<f64>) -> Result<Self, Error> {
        if let Some(p) = partial {
            if !(p > 0.0 && p <= 1.0) {
                return Err(c.error(key("", "partial_rotary_factor"), format!("should be in (0, 1] and is {p}")));
            }
            self.rotary_dims = (d.head_dim as f64 * p) as usize;
        }
        Ok(self)
    }
}
