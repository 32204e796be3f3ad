//! Jinja templates in the environment of transformers (`_compile_jinja_template` of its `chat_template_utils.py`).

use std::error::Error as _;
use std::ops::Range;

use minijinja::syntax::SyntaxConfig;
use minijinja::{AutoEscape, Environment, ErrorKind, Output, State, UndefinedBehavior, Value};
use serde_json::{Map, Value as Json};

use super::super::error::{Result, TextError};
use super::context::Marking;
use super::conversation::Conversation;
use super::filters::{self, Raised};
use super::marks::{self, Marked};
use super::prompt::Prompt;
use super::source::{Words, prepared};
use super::time::LocalTime;
use super::{methods, python};

/// Longest text of a template; the longest known ones have 30 kB.
const MAX_SOURCE: usize = 1 << 18;
/// Work of one rendering: about this many instructions, or 64 times as many bytes.
const FUEL: u64 = 1 << 23;

/// A template, compiled.
#[derive(Debug)]
pub(super) struct Jinja {
    what: String,
    source: String,
    words: Words,
    environment: Environment<'static>,
}

/// Stack for the engine, which recurses over what a template nests.
const STACK: usize = 64 << 20;

/// Calls `work` on a thread with enough stack for hostile templates.
fn with_stack<T: Send>(what: &str, work: impl FnOnce() -> T + Send) -> Result<T> {
    let failed = |reason: String| TextError::Template { what: what.to_owned(), reason };
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, work);
        let thread = thread.map_err(|e| failed(format!("no thread to work on: {e}")))?;
        thread.join().map_err(|_| failed("the template engine panicked".to_owned()))
    })
}

/// The template's name in its environment.
const NAME: &str = "chat_template";

impl Jinja {
    /// Compiles `source`; `what` names it in errors.
    pub(super) fn new(what: &str, source: &str) -> Result<Self> {
        let broken = |reason: String| TextError::Template { what: what.to_owned(), reason };
        if source.len() > MAX_SOURCE {
            return Err(broken(format!("{} bytes are more than a chat template has", source.len())));
        }
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| broken(e.to_string()))?);
        environment.set_undefined_behavior(UndefinedBehavior::Lenient);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_formatter(|out: &mut Output, _: &mut State, value: &Value| {
            out.write_str(&python::str_of(value)?).map_err(minijinja::Error::from)
        });
        environment.set_unknown_method_callback(methods::call);
        environment.set_fuel(Some(FUEL));
        filters::install(&mut environment);
        let prepared = prepared(source).map_err(broken)?;
        with_stack(what, || environment.add_template_owned(NAME, prepared).map_err(|e| failure(what, &e)))??;
        Ok(Self { what: what.to_owned(), source: source.to_owned(), words: Words::of(source), environment })
    }

    pub(super) fn source(&self) -> &str {
        &self.source
    }

    /// The prompt of `conversation`; `tokens` are variables that the conversation may set otherwise.
    pub(super) fn render(
        &self,
        tokens: &Map<String, Json>,
        conversation: &Conversation,
        now: LocalTime,
    ) -> Result<Prompt> {
        with_stack(&self.what, || self.render_here(tokens, conversation, now))?
    }

    fn render_here(&self, tokens: &Map<String, Json>, conversation: &Conversation, now: LocalTime) -> Result<Prompt> {
        let clock = self.clock(now);
        let render = |marking: Marking<'_>| render(&clock, marking, tokens, conversation);
        let text = render(Marking::None).map_err(|e| failure(&self.what, &e))?;
        let folded = marks::spared(&text);
        let mut nearest = None;
        for marking in [Marking::All(&self.words), Marking::Suspicious(&self.words)] {
            let Ok(marked) = render(marking) else { continue };
            let read = Marked::read(&marked);
            if read.text == folded {
                return Ok(Prompt::new(text, read.user));
            }
            nearest = Some(aligned(&read, &folded));
        }
        match nearest {
            Some(user) => Ok(Prompt::new(text, user)),
            None => Err(TextError::Template {
                what: self.what.clone(),
                reason: "it fails where the user's text is told from its own".to_owned(),
            }),
        }
    }

    /// The environment with the functions that tell `now`.
    fn clock(&self, now: LocalTime) -> Environment<'static> {
        let mut environment = self.environment.clone();
        filters::install_clock(&mut environment, now);
        environment
    }

    /// Whether the text of `conversation` stays the same with all of the user's strings marked, and with the
    /// suspicious ones.
    #[cfg(test)]
    pub(super) fn follows_marks(&self, conversation: &Conversation, now: LocalTime) -> [bool; 2] {
        let clock = self.clock(now);
        let none = Map::new();
        let plain = render(&clock, Marking::None, &none, conversation).unwrap();
        [Marking::All(&self.words), Marking::Suspicious(&self.words)].map(|marking| {
            render(&clock, marking, &none, conversation)
                .is_ok_and(|marked| marks::removed(&marked) == marks::spared(&plain))
        })
    }
}

/// The text of `conversation` with the user's strings marked as `marking` says.
fn render(
    clock: &Environment<'_>,
    marking: Marking<'_>,
    tokens: &Map<String, Json>,
    conversation: &Conversation,
) -> Result<String, minijinja::Error> {
    clock.get_template(NAME)?.render(marking.variables(tokens, conversation))
}

/// The user's runs of `text`, where the marked rendering came out as another text: what both begin and end with has
/// the same author, and all between is taken for the user's, so that no control token of his gets through.
fn aligned(read: &Marked<'_>, text: &str) -> Vec<Range<usize>> {
    let same = |pairs: &mut dyn Iterator<Item = (char, char)>| {
        pairs.take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum::<usize>()
    };
    let start = same(&mut read.text.chars().zip(text.chars()));
    let end = same(&mut read.text[start..].chars().rev().zip(text[start..].chars().rev()));
    let (from, to) = (read.text.len() - end, text.len() - end);
    let mut user: Vec<Range<usize>> = Vec::new();
    user.extend(read.user.iter().filter(|run| run.start < start).map(|run| run.start..run.end.min(start)));
    user.push(start..to);
    let behind = read.user.iter().filter(|run| run.end > from);
    user.extend(behind.map(|run| run.start.max(from) + to - from..run.end + to - from));
    user.retain(|run| !run.is_empty());
    user
}

/// The engine's error in our words.
fn failure(what: &str, error: &minijinja::Error) -> TextError {
    let mut source = error.source();
    while let Some(inner) = source {
        if let Some(Raised(message)) = inner.downcast_ref() {
            return TextError::Refused { what: what.to_owned(), message: message.clone() };
        }
        source = inner.source();
    }
    let line = error.line().map_or(String::new(), |line| format!("line {line}: "));
    let reason = match error.kind() {
        ErrorKind::OutOfFuel => "it does more work than a prompt can need".to_owned(),
        kind => match error.detail() {
            Some(detail) => marks::removed(detail).into_owned(),
            None => kind.to_string(),
        },
    };
    TextError::Template { what: what.to_owned(), reason: line + &reason }
}
