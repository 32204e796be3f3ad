//! `handmill run`: continues a prompt and streams the answer.

use crate::{
    args::{COMMON, Compute, Ctx, Output},
    error::CliError,
    fetch, input,
    interrupt::{self, LastWords},
    out, profile,
    sampling::{Limit, Sampling},
    session, system,
    terminal::{human_bytes, note},
    tokenize,
};
use handmill_models::{GenerateOptions, GenerateStats, KvChoice, StopReason};
use serde_json::json;
use std::{
    ffi::OsString,
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// The prompt; @- reads it from standard input
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Read the prompt from a file
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    file: Option<PathBuf>,
    /// Turn names of special tokens in the prompt, like <|im_start|>, into these tokens
    #[arg(long)]
    parse_special: bool,
    /// Generate at most this many tokens; `all` is as many as the context holds
    #[arg(short = 'n', long, value_name = "N|all", default_value = "256", value_parser = Limit::parse)]
    max_tokens: Limit,
    /// Go on where the model would end its answer
    #[arg(long)]
    ignore_eos: bool,
    /// End the answer before this text (may be given several times)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// Element type of cached keys and values
    #[arg(long, value_enum, default_value_t = KvType::Auto)]
    kv_type: KvType,
    /// Where the time goes
    #[command(flatten)]
    profile: profile::Profile,
    /// How tokens are chosen
    #[command(flatten)]
    sampling: Sampling,
    /// Context length in tokens; `model` is as long as it was made for [default: that, within 4096 to 32768]
    #[arg(long, value_name = "N|model", value_parser = Ctx::parse, help_heading = COMMON)]
    ctx: Option<Ctx>,
    /// Where it runs
    #[command(flatten)]
    pub compute: Compute,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Values of `--kv-type`.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub enum KvType {
    /// f32 for models stored as f32, else f16.
    Auto,
    /// 16 bits.
    F16,
    /// 32 bits; linears then round nothing either: exact, and slower where weights are in blocks.
    F32,
}

impl From<KvType> for KvChoice {
    fn from(kv: KvType) -> Self {
        match kv {
            KvType::Auto => Self::Auto,
            KvType::F16 => Self::F16,
            KvType::F32 => Self::F32,
        }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let missing = "no prompt: give it with -p TEXT, --file FILE, or on standard input";
    let prompt = input::text(args.prompt.as_deref(), args.file.as_deref(), missing)?;
    if prompt.is_empty() {
        return Err(CliError::Usage(missing.to_owned()));
    }
    args.sampling.check()?;
    let json = args.output.json;
    let heard = Heard { seed: args.sampling.seed(), ..Heard::default() };
    let last_words = LastWords::new({
        let heard = heard.clone();
        move || drop(heard.tell(json))
    });
    let (model, mut engine) = session::open(&args.compute, &args.model, args.kv_type.into(), args.ctx)?;
    let ids = model
        .tokenizer()
        .and_then(|tokenizer| Ok(tokenize::ids(tokenizer, &prompt, true, args.parse_special)?))
        .map_err(|e| CliError::because("could not tokenize the prompt", e))?;
    let options = GenerateOptions {
        max_tokens: args.max_tokens.tokens(),
        sampling: args.sampling.params(model.checkpoint(), heard.seed)?,
        stop: args.stop.clone(),
        ignore_end_of_turn: args.ignore_eos,
        cancel: Some(interrupt::flag()),
        progress: Some(heard.stats.clone()),
    };

    args.profile.begin(&mut engine)?;
    let mut failed = None;
    let result = engine.generate(&ids, &options, |piece| {
        let written = if json {
            locked(&heard.answer).push_str(piece);
            Ok(())
        } else {
            out::answer(piece)
        };
        if let Err(error) = written {
            failed = Some(error);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    });
    if let Some(error) = failed {
        return Err(error);
    }
    let stats = result.map_err(|e| CliError::because("the model could not go on", e))?;
    drop(last_words);
    if !json {
        out::text("\n")?;
    }
    if let Some(why) = cut_short(&stats, engine.n_ctx()) {
        note(&format!("the answer is cut off: {why}"));
    }
    heard.tell(json)?;
    args.profile.end(&mut engine, args.compute.machine.threads.map(usize::from))?;
    if interrupt::asked() { Err(CliError::Interrupted) } else { Ok(()) }
}

/// The answer so far.
#[derive(Clone, Default)]
struct Heard {
    seed: u64,
    /// Kept for JSON alone; otherwise the text has been shown.
    answer: Arc<Mutex<String>>,
    stats: Arc<Mutex<GenerateStats>>,
}

impl Heard {
    /// Prints all of it: as JSON on standard output if that is wanted, and in a line on standard error.
    fn tell(&self, json: bool) -> Result<(), CliError> {
        let stats = locked(&self.stats).clone();
        if json {
            out::json(&json!({
                "text": *locked(&self.answer),
                "ids": stats.generated,
                "stop": stats.stop.name(),
                "seed": self.seed,
                "prompt": { "tokens": stats.prompt_tokens, "tokens_per_second": stats.prompt_rate() },
                "generation": { "tokens": stats.generated.len(), "tokens_per_second": stats.generation_rate() },
                "time_to_first_token": stats.time_to_first_token,
                "peak_memory_bytes": system::peak_memory(),
            }))?;
        }
        note(&statistics(&stats, self.seed));
        Ok(())
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line at the end.
fn statistics(stats: &GenerateStats, seed: u64) -> String {
    let mut line = format!("prompt {} tokens, {:.1} tokens/s; ", stats.prompt_tokens, stats.prompt_rate());
    if let Some(seconds) = stats.time_to_first_token {
        line += &format!("first token after {:.0} ms; ", seconds * 1e3);
    }
    line += &match stats.generated.len() {
        // The first token comes with the prompt, so there is no rate yet.
        0 | 1 => format!("generated {} tokens", stats.generated.len()),
        n => format!("generated {n} tokens, {:.1} tokens/s", stats.generation_rate()),
    };
    if let Some(peak) = system::peak_memory() {
        line += &format!("; peak memory {}", human_bytes(peak));
    }
    line + &format!("; seed {seed}")
}

/// The limit that cut the answer, and advice.
fn cut_short(stats: &GenerateStats, n_ctx: usize) -> Option<String> {
    match stats.stop {
        StopReason::MaxTokens => {
            Some(format!("it has as many tokens as it may have, {} (-n, --max-tokens)", stats.generated.len()))
        }
        StopReason::ContextFull => Some(format!("the context of {n_ctx} tokens is full (--ctx)")),
        StopReason::EndOfTurn | StopReason::StopText | StopReason::Cancelled => None,
    }
}
