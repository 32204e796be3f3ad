//! Kimi K2: a section of calls between control tokens. A call's identifier, `functions.name:0`, holds its name.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls::new(
    "kimi",
    &["<|tool_calls_section_begin|>"],
    &[Marker::new("<|tool_calls_section_begin|>", Place::Anywhere, Action::Open(|| Box::new(Kimi::default())))],
);

#[derive(Debug, Default)]
struct Kimi {
    id: String,
    arguments: Option<String>,
}

/// `functions.name:0` without its first and last part.
fn name_of(id: &str) -> &str {
    let name = id.strip_prefix("functions.").unwrap_or(id);
    match name.rsplit_once(':') {
        Some((name, number)) if number.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => name,
    }
}

impl Grammar for Kimi {
    fn begin(&mut self) -> Want {
        Want::Tag(&["<|tool_call_begin|>", "<|tool_calls_section_end|>"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Tag(_) if self.arguments.is_some() => {
                let id = std::mem::take(&mut self.id);
                let name = name_of(&id).to_owned();
                calls.push(Call { name, id: Some(id), arguments: self.arguments.take().unwrap_or_default() });
                Step::Want(self.begin())
            }
            Piece::Tag(0) => Step::Want(Want::Name(&["<|tool_call_argument_begin|>"])),
            Piece::Tag(_) => Step::Done,
            Piece::Text(id, _) => {
                let named = !name_of(&id).is_empty();
                self.id = id;
                if named { Step::Want(Want::Json) } else { Step::Fail }
            }
            Piece::Value(json) => {
                self.arguments = arguments(Some(&json));
                if self.arguments.is_none() { Step::Fail } else { Step::Want(Want::Tag(&["<|tool_call_end|>"])) }
            }
        }
    }
}
