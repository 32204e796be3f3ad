//! A checkpoint's configuration, read alike from GGUF metadata and from `config.json`.

use handmill_runtime::format::{Checkpoint, Gguf, Kind, gguf::Value};
use serde_json::Value as Json;

use crate::Error;

/// A configuration value's names: after `{architecture}.` in GGUF metadata, and in `config.json`.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// GGUF key without the architecture.
    pub gguf: &'static str,
    /// `config.json` key.
    pub hf: &'static str,
}

/// Shorthand for a [`Key`].
pub const fn key(gguf: &'static str, hf: &'static str) -> Key {
    Key { gguf, hf }
}

/// Where the values come from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    /// GGUF metadata.
    Gguf(&'a Gguf),
    /// `config.json`, or the `text_config` within it of a multimodal wrapper.
    Hf(&'a Json),
}

/// The configuration of one checkpoint.
#[derive(Clone, Debug)]
pub struct Config<'a> {
    /// Where the values come from.
    pub source: Source<'a>,
    path: String,
    architecture: String,
    /// The wrapper around the text configuration, where there is one.
    wrapper: Option<&'a Json>,
}

impl<'a> Config<'a> {
    /// The configuration of `checkpoint`.
    ///
    /// # Errors
    /// Where the file does not say what it is.
    pub fn new(checkpoint: &'a Checkpoint) -> Result<Self, Error> {
        let path = checkpoint.path().display().to_string();
        let missing = |key: &str| Error::Config { path: path.clone(), key: key.into(), what: "is missing".into() };
        match checkpoint.kind() {
            Kind::Gguf(gguf) => {
                let architecture = gguf.require::<&str>("general.architecture")?.to_owned();
                Ok(Self { source: Source::Gguf(gguf), path, architecture, wrapper: None })
            }
            Kind::HuggingFace(hf) => {
                let outer = &hf.config;
                let inner = outer.get("text_config").filter(|t| t.is_object());
                let text = inner.unwrap_or(outer);
                let name = |c: &Json| c.get("model_type").and_then(Json::as_str).map(str::to_owned);
                let architecture = name(text).or_else(|| name(outer)).ok_or_else(|| missing("model_type"))?;
                Ok(Self { source: Source::Hf(text), path, architecture, wrapper: inner.map(|_| outer) })
            }
        }
    }

    /// `general.architecture`, or the text model's `model_type`.
    pub fn architecture(&self) -> &str {
        &self.architecture
    }

    /// The file or folder, for messages.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether this is GGUF metadata.
    pub fn is_gguf(&self) -> bool {
        matches!(self.source, Source::Gguf(_))
    }

