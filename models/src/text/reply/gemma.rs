//! Gemma 4: `<|tool_call>call:name{key:<|"|>text<|"|>,other:2}<tool_call|>`.

use super::call::{Call, Grammar, Step};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes};

pub(super) const CALLS: Calls = Calls::new(
    "gemma",
    &["<|tool_call>"],
    &[Marker::new("<|tool_call>", Place::Anywhere, Action::Open(|| Box::new(Gemma::default())))],
);

/// Values may be nested this deep.
const MAX_DEPTH: usize = 100;
const QUOTE: &str = "<|\"|>";

#[derive(Debug, Default)]
struct Gemma {
    name: String,
}

impl Grammar for Gemma {
    fn begin(&mut self) -> Want {
        Want::Tag(&["call:"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Tag(_) => Step::Want(Want::Name(&["{"])),
            Piece::Text(name, _) if self.name.is_empty() && !name.is_empty() => {
                self.name = name;
                Step::Want(Want::Text(&["}<tool_call|>"]))
            }
            Piece::Text(members, _) if !self.name.is_empty() => {
                let name = std::mem::take(&mut self.name);
                let call = object(&members).map(|arguments| Call { name, id: None, arguments });
                Step::after(call, calls, Step::Done)
            }
            _ => Step::Fail,
        }
    }
}

/// The members of an object without its brackets, as a JSON object.
fn object(members: &str) -> Option<String> {
    let mut reader = Reader { rest: members };
    let json = reader.members("", 0)?;
    reader.rest.trim().is_empty().then_some(json)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    /// Skips white space, then takes `token` if it is next. The empty token is next at the end only.
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        if token.is_empty() {
            return self.rest.is_empty();
        }
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Text up to `end`, which is taken too.
    fn until(&mut self, end: &str) -> Option<&'a str> {
        let (text, rest) = self.rest.split_once(end)?;
        self.rest = rest;
        Some(text)
    }

    fn members(&mut self, end: &str, depth: usize) -> Option<String> {
        let mut arguments = Arguments::default();
        while !self.take(end) {
            let key = if self.take(QUOTE) {
                let key = self.until(QUOTE)?;
                self.take(":").then_some(key)?
            } else {
                self.until(":")?.trim()
            };
            let value = self.value(depth)?;
            arguments.push_json(key, &value);
            if !self.take(",") {
                self.take(end).then_some(())?;
                break;
            }
        }
        Some(arguments.take())
    }

    fn value(&mut self, depth: usize) -> Option<String> {
        if depth > MAX_DEPTH {
            return None;
        }
        if self.take(QUOTE) {
            return Some(serde_json::Value::from(self.until(QUOTE)?).to_string());
        }
        if self.take("{") {
            return self.members("}", depth + 1);
        }
        if self.take("[") {
            let mut items = Vec::new();
            while !self.take("]") {
                items.push(self.value(depth + 1)?);
                if !self.take(",") {
                    self.take("]").then_some(())?;
                    break;
                }
            }
            return Some(format!("[{}]", items.join(",")));
        }
        let end = self.rest.find([',', '}', ']']).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word.trim() {
            // The template prints what is missing as Python does.
            "None" | "null" => Some("null".to_owned()),
            word @ ("true" | "false") => Some(word.to_owned()),
            word => serde_json::from_str::<serde_json::Number>(word).is_ok().then(|| word.to_owned()),
        }
    }
}
