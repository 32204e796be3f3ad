//! The `handmill` command: one file per subcommand, results on standard output, everything else on standard error.

// The doc comments of arguments are help texts, where brackets mean "optional".
#![allow(rustdoc::broken_intra_doc_links)]

mod args;
#[cfg(feature = "gpu")]
mod auto;
mod bench;
mod dequantize;
mod detokenize;
mod devices;
mod error;
mod fetch;
mod input;
mod inspect;
mod interrupt;
mod logits;
mod npy;
mod out;
mod out_file;
mod perplexity;
mod profile;
mod render;
mod run;
mod session;
mod system;
mod terminal;
mod tokenize;
#[cfg(feature = "gpu")]
mod verify;
mod walls;

use args::Global;
use clap::{Parser, Subcommand};
use error::CliError;
use std::process::ExitCode;

const AFTER: &str = "\
MODEL is a path to a .gguf file or to a checkpoint folder, hf:owner/name[:file], or one of the names smollm2 (the \
default), gemma3, qwen05. Models that are not here yet are fetched into the cache folder ($HANDMILL_CACHE).

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// Runs language models straight from their files.
#[derive(Debug, Parser)]
#[command(name = "handmill", version, about, after_help = AFTER)]
struct Cli {
    /// Options of every subcommand.
    #[command(flatten)]
    global: Global,
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Continue a prompt
    Run(run::Args),
    /// Show what is in a model: architecture, block formats, licence, tensors, graph
    Inspect(inspect::Args),
    /// Turn text into token ids
    Tokenize(tokenize::Args),
    /// Turn token ids into text
    Detokenize(detokenize::Args),
    /// Show a conversation as its model's template writes it
    Render(render::Args),
    /// Write the logits of given tokens to a .npy file
    Logits(logits::Args),
    /// Measure how well a model predicts a text
    Perplexity(perplexity::Args),
    /// Measure how fast a model runs, and what the machine could do
    Bench(bench::Args),
    /// Check each step of a model on the GPU against the CPU
    #[cfg(feature = "gpu")]
    Verify(verify::Args),
    /// Show the devices that models can run on
    Devices,
}

fn main() -> ExitCode {
    // While there is no other thread.
    system::silence_drivers();
    let Cli { mut global, command } = Cli::parse();
    interrupt::listen();
    system::explain_cut_files();
    let done = global.check().and_then(|()| match &command {
        Command::Inspect(args) => inspect::run(&global, args),
        Command::Run(args) => run::run(&global, args),
        Command::Tokenize(args) => tokenize::run(&global, args),
        Command::Detokenize(args) => detokenize::run(&global, args),
        Command::Render(args) => render::run(&global, args),
        Command::Logits(args) => logits::run(&global, args),
        Command::Perplexity(args) => perplexity::run(&global, args),
        Command::Bench(args) => bench::run(&global, args),
        #[cfg(feature = "gpu")]
        Command::Verify(args) => verify::run(&global, args),
        Command::Devices => devices::run(&global),
    });
    let Err(error) = done else { return ExitCode::SUCCESS };
    // An interrupted action returns an error in its own words; the exit code is Ctrl-C's all the same.
    let error = if interrupt::asked() { error.or_interrupted() } else { error };
    if !matches!(error, CliError::ClosedPipe) {
        terminal::note(&format!("error: {}", error::one_line(&error)));
    }
    ExitCode::from(error.exit_code())
}
