//! Opening a model and an engine for it, as the common options say.

use crate::{args::Global, error::CliError, fetch};
use handmill_models::{Engine, EngineOptions, KvChoice, Model};

/// Opens what the user calls a model and makes an engine with the context of `--ctx`.
pub fn open(global: &Global, name: &str, kv: KvChoice) -> Result<(Model, Engine), CliError> {
    with_ctx(global, name, kv, global.ctx.map(usize::from))
}

/// The same with a context of `n_ctx` tokens, whatever `--ctx` says.
pub fn with_ctx(global: &Global, name: &str, kv: KvChoice, n_ctx: Option<usize>) -> Result<(Model, Engine), CliError> {
    let path = fetch::locate(name)?;
    let model = Model::open(&path).map_err(|e| CliError::because("could not open the model", e))?;
    let options = EngineOptions { threads: global.threads.map(usize::from), n_ctx, kv, ..EngineOptions::default() };
    let engine = Engine::new(&model, &options).map_err(|e| CliError::because("could not set the model up", e))?;
    Ok((model, engine))
}
