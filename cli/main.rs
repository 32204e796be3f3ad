//! The `handmill` command: one file per subcommand, results on standard output, everything else on standard error.

// The doc comments of arguments are help texts, where brackets mean "optional".
#![allow(rustdoc::broken_intra_doc_links)]

mod answer;
mod args;
#[cfg(feature = "gpu")]
mod auto;
mod bench;
mod chat;
mod completions;
mod dequantize;
mod detokenize;
mod devices;
mod error;
mod fetch;
mod input;
mod inspect;
mod interrupt;
mod licences;
mod list;
mod logits;
mod npy;
mod out;
mod out_file;
mod perplexity;
mod profile;
mod pull;
mod render;
mod rm;
mod run;
mod sampling;
mod serve;
mod session;
mod spellings;
mod system;
mod terminal;
mod tokenize;
#[cfg(feature = "gpu")]
mod verify;
mod walls;

use args::{Backend, Machine, Verbosity};
use clap::{CommandFactory, Parser, Subcommand};
use error::CliError;
use std::{env, process::ExitCode};
use terminal::{Level, always, note};

const AFTER: &str = "\
MODEL is a path to a .gguf file or to a checkpoint folder, hf:owner/name[:file], or one of the names qwen05 (the \
default), smollm2, gemma3. Models that are not here yet are fetched into the cache folder ($HANDMILL_CACHE).

Results go to standard output, progress to standard error. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.";

/// Runs language models straight from their files.
#[derive(Debug, Parser)]
#[command(name = "handmill", version, about, after_help = AFTER)]
struct Cli {
    /// What to do.
    #[command(subcommand)]
    command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
enum Command {
    /// Answer a message
    Run(run::Args),
    /// Converse with a model
    Chat(chat::Args),
    /// Serve a model over HTTP, as the APIs of OpenAI, Anthropic and Ollama do
    Serve(serve::Args),
    /// Fetch a model into the cache
    Pull(pull::Args),
    /// Show the models in the cache
    #[command(visible_alias = "ls")]
    List(list::Args),
    /// Remove models from the cache
    Rm(rm::Args),
    /// Show what is in a model: architecture, block formats, licence, tensors, graph
    #[command(alias = "show")]
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
    Devices(devices::Args),
    /// Write the completions of this command for a shell
    Completions(completions::Args),
}

impl Command {
    /// How much standard error says; none where there is nothing to choose.
    fn verbosity(&self) -> Option<Verbosity> {
        Some(match self {
            Self::Run(args) => args.answering.output.verbosity,
            Self::Chat(args) => args.answering.output.verbosity,
            Self::Serve(args) => args.verbosity,
            Self::Pull(args) => args.output.verbosity,
            Self::List(args) => args.output.verbosity,
            Self::Rm(args) => args.output.verbosity,
            Self::Inspect(args) => args.output.verbosity,
            Self::Tokenize(args) => args.output.verbosity,
            Self::Detokenize(args) => args.output.verbosity,
            Self::Render(args) => args.output.verbosity,
            Self::Logits(args) => args.output.verbosity,
            Self::Perplexity(args) => args.output.verbosity,
            Self::Bench(args) => args.output.verbosity,
            #[cfg(feature = "gpu")]
            Self::Verify(args) => args.output.verbosity,
            Self::Devices(args) => args.output.verbosity,
            Self::Completions(_) => return None,
        })
    }

    /// Where it computes, if it runs a model.
    fn machine(&mut self) -> Option<(Backend, &mut Machine)> {
        let compute = match self {
            Self::Run(args) => &mut args.answering.compute,
            Self::Chat(args) => &mut args.answering.compute,
            Self::Serve(args) => &mut args.compute,
            Self::Logits(args) => &mut args.compute,
            Self::Perplexity(args) => &mut args.compute,
            Self::Bench(args) => &mut args.compute,
            #[cfg(feature = "gpu")]
            Self::Verify(args) => return Some((Backend::Gpu, &mut args.machine)),
            _ => return None,
        };
        Some((compute.backend, &mut compute.machine))
    }

    fn run(&self) -> Result<(), CliError> {
        match self {
            Self::Run(args) => run::run(args),
            Self::Chat(args) => chat::run(args),
            Self::Serve(args) => serve::run(args),
            Self::Pull(args) => pull::run(args),
            Self::List(args) => list::run(args),
            Self::Rm(args) => rm::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Tokenize(args) => tokenize::run(args),
            Self::Detokenize(args) => detokenize::run(args),
            Self::Render(args) => render::run(args),
            Self::Logits(args) => logits::run(args),
            Self::Perplexity(args) => perplexity::run(args),
            Self::Bench(args) => bench::run(args),
            #[cfg(feature = "gpu")]
            Self::Verify(args) => verify::run(args),
            Self::Devices(args) => devices::run(args),
            Self::Completions(args) => completions::run(args, Cli::command()),
        }
    }
}

fn main() -> ExitCode {
    // While there is no other thread.
    system::silence_drivers();
    let done = spellings::rewrite(env::args_os(), Cli::command()).and_then(|words| {
        let Cli { mut command } = Cli::parse_from(words.words);
        terminal::set_level(command.verbosity().map_or(Level::Notes, Verbosity::level));
        interrupt::listen();
        system::explain_cut_files();
        words.notes.iter().for_each(|line| note(line));
        command.machine().map_or(Ok(()), |(backend, machine)| machine.check(backend))?;
        command.run()
    });
    let Err(error) = done else { return ExitCode::SUCCESS };
    // An interrupted action returns an error in its own words; the exit code is Ctrl-C's all the same.
    let error = if interrupt::asked() { error.or_interrupted() } else { error };
    if !matches!(error, CliError::ClosedPipe) {
        always(&format!("error: {}", error::explain(&error)));
    }
    ExitCode::from(error.exit_code())
}
