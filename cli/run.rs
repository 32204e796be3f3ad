//! `handmill run`: answers a message, or continues a text, and streams what the model says.

use crate::{
    answer::{self, Answering, Shown, cut_short, statistics},
    chat,
    error::CliError,
    fetch, input,
    interrupt::{self, LastWords},
    out, profile, render,
    terminal::note,
    tokenize,
};
use handmill_models::{Chat, Engine, Error, GenerateOptions, GenerateStats, Reply, text::ReplyEvent};
use std::{
    ffi::OsString,
    io::{self, IsTerminal},
    ops::ControlFlow,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Most tokens of the continuation of a text, which need not come to an end.
const MOST_OF_RAW: usize = 256;

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// The message, as with -p
    text: Option<String>,
    /// The message to answer; @- reads it from standard input
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true, conflicts_with = "text")]
    prompt: Option<String>,
    /// Read the message from a file
    #[arg(short, long, value_name = "FILE", allow_hyphen_values = true, value_parser = input::path())]
    file: Option<PathBuf>,
    /// Continue the text instead of answering it as a message
    #[arg(long)]
    raw: bool,
    /// Continue the text, in which names of special tokens, like <|im_start|>, are these tokens
    #[arg(long)]
    parse_special: bool,
    /// Go on where the model would end its answer
    #[arg(long)]
    ignore_eos: bool,
    /// Where the time goes
    #[command(flatten)]
    profile: profile::Profile,
    /// How it answers
    #[command(flatten)]
    pub answering: Answering,
}

impl Args {
    fn is_raw(&self) -> bool {
        self.raw || self.parse_special
    }

    /// The message or text, without the line end that a file or a pipe ends with.
    fn prompt(&self) -> Result<String, CliError> {
        let missing = "no prompt: give it with -p TEXT, --file FILE, or on standard input";
        let argument = self.prompt.as_deref().or(self.text.as_deref());
        let mut text = input::text(argument, self.file.as_deref(), missing)?;
        if argument.is_none_or(|argument| argument == "@-") && text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty()
            && let Some(words) = self.model.to_str().filter(|model| model.contains(' '))
        {
            let said =
                format!("{words:?} stands where the model does; give a message with -p, or behind the model's name");
            return Err(CliError::Usage(said));
        }
        if text.is_empty() { Err(CliError::Usage(missing.to_owned())) } else { Ok(text) }
    }
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    let json = args.answering.output.json;
    let given = args.text.is_some() || args.prompt.is_some() || args.file.is_some();
    if !given && !json && !args.is_raw() && io::stdin().is_terminal() && io::stdout().is_terminal() {
        return chat::converse(&args.model, &args.answering);
    }
    let prompt = args.prompt()?;
    args.answering.sampling.check()?;
    let heard = Heard { seed: args.answering.sampling.seed(), ..Heard::default() };
    let last_words = LastWords::new({
        let heard = heard.clone();
        move || drop(heard.tell(json))
    });
    let (model, mut engine) = args.answering.open(&args.model)?;
    let template = if args.is_raw() { None } else { args.answering.template(&model)? };
    if template.is_none() && !args.is_raw() {
        note(
            "the model has no chat template, so the text is continued (--raw says so, --template FILE.jinja gives one)",
        );
    }
    let options = GenerateOptions {
        ignore_end_of_turn: args.ignore_eos,
        cancel: Some(interrupt::flag()),
        progress: Some(heard.stats.clone()),
        ..args.answering.options(&model, heard.seed, if template.is_none() { Some(MOST_OF_RAW) } else { None })?
    };
    args.profile.begin(&mut engine)?;
    let (mut shown, mut failed) = (Shown::default(), None);
    let mut hear = |event: &ReplyEvent| {
        let written = if json { Ok(()) } else { shown.event(event) };
        locked(&heard.reply).take(event);
        written.map_or_else(
            |error| {
                failed = Some(error);
                ControlFlow::Break(())
            },
            ControlFlow::Continue,
        )
    };
    let result = match template {
        Some(template) => {
            let mut chat = Chat::new(template);
            args.answering.variables.set(chat.conversation_mut());
            chat.say(&prompt);
            chat.reply(&mut engine, &options, render::now()?, hear).map(|reply| reply.stats)
        }
        None => continued(&mut engine, &prompt, args.parse_special, &options, |text| {
            hear(&ReplyEvent::Text(text.to_owned()))
        })?,
    };
    if let Some(error) = failed {
        return Err(error);
    }
    let stats = result.map_err(|e| CliError::because("the model could not answer", e))?;
    drop(last_words);
    if !json {
        shown.end()?;
    }
    if let Some(why) = cut_short(&stats, engine.n_ctx()) {
        note(&format!("the answer is cut off: {why}"));
    }
    heard.tell(json)?;
    args.profile.end(&mut engine, args.answering.compute.machine.threads.map(usize::from))?;
    if interrupt::asked() { Err(CliError::Interrupted) } else { Ok(()) }
}

/// Continues a text.
fn continued(
    engine: &mut Engine,
    text: &str,
    parse_special: bool,
    options: &GenerateOptions,
    on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<Result<GenerateStats, Error>, CliError> {
    let ids = engine
        .model()
        .tokenizer()
        .and_then(|tokenizer| Ok(tokenize::ids(tokenizer, text, true, parse_special)?))
        .map_err(|e| CliError::because("could not tokenize the prompt", e))?;
    Ok(engine.generate(&ids, options, on_text))
}

/// The answer so far.
#[derive(Clone, Default)]
struct Heard {
    seed: u64,
    reply: Arc<Mutex<Reply>>,
    stats: Arc<Mutex<GenerateStats>>,
}

impl Heard {
    /// Prints all of it: as JSON on standard output if that is wanted, and in a line on standard error.
    fn tell(&self, json: bool) -> Result<(), CliError> {
        let stats = locked(&self.stats).clone();
        if json {
            out::json(&answer::json(&locked(&self.reply), &stats, self.seed))?;
        }
        note(&statistics(&stats, self.seed));
        Ok(())
    }
}

fn locked<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
