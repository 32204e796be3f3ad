//! Rotary frequencies from either kind of configuration, in all published spellings.

use handmill_runtime::graph::{PositionScale, RopeFreqs, RopeLayout, RopeSpec};
use serde_json::Value as Json;

use super::Loader;
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
    /// Part of a head that turns.
    pub partial: f64,
    /// `max_position_embeddings`, which stands in for a missing original context.
    pub context: usize,
    /// The layers' name within per-type parameters: `full_attention` or `sliding_attention`; [`UNSCALED`], where scaling
    /// is for others alone.
    pub layer_type: &'static str,
    /// What the file calls `theta`.
    pub theta_key: Key,
}

/// The [`RopeDefaults::layer_type`] of rotations that are scaled only by parameters of that name.
pub const UNSCALED: &str = "main";

/// The [`RopeDefaults::theta_key`] of most.
pub const THETA: Key = key("rope.freq_base", "rope_theta");

impl RopeDefaults {
    /// The same for so much of a head.
    pub fn with_partial(self, partial: f64) -> Self {
        Self { partial, ..self }
    }
}

const SCALING: Key = key("rope.scaling.type", "rope_scaling");

/// The rotation of one kind of layer.
///
/// # Errors
/// Malformed values, and scaling types that are not known, by name.
pub fn rope(c: &Config<'_>, d: &RopeDefaults, l: &Loader<'_>) -> Result<RopeSpec, Error> {
    let mut scaling = if c.is_gguf() { Scaling::from_gguf(c, d)? } else { Scaling::from_json(c, d)? };
    let layout = if c.is_gguf() { d.gguf_layout } else { d.layout };
    // GGUF files carry the divisors of longrope and of llama3 scaling as tensors; of the latter there is no metadata.
    let n = scaling.rotary_dims / 2;
    if let (Some(short), Some(long)) =
        (divisors(c, l, "rope_factors_short.weight", n)?, divisors(c, l, "rope_factors_long.weight", n)?)
    {
        scaling.kind = "longrope".into();
        (scaling.short, scaling.long) = (short, long);
    }
    let mut spec = scaling.spec(c, layout)?;
    if d.layer_type != "sliding_attention"
        && let RopeFreqs::Fixed(freqs) = &mut spec.freqs
        && let Some(divisors) = divisors(c, l, "rope_freqs.weight", n)?
    {
        freqs.iter_mut().zip(divisors).for_each(|(f, d)| *f /= d as f32);
    }
    Ok(spec)
}

/// Refuses a `config.json` without RoPE parameters, for families whose class then scales by rules of its own.
///
/// # Errors
/// As its name says.
pub fn require_parameters(c: &Config<'_>) -> Result<(), Error> {
    if c.is_gguf() || c.object("rope_parameters")?.is_some() || c.object("rope_scaling")?.is_some() {
        return Ok(());
    }
    Err(c.error(key("", "rope_parameters"), "is missing"))
}

/// A GGUF file's tensor of `n` divisors, if it has it.
fn divisors(c: &Config<'_>, l: &Loader<'_>, name: &str, n: usize) -> Result<Option<Vec<f64>>, Error> {
    let Some(t) = l.gguf_tensor(name)? else { return Ok(None) };
    let mut divisors = vec![0.0; n];
    let fits = t.shape() == [n] && t.dtype().decode_row(t.bytes(), &mut divisors).is_ok();
    if !fits || !divisors.iter().all(|d| *d > 0.0) {
        let what = format!("{name} has shape {:?}, expected [{n}] divisors greater than 0", t.shape());
        return Err(c.error(SCALING, what));
    }
    Ok(Some(divisors.into_iter().map(f64::from).collect()))
}

/// What yarn makes the scores of latent attention grow by, once for queries and once for keys: 1 without `mscale_all_dim`.
///
/// # Errors
/// Malformed values.
pub fn attention_growth(c: &Config<'_>, d: &RopeDefaults) -> Result<f32, Error> {
    let scaling = if c.is_gguf() { Scaling::from_gguf(c, d)? } else { Scaling::from_json(c, d)? };
    let factor = scaling.factor.unwrap_or(scaling.context as f64 / scaling.original);
    let grows = scaling.kind != "default" && scaling.mscale[1] != 0.0;
    Ok(if grows { Scaling::magnitude(factor, scaling.mscale[1]) as f32 } else { 1.0 })
}

