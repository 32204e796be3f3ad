//! Where the lines of a chat come from: an editor with a history at a terminal, else standard input line by line.

use super::command::{COMMANDS, goes_on};
use crate::{error::CliError, fetch::Cache};
use rustyline::{
    Context, Editor, Helper,
    completion::Completer,
    error::ReadlineError,
    highlight::Highlighter,
    hint::Hinter,
    history::FileHistory,
    validate::{ValidationContext, ValidationResult, Validator},
};
use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

/// Lines, from a person or from a pipe.
pub enum Lines {
    /// Typed by a person.
    Typed(Box<Typed>),
    /// Read from a file or a pipe.
    Piped,
}

/// The editor, and the file where its history is kept.
pub struct Typed {
    editor: Editor<Chatting, FileHistory>,
    history: Option<PathBuf>,
}

/// What comes next.
pub enum Next {
    /// A line, or several where a message goes on.
    Line(String),
    /// Ctrl-C: the line is thrown away.
    ThrownAway,
    /// The end of the input.
    End,
}

impl Lines {
    /// The editor where both ends are a terminal.
    pub fn open() -> Result<Self, CliError> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Self::Piped);
        }
        let config =
            rustyline::Config::builder().max_history_size(1000).and_then(|config| config.history_ignore_dups(true));
        let config = config.map_err(no_editor)?.auto_add_history(true).build();
        let mut editor = Editor::with_config(config).map_err(no_editor)?;
        editor.set_helper(Some(Chatting));
        let history = Cache::from_env().ok().map(|cache| cache.dir().join("chat_history"));
        if let Some(path) = &history {
            // The first chat has none.
            let _ = editor.load_history(path);
        }
        Ok(Self::Typed(Box::new(Typed { editor, history })))
    }

    /// Whether a person types them.
    pub fn are_typed(&self) -> bool {
        matches!(self, Self::Typed(_))
    }

    /// Waits for the next one.
    pub fn next(&mut self) -> Result<Next, CliError> {
        match self {
            Self::Typed(typed) => match typed.editor.readline("> ") {
                Ok(line) => Ok(Next::Line(line)),
                Err(ReadlineError::Interrupted) => Ok(Next::ThrownAway),
                Err(ReadlineError::Eof) => Ok(Next::End),
                Err(error) => Err(CliError::because("could not read from the terminal", error)),
            },
            Self::Piped => piped(),
        }
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        if let Some(path) = &self.history {
            // Without a history nothing else is lost.
            let _ = self.editor.save_history(path);
        }
    }
}

fn no_editor(error: ReadlineError) -> CliError {
    CliError::because("could not set the terminal up", error)
}

/// A message from standard input: a line, and those that it goes on with.
fn piped() -> Result<Next, CliError> {
    let mut text = String::new();
    loop {
        let read =
            io::stdin().read_line(&mut text).map_err(|e| CliError::because("could not read standard input", e))?;
        let whole = text.trim_end_matches(['\n', '\r']);
        if read == 0 && text.is_empty() {
            return Ok(Next::End);
        }
        if read == 0 || !goes_on(whole) {
            return Ok(Next::Line(whole.to_owned()));
        }
    }
}

/// What the editor knows of chats.
struct Chatting;

impl Helper for Chatting {}
impl Highlighter for Chatting {}
impl Hinter for Chatting {
    type Hint = String;
}

impl Validator for Chatting {
    fn validate(&self, context: &mut ValidationContext<'_>) -> rustyline::Result<ValidationResult> {
        Ok(if goes_on(context.input()) { ValidationResult::Incomplete } else { ValidationResult::Valid(None) })
    }
}

impl Completer for Chatting {
    type Candidate = String;

    /// The commands that begin like the line.
    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> rustyline::Result<(usize, Vec<String>)> {
        let begun = &line[..at];
        let names = COMMANDS.iter().filter_map(|(usage, _)| usage.split(' ').next());
        let fitting = names.filter(|name| begun.starts_with('/') && name.starts_with(begun));
        Ok((0, fitting.map(|name| format!("{name} ")).collect()))
    }
}
