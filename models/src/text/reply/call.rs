//! A tool call while it is read: the interface between the parser and the syntaxes.

use super::json::push_string;
use super::lexer::{Piece, Want};
use super::values::ToolTypes;

/// A complete tool call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    pub name: String,
    pub id: Option<String>,
    /// A JSON object.
    pub arguments: String,
}

/// Where a grammar stands after a piece.
#[derive(Clone, Debug)]
pub(super) enum Step {
    /// It needs this next.
    Want(Want),
    /// The construct is complete. It counts as text if it held no call.
    Done,
    /// It was a heading without text of its own: text follows.
    Text,
    /// It was a heading without text of its own: reasoning follows, until the syntax's end of reasoning.
    Reasoning,
    /// It is none of this syntax: all of it that held no complete call is text.
    Fail,
}

impl Call {
    /// The call of a tool that runs code: the code is its one argument, `code`.
    ///
    /// Blank lines around the code and spaces behind it are dropped. Blank code is no call.
    pub fn of_code(name: &str, code: &str) -> Option<Self> {
        let code = code.trim_start_matches(['\r', '\n']).trim_end();
        if code.is_empty() {
            return None;
        }
        let mut arguments = "{\"code\": ".to_owned();
        push_string(&mut arguments, code);
        Some(Self { name: name.to_owned(), id: None, arguments: arguments + "}" })
    }
}

impl Step {
    /// The step after a call that may turn out to be none: fails without one.
    pub fn after(call: Option<Call>, calls: &mut Vec<Call>, next: Step) -> Step {
        match call {
            Some(call) => {
                calls.push(call);
                next
            }
            None => Step::Fail,
        }
    }
}

/// Makes a grammar.
pub(super) type NewGrammar = fn() -> Box<dyn Grammar>;

/// The grammar of one construct. It says what must come next, and gets it from the lexer in one piece.
pub(super) trait Grammar: std::fmt::Debug + Send {
    /// What follows the opening marker.
    fn begin(&mut self) -> Want;

    /// Takes the wanted piece. Complete calls go to `calls`: what was read until then can no longer become text.
    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step;
}
