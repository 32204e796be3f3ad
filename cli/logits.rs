//! `handmill logits`: what the model says about every position, as a NumPy array.

use crate::{args::Global, error::CliError, fetch, input, npy, out, run::KvType, session};
use serde_json::json;
use std::{
    fs::File,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: String,
    /// The tokens: ids separated by commas
    #[arg(long, value_name = "IDS")]
    tokens: String,
    /// The file to write: [tokens, vocab] float32
    #[arg(long, value_name = "FILE.npy")]
    out: PathBuf,
    /// Element type of cached keys and values; this command measures the model, so it rounds nothing unasked
    #[arg(long, value_enum, default_value_t = KvType::F32)]
    kv_type: KvType,
}

/// Runs the subcommand.
pub fn run(global: &Global, args: &Args) -> Result<(), CliError> {
    let tokens = input::ids(&args.tokens)?;
    if tokens.is_empty() {
        return Err(CliError::Usage("--tokens has no ids".to_owned()));
    }
    let (model, mut engine) = session::open(global, &args.model, args.kv_type.into())?;
    let vocab = model.info().vocab_size;
    let write_error = |e| CliError::because(format!("could not write {}", args.out.display()), e);

    // Written beside its place and renamed, so that a failed run leaves no half array.
    let scratch = beside(&args.out);
    let mut file = BufWriter::new(File::create(&scratch).map_err(write_error)?);
    let mut written = npy::write_header(&mut file, tokens.len(), vocab);
    let result = engine.logits(&tokens, |rows| {
        if written.is_ok() {
            written = npy::write_values(&mut file, rows);
        }
    });
    let done = match result {
        Err(error) => Err(CliError::because("could not compute the logits", error)),
        Ok(()) => {
            written.and_then(|()| file.flush()).and_then(|()| std::fs::rename(&scratch, &args.out)).map_err(write_error)
        }
    };
    if done.is_err() {
        let _ = std::fs::remove_file(&scratch);
    }
    done?;
    if global.json {
        return out::json(&json!({ "out": args.out, "shape": [tokens.len(), vocab] }));
    }
    out::text(&format!("{}: [{}, {vocab}] float32\n", args.out.display(), tokens.len()))
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".part");
    name.into()
}
