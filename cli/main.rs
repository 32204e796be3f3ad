//! The `handmill` command: one file per subcommand, results on standard output, everything else on standard error.

// The doc comments of arguments are help texts, where brackets mean "optional".
#![allow(rustdoc::broken_intra_doc_links)]

mod args;
#[cfg(feature = "gpu")]
mod auto;
mod bench;
mod cache;
mod detokenize;
mod devices;
mod error;
mod fetch;
mod input;
mod inspect;
mod interrupt;
mod logits;
mod memory;
mod npy;
mod out;
mod perplexity;
mod profile;
mod run;
mod session;
mod tokenize;
#[cfg(feature = "gpu")]
mod verify;
mod walls;

use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = Cli::parse();
    interrupt::listen();
    let global = &cli.global;
    let done = global.check().and_then(|()| match &cli.command {
        Command::Inspect(args) => inspect::run(global, args),
        Command::Run(args) => run::run(global, args),
        Command::Tokenize(args) => tokenize::run(global, args),
        Command::Detokenize(args) => detokenize::run(global, args),
        Command::Logits(args) => logits::run(global, args),
        Command::Perplexity(args) => perplexity::run(global, args),
        Command::Bench(args) => bench::run(global, args),
        #[cfg(feature = "gpu")]
        Command::Verify(args) => verify::run(global, args),
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
