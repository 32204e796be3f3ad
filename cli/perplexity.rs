//! `handmill perplexity`: how well a model predicts a text.

use crate::{
    args::{COMMON, Compute, Ctx, Output, Rounding},
    error::CliError,
    fetch, input, out, session,
    terminal::note,
    tokenize,
};
use serde_json::json;
use std::{ffi::OsString, io::IsTerminal, path::PathBuf, time::Instant};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The text is cut into windows of --ctx tokens (512 unless given); of each window the second half \
                        is scored. This is llama.cpp's definition."
)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// The text
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    file: PathBuf,
    /// What is rounded
    #[command(flatten)]
    rounding: Rounding,
    /// Tokens of a window; `model` is as long a context as it was made for [default: 512]
    #[arg(long, value_name = "N|model", value_parser = Ctx::parse, help_heading = COMMON)]
    ctx: Option<Ctx>,
    /// Where it runs
    #[command(flatten)]
    pub compute: Compute,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Tokens of a window without `--ctx`.
const WINDOW: usize = 512;

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let text = input::text_file(&args.file)?;
    let model = session::model(&args.model)?;
    let window = args.ctx.map_or(WINDOW, |ctx| ctx.tokens(&model));
    let mut engine = session::engine(&args.compute, &model, args.rounding, Some(window))?;
    let ids = model
        .tokenizer()
        .and_then(|tokenizer| Ok(tokenize::ids(tokenizer, &text, true, false)?))
        .map_err(|e| CliError::because("could not tokenize the text", e))?;
    let start = Instant::now();
    let live = std::io::stderr().is_terminal();
    let result = engine
        .perplexity(&ids, window, |so_far| {
            if live {
                note(&format!("window {} of {}: {:.4}", so_far.windows, so_far.of, so_far.value()));
            }
        })
        .map_err(|e| CliError::because("could not compute the perplexity", e))?;
    let seconds = start.elapsed().as_secs_f64();
    if args.output.json {
        return out::json(&json!({
            "perplexity": result.value(),
            "nll": result.nll / result.scored.max(1) as f64,
            "windows": result.windows,
            "ctx": window,
            "tokens": ids.len(),
            "scored_tokens": result.scored,
            "seconds": seconds,
        }));
    }
    out::text(&format!(
        "perplexity {:.4} ({} windows of {window} tokens, {seconds:.1} s)\n",
        result.value(),
        result.windows
    ))
}
