//! `handmill chat`: a conversation at a terminal, or with the lines of a pipe.

mod command;
mod lines;
mod settings;

use crate::{
    answer::{self, Answering, Shown, cut_short, statistics},
    error::{CliError, one_line},
    fetch, input,
    interrupt::{self, InAnswer},
    licences, out,
    out_file::OutFile,
    render,
    terminal::{always, note},
};
use command::{COMMANDS, Command, Line};
use handmill_models::{Chat, Engine, GenerateOptions, Reply, text::Conversation};
use lines::{Lines, Next};
use std::{
    ffi::{OsStr, OsString},
    io::Write,
    ops::ControlFlow,
    path::Path,
};

/// Arguments of the subcommand.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Path, hf:owner/name[:file] or alias
    #[arg(default_value = fetch::DEFAULT)]
    model: OsString,
    /// How it answers
    #[command(flatten)]
    pub answering: Answering,
}

/// Runs the subcommand.
pub fn run(args: &Args) -> Result<(), CliError> {
    converse(&args.model, &args.answering)
}

/// Converses with the model of that name until the lines end.
pub fn converse(model: &OsStr, answering: &Answering) -> Result<(), CliError> {
    answering.sampling.check()?;
    let name = model;
    let (model, mut engine) = answering.open(name)?;
    let mut chat = Chat::new(answering.template(&model)?.ok_or_else(render::no_template)?);
    answering.variables.set(chat.conversation_mut());
    let seed = answering.sampling.seed();
    let options = answering.options(&model, seed, None)?;
    let mut lines = Lines::open()?;
    if lines.are_typed() {
        let licence = licences::of(model.checkpoint());
        let info = model.info();
        note(&format!(
            "{}: {}, {} layers; {}; {} tokens of context; seed {seed}\nlicence: {licence}\n\
             a line that ends with \\ goes on; /help lists the commands; Ctrl-C stops an answer, Ctrl-D ends",
            name.to_string_lossy(),
            info.architecture,
            info.n_layers,
            engine.backend().describe(),
            engine.n_ctx(),
        ));
    }
    let mut talk = Talk { engine, chat, options, answers: 0, last: None, json: answering.output.json };
    loop {
        match lines.next()? {
            Next::End => return Ok(()),
            Next::ThrownAway => {}
            Next::Line(line) => match command::parse(&line) {
                Line::Empty => {}
                Line::Wrong(why) => always(&why),
                Line::Command(command) => {
                    if !talk.obey(command)? {
                        return Ok(());
                    }
                }
                Line::Message(text) => {
                    talk.chat.say(&text);
                    if !talk.answer()? {
                        talk.chat.undo();
                    }
                }
            },
        }
    }
}

/// A conversation under way.
struct Talk {
    engine: Engine,
    chat: Chat,
    options: GenerateOptions,
    /// The seed of the first answer; each further one counts on.
    answers: u64,
    last: Option<Reply>,
    json: bool,
}

