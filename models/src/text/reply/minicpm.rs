//! MiniCPM 5: `<function name="f"><param name="k">value</param></function>`. Text with `<`, `&` or
//! line breaks is CDATA.

use super::call::{Call, Grammar, Step};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes, Written};

pub(super) const CALLS: Calls = Calls::new(
    "minicpm",
    &["<function name="],
    &[Marker::new("<function name=\"", Place::Text, Action::Open(|| Box::new(MiniCpm::default())))],
);

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Name,
    Function,
    Key,
    Value,
    Cdata,
}

#[derive(Debug, Default)]
struct MiniCpm {
    at: At,
    name: String,
    key: String,
    arguments: Arguments,
}

impl MiniCpm {
    fn want(&mut self, at: At, want: Want) -> Step {
        self.at = at;
        Step::Want(want)
    }

    fn function(&mut self) -> Step {
        self.want(At::Function, Want::Tag(&["<param name=\"", "</function>"]))
    }
}

impl Grammar for MiniCpm {
    fn begin(&mut self) -> Want {
        Want::Name(&["\">"])
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Name, Piece::Text(name, _)) if !name.is_empty() => {
                self.name = name;
                self.function()
            }
            (At::Function, Piece::Tag(0)) => self.want(At::Key, Want::Text(&["\">"])),
            (At::Function, _) => {
                let (name, arguments) = (std::mem::take(&mut self.name), self.arguments.take());
                calls.push(Call { name, id: None, arguments });
                Step::Done
            }
            (At::Key, Piece::Text(key, _)) => {
                self.key = key;
                self.want(At::Value, Want::Text(&["</param>", "<![CDATA["]))
            }
            (At::Value, Piece::Text(text, 0)) => {
                self.arguments.push_bare(&self.name, &self.key, &text, Written::Python, types);
                self.function()
            }
            (At::Value, Piece::Text(text, _)) if text.trim().is_empty() => {
                self.want(At::Cdata, Want::Text(&["]]></param>"]))
            }
            (At::Cdata, Piece::Text(text, _)) => {
                self.arguments.push_string(&self.key, &text);
                self.function()
            }
            _ => Step::Fail,
        }
    }
}