    /// The GGUF metadata, if that is what this is.
    pub fn gguf(&self) -> Option<&'a Gguf> {
        match self.source {
            Source::Gguf(g) => Some(g),
            Source::Hf(_) => None,
        }
    }

    /// The text model's `config.json` object, if that is what this is.
    pub fn json(&self) -> Option<&'a Json> {
        match self.source {
            Source::Gguf(_) => None,
            Source::Hf(j) => Some(j),
        }
    }

    /// An error about `key`.
    pub fn error(&self, key: Key, what: impl Into<String>) -> Error {
        let key = if self.is_gguf() { format!("{}.{}", self.architecture, key.gguf) } else { key.hf.to_owned() };
        Error::Config { path: self.path.clone(), key, what: what.into() }
    }

    /// A `config.json` value that is there and not null; for wrappers also one that stands outside `text_config`.
    fn json_value(&self, key: Key) -> Option<&'a Json> {
        let here = self.json()?.get(key.hf);
        here.or_else(|| self.wrapper?.get(key.hf)).filter(|v| !v.is_null())
    }

    fn gguf_key(&self, key: Key) -> String {
        format!("{}.{}", self.architecture, key.gguf)
    }

    /// Whether the key is there at all, be it null.
    pub fn has(&self, key: Key) -> bool {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => false,
            Source::Gguf(g) => g.get(&self.gguf_key(key)).is_some(),
            Source::Hf(j) => j.get(key.hf).is_some() || self.wrapper.is_some_and(|w| w.get(key.hf).is_some()),
        }
    }

    /// Whether the head is the embedding table whatever else the file has.
    pub fn tied(&self, default: bool) -> Result<bool, Error> {
        Ok(self.bool(key("", "tie_word_embeddings"))?.unwrap_or(default))
    }

    /// For each of `n_layers` layers, whether its queries and keys rotate: from `no_rope_layers` (1 where they do), or
    /// all but every `no_rope_layer_interval`th, or `interval`th where the file has neither.
    pub fn rotated_layers(&self, n_layers: usize, interval: usize) -> Result<Vec<bool>, Error> {
        const LAYERS: Key = key("", "no_rope_layers");
        if let Some(list) = self.json_value(LAYERS) {
            let flags =
                list.as_array().map(|l| l.iter().map(|v| v.as_u64().map(|v| v != 0)).collect::<Option<Vec<_>>>());
            match flags {
                Some(Some(flags)) if flags.len() == n_layers => return Ok(flags),
                // Some configurations have an empty list for the default.
                Some(Some(flags)) if flags.is_empty() => {}
                _ => return Err(self.error(LAYERS, format!("should be an array of {n_layers} whole numbers"))),
            }
        }
        let interval = self.usize(key("", "no_rope_layer_interval"))?.unwrap_or(interval);
        Ok((1..=n_layers).map(|i| interval == 0 || !i.is_multiple_of(interval)).collect())
    }

    /// An unsigned integer, if it is there.
    pub fn usize(&self, key: Key) -> Result<Option<usize>, Error> {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => Ok(None),
            Source::Gguf(g) => Ok(g.get_u32(&self.gguf_key(key))?.map(|v| v as usize)),
            Source::Hf(_) => match self.json_value(key) {
                None => Ok(None),
                Some(v) => match v.as_u64().and_then(|v| usize::try_from(v).ok()) {
                    Some(v) => Ok(Some(v)),
                    None => Err(self.error(key, format!("should be a whole number and is {v}"))),
                },
            },
        }
    }

    /// An array of unsigned integers, if it is there.
    pub fn indices(&self, key: Key) -> Result<Option<Vec<usize>>, Error> {
        if let Source::Gguf(g) = self.source {
            return match g.get(&self.gguf_key(key)) {
                Some(Value::Array(array)) if !key.gguf.is_empty() => match array.integers() {
                    Some(list) => Ok(Some(list.collect())),
                    None => Err(self.error(key, "should be an array of whole numbers")),
                },
                _ => Ok(None),
            };
        }
        let Some(list) = self.json_value(key) else { return Ok(None) };
        let number = |v: &Json| v.as_u64().and_then(|v| usize::try_from(v).ok());
        match list.as_array().map(|l| l.iter().map(number).collect()) {
            Some(Some(list)) => Ok(Some(list)),
            _ => Err(self.error(key, format!("should be an array of whole numbers and is {list}"))),
        }
    }

    /// A number for each of `n_layers` layers: a list of them, or one for all; none where it is not there.
    pub fn layer_f32s(&self, key: Key, n_layers: usize) -> Result<Option<Vec<f32>>, Error> {
        let list: Option<Option<Vec<f32>>> = match self.source {
            Source::Gguf(g) => match g.get(&self.gguf_key(key)) {
                Some(Value::Array(array)) if !key.gguf.is_empty() => Some(array.f32s().map(Iterator::collect)),
                _ => None,
            },
            Source::Hf(_) => {
                let list = self.json_value(key).and_then(Json::as_array);
                list.map(|list| list.iter().map(|v| v.as_f64().map(|v| v as f32)).collect())
            }
        };
        let single = || Ok(self.f32(key)?.map(|v| vec![v; n_layers]));
        self.of_layers(key, n_layers, list, single)
    }

    /// As [`Config::layer_f32s`], for whole numbers.
    pub fn layer_usizes(&self, key: Key, n_layers: usize) -> Result<Option<Vec<usize>>, Error> {
        let list: Option<Option<Vec<usize>>> = match self.source {
            Source::Gguf(g) => match g.get(&self.gguf_key(key)) {
                Some(Value::Array(array)) if !key.gguf.is_empty() => Some(array.integers().map(Iterator::collect)),
                _ => None,
            },
            Source::Hf(_) => {
                let number = |v: &Json| v.as_u64().and_then(|v| usize::try_from(v).ok());
                let list = self.json_value(key).and_then(Json::as_array);
                list.map(|list| list.iter().map(number).collect())
            }
        };
        let single = || Ok(self.usize(key)?.map(|v| vec![v; n_layers]));
        self.of_layers(key, n_layers, list, single)
    }

    /// The list, if there is one and it has a number for each layer, or else what `single` makes of one for all.
    fn of_layers<T>(
        &self,
        key: Key,
        n_layers: usize,
        list: Option<Option<Vec<T>>>,
        single: impl FnOnce() -> Result<Option<Vec<T>>, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        match list {
            None => single(),
            Some(Some(list)) if list.len() == n_layers => Ok(Some(list)),
            Some(Some(list)) => Err(self.error(key, format!("has {} entries for {n_layers} layers", list.len()))),
            Some(None) => Err(self.error(key, "should be an array of numbers")),
        }
    }

    /// An unsigned integer that must be there and positive.
    pub fn require_usize(&self, key: Key) -> Result<usize, Error> {
        match self.usize(key)? {
            Some(0) => Err(self.error(key, "is zero")),
            Some(v) => Ok(v),
            None => Err(self.error(key, "is missing")),
        }
    }

    /// A number, if it is there.
    pub fn f32(&self, key: Key) -> Result<Option<f32>, Error> {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => Ok(None),
            Source::Gguf(g) => Ok(g.get_f32(&self.gguf_key(key))?),
            Source::Hf(_) => match self.json_value(key) {
                None => Ok(None),
                Some(v) => match v.as_f64() {
                    Some(v) => Ok(Some(v as f32)),
                    None => Err(self.error(key, format!("should be a number and is {v}"))),
                },
            },
        }
    }

    /// A truth value, if it is there.
    pub fn bool(&self, key: Key) -> Result<Option<bool>, Error> {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => Ok(None),
            Source::Gguf(g) => Ok(g.get_bool(&self.gguf_key(key))?),
            Source::Hf(_) => match self.json_value(key) {
                None => Ok(None),
                Some(v) => match v.as_bool() {
                    Some(v) => Ok(Some(v)),
                    None => Err(self.error(key, format!("should be true or false and is {v}"))),
                },
            },
        }
    }

    /// Text, if it is there.
    pub fn str(&self, key: Key) -> Result<Option<&'a str>, Error> {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => Ok(None),
            Source::Gguf(g) => Ok(g.get_str(&self.gguf_key(key))?),
            Source::Hf(_) => match self.json_value(key) {
                None => Ok(None),
                Some(v) => match v.as_str() {
                    Some(v) => Ok(Some(v)),
                    None => Err(self.error(key, format!("should be text and is {v}"))),
                },
            },
        }
    }

    /// A `config.json` object, if it is there.
    pub fn object(&self, hf: &'static str) -> Result<Option<&'a Json>, Error> {
        match self.json_value(key("", hf)) {
            Some(v) if !v.is_object() => Err(self.error(key("", hf), format!("should be an object and is {v}"))),
            v => Ok(v),
        }
    }

    /// For each of `n_layers` layers, whether it attends through a sliding window: from `layer_types`
    /// (`sliding_attention` or `full_attention`), a GGUF pattern array or period, or else from `default(layer)`.
    pub fn sliding_layers(&self, n_layers: usize, default: impl Fn(usize) -> bool) -> Result<Vec<bool>, Error> {
        self.local_layers(n_layers, "sliding_attention", default)
    }

    /// As [`Config::sliding_layers`], for layers that `layer_types` calls `local` where they are not `full_attention`.
    pub fn local_layers(
        &self,
        n_layers: usize,
        local: &str,
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, Error> {
        const TYPES: Key = key("attention.sliding_window_pattern", "layer_types");
        // A number instead of an array is a period, whose last layer attends to everything.
        if let Some(g) = self.gguf()
            && let Some(Value::Unsigned(_, period)) = g.get(&self.gguf_key(TYPES))
        {
            return Ok((1..=n_layers as u64).map(|i| period == 0 || !i.is_multiple_of(period)).collect());
        }
        self.layer_flags(TYPES, n_layers, [local, "full_attention"], default)
    }

    /// For each of `n_layers` layers, whether it is of the first kind of `names` rather than the second: from the array
    /// `types` (names, or in GGUF truth values), or else from `default(layer)`.
    pub fn layer_flags(
        &self,
        types: Key,
        n_layers: usize,
        names: [&str; 2],
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, Error> {
        if let Some(g) = self.gguf()
            && let Some(Value::Array(array)) = g.get(&self.gguf_key(types))
            && let Some(bools) = array.bools()
        {
            let pattern: Vec<bool> = bools.take(n_layers).collect();
            if pattern.len() == n_layers {
                return Ok(pattern);
            }
            return Err(self.error(types, format!("has {} entries for {n_layers} layers", pattern.len())));
        }
        let Some(array) = self.json_value(types) else { return Ok((0..n_layers).map(default).collect()) };
        let array = array.as_array().filter(|t| t.len() == n_layers);
        let array = array.ok_or_else(|| self.error(types, format!("should be an array of {n_layers} names")))?;
        array
            .iter()
            .map(|t| match t.as_str() {
                Some(t) if t == names[0] => Ok(true),
                Some(t) if t == names[1] => Ok(false),
                _ => Err(self.error(types, format!("the layer type {t} is not known for this family"))),
            })
            .collect()
    }
}