impl Talk {
    /// Lets the model answer and shows the answer. Returns false where there is none: the conversation is then as
    /// before. The errors that end the chat are those of standard output; others are shown.
    fn answer(&mut self) -> Result<bool, CliError> {
        let mut options = self.options.clone();
        options.sampling.seed = options.sampling.seed.wrapping_add(self.answers);
        options.cancel = Some(interrupt::flag());
        self.answers += 1;
        let mut shown = Shown::default();
        let mut failed = None;
        let left_out = self.last.as_ref().map_or(0, |reply| reply.left_out);
        let in_answer = InAnswer::begin();
        let reply = self.chat.reply(&mut self.engine, &options, render::now()?, |event| {
            let written = if self.json { Ok(()) } else { shown.event(event) };
            written.map_or_else(
                |error| {
                    failed = Some(error);
                    ControlFlow::Break(())
                },
                ControlFlow::Continue,
            )
        });
        let stopped = interrupt::asked();
        drop(in_answer);
        if let Some(error) = failed {
            return Err(error);
        }
        if !self.json {
            shown.end()?;
        }
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => {
                always(&format!("error: {}", one_line(&CliError::because("the model could not answer", error))));
                return Ok(false);
            }
        };
        if reply.left_out > left_out {
            note(&format!(
                "the context of {} tokens is full: the model no longer sees the first {} messages (--ctx)",
                self.engine.n_ctx(),
                reply.left_out
            ));
        }
        if stopped && reply.is_empty() {
            note("stopped before the answer began; the message is taken back");
            return Ok(false);
        }
        if stopped {
            note("stopped");
        } else if let Some(why) = cut_short(&reply.stats, self.engine.n_ctx()) {
            note(&format!("the answer is cut off: {why}"));
        }
        if self.json {
            out::json(&answer::json(&reply, &reply.stats, options.sampling.seed))?;
        }
        self.last = Some(reply);
        Ok(true)
    }

    /// Does what a command says. Returns whether the chat goes on.
    fn obey(&mut self, command: Command) -> Result<bool, CliError> {
        match command {
            Command::Exit => return Ok(false),
            Command::Help => COMMANDS.iter().for_each(|(usage, what)| always(&format!("  {usage:<18} {what}"))),
            Command::System(None) => always(self.chat.conversation().system().unwrap_or("there is no system message")),
            Command::System(Some(text)) => {
                self.chat.conversation_mut().set_system(if text == "-" { "" } else { &text });
            }
            Command::Reset => {
                self.chat.reset();
                self.last = None;
                note("all messages are forgotten");
            }
            Command::Undo if self.chat.undo() => note("the last message and its answer are taken back"),
            Command::Regen => {
                let before = self.chat.conversation().clone();
                if !self.chat.forget_reply() {
                    note("there is no message yet");
                } else if !self.answer()? {
                    *self.chat.conversation_mut() = before;
                }
            }
            Command::Undo => note("there is no message yet"),
            Command::Set(None) => always(&settings::list(&self.options)),
            Command::Set(Some((name, value))) => match settings::set(&mut self.options, &name, &value) {
                Ok(done) | Err(done) => always(&done),
            },
            Command::Stats => always(&self.stats()),
            Command::Save(path) => match self.save(Path::new(&path)) {
                Ok(()) => note(&format!("{} messages are in {path}", self.chat.conversation().messages.len())),
                Err(error) => always(&format!("error: {}", one_line(&error))),
            },
            Command::Load(path) => match self.load(Path::new(&path)) {
                Ok(n) => {
                    note(&format!("{n} messages"));
                    if self.chat.awaits_reply() && !self.answer()? {
                        self.chat.undo();
                    }
                }
                Err(error) => always(&format!("error: {}", one_line(&error))),
            },
        }
        Ok(true)
    }

    fn stats(&self) -> String {
        let context = format!("{} of {} tokens of context", self.chat.cached(), self.engine.n_ctx());
        let Some(reply) = &self.last else { return format!("{context}; no answer yet") };
        format!(
            "{context}; the last turn evaluated {} tokens and kept {}\n{}",
            reply.stats.prompt_tokens,
            reply.reused,
            statistics(&reply.stats, self.options.sampling.seed)
        )
    }

    fn save(&self, path: &Path) -> Result<(), CliError> {
        let failed = |e| CliError::because(format!("could not write {}", path.display()), e);
        let json = format!("{:#}\n", self.chat.conversation().to_json());
        let mut file = OutFile::create(path).map_err(failed)?;
        file.write_all(json.as_bytes()).map_err(failed)?;
        file.finish().map_err(failed)
    }

    fn load(&mut self, path: &Path) -> Result<usize, CliError> {
        let wrong = |e| CliError::because(format!("{} is no conversation", path.display()), e);
        let conversation = Conversation::from_json(&input::text_file(path)?).map_err(wrong)?;
        let n = conversation.messages.len();
        *self.chat.conversation_mut() = Conversation { add_generation_prompt: true, ..conversation };
        self.last = None;
        Ok(n)
    }
}
