//! `handmill pull`: fetches a model into the cache.

use crate::{args::Output, error::CliError, fetch, licences, out, terminal::human_bytes};
use handmill_runtime::format::Checkpoint;
use serde_json::json;
use std::ffi::OsString;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// hf:owner/name[:file] or alias
    model: OsString,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let path = fetch::locate(&args.model)?;
    // Also a tokenizer or another file of a repository can be fetched; then nothing is known of its licence.
    let opened = Checkpoint::open(&path).ok();
    let licence = match &opened {
        Some(checkpoint) => licences::of(checkpoint),
        None => fetch::licence(&path).unwrap_or_default(),
    };
    let bytes = opened.map(|checkpoint| checkpoint.file_size());
    if args.output.json {
        return out::json(&json!({ "path": path, "bytes": bytes, "licence": licences::json(&licence) }));
    }
    let mut text = format!("path     {}\n", path.display());
    if let Some(bytes) = bytes {
        text += &format!("size     {}\n", human_bytes(bytes));
    }
    out::text(&format!("{text}licence  {licence}\n"))
}
