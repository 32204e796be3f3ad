//! LFM2: a list of calls between control tokens, as Python writes them, or in JSON where a system message asks for it.

use super::call::{Call, Grammar, Step};
use super::json::elements;
use super::lexer::{Piece, Want};
use super::marked_json::named;
use super::markers::{Action, Marker, Place};
use super::python;
use super::syntax::Calls;
use super::values::ToolTypes;

/// LFM2's first templates render no calls; the list of tools tells them.
pub(super) const CALLS: Calls = Calls::new(
    "pythonic",
    &["<|tool_call_start|>", "<|tool_list_start|>", "List of tools: ["],
    &[Marker::new("<|tool_call_start|>", Place::Anywhere, Action::Open(|| Box::new(Pythonic::default())))],
);

#[derive(Debug, Default)]
struct Pythonic {
    calls: Option<Vec<Call>>,
}

fn read(list: &str) -> Option<Vec<Call>> {
    if let Some(objects) = elements(list) {
        return objects.into_iter().map(named).collect();
    }
    let calls = python::calls(list)?.into_iter();
    Some(calls.map(|(name, arguments)| Call { name, id: None, arguments }).collect())
}

impl Grammar for Pythonic {
    fn begin(&mut self) -> Want {
        Want::Tag(&["["])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (piece, self.calls.take()) {
            (Piece::Tag(_), Some(read)) => {
                calls.extend(read);
                Step::Done
            }
            (Piece::Tag(_), None) => Step::Want(Want::PythonFrom('[')),
            (Piece::Value(list), _) => {
                let Some(read) = read(&list) else { return Step::Fail };
                self.calls = Some(read);
                Step::Want(Want::Tag(&["<|tool_call_end|>"]))
            }
            _ => Step::Fail,
        }
    }
}
