//! The `handmill` command: one file per subcommand, results on standard output, everything else on standard error.

mod args;
mod cache;
mod devices;
mod error;
mod fetch;
mod inspect;
mod interrupt;
mod out;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::listen();
    let global = &cli.global;
    let done = global.check().and_then(|()| match &cli.command {
        Command::Inspect(args) => inspect::run(global, args),
        Command::Devices => devices::run(global),
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if !matches!(error, error::CliError::ClosedPipe) {
                fetch::note(&format!("error: {}", error::one_line(&error)));
            }
            ExitCode::from(error.exit_code())
        }
    }
}
