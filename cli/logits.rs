//! `handmill logits`: the model's logits at every position, as a NumPy array.

use crate::{
    args::{COMMON, Compute, Ctx, KvType, Output, Precision, Rounding},
    error::CliError,
    fetch, input, npy, session,
};
use serde_json::Value;
use std::{ffi::OsString, path::PathBuf};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// The tokens: ids separated by commas
    #[arg(long, value_name = "IDS")]
    tokens: String,
    /// The file to write, or - for standard output: [tokens, vocab] float32
    #[arg(long, value_name = "FILE.npy", allow_hyphen_values = true, value_parser = input::path())]
    out: PathBuf,
    /// How cached keys and values are stored; this command measures the model, so it rounds nothing unasked
    #[arg(long, value_enum, default_value_t = KvType::F32)]
    kv_type: KvType,
    /// How exactly linears are computed
    #[arg(long, value_enum, default_value_t = Precision::Exact)]
    precision: Precision,
    /// Context length in tokens; `model` is as long as it was made for [default: that, within 4096 to 32768]
    #[arg(long, value_name = "N|model", value_parser = Ctx::parse, help_heading = COMMON)]
    ctx: Option<Ctx>,
    /// Where it runs
    #[command(flatten)]
    pub compute: Compute,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let tokens = input::ids(&args.tokens)?;
    if tokens.is_empty() {
        return Err(CliError::Usage("--tokens has no ids".to_owned()));
    }
    let rounding = Rounding::new(args.kv_type, args.precision);
    let (model, mut engine) = session::open(&args.compute, &args.model, rounding, args.ctx)?;
    let vocab = model.info().vocab_size;
    let shape = [tokens.len(), vocab];
    let mut array = npy::Array::create(&args.out, &shape)?;
    let mut written = Ok(());
    let result = engine.logits(&tokens, |rows| {
        if written.is_ok() {
            written = array.write(rows);
        }
    });
    result.map_err(|e| CliError::because("could not compute the logits", e))?;
    written?;
    array.finish(args.output.json, "", Value::Null)
}
