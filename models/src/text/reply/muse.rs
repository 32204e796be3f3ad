//! Muse Glimmer: messages to a recipient. `to=self` is reasoning, `to=user` the answer, and one to a tool holds a call.

use super::call::{Call, Grammar, Step};
use super::invoke;
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls {
    opened_by: Some(("<|start|>assistant", || Box::new(Heading::default()))),
    ..Calls::new(
        "muse",
        &["<atem:function_calls>"],
        &[
            Marker::new("<|start|>assistant", Place::Anywhere, Action::Open(|| Box::new(Heading::default()))),
            Marker::new("<|eom|>", Place::Anywhere, Action::EndReasoning),
            Marker::new("<|eot|>", Place::Anywhere, Action::EndReasoning),
            invoke::MUSE,
        ],
    )
};

#[derive(Debug, Default)]
struct Heading {
    /// Whether `to=` came.
    addressed: bool,
}

impl Grammar for Heading {
    fn begin(&mut self) -> Want {
        Want::Tag(&["to=", "<|message|>"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, _: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Tag(0) if !self.addressed => {
                self.addressed = true;
                Step::Want(Want::Name(&["<|message|>"]))
            }
            Piece::Text(recipient, _) if recipient == "self" => Step::Reasoning,
            _ => Step::Text,
        }
    }
}
