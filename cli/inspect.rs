//! `handmill inspect`: what is in a model's files.

use crate::{args::Global, error::CliError, fetch, out};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: String,
}

/// Runs the subcommand.
pub fn run(_global: &Global, args: &Args) -> Result<(), CliError> {
    let path = fetch::locate(&args.model)?;
    out::text(&format!("{}\n", path.display()))
}
