//! Models in the shapes of fixtures with made-up weights in any format; fixtures have floats.

use std::{fs, num::NonZeroUsize};

use handmill_models::{
    Model,
    synthetic::{Synthetic, SyntheticOptions},
};
use handmill_runtime::quant::DType;
use serde_json::Value;
use tempfile::TempDir;

use super::{Fixture, Spelling};

/// A model of the shape of the fixture `name` with `changes` of its config, whose weights are in `format`.
pub fn made_up(name: &'static str, format: DType, changes: &[(&str, u32)]) -> Model {
    let (folder, _guard) = Fixture::load(name).folder(Spelling::V5);
    let own = TempDir::new().expect("a folder");
    let path = own.path().join("config.json");
    let config = fs::read(folder.join("config.json")).expect("a config");
    let mut config: Value = serde_json::from_slice(&config).expect("JSON");
    if format.block_len() == 256 {
        // Rows of the fixtures are shorter.
        (config["hidden_size"], config["intermediate_size"]) = (256.into(), 512.into());
    }
    for &(key, value) in changes {
        config[key] = value.into();
    }
    fs::write(&path, config.to_string()).expect("a config");
    let threads = NonZeroUsize::MIN;
    let options = SyntheticOptions { format, threads, limit: Some(1 << 30), ..SyntheticOptions::default() };
    let made_up = Synthetic::new(&path, &options).unwrap_or_else(|e| panic!("{name}: {e}"));
    assert!(made_up.bytes.contains_key(&format) || format.block_len() == 32, "{name}: {:?}", made_up.bytes);
    made_up.model
}
