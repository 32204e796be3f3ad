//! The parts of a configuration that describe each layer: numbers, kinds, rotations.

use handmill_runtime::format::gguf::Value;
use serde_json::Value as Json;

use super::{Config, Key, Source, key, whole};
use crate::Error;

impl Config<'_> {
    /// For each of `n_layers` layers, whether its queries and keys rotate: from `no_rope_layers` (1 where they do), or
    /// all except every `no_rope_layer_interval`th, or `interval`th where the file has neither key.
    pub fn rotated_layers(&self, n_layers: usize, interval: usize) -> Result<Vec<bool>, Error> {
        const LAYERS: Key = key("", "no_rope_layers");
        if let Some(list) = self.json_value(LAYERS) {
            let flags = list.as_array().map(|l| l.iter().map(|v| whole(v).map(|v| v != 0)).collect::<Option<Vec<_>>>());
            match flags {
                Some(Some(flags)) if flags.len() == n_layers => return Ok(flags),
                // Some configurations write the default as an empty list.
                Some(Some(flags)) if flags.is_empty() => {}
                _ => return Err(self.error(LAYERS, format!("should be an array of {n_layers} whole numbers"))),
            }
        }
        let interval = self.usize(key("", "no_rope_layer_interval"))?.unwrap_or(interval);
        Ok((1..=n_layers).map(|i| interval == 0 || !i.is_multiple_of(interval)).collect())
    }

    /// A number for each of `n_layers` layers: a list of numbers, infinite ones included, or one finite number for all;
    /// none where the key is missing.
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
                let list = self.json_value(key).and_then(Json::as_array);
                list.map(|list| list.iter().map(whole).collect())
            }
        };
        let single = || Ok(self.usize(key)?.map(|v| vec![v; n_layers]));
        self.of_layers(key, n_layers, list, single)
    }

    /// The list, where the file has one with a number for each layer; else `single`'s number for all layers.
    fn of_layers<T>(
        &self,
        key: Key,
        n_layers: usize,
        list: Option<Option<Vec<T>>>,
        single: impl FnOnce() -> Result<Option<Vec<T>>, Error>,
    ) -> Result<Option<Vec<T>>, Error> {
        match list {
            None => single(),
            Some(Some(list)) => self.first_layers(key, n_layers, list).map(Some),
            Some(None) => Err(self.error(key, "should be an array of numbers")),
        }
    }

    /// The entries of the first `n_layers` layers of a list with one for each; the list may also count the blocks that
    /// only predict.
    fn first_layers<T>(&self, key: Key, n_layers: usize, mut list: Vec<T>) -> Result<Vec<T>, Error> {
        if list.len() != n_layers && Some(list.len()) != self.blocks()? {
            return Err(self.error(key, format!("has {} entries for {n_layers} layers", list.len())));
        }
        list.truncate(n_layers);
        Ok(list)
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
            && let Some(period) = g.get(&self.gguf_key(TYPES)).filter(|v| !matches!(v, Value::Array(_)))
        {
            let period: u64 = g.convert(&self.gguf_key(TYPES), period)?;
            return Ok((1..=n_layers as u64).map(|i| period == 0 || !i.is_multiple_of(period)).collect());
        }
        self.layer_flags(TYPES, n_layers, [local, "full_attention"], default)
    }

    /// For each of `n_layers` layers, whether it is of the first kind of `names` rather than the second: from the array
    /// `types` (names, or in GGUF truth values or 0 and 1), or else from `default(layer)`.
    pub fn layer_flags(
        &self,
        types: Key,
        n_layers: usize,
        names: [&str; 2],
        default: impl Fn(usize) -> bool,
    ) -> Result<Vec<bool>, Error> {
        if let Source::Gguf(g) = self.source {
            let value = g.get(&self.gguf_key(types)).filter(|_| !types.gguf.is_empty());
            let Some(value) = value else { return Ok((0..n_layers).map(default).collect()) };
            let flags: Option<Vec<bool>> = match value {
                Value::Array(array) => match array.bools() {
                    Some(flags) => Some(flags.collect()),
                    None => array.integers::<u8>().map(|flags| flags.map(|flag| flag != 0).collect()),
                },
                _ => None,
            };
            let flags = flags.ok_or_else(|| self.error(types, "should be an array of truth values"))?;
            return self.first_layers(types, n_layers, flags);
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
