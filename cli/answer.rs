//! What `run` and `chat` have in common: their options, and how a reply is shown as it comes: the answer on standard
//! output, reasoning apart from it and dimmed on standard error, where `--quiet` hides it.

use crate::{
    args::{COMMON, Compute, Ctx, Output, Rounding},
    error::CliError,
    input, out,
    render::{self, Variables},
    sampling::{Limit, Sampling},
    session, system,
    terminal::{self, human_bytes},
};
use handmill_models::{
    Engine, GenerateOptions, GenerateStats, Model, Reply, StopReason,
    text::{ChatTemplate, ReplyEvent},
};
use serde_json::{Value, json};
use std::{ffi::OsStr, path::PathBuf};

/// Options of commands that let a model answer.
#[derive(Debug, clap::Args)]
pub struct Answering {
    /// Render messages with the template in this file instead of the model's own
    #[arg(long, value_name = "FILE.jinja", allow_hyphen_values = true, value_parser = input::path())]
    template: Option<PathBuf>,
    /// Variables of the template
    #[command(flatten)]
    pub variables: Variables,
    /// Generate at most this many tokens; `all` is as many as the context holds [default: all, of raw text 256]
    #[arg(short = 'n', long, value_name = "N|all", value_parser = Limit::parse)]
    pub max_tokens: Option<Limit>,
    /// End the answer before this text (may be given several times)
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    stop: Vec<String>,
    /// What is rounded
    #[command(flatten)]
    rounding: Rounding,
    /// How tokens are chosen
    #[command(flatten)]
    pub sampling: Sampling,
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

impl Answering {
    /// Opens the model of that name and makes an engine for it.
    pub fn open(&self, model: &OsStr) -> Result<(Model, Engine), CliError> {
        session::open(&self.compute, model, self.rounding, self.ctx)
    }

    /// The template that messages are rendered with: the one given, else the model's own; none where there is none.
    pub fn template(&self, model: &Model) -> Result<Option<ChatTemplate>, CliError> {
        let own = ChatTemplate::from_checkpoint(model.checkpoint());
        let own = own.map_err(|e| CliError::because("could not read the model's chat template", e))?;
        render::with_file(own, self.template.as_deref())
    }

    /// How the model's tokens are generated: at most `most` where no number is given.
    pub fn options(&self, model: &Model, seed: u64, most: Option<usize>) -> Result<GenerateOptions, CliError> {
        Ok(GenerateOptions {
            max_tokens: self.max_tokens.map_or(most, Limit::tokens),
            sampling: self.sampling.params(model.checkpoint(), seed)?,
            stop: self.stop.clone(),
            ..GenerateOptions::default()
        })
    }
}

/// A reply and how it came about, as JSON. `stats` are the reply's own once it is complete.
pub fn json(reply: &Reply, stats: &GenerateStats, seed: u64) -> Value {
    let calls = reply.calls.iter().map(|call| json!({ "id": call.id, "name": call.name, "arguments": call.arguments }));
    json!({
        "text": reply.text,
        "reasoning": (!reply.reasoning.is_empty()).then_some(&reply.reasoning),
        "tool_calls": calls.collect::<Value>(),
        "ids": stats.generated,
        "stop": stats.stop.name(),
        "seed": seed,
        "prompt": {
            "tokens": stats.prompt_tokens,
            "reused": reply.reused,
            "tokens_per_second": stats.prompt_rate(),
        },
        "generation": { "tokens": stats.generated.len(), "tokens_per_second": stats.generation_rate() },
        "time_to_first_token": stats.time_to_first_token,
        "peak_memory_bytes": system::peak_memory(),
    })
}

/// The line at the end of an answer.
pub fn statistics(stats: &GenerateStats, seed: u64) -> String {
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
pub fn cut_short(stats: &GenerateStats, n_ctx: usize) -> Option<String> {
    match stats.stop {
        StopReason::MaxTokens => {
            Some(format!("it has as many tokens as it may have, {} (-n, --max-tokens)", stats.generated.len()))
        }
        StopReason::ContextFull => Some(format!("the context of {n_ctx} tokens is full (--ctx)")),
        // No limit.
        _ => None,
    }
}

/// Shows the events of one reply.
#[derive(Debug, Default)]
pub struct Shown {
    last: Option<Part>,
    /// Whether the last text ended a line.
    at_line_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Reasoning,
    Text,
    Call,
}

impl Shown {
    /// Shows one event.
    pub fn event(&mut self, event: &ReplyEvent) -> Result<(), CliError> {
        match event {
            ReplyEvent::Reasoning(text) => {
                self.begin(Part::Reasoning)?;
                terminal::dimmed(text);
                self.at_line_start = text.ends_with('\n');
            }
            ReplyEvent::Text(text) => {
                self.begin(Part::Text)?;
                out::answer(text)?;
                self.at_line_start = text.ends_with('\n');
            }
            ReplyEvent::CallBegins { name, .. } => {
                self.begin(Part::Call)?;
                out::answer(&format!("[tool call] {name} "))?;
                self.at_line_start = false;
            }
            ReplyEvent::CallArguments { json, .. } => out::answer(json)?,
            ReplyEvent::CallEnds { .. } => {
                out::answer("\n")?;
                self.at_line_start = true;
            }
            // An event of a later version of the library, for which there is no way to show it.
            _ => {}
        }
        Ok(())
    }

    /// Ends the last line of the reply.
    pub fn end(&mut self) -> Result<(), CliError> {
        match self.last.take() {
            Some(Part::Reasoning) => {
                terminal::dimmed("\n");
                Ok(())
            }
            Some(Part::Call) if self.at_line_start => Ok(()),
            _ => out::text("\n"),
        }
    }

    /// Puts an empty line between reasoning and what is not.
    fn begin(&mut self, part: Part) -> Result<(), CliError> {
        match self.last.replace(part) {
            Some(Part::Reasoning) if part != Part::Reasoning => {
                terminal::dimmed(if self.at_line_start { "\n" } else { "\n\n" });
                self.at_line_start = true;
            }
            Some(Part::Text) if part != Part::Text && !self.at_line_start => out::answer("\n")?,
            _ => {}
        }
        Ok(())
    }
}