/// The factor by position on Ministral 3's and Mistral 4's queries, if the file asks for one.
///
/// # Errors
/// Malformed values.
pub fn query_scale(c: &Config<'_>) -> Result<Option<PositionScale>, Error> {
    let (beta, length, key_of_length) = if c.is_gguf() {
        let length = key("attention.temperature_length", "");
        (c.f32(key("attention.temperature_scale", ""))?, c.usize(length)?, length)
    } else {
        let dict = match c.object("rope_parameters")? {
            None => c.object("rope_scaling")?,
            dict => dict,
        };
        let get = |k: &str| dict.and_then(|d| d.get(k)).filter(|v| !v.is_null());
        let beta = match get("llama_4_scaling_beta") {
            None => None,
            Some(v) => {
                let what = || c.error(SCALING, format!("`llama_4_scaling_beta` should be a number and is {v}"));
                Some(v.as_f64().ok_or_else(what)? as f32)
            }
        };
        let length = get("original_max_position_embeddings").and_then(Json::as_u64);
        (beta, length.map(|v| v as usize), SCALING)
    };
    match (beta.filter(|b| *b != 0.0), length) {
        (None, _) => Ok(None),
        (Some(beta), Some(length)) if length > 0 => Ok(Some(PositionScale { beta, length, offset: 0 })),
        _ => Err(c.error(key_of_length, "a scale by position needs the original length that it grows with")),
    }
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
    /// What longrope divides frequencies by.
    short: Vec<f64>,
    long: Vec<f64>,
}

impl Scaling {
    fn new(d: &RopeDefaults) -> Self {
        Self {
            kind: "default".into(),
            theta: d.theta,
            head_dim: d.head_dim,
            rotary_dims: (d.head_dim as f64 * d.partial) as usize,
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
            short: Vec::new(),
            long: Vec::new(),
        }
    }

