//! `handmill render`: a conversation as its model's template writes it.

use crate::{
    args::Output,
    error::CliError,
    fetch, input, out,
    terminal::{always, note},
};
use chrono::{Datelike, Timelike};
use handmill_models::text::{ChatTemplate, Conversation, LocalTime, TextError, TextSource};
use serde_json::{Value, json};
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias; also a bare tokenizer.json, tekken.json or vocabulary-only GGUF [default:
    /// qwen05, or no model with --template]
    model: Option<OsString>,
    /// The conversation: a JSON file with "messages", and "tools", "documents", "add_generation_prompt" and further
    /// variables of the template; - reads it from standard input
    #[arg(long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    messages: PathBuf,
    /// Render with the template in this file
    #[arg(long, value_name = "FILE.jinja", allow_hyphen_values = true, value_parser = input::path())]
    template: Option<PathBuf>,
    /// The time that the template prints, like 2025-06-17T09:30:00 [default: the local time]
    #[arg(long, value_name = "TIME")]
    now: Option<String>,
    /// Variables of the template
    #[command(flatten)]
    variables: Variables,
    /// How results are shown
    #[command(flatten)]
    pub output: Output,
}

/// Options that set variables of a template.
#[derive(Debug, clap::Args)]
pub struct Variables {
    /// Put a message with instructions for the model in front
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    system: Option<String>,
    /// Let the model reason before it answers, where its template knows that
    #[arg(long, conflicts_with = "no_think")]
    think: bool,
    /// Let the model answer without reasoning, where its template knows that
    #[arg(long)]
    no_think: bool,
    /// Set a variable of the template (may be given several times); V is JSON, or else a string
    #[arg(long, value_name = "K=V", allow_hyphen_values = true, value_parser = variable)]
    template_kwarg: Vec<(String, Value)>,
}

fn variable(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("it has no `=`; write NAME=VALUE")?;
    if name.is_empty() || name.contains(|c: char| !c.is_alphanumeric() && c != '_') {
        return Err(format!("`{name}` is no name of a variable"));
    }
    Ok((name.to_owned(), serde_json::from_str(value).unwrap_or_else(|_| value.into())))
}

impl Variables {
    /// Sets them in `conversation`.
    pub fn set(&self, conversation: &mut Conversation) {
        if let Some(text) = &self.system {
            conversation.set_system(text);
        }
        if self.think || self.no_think {
            conversation.set_thinking(self.think);
        }
        conversation.variables.extend(self.template_kwarg.iter().cloned());
    }
}

/// The local time of the system, for templates that print it.
pub fn now() -> Result<LocalTime, CliError> {
    let now = chrono::Local::now();
    let small = |n: u32| u8::try_from(n).ok();
    let time = || {
        let year = u16::try_from(now.year()).ok()?;
        let (month, day, hour) = (small(now.month())?, small(now.day())?, small(now.hour())?);
        LocalTime::new(year, month, day, hour, small(now.minute())?, small(now.second())?)
    };
    time().ok_or_else(|| CliError::failed(format!("the system's clock says {now}; give the time with --now")))
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let now = match &args.now {
        Some(text) => text.parse().map_err(|e: TextError| CliError::Usage(format!("--now: {e}")))?,
        None => now()?,
    };
    let mut conversation = Conversation::from_json(&input::text_file(&args.messages)?).map_err(failed)?;
    args.variables.set(&mut conversation);
    let model = match (&args.model, &args.template) {
        (Some(model), _) => Some(fetch::locate(model)?),
        (None, Some(_)) => None,
        (None, None) => Some(fetch::locate(fetch::DEFAULT.as_ref())?),
    };
    let model = model.map(TextSource::open).transpose().map_err(failed)?;
    let own = model.as_ref().map(TextSource::template).transpose().map_err(failed)?.flatten();
    let template = with_file(own, args.template.as_deref())?.ok_or_else(no_template)?;
    let prompt = template.render(&conversation, now).map_err(failed)?;
    let ids = match model {
        Some(model) => {
            let tokenizer = model.tokenizer().map_err(failed)?;
            for warning in tokenizer.warnings() {
                note(&format!("warning: {warning}"));
            }
            Some(prompt.encode(&tokenizer).map_err(failed)?)
        }
        None => None,
    };
    if args.output.json {
        let mut answer = json!({ "text": prompt.text() });
        if let Some(ids) = ids {
            answer["ids"] = json!(ids);
        }
        return out::json(&answer);
    }
    let text = prompt.text();
    out::answer(&text)?;
    let Some(ids) = ids else { return Ok(()) };
    // The ids are no part of the text, so pipes get them apart; a terminal shows both.
    let line_end = if text.ends_with('\n') || !io::stdout().is_terminal() { "" } else { "\n" };
    let list: Vec<String> = ids.iter().map(u32::to_string).collect();
    always(&format!("{line_end}{} tokens: {}", ids.len(), list.join(" ")));
    Ok(())
}

/// The template in a file, with what else is known of the model; without a file the model's `own`.
pub fn with_file(own: Option<ChatTemplate>, file: Option<&Path>) -> Result<Option<ChatTemplate>, CliError> {
    let Some(path) = file else { return Ok(own) };
    let given = ChatTemplate::from_jinja(&path.display().to_string(), &input::text_file(path)?).map_err(failed)?;
    Ok(Some(match &own {
        Some(own) => given.in_place_of(own),
        None => given,
    }))
}

/// The error where a command needs a template and there is none.
pub fn no_template() -> CliError {
    CliError::failed("the model has no chat template; give one with --template FILE.jinja")
}

fn failed(error: TextError) -> CliError {
    CliError::because("could not render the conversation", error)
}
