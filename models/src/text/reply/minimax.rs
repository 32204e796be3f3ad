//! MiniMax M3: calls as nested elements, every tag behind a namespace token.
//!
//! `]<]minimax[>[<invoke name="f">]<]minimax[>[<key>value]<]minimax[>[</key>]<]minimax[>[</invoke>`; the elements of a
//! list are called `item`.

use super::call::{Call, Grammar, Step};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes, Written, scalar};

pub(super) const CALLS: Calls = Calls::new(
    "minimax-nested",
    &["]<]minimax[>["],
    &[Marker::new("]<]minimax[>[<tool_call>", Place::Anywhere, Action::Open(|| Box::new(Nested::default())))],
);

/// Elements may be nested this deep.
const MAX_DEPTH: usize = 100;

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Block,
    Name,
    /// The text before the next tag.
    Before,
    Tag,
}

/// An element that is still open.
#[derive(Debug, Default)]
struct Element {
    key: String,
    text: String,
    members: Arguments,
    items: Vec<String>,
    /// Elements in it.
    children: usize,
}

#[derive(Debug, Default)]
struct Nested {
    at: At,
    name: String,
    arguments: Arguments,
    open: Vec<Element>,
}

impl Nested {
    fn before(&mut self) -> Step {
        self.at = At::Before;
        Step::Want(Want::Text(&["]<]minimax[>[<"]))
    }

    /// Text before a tag: an element's value, or white space between elements.
    fn take_text(&mut self, text: &str) -> bool {
        match self.open.last_mut() {
            Some(element) if element.children == 0 => element.text.push_str(text),
            _ => return text.trim().is_empty(),
        }
        true
    }

    fn take_tag(&mut self, tag: String, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        let Some(closing) = tag.strip_prefix('/') else {
            let fits = match self.open.last_mut() {
                Some(parent) => {
                    parent.children += 1;
                    parent.text.trim().is_empty() && self.open.len() < MAX_DEPTH
                }
                None => true,
            };
            self.open.push(Element { key: tag, ..Element::default() });
            return if fits { self.before() } else { Step::Fail };
        };
        match self.open.pop() {
            Some(element) if element.key == closing => self.close(element, types),
            None if closing == "invoke" => {
                let (name, arguments) = (std::mem::take(&mut self.name), self.arguments.take());
                calls.push(Call { name, id: None, arguments });
                self.at = At::Block;
                return Step::Want(self.begin());
            }
            _ => return Step::Fail,
        }
        self.before()
    }

    /// Adds a closed element to the one that it is in.
    fn close(&mut self, mut element: Element, types: &ToolTypes) {
        let value = match element.children {
            0 => None,
            n if n == element.items.len() => Some(format!("[{}]", element.items.join(","))),
            _ => Some(element.members.take()),
        };
        let Some(parent) = self.open.last_mut() else {
            match value {
                Some(json) => self.arguments.push_json(&element.key, &json),
                None => {
                    self.arguments.push_bare(&self.name, &element.key, &element.text, Written::Json, types);
                }
            }
            return;
        };
        let json = value.unwrap_or_else(|| scalar(&element.text));
        parent.members.push_json(&element.key, &json);
        if element.key == "item" {
            parent.items.push(json);
        }
    }
}

impl Grammar for Nested {
    fn begin(&mut self) -> Want {
        Want::Tag(&["]<]minimax[>[<invoke name=\"", "]<]minimax[>[</tool_call>"])
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Block, Piece::Tag(0)) => {
                self.at = At::Name;
                Step::Want(Want::Name(&["\">"]))
            }
            (At::Block, _) => Step::Done,
            (At::Name, Piece::Text(name, _)) if !name.is_empty() => {
                self.name = name;
                self.before()
            }
            (At::Before, Piece::Text(text, _)) if self.take_text(&text) => {
                self.at = At::Tag;
                Step::Want(Want::Text(&[">"]))
            }
            (At::Tag, Piece::Text(tag, _)) => self.take_tag(tag, types, calls),
            _ => Step::Fail,
        }
    }
}
