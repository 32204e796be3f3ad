//! `handmill detokenize`: token ids to text.

use crate::{args::Output, error::CliError, input, out, tokenize};
use serde_json::json;
use std::{ffi::OsString, path::PathBuf};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias; also a bare tokenizer.json, tokenizer.model or vocabulary-only GGUF
    model: OsString,
    /// Token ids, separated by commas or spaces; without them and --file, standard input is read
    ids: Vec<String>,
    /// Read the ids from a file
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    file: Option<PathBuf>,
    /// Leave special tokens out of the text
    #[arg(long)]
    skip_special: bool,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let given = (!args.ids.is_empty()).then(|| args.ids.join(" "));
    let missing = "no ids: give them after the model, with --file FILE, or on standard input";
    let ids = input::ids(&input::text(given.as_deref(), args.file.as_deref(), missing)?)?;
    let tokenizer = tokenize::open(&args.model)?;
    let size = tokenizer.vocab_size();
    if let Some(id) = ids.iter().find(|&&id| id as usize >= size) {
        return Err(CliError::failed(format!(
            "there is no token {id}: the vocabulary has ids 0 to {}",
            size.max(1) - 1
        )));
    }
    let text = tokenizer.decode(&ids, args.skip_special);
    if args.output.json {
        return out::json(&json!({ "text": text }));
    }
    out::answer(&text)
}
