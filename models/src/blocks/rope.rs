//! Rotary frequencies from either kind of configuration, in all published spellings.

use handmill_runtime::{
    format::Tensor,
    graph::{RopeFreqs, RopeLayout, RopeSpec},
};
use serde_json::Value as Json;

use crate::{
    Error,
    config::{Config, Key, key},
};

/// What a family knows about its rotation when the file says nothing.
#[derive(Clone, Copy, Debug)]
pub struct RopeDefaults {
    /// Layout of safetensors checkpoints.
    pub layout: RopeLayout,
    /// Layout of GGUF files; differs where conversion permutes q and k.
    pub gguf_layout: RopeLayout,
    /// Base of the frequencies.
    pub theta: f64,
    /// Elements of a head.
    pub head_dim: usize,
    /// `max_position_embeddings`, which stands in for a missing original context.
    pub context: usize,
    /// The layers' name within per-type parameters: `full_attention` or `sliding_attention`.
    pub layer_type: &'static str,
}

const SCALING: Key = key("rope.scaling.type", "rope_scaling");

/// The rotation of one kind of layer.
///
/// # Errors
/// Malformed values, and scaling types that are not known, by name.
pub fn rope(c: &Config<'_>, d: &RopeDefaults, gguf_freqs: Option<Tensor>) -> Result<RopeSpec, Error> {
    let scaling = if c.is_gguf() { Scaling::from_gguf(c, d)? } else { Scaling::from_json(c, d)? };
    let layout = if c.is_gguf() { d.gguf_layout } else { d.layout };
    let mut spec = scaling.spec(c, layout)?;
    // llama3 scaling has no metadata: GGUF files carry its divisors as a tensor.
    if let (Some(t), RopeFreqs::Fixed(freqs)) = (gguf_freqs, &mut spec.freqs) {
        let mut divisors = vec![0.0; freqs.len()];
        if t.row_len() != freqs.len() || t.dtype().decode_row(t.bytes(), &mut divisors).is_err() {
            let what = format!("rope_freqs.weight has shape {:?}, expected [{}]", t.shape(), freqs.len());
            return Err(c.error(SCALING, what));
        }
        freqs.iter_mut().zip(divisors).for_each(|(f, d)| *f /= d);
    }
    Ok(spec)
}

/// The parameters of a scaling rule, whatever file they came from.
#[derive(Clone, Debug)]
struct Scaling {
    kind: String,
    theta: f64,
    head_dim: usize,
    rotary_dims: usize,
    factor: Option<f64>,
    original: f64,
    context: usize,
    low_freq_factor: f64,
    high_freq_factor: f64,
    beta_fast: f64,
    beta_slow: f64,
    truncate: bool,
    attention_factor: Option<f64>,
    mscale: [f64; 2],
}

impl Scaling {
    fn new(d: &RopeDefaults) -> Self {
        Self {
            kind: "default".into(),
            theta: d.theta,
            head_dim: d.head_dim,
            rotary_dims: d.head_dim,
            factor: None,
            original: d.context as f64,
            context: d.context,
            low_freq_factor: 1.0,
            high_freq_factor: 4.0,
            beta_fast: 32.0,
            beta_slow: 1.0,
            truncate: true,
            attention_factor: None,
            mscale: [0.0, 0.0],
        }
    }

    fn from_gguf(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
        let mut s = Self::new(d);
        let f = |k: &'static str| c.f32(key(k, "")).map(|v| v.map(f64::from));
        let sliding = d.layer_type == "sliding_attention";
        if let Some(dims) = c.usize(key("rope.dimension_count", ""))? {
            s.rotary_dims = dims;
        }
        if sliding {
            // No key but in the newest files; scaling is for full attention only.
            s.theta = f("rope.freq_base_swa")?.unwrap_or(d.theta);
            return Ok(s);
        }
        s.theta = f("rope.freq_base")?.unwrap_or(d.theta);
        if let Some(kind) = c.str(SCALING)? {
            s.kind = if kind == "none" { "default".into() } else { kind.into() };
        }
        s.factor = f("rope.scaling.factor")?;
        if let Some(v) = c.usize(key("rope.scaling.original_context_length", ""))? {
            s.original = v as f64;
        }
        if let Some(v) = f("rope.scaling.yarn_beta_fast")? {
            s.beta_fast = v;
        }
        if let Some(v) = f("rope.scaling.yarn_beta_slow")? {
            s.beta_slow = v;
        }
        if let Some(v) = f("rope.scaling.attn_factor")?
            && s.kind == "yarn"
        {
            s.attention_factor = Some(v * Self::magnitude(s.factor.unwrap_or(1.0), 1.0));
        }
        Ok(s)
    }

