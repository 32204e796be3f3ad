//! `handmill tokenize`: text to token ids.

use crate::{args::Output, error::CliError, fetch, input, out, terminal::note};
use handmill_models::text::{TextError, Tokenizer};
use serde_json::json;
use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias; also a bare tokenizer.json, tokenizer.model, tekken.json or vocabulary-only GGUF
    model: OsString,
    /// The text; without it and --file, standard input is read. Behind -- also text that looks like an option
    #[arg(allow_hyphen_values = true)]
    text: Option<String>,
    /// Read the text from a file
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    file: Option<PathBuf>,
    /// Add no special tokens (like BOS), and take text that looks like one, like <|im_end|>, as text
    #[arg(long)]
    no_special: bool,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let missing = "no text: give it after the model, with --file FILE, or on standard input";
    let text = input::text(args.text.as_deref(), args.file.as_deref(), missing)?;
    let tokenizer = open(&args.model)?;
    let ids = ids(&tokenizer, &text, !args.no_special, !args.no_special).map_err(failed)?;
    if args.output.json {
        return out::json(&json!({ "ids": ids }));
    }
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    out::text(&(ids.join(" ") + "\n"))
}

/// The ids of a text, as [`Tokenizer::encode`] gives them; prints warnings about tokenizer and text on standard error.
pub fn ids(tokenizer: &Tokenizer, text: &str, add_special: bool, parse_special: bool) -> Result<Vec<u32>, TextError> {
    for warning in tokenizer.warnings() {
        note(&format!("warning: {warning}"));
    }
    if let Some(bos) = tokenizer.doubled_bos(text).filter(|_| add_special) {
        let then = if parse_special { "now it stands there twice" } else { "in the text it is no token" };
        note(&format!("warning: the text begins with {bos}, the BOS token, which is added by itself; {then}"));
    }
    tokenizer.encode(text, add_special, parse_special)
}

/// The tokenizer of the model of that name.
pub fn open(model: &OsStr) -> Result<Tokenizer, CliError> {
    Tokenizer::from_path(fetch::locate(model)?).map_err(failed)
}

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CliError {
    CliError::because("the tokenizer does not work", error)
}
