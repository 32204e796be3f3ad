//! Functionary 3.2: `>>>all` and a line break before text, `>>>name` and a line break before a call's arguments.
//!
//! The arguments are JSON. Those of `python` may be code instead, up to the end of the turn, and are then `{"code": …}`.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls {
    opened_by: Some((">>>", || Box::new(Heading::default()))),
    ..Calls::new(
        "functionary",
        &[">>>${recipient}", ">>>all"],
        &[Marker::new(">>>", Place::Text, Action::Open(|| Box::new(Heading::default())))],
    )
};

/// The tool that takes code: built in, or a function of the user's, which takes JSON.
const PYTHON: &str = "python";

#[derive(Debug, Default)]
struct Heading {
    name: String,
}

impl Grammar for Heading {
    fn begin(&mut self) -> Want {
        Want::Name(&["\n"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Text(text, _) if self.name == PYTHON => {
                let written = arguments(Some(&text)).map(|arguments| Call { name: PYTHON.into(), id: None, arguments });
                Step::after(written.or_else(|| Call::of_code(PYTHON, &text)), calls, Step::Done)
            }
            Piece::Text(name, _) if name == "all" => Step::Text,
            Piece::Text(name, _) if name == PYTHON => {
                self.name = name;
                Step::Want(Want::TextOrEnd(&[]))
            }
            Piece::Text(name, _) if !name.is_empty() => {
                self.name = name;
                Step::Want(Want::Json)
            }
            Piece::Value(json) => {
                let name = std::mem::take(&mut self.name);
                let call = arguments(Some(&json)).map(|arguments| Call { name, id: None, arguments });
                Step::after(call, calls, Step::Done)
            }
            _ => Step::Fail,
        }
    }
}