    fn from_gguf(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
        let mut s = Self::new(d);
        let f = |k: &'static str| c.f32(key(k, "")).map(|v| v.map(f64::from));
        let sliding = d.layer_type == "sliding_attention";
        // Where sliding layers have heads of their own, they have a key of their own.
        let own = key("rope.dimension_count_swa", "");
        let dims = if sliding && c.has(own) { own } else { key("rope.dimension_count", "") };
        if let Some(dims) = c.usize(dims)? {
            s.rotary_dims = dims;
        }
        if sliding {
            // No key but in the newest files; scaling is for full attention only.
            s.theta = f("rope.freq_base_swa")?.unwrap_or(d.theta);
            return Ok(s);
        }
        s.theta = c.f32(d.theta_key)?.map_or(d.theta, f64::from);
        if d.layer_type == UNSCALED {
            return Ok(s);
        }
        if let Some(kind) = c.str(SCALING)? {
            s.kind = if kind == "none" { "default".into() } else { kind.into() };
        }
        s.factor = f("rope.scaling.factor")?;
        // The key for it has no place in GGUF: only gpt-oss has it, and as false.
        s.truncate = c.architecture() != "gpt-oss";
        if let Some(v) = c.usize(key("rope.scaling.original_context_length", ""))? {
            s.original = v as f64;
            if s.kind == "dynamic" {
                // What the context has been stretched to since does not matter.
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
        if let Some(v) = f("rope.scaling.attn_factor")? {
            // Readers multiply yarn's own factor by it.
            let own = if s.kind == "yarn" { Self::magnitude(s.factor.unwrap_or(1.0), 1.0) } else { 1.0 };
            s.attention_factor = Some(v * own);
        }
        if let Some(v) = f("rope.scaling.yarn_log_multiplier")? {
            // DeepSeek's files hold a tenth of `mscale_all_dim`, which `mscale` is taken to be as well.
            s.mscale = if c.architecture().starts_with("deepseek") { [v / 0.1; 2] } else { [1.0, v] };
        }
        Ok(s)
    }

    fn from_json(c: &Config<'_>, d: &RopeDefaults) -> Result<Self, Error> {
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
            // Per layer type, or one for all.
            Some(all) => {
                let own = all.get(d.layer_type).filter(|v| v.is_object());
                by_type = own.is_some();
                own.or(Some(all).filter(|_| scaled))
            }
            // Legacy: scaling is for full attention only, and sliding layers have a base of their own.
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
            // Names of before there was one for it.
            if s.kind == "su" || (phi3 && s.kind == "yarn") {
                s.kind = "longrope".to_owned();
            }
        }
        partial = num("partial_rotary_factor")?.or(partial);
        s.theta = num("rope_theta")?.unwrap_or(s.theta);
        s.factor = num("factor")?;
        // What stands beside the one for all counts more than what it says itself.
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
        // The reference looks for it beside the layer types, where it never is.
        s.truncate = by_type || get("truncate").and_then(Json::as_bool).unwrap_or(true);
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
        if self.kind == "proportional" {
            return self.proportional(c, layout);
        }
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
        // All in floats and in the order of the reference, as the angles that come of it.
        let base = RopeSpec::base_inv_freq(self.theta, r);
        let freqs = match self.kind.as_str() {
            "default" => base,
            "linear" => {
                let factor = need_factor()?;
                base.iter().map(|f| f / factor as f32).collect()
            }
            "dynamic" => {
                if self.context == 0 {
                    return Err(c.error(SCALING, "`dynamic` needs a length that it begins at"));
                }
                let freqs =
                    RopeFreqs::Dynamic { theta: self.theta, factor: need_factor()?, max_position: self.context };
                return Ok(RopeSpec::new(layout, r, freqs));
            }
            "longrope" => return self.longrope(c, layout),
            "llama3" => {
                let factor = need_factor()?;
                base.iter().map(|f| self.llama3(*f, factor)).collect()
            }
            "yarn" => {
                let factor = match self.factor {
                    Some(_) => need_factor()?,
                    None => self.context as f64 / self.original,
                };
                attention_factor = self.attention_factor.unwrap_or_else(|| match self.mscale {
                    [m, all] if m != 0.0 && all != 0.0 => Self::magnitude(factor, m) / Self::magnitude(factor, all),
                    _ => Self::magnitude(factor, 1.0),
                });
                self.yarn(factor)
            }
            other => {
                let what = format!("the scaling type `{other}` is not supported for this family");
                return Err(c.error(SCALING, what));
            }
        };
        if !freqs.iter().all(|f| f.is_finite()) || !attention_factor.is_finite() {
            return Err(c.error(SCALING, format!("`{}` gives frequencies without bounds: {freqs:?}", self.kind)));
        }
        Ok(RopeSpec { attention_factor: attention_factor as f32, ..RopeSpec::new(layout, r, RopeFreqs::Fixed(freqs)) })
    }

    /// LongRoPE (Ding et al. 2024): divisors found by search, one set for short and one for long sequences.
    fn longrope(&self, c: &Config<'_>, layout: RopeLayout) -> Result<RopeSpec, Error> {
        let powers = RopeSpec::powers(self.theta, self.rotary_dims);
        let divided = |name: &str, by: &[f64]| {
            if by.len() != powers.len() || !by.iter().all(|f| *f > 0.0 && f.is_finite()) {
                let what = format!("`{name}` should have {} numbers greater than 0 and is {by:?}", powers.len());
                return Err(c.error(SCALING, what));
            }
            Ok::<Vec<f32>, Error>(powers.iter().zip(by).map(|(p, by)| 1.0 / (*by as f32 * p)).collect())
        };
        let (short, long) = (divided("short_factor", &self.short)?, divided("long_factor", &self.long)?);
        if self.original < 2.0 || !self.original.is_finite() {
            return Err(c.error(SCALING, format!("the original length is {}", self.original)));
        }
        let stretch = self.factor.unwrap_or(self.context as f64 / self.original);
        let own = if stretch <= 1.0 { 1.0 } else { (1.0 + stretch.ln() / self.original.ln()).sqrt() };
        let attention_factor = self.attention_factor.unwrap_or(own) as f32;
        let original = self.original as usize;
        let freqs = RopeFreqs::ByLength { short, long, original, long_attention_factor: attention_factor };
        Ok(RopeSpec { attention_factor, ..RopeSpec::new(layout, self.rotary_dims, freqs) })
    }

    /// Gemma 4: as many pairs turn as `rotary_dims` has, but as fast as if all of the head did; the rest stay.
    fn proportional(&self, c: &Config<'_>, layout: RopeLayout) -> Result<RopeSpec, Error> {
        let (d, turning) = (self.head_dim, self.rotary_dims / 2);
        let factor = self.factor.unwrap_or(1.0);
        let positive = |x: f64| x > 0.0 && x.is_finite();
        if !d.is_multiple_of(2) || !positive(self.theta) || !positive(factor) {
            let what = format!("cannot rotate {d} dimensions with base {} and factor {factor}", self.theta);
            return Err(c.error(SCALING, what));
        }
        let mut freqs = RopeSpec::base_inv_freq(self.theta, d);
        freqs.iter_mut().enumerate().for_each(|(j, f)| *f = if j < turning { *f / factor as f32 } else { 0.0 });
        Ok(RopeSpec::new(layout, d, RopeFreqs::Fixed(freqs)))
    }

    /// Llama 3.1: long waves are stretched, short ones kept, those between blended.
    fn llama3(&self, f: f32, factor: f64) -> f32 {
        let wavelength = (2.0 * std::f64::consts::PI) as f32 / f;
        let (low, high, factor) = (self.low_freq_factor, self.high_freq_factor, factor as f32);
        if f64::from(wavelength) < self.original / high {
            f
        } else if f64::from(wavelength) > self.original / low {
            f / factor
        } else {
            let s = (self.original as f32 / wavelength - low as f32) / (high - low) as f32;
            (1.0 - s) * f / factor + s * f
        }
    }

    /// YaRN (Peng et al. 2023): a ramp between kept and stretched frequencies.
    fn yarn(&self, factor: f64) -> Vec<f32> {
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
        let kept = |j: usize| 1.0 - ((j as f32 - low as f32) / (high - low) as f32).clamp(0.0, 1.0);
        let blend = |(j, p): (usize, f32)| 1.0 / (factor as f32 * p) * (1.0 - kept(j)) + 1.0 / p * kept(j);
        RopeSpec::powers(self.theta, self.rotary_dims).into_iter().enumerate().map(blend).collect()
    }
}
