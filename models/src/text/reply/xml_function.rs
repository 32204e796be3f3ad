//! `<function=name><parameter=key>value</parameter></function>`: Qwen3-Coder, Qwen3.5, Nemotron 3 and Seed-OSS.

use super::call::{Call, Grammar, Step};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes, Written};

/// Qwen's models sometimes leave `<tool_call>` out.
pub(super) const CALLS: Calls = Calls::new(
    "xml-function",
    &["<function="],
    &[
        Marker::new(
            "<tool_call>",
            Place::Text,
            Action::Open(|| Box::new(XmlFunction::new(&["<function=", "</tool_call>"], true))),
        ),
        Marker::new("<function=", Place::Text, Action::Open(|| Box::new(XmlFunction::bare()))),
    ],
);

pub(super) const SEED: Calls = Calls::new(
    "seed",
    &["<seed:tool_call>"],
    &[Marker::new(
        "<seed:tool_call>",
        Place::Text,
        Action::Open(|| Box::new(XmlFunction::new(&["<function=", "</seed:tool_call>"], false))),
    )],
);

#[derive(Clone, Copy, Debug)]
enum At {
    /// Before a function or the block's end.
    Block,
    Name,
    /// Before a parameter or the function's end.
    Function,
    Key,
    Value,
}

#[derive(Debug)]
struct XmlFunction {
    at: At,
    /// A function's beginning and the block's end; none where the block was left out.
    block: Option<&'static [&'static str]>,
    /// Whether the template puts values on lines of their own, as Qwen's does and Seed's does not.
    lines: bool,
    name: String,
    key: String,
    arguments: Arguments,
}

impl XmlFunction {
    fn new(block: &'static [&'static str], lines: bool) -> Self {
        let (name, key) = (String::new(), String::new());
        Self { at: At::Block, block: Some(block), lines, name, key, arguments: Arguments::default() }
    }

    fn bare() -> Self {
        Self { at: At::Name, block: None, ..Self::new(&[], true) }
    }

    fn value<'a>(&self, text: &'a str) -> &'a str {
        if !self.lines {
            return text;
        }
        let text = text.strip_prefix('\n').unwrap_or(text);
        text.strip_suffix('\n').unwrap_or(text)
    }

    fn block(&mut self) -> Step {
        self.at = At::Block;
        self.block.map_or(Step::Done, |block| Step::Want(Want::Tag(block)))
    }

    fn function(&mut self) -> Step {
        self.at = At::Function;
        Step::Want(Want::Tag(&["<parameter=", "</function>"]))
    }
}

impl Grammar for XmlFunction {
    fn begin(&mut self) -> Want {
        self.block.map_or(Want::Name(&[">"]), Want::Tag)
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Block, Piece::Tag(0)) => {
                self.at = At::Name;
                Step::Want(Want::Name(&[">"]))
            }
            (At::Block, _) => Step::Done,
            (At::Name, Piece::Text(name, _)) if !name.is_empty() => {
                self.name = name;
                self.function()
            }
            (At::Function, Piece::Tag(0)) => {
                self.at = At::Key;
                Step::Want(Want::Text(&[">"]))
            }
            (At::Function, _) => {
                let (name, arguments) = (std::mem::take(&mut self.name), self.arguments.take());
                calls.push(Call { name, id: None, arguments });
                self.block()
            }
            (At::Key, Piece::Text(key, _)) => {
                self.key = key;
                self.at = At::Value;
                Step::Want(Want::Text(&["</parameter>"]))
            }
            (At::Value, Piece::Text(text, _)) => {
                let value = self.value(&text);
                self.arguments.push_bare(&self.name, &self.key, value, Written::Python, types);
                self.function()
            }
            _ => Step::Fail,
        }
    }
}
