//! Llama 3.1 to 3.3: the whole reply is one call in JSON; built-in tools are called after `<|python_tag|>`.

use super::call::{Call, Grammar, Step};
use super::lexer::{Literals, Piece, Want};
use super::marked_json::named;
use super::markers::{Action, Marker, Place};
use super::python;
use super::syntax::Calls;
use super::values::ToolTypes;

/// The prompt tells the form of a call where there are tools. Without them JSON is an answer like any other.
pub(super) const CALLS: Calls = Calls {
    only_with: Some("dictionary of argument name and its value"),
    ..Calls::new(
        "llama",
        &["dictionary of argument name and its value"],
        &[
            Marker::new("{", Place::Start, Action::Open(|| Box::new(Llama::at(At::Key)))),
            Marker::new("<|python_tag|>", Place::Text, Action::Open(|| Box::new(Llama::at(At::Tagged)))),
        ],
    )
};

/// First keys of a call. Another first key tells at once that an object is none.
const KEYS: Literals = &["\"name\"", "\"parameters\"", "\"type\"", "\"function\"", "\"arguments\"", "\"id\""];

#[derive(Clone, Copy, Debug)]
enum At {
    /// After an object's bracket.
    Key,
    /// After `<|python_tag|>`.
    Tagged,
    Value,
}

#[derive(Debug)]
struct Llama {
    at: At,
    /// The function before `.call(`.
    name: String,
}

impl Llama {
    fn at(at: At) -> Self {
        Self { at, name: String::new() }
    }

    fn want(&mut self, want: Want) -> Step {
        self.at = At::Value;
        Step::Want(want)
    }

    fn call(&mut self, text: &str) -> Option<Call> {
        let name = std::mem::take(&mut self.name);
        if name.is_empty() {
            return named(text);
        }
        Some(Call { name, id: None, arguments: python::keywords(text.strip_prefix('(')?)? })
    }
}

impl Grammar for Llama {
    fn begin(&mut self) -> Want {
        match self.at {
            At::Key => Want::Tag(KEYS),
            _ => Want::Name(&["{", ".call("]),
        }
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Key, Piece::Tag(key)) => self.want(Want::JsonFrom(OPENED[key])),
            (At::Tagged, Piece::Text(name, 0)) if name.is_empty() => self.want(Want::JsonFrom("{")),
            (At::Tagged, Piece::Text(name, 1)) if !name.is_empty() => {
                self.name = name;
                self.want(Want::PythonFrom('('))
            }
            (At::Value, Piece::Value(text)) => {
                let call = self.call(&text);
                Step::after(call, calls, Step::Done)
            }
            _ => Step::Fail,
        }
    }
}

/// The bracket and each of `KEYS`.
const OPENED: Literals = &["{\"name\"", "{\"parameters\"", "{\"type\"", "{\"function\"", "{\"arguments\"", "{\"id\""];
