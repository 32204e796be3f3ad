//! `handmill completions`: a script that completes the command's words in a shell.

use crate::{error::CliError, out};
use clap::Command;
use clap_complete::{Shell, generate};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: handmill completions bash > ~/.local/share/bash-completion/completions/handmill")]
pub struct Args {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Runs the subcommand; `command` is the whole command.
pub fn run(args: &Args, mut command: Command) -> Result<(), CliError> {
    let mut script = Vec::new();
    generate(args.shell, &mut command, "handmill", &mut script);
    out::bytes(&script)
}
