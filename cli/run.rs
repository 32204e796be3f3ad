//! `handmill run`: continues a prompt and streams the answer.

use crate::{
    args::{COMMON, Compute, Ctx, Output},
    error::CliError,
    fetch, input,
    interrupt::{self, LastWords},
    out, profile, session, system,
    terminal::{human_bytes, note},
    tokenize,
};
use handmill_models::{GenerateOptions, GenerateStats, KvChoice, StopReason, engine::sampling::SamplingParams};
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
    /// Generate at most this many tokens
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256)]
    max_tokens: usize,
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

/// How tokens are chosen.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Sampling")]
struct Sampling {
    /// Temperature; 0 takes the likeliest token each time
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    temp: f32,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 40)]
    top_k: usize,
    /// Keep the fewest tokens that together reach this probability; 1 keeps all
    #[arg(long, value_name = "P", default_value_t = 0.95)]
    top_p: f32,
    /// Keep tokens at least this times as likely as the likeliest; 0 keeps all
    #[arg(long, value_name = "P", default_value_t = 0.05)]
    min_p: f32,
    /// Make tokens of the last 64 less likely by this factor; 1 does nothing
    #[arg(long, value_name = "X", default_value_t = 1.0)]
    repeat_penalty: f32,
    /// Take this from the logits of tokens of the last 64
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    presence_penalty: f32,
    /// Take this from the logits of tokens of the last 64, once for each time
    #[arg(long, value_name = "X", default_value_t = 0.0, allow_negative_numbers = true)]
    frequency_penalty: f32,
    /// Add X to the logit of token ID (may be given several times; -inf forbids it)
    #[arg(long, value_name = "ID=X", value_parser = logit_bias)]
    logit_bias: Vec<(u32, f32)>,
    /// Where the random numbers start: the same seed gives the same answer
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
}

fn logit_bias(text: &str) -> Result<(u32, f32), String> {
    let (id, bias) = text.split_once('=').ok_or("write it as ID=X, for example 42=-5")?;
    let id = id.trim().parse().map_err(|_| format!("{id:?} is not a token id"))?;
    let bias: f32 = bias.trim().parse().map_err(|_| format!("{bias:?} is not a number"))?;
    if bias.is_nan() || bias == f32::INFINITY { Err(format!("{bias} is no bias")) } else { Ok((id, bias)) }
}

impl Sampling {
    fn params(&self) -> SamplingParams {
        SamplingParams {
            temperature: self.temp,
            top_k: self.top_k,
            top_p: self.top_p,
            min_p: self.min_p,
            repetition_penalty: self.repeat_penalty,
            presence_penalty: self.presence_penalty,
            frequency_penalty: self.frequency_penalty,
            logit_bias: self.logit_bias.clone(),
            seed: self.seed,
            ..SamplingParams::default()
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
    let params = args.sampling.params();
    params.validate().map_err(|e| CliError::Usage(e.to_string()))?;
    let json = args.output.json;
    let heard = Heard::default();
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
        max_tokens: Some(args.max_tokens),
        sampling: params,
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
                "prompt": { "tokens": stats.prompt_tokens, "tokens_per_second": stats.prompt_rate() },
                "generation": { "tokens": stats.generated.len(), "tokens_per_second": stats.generation_rate() },
                "time_to_first_token": stats.time_to_first_token,
                "peak_memory_bytes": system::peak_memory(),
            }))?;
        }
        note(&statistics(&stats));
        Ok(())
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line at the end.
fn statistics(stats: &GenerateStats) -> String {
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
    line
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logit_biases_are_read() {
        assert_eq!(logit_bias("5=+1.5"), Ok((5, 1.5)));
        assert_eq!(logit_bias("5=-inf"), Ok((5, f32::NEG_INFINITY)));
        for wrong in ["5", "=1", "5=", "a=1", "5=x", "5=nan", "-1=2", "5=inf"] {
            assert!(logit_bias(wrong).is_err(), "{wrong}");
        }
    }
}
