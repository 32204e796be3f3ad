//! Solar Open: every part of a reply is a message with a heading, and calls come in a section.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls::new(
    "solar",
    &["<|tool_call:begin|>"],
    &[
        Marker::new("<|begin|>assistant", Place::Text, Action::Drop),
        Marker::new("<|content|>", Place::Text, Action::Drop),
        Marker::new("<|tool_calls|>", Place::Anywhere, Action::Open(|| Box::new(Solar::default()))),
    ],
);

#[derive(Debug, Default)]
struct Solar {
    id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
}

impl Grammar for Solar {
    fn begin(&mut self) -> Want {
        Want::Tag(&["<|tool_call:begin|>", "<|calls|>"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Tag(which) => match (self.name.take(), self.arguments.take()) {
                (Some(name), Some(arguments)) => {
                    calls.push(Call { name, id: self.id.take(), arguments });
                    Step::Want(self.begin())
                }
                _ if which == 0 => Step::Want(Want::Name(&["<|tool_call:name|>"])),
                _ => Step::Done,
            },
            Piece::Text(id, _) if self.id.is_none() => {
                self.id = Some(id);
                Step::Want(Want::Name(&["<|tool_call:args|>"]))
            }
            Piece::Text(name, _) if !name.is_empty() => {
                self.name = Some(name);
                Step::Want(Want::Json)
            }
            Piece::Text(..) => Step::Fail,
            Piece::Value(json) => {
                self.arguments = arguments(Some(&json));
                if self.arguments.is_none() { Step::Fail } else { Step::Want(Want::Tag(&["<|tool_call:end|>"])) }
            }
        }
    }
}
