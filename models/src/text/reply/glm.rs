//! `<tool_call>name<arg_key>key</arg_key><arg_value>value</arg_value></tool_call>`: GLM, Spark and Laguna.

use super::call::{Call, Grammar, Step};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes, Written};

pub(super) const CALLS: Calls = Calls::new(
    "glm",
    &["<arg_key>"],
    &[Marker::new("<tool_call>", Place::Text, Action::Open(|| Box::new(Glm::default())))],
);

/// What may follow the name or a value.
const NEXT: &[&str] = &["<arg_key>", "</tool_call>"];

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Name,
    Next,
    Key,
    Between,
    Value,
}

#[derive(Debug, Default)]
struct Glm {
    at: At,
    name: String,
    key: String,
    arguments: Arguments,
}

impl Glm {
    fn next_of(&mut self, which: usize, calls: &mut Vec<Call>) -> Step {
        if which == 0 {
            self.at = At::Key;
            return Step::Want(Want::Text(&["</arg_key>"]));
        }
        calls.push(Call { name: std::mem::take(&mut self.name), id: None, arguments: self.arguments.take() });
        Step::Done
    }
}

impl Grammar for Glm {
    fn begin(&mut self) -> Want {
        Want::Name(NEXT)
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Name, Piece::Text(name, which)) if !name.is_empty() => {
                self.name = name;
                self.next_of(which, calls)
            }
            (At::Next, Piece::Tag(which)) => self.next_of(which, calls),
            (At::Key, Piece::Text(key, _)) => {
                self.key = key;
                self.at = At::Between;
                Step::Want(Want::Tag(&["<arg_value>"]))
            }
            (At::Between, _) => {
                self.at = At::Value;
                Step::Want(Want::Text(&["</arg_value>"]))
            }
            (At::Value, Piece::Text(text, _)) => {
                self.arguments.push_bare(&self.name, &self.key, &text, Written::Json, types);
                self.at = At::Next;
                Step::Want(Want::Tag(NEXT))
            }
            _ => Step::Fail,
        }
    }
}