    fn from_json(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
        let mut s = Self::new(d);
        let number = |hf| c.f32(key("", hf)).map(|v| v.map(f64::from));
        let mut partial = number("partial_rotary_factor")?;
        if let Some(v) = number("rope_theta")? {
            s.theta = v;
        }
        if let Some(v) = number("original_max_position_embeddings")? {
            s.original = v;
        }
        let sliding = d.layer_type == "sliding_attention";
        let local = number("rope_local_base_freq")?;
        let dict = match c.object("rope_parameters")? {
            // Per layer type, or one for all.
            Some(all) => all.get(d.layer_type).filter(|v| v.is_object()).or(Some(all)),
            // Legacy: scaling is for full attention only where sliding layers have a base of their own.
            None if sliding && local.is_some() => {
                s.theta = local.unwrap_or(s.theta);
                None
            }
            None if sliding && d.theta != s.theta && number("rope_theta")?.is_none() => None,
            None => c.object("rope_scaling")?,
        };
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
        }
        partial = num("partial_rotary_factor")?.or(partial);
        s.theta = num("rope_theta")?.unwrap_or(s.theta);
        s.factor = num("factor")?;
        s.original = num("original_max_position_embeddings")?.unwrap_or(s.original);
        s.low_freq_factor = num("low_freq_factor")?.unwrap_or(s.low_freq_factor);
        s.high_freq_factor = num("high_freq_factor")?.unwrap_or(s.high_freq_factor);
        s.beta_fast = num("beta_fast")?.unwrap_or(s.beta_fast);
        s.beta_slow = num("beta_slow")?.unwrap_or(s.beta_slow);
        s.attention_factor = num("attention_factor")?;
        s.mscale = [num("mscale")?.unwrap_or(0.0), num("mscale_all_dim")?.unwrap_or(0.0)];
        s.truncate = get("truncate").and_then(Json::as_bool).unwrap_or(true);
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

    /// `0.1 m ln s + 1`, the growth of attention logits that yarn compensates; 1 where nothing is stretched.
    fn magnitude(s: f64, m: f64) -> f64 {
        if s <= 1.0 { 1.0 } else { 0.1 * m * s.ln() + 1.0 }
    }

    fn spec(&self, c: &Config<'_>, layout: RopeLayout) -> Result<RopeSpec, Error> {
        let r = self.rotary_dims;
        if r < 2 || r > self.head_dim || !r.is_multiple_of(2) || !(self.theta > 0.0 && self.theta.is_finite()) {
            return Err(c.error(
                SCALING,
                format!("cannot rotate {r} of {} dimensions with base {}", self.head_dim, self.theta),
            ));
        }
        let need_factor = || match self.factor {
            Some(f) if f > 0.0 && f.is_finite() => Ok(f),
            Some(f) => Err(c.error(SCALING, format!("`factor` is {f}"))),
            None => Err(c.error(SCALING, format!("`{}` needs a `factor`", self.kind))),
        };
        let mut attention_factor = 1.0;
        let base: Vec<f64> = (0..r / 2).map(|j| self.theta.powf(-2.0 * j as f64 / r as f64)).collect();
        let freqs = match self.kind.as_str() {
            "default" => base,
            "linear" => {
                let factor = need_factor()?;
                base.iter().map(|f| f / factor).collect()
            }
            "dynamic" => {
                let freqs =
                    RopeFreqs::Dynamic { theta: self.theta, factor: need_factor()?, max_position: self.context };
                return Ok(RopeSpec { layout, first_dim: 0, rotary_dims: r, freqs, attention_factor: 1.0 });
            }
            "llama3" => {
                let factor = need_factor()?;
                base.iter().map(|f| self.llama3(*f, factor)).collect()
            }
            "yarn" => {
                let factor = self.factor.unwrap_or(self.context as f64 / self.original);
                attention_factor = self.attention_factor.unwrap_or_else(|| match self.mscale {
                    [m, all] if m != 0.0 && all != 0.0 => Self::magnitude(factor, m) / Self::magnitude(factor, all),
                    _ => Self::magnitude(factor, 1.0),
                });
                self.yarn(&base, factor)
            }
            other => {
                let what = format!("the scaling type `{other}` is not supported for this family");
                return Err(c.error(SCALING, what));
            }
        };
        Ok(RopeSpec {
            layout,
            first_dim: 0,
            rotary_dims: r,
            freqs: RopeFreqs::Fixed(freqs.into_iter().map(|f| f as f32).collect()),
            attention_factor: attention_factor as f32,
        })
    }

    /// Llama 3.1: long waves are stretched, short ones kept, those between blended.
    fn llama3(&self, f: f64, factor: f64) -> f64 {
        let wavelength = 2.0 * std::f64::consts::PI / f;
        let (low, high) = (self.low_freq_factor, self.high_freq_factor);
        if wavelength < self.original / high {
            f
        } else if wavelength > self.original / low {
            f / factor
        } else {
            let s = (self.original / wavelength - low) / (high - low);
            f * ((1.0 - s) / factor + s)
        }
    }

    /// YaRN (Peng et al. 2023): a ramp between kept and stretched frequencies.
    fn yarn(&self, base: &[f64], factor: f64) -> Vec<f64> {
        let r = self.rotary_dims as f64;
        let dim = |n: f64| r * (self.original / (n * 2.0 * std::f64::consts::PI)).ln() / (2.0 * self.theta.ln());
        let (mut low, mut high) = (dim(self.beta_fast), dim(self.beta_slow));
        if self.truncate {
            (low, high) = (low.floor(), high.ceil());
        }
        (low, high) = (low.max(0.0), high.min(r - 1.0));
        if low == high {
            high += 0.001;
        }
        let ramp = |j: usize| ((j as f64 - low) / (high - low)).clamp(0.0, 1.0);
        base.iter().enumerate().map(|(j, f)| f / factor * ramp(j) + f * (1.0 - ramp(j))).collect()
    }
}
