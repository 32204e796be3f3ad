//! Mistral: `[TOOL_CALLS]` and a list of calls in JSON, or since v11 `[TOOL_CALLS]name[ARGS]{…}` for each call.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Piece, Want};
use super::marked_json::{MarkedJson, named};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const LIST: Calls = Calls::new(
    "mistral-list",
    &["[TOOL_CALLS]"],
    &[Marker::new("[TOOL_CALLS]", Place::Anywhere, Action::Open(|| MarkedJson::boxed(&[], &[], named)))],
);

pub(super) const ARGS: Calls = Calls::new(
    "mistral-args",
    &["[ARGS]"],
    &[Marker::new("[TOOL_CALLS]", Place::Anywhere, Action::Open(|| Box::new(Args::default())))],
);

/// `name[ARGS]{…}`, or `name[CALL_ID]id[ARGS]{…}` as Mistral Small 3.2 writes it.
#[derive(Debug, Default)]
struct Args {
    name: String,
    id: Option<String>,
}

impl Grammar for Args {
    fn begin(&mut self) -> Want {
        Want::Name(&["[ARGS]", "[CALL_ID]"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Text(name, end) if self.name.is_empty() && !name.is_empty() => {
                self.name = name;
                Step::Want(if end == 0 { Want::Json } else { Want::Name(&["[ARGS]"]) })
            }
            Piece::Text(id, _) if !self.name.is_empty() => {
                self.id = Some(id);
                Step::Want(Want::Json)
            }
            Piece::Value(json) => {
                let (name, id) = (std::mem::take(&mut self.name), self.id.take());
                let call = arguments(Some(&json)).map(|arguments| Call { name, id, arguments });
                Step::after(call, calls, Step::Done)
            }
            _ => Step::Fail,
        }
    }
}
