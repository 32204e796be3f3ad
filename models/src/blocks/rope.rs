//! Rotary frequencies from either kind of configuration, in all published spellings.

mod read;

use handmill_runtime::graph::{PositionScale, RopeFreqs, RopeLayout, RopeSpec};

use super::Loader;
use crate::{
    Error,
    config::{Config, Key, key, whole},
};

/// A family's rotation where the file has no keys for it.
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
    /// Part of a head that is rotated.
    pub partial: f64,
    /// `max_position_embeddings`, the default of a missing original context.
    pub context: usize,
    /// The layers' name within per-type parameters: `full_attention` or `sliding_attention`; [`UNSCALED`] where the
    /// file's scaling is not for these layers.
    pub layer_type: &'static str,
    /// The file's key of `theta`.
    pub theta_key: Key,
}

/// The [`RopeDefaults::layer_type`] of rotations that are scaled only by parameters of that name.
pub const UNSCALED: &str = "main";

/// The [`RopeDefaults::theta_key`] of most families.
pub const THETA: Key = key("rope.freq_base", "rope_theta");

impl RopeDefaults {
    /// The same with another part of the head rotated.
    pub fn with_partial(self, partial: f64) -> Self {
        Self { partial, ..self }
    }
}

const SCALING: Key = key("rope.scaling.type", "rope_scaling");

/// The rotation of one kind of layer.
///
/// # Errors
/// Malformed values, and unknown scaling types, by name.
pub fn rope(c: &Config<'_>, d: &RopeDefaults, l: &Loader<'_>) -> Result<RopeSpec, Error> {
    let mut scaling = if c.is_gguf() { Scaling::from_gguf(c, d)? } else { Scaling::from_json(c, d)? };
    let layout = if c.is_gguf() { d.gguf_layout } else { d.layout };
    // GGUF files carry the divisors of longrope and of llama3 scaling as tensors; llama3 scaling has no other metadata.
    let n = scaling.rotary_dims / 2;
    if let (Some(short), Some(long)) =
        (divisors(c, l, "rope_factors_short.weight", n)?, divisors(c, l, "rope_factors_long.weight", n)?)
    {
        scaling.kind = "longrope".into();
        (scaling.short, scaling.long) = (short, long);
    }
    let mut spec = scaling.spec(c, layout)?;
    if let Some(gain) = scaling.gain.filter(|_| scaling.kind != "longrope") {
        spec.attention_factor *= gain as f32;
    }
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
/// Missing parameters.
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

/// Factor by which yarn makes the scores of latent attention grow, applied to queries and again to keys: 1 without
/// `mscale_all_dim`.
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
        let length = match get("original_max_position_embeddings") {
            None => None,
            Some(v) => Some(whole(v).ok_or_else(|| {
                c.error(SCALING, format!("`original_max_position_embeddings` should be a whole number and is {v}"))
            })?),
        };
        (beta, length, SCALING)
    };
    match (beta.filter(|b| *b != 0.0), length) {
        (None, _) => Ok(None),
        (Some(beta), Some(length)) if length > 0 => Ok(Some(PositionScale { beta, length, offset: 0 })),
        _ => Err(c.error(key_of_length, "a scale by position needs the original length that it grows with")),
    }
}

/// The parameters of a scaling rule, from either kind of file.
#[derive(Clone, Debug)]
struct Scaling {
    kind: String,
    theta: f64,
    theta_key: Key,
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
    /// Factor on cosines and sines beside the kind's own factor; for longrope it replaces that.
    gain: Option<f64>,
    mscale: [f64; 2],
    /// Divisors of longrope's frequencies.
    short: Vec<f64>,
    long: Vec<f64>,
}

impl Scaling {
    fn new(d: &RopeDefaults) -> Self {
        Self {
            kind: "default".into(),
            theta: d.theta,
            theta_key: d.theta_key,
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
            gain: None,
            mscale: [0.0, 0.0],
            short: Vec::new(),
            long: Vec::new(),
        }
    }

    /// `0.1 m ln s + 1`, the growth of attention logits that yarn compensates; 1 without stretching.
    fn magnitude(s: f64, m: f64) -> f64 {
        if s <= 1.0 { 1.0 } else { 0.1 * m * s.ln() + 1.0 }
    }

    fn spec(&self, c: &Config<'_>, layout: RopeLayout) -> Result<RopeSpec, Error> {
        if !(self.theta > 0.0 && self.theta.is_finite()) {
            return Err(c.error(self.theta_key, format!("should be greater than 0 and is {}", self.theta)));
        }
        if self.kind == "proportional" {
            return self.proportional(c, layout);
        }
        let r = self.rotary_dims;
        if r < 2 || r > self.head_dim || !r.is_multiple_of(2) {
            return Err(c.error(SCALING, format!("cannot rotate {r} of {} dimensions", self.head_dim)));
        }
        let need_factor = || match self.factor {
            Some(f) if f > 0.0 && f.is_finite() => Ok(f),
            Some(f) => Err(c.error(SCALING, format!("`factor` is {f}"))),
            None => Err(c.error(SCALING, format!("`{}` needs a `factor`", self.kind))),
        };
        let mut attention_factor = 1.0;
        // In floats and in the order of the reference, like the angles that follow from it.
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
        let attention_factor = self.attention_factor.or(self.gain).unwrap_or(own) as f32;
        let original = self.original as usize;
        let freqs = RopeFreqs::ByLength { short, long, original, long_attention_factor: attention_factor };
        Ok(RopeSpec { attention_factor, ..RopeSpec::new(layout, self.rotary_dims, freqs) })
    }

    /// Gemma 4: `rotary_dims / 2` pairs are rotated, at the speeds of a fully rotated head; the other dimensions stay.
    fn proportional(&self, c: &Config<'_>, layout: RopeLayout) -> Result<RopeSpec, Error> {
        let (d, turning) = (self.head_dim, self.rotary_dims / 2);
        let factor = self.factor.unwrap_or(1.0);
        if !(d.is_multiple_of(2) && factor > 0.0 && factor.is_finite()) {
            return Err(c.error(SCALING, format!("cannot rotate {d} dimensions with factor {factor}")));
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
