//! A checkpoint's configuration, with the same methods for GGUF metadata and `config.json`.

mod layers;

use handmill_runtime::format::{
    Checkpoint, Gguf, Kind,
    gguf::{FromValue, Value},
};
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

/// Number of layers; most GGUF files also count the blocks that predict tokens further ahead.
pub const LAYERS: Key = key("block_count", "num_hidden_layers");
/// Whether the head is the embedding table; GGUF has no key for it.
pub const TIED: Key = key("", "tie_word_embeddings");

/// A whole number of `config.json` that fits `usize`.
pub fn whole(value: &Json) -> Option<usize> {
    value.as_u64().and_then(|v| usize::try_from(v).ok())
}

/// The file that values come from.
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
    /// The file that values come from.
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
    /// A file that does not name its architecture.
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

    /// The metadata of a GGUF file.
    pub fn gguf(&self) -> Option<&'a Gguf> {
        match self.source {
            Source::Gguf(g) => Some(g),
            Source::Hf(_) => None,
        }
    }

    /// The text model's `config.json` object, where there is one.
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

    /// A `config.json` value that is not null; in wrappers also one outside `text_config`.
    fn json_value(&self, key: Key) -> Option<&'a Json> {
        let here = self.json()?.get(key.hf);
        here.or_else(|| self.wrapper?.get(key.hf)).filter(|v| !v.is_null())
    }

    fn gguf_key(&self, key: Key) -> String {
        format!("{}.{}", self.architecture, key.gguf)
    }

    /// Whether the file has the key, even as null.
    pub fn has(&self, key: Key) -> bool {
        match self.source {
            Source::Gguf(_) if key.gguf.is_empty() => false,
            Source::Gguf(g) => g.get(&self.gguf_key(key)).is_some(),
            Source::Hf(j) => j.get(key.hf).is_some() || self.wrapper.is_some_and(|w| w.get(key.hf).is_some()),
        }
    }

    /// Whether the head is the embedding table, whatever head the file has.
    pub fn tied(&self, default: bool) -> Result<bool, Error> {
        Ok(self.bool(TIED)?.unwrap_or(default))
    }

    /// Whether a file without a head may use the embedding table although [`Config::tied`] is false: a wrapper around
    /// the text model ties them, as wrappers without the key do.
    pub fn tied_by_wrapper(&self) -> bool {
        let Some(wrapper) = self.wrapper else { return false };
        let said = |config: &Json| config.get(TIED.hf).and_then(Json::as_bool);
        said(wrapper).unwrap_or_else(|| self.json().and_then(said).is_none())
    }

    /// The text model's own `vocab_size`, or GGUF's, where the file has it.
    pub fn own_vocab_size(&self) -> Result<Option<usize>, Error> {
        const VOCAB: Key = key("vocab_size", "vocab_size");
        Self { wrapper: None, ..self.clone() }.usize(VOCAB)
    }

    /// The longest context that the model was made for, `default` where the file leaves it out.
    ///
    /// # Errors
    /// A context of no tokens.
    pub fn context(&self, default: usize) -> Result<usize, Error> {
        const CONTEXT: Key = key("context_length", "max_position_embeddings");
        match self.usize(CONTEXT)? {
            Some(0) => Err(self.error(CONTEXT, "is 0, and a model sees at least one token")),
            context => Ok(context.unwrap_or(default)),
        }
    }

    /// Epsilon of a norm, added to the mean square: finite and not negative.
    pub fn epsilon(&self, key: Key) -> Result<Option<f32>, Error> {
        if self.json().and_then(|config| config.get(key.hf)).is_some_and(Json::is_null) {
            return Err(self.error(key, "should be a finite number and is null"));
        }
        match self.f32(key)? {
            Some(eps) if eps < 0.0 => Err(self.error(key, format!("should not be negative and is {eps:e}"))),
            eps => Ok(eps),
        }
    }

    /// Layers that GGUF metadata counts, the blocks that predict tokens further ahead included; or those of `config.json`.
    fn blocks(&self) -> Result<Option<usize>, Error> {
        self.usize(LAYERS)
    }

    /// The GGUF value of `key`. Some converters write a list with an entry for each layer where others write one
    /// number: if all entries are equal, the value is that entry.
    fn gguf_value<'g>(&self, gguf: &'g Gguf, key: Key) -> Result<Option<Value<'g>>, Error> {
        if key.gguf.is_empty() {
            return Ok(None);
        }
        let value = gguf.get(&self.gguf_key(key));
        let Some(Value::Array(array)) = value else { return Ok(value) };
        let Some(mut entries) = array.values() else { return Ok(value) };
        let Some(first) = entries.next() else { return Err(self.error(key, "is an array without entries")) };
        if let Some(other) = entries.find(|entry| *entry != first) {
            return Err(self.differs(key, first.describe(), other.describe()));
        }
        self.one_for_each_layer(key, array.len())?;
        Ok(Some(first))
    }

    /// As [`Config::gguf_value`], for `config.json`.
    fn json_single(&self, key: Key) -> Result<Option<&'a Json>, Error> {
        let value = self.json_value(key);
        let Some([first, rest @ ..]) = value.and_then(Json::as_array).map(Vec::as_slice) else { return Ok(value) };
        if let Some(other) = rest.iter().find(|entry| *entry != first) {
            return Err(self.differs(key, first, other));
        }
        self.one_for_each_layer(key, rest.len() + 1)?;
        Ok(Some(first))
    }

    fn differs(&self, key: Key, one: impl std::fmt::Display, other: impl std::fmt::Display) -> Error {
        let what = format!("differs from layer to layer ({one}, {other}), which is not supported for this family");
        self.error(key, what)
    }

    /// Refuses a list of `n` entries that are not one for each layer.
    fn one_for_each_layer(&self, key: Key, n: usize) -> Result<(), Error> {
        match if key.gguf == LAYERS.gguf { None } else { self.blocks()? } {
            Some(layers) if layers != n => Err(self.error(key, format!("has {n} entries for {layers} layers"))),
            _ => Ok(()),
        }
    }

    /// The GGUF value of `key` as `T`, if it is there.
    fn gguf_as<'g, T: FromValue<'g>>(&self, gguf: &'g Gguf, key: Key) -> Result<Option<T>, Error> {
        let value = self.gguf_value(gguf, key)?;
        value.map(|value| Ok(gguf.convert(&self.gguf_key(key), value)?)).transpose()
    }

    /// An unsigned integer, if it is there.
    pub fn usize(&self, key: Key) -> Result<Option<usize>, Error> {
        match self.source {
            Source::Gguf(g) => Ok(self.gguf_as::<u32>(g, key)?.map(|v| v as usize)),
            Source::Hf(_) => match self.json_single(key)? {
                None => Ok(None),
                Some(v) => match whole(v) {
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
        match list.as_array().map(|l| l.iter().map(whole).collect()) {
            Some(Some(list)) => Ok(Some(list)),
            _ => Err(self.error(key, format!("should be an array of whole numbers and is {list}"))),
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

    /// A finite number, if it is there.
    pub fn f32(&self, key: Key) -> Result<Option<f32>, Error> {
        let (value, shown) = match self.source {
            Source::Gguf(g) => match self.gguf_as::<f32>(g, key)? {
                None => return Ok(None),
                Some(v) => (Some(v), v.to_string()),
            },
            Source::Hf(_) => match self.json_single(key)? {
                None => return Ok(None),
                Some(v) => (v.as_f64().map(|v| v as f32), v.to_string()),
            },
        };
        match value.filter(|v| v.is_finite()) {
            Some(v) => Ok(Some(v)),
            None => Err(self.error(key, format!("should be a finite number and is {shown}"))),
        }
    }

    /// A truth value, if it is there.
    pub fn bool(&self, key: Key) -> Result<Option<bool>, Error> {
        match self.source {
            Source::Gguf(g) => self.gguf_as(g, key),
            Source::Hf(_) => match self.json_single(key)? {
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
}
