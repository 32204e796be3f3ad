//! Llama 3.1 to 3.3: the whole reply is one call in JSON; built-in tools are called after `<|python_tag|>`.
//!
//! There `brave_search.call(query="x")` calls `brave_search` with its keyword arguments, `{"query": "x"}`. All other text
//! that is no JSON is code, and calls `code_interpreter` with `{"code": …}`. Where a call is followed by more, or has
//! other arguments, all of it is code: `subprocess.call(["ls"])`. Names and arguments are those of Meta's reference,
//! `models/llama3/chat_format.py` in <https://github.com/meta-llama/llama-models>.

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

/// What may come after a part of the text behind `<|python_tag|>`; its control tokens end it.
const TAGGED: Literals = &["{", "<|eom_id|>", "<|eot_id|>"];

/// The tool that runs code, as Meta's reference calls it. Models do not write its name.
const CODE: &str = "code_interpreter";

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
    /// Text after `<|python_tag|>` that is no JSON.
    code: String,
}

impl Llama {
    fn at(at: At) -> Self {
        Self { at, code: String::new() }
    }

    fn want(&mut self, want: Want) -> Step {
        self.at = At::Value;
        Step::Want(want)
    }

    /// The call that the text after `<|python_tag|>` is: of a built-in tool, or code for one.
    fn code(&self) -> Option<Call> {
        built_in(&self.code).or_else(|| Call::of_code(CODE, &self.code))
    }
}

/// Reads `tool.call(query="…")`, the whole text.
fn built_in(text: &str) -> Option<Call> {
    let mut calls = python::calls(text).filter(|calls| calls.len() == 1 && !text.trim_start().starts_with('['))?;
    let (name, arguments) = calls.pop()?;
    let name = name.strip_suffix(".call").filter(|name| !name.is_empty())?.to_owned();
    Some(Call { name, id: None, arguments })
}

impl Grammar for Llama {
    fn begin(&mut self) -> Want {
        match self.at {
            At::Key => Want::Tag(KEYS),
            _ => Want::TextOrEnd(TAGGED),
        }
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Key, Piece::Tag(key)) => self.want(Want::JsonFrom(OPENED[key])),
            (At::Tagged, Piece::Text(text, 0)) if self.code.is_empty() && text.trim().is_empty() => {
                self.want(Want::JsonFrom("{"))
            }
            (At::Tagged, Piece::Text(text, 0)) => {
                self.code += &text;
                self.code.push('{');
                Step::Want(Want::TextOrEnd(TAGGED))
            }
            (At::Tagged, Piece::Text(text, _)) => {
                self.code += &text;
                Step::after(self.code(), calls, Step::Done)
            }
            (At::Value, Piece::Value(text)) => Step::after(named(&text), calls, Step::Done),
            _ => Step::Fail,
        }
    }
}

/// The bracket and each of `KEYS`.
const OPENED: Literals = &["{\"name\"", "{\"parameters\"", "{\"type\"", "{\"function\"", "{\"arguments\"", "{\"id\""];
