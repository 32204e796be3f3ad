//! `<invoke name="f"><parameter name="k">value</parameter></invoke>` in a block: MiniMax M2, DeepSeek's DSML, Muse.

use super::call::{Call, Grammar, Step};
use super::json::is_inner_value;
use super::lexer::{Literals, Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::{Arguments, ToolTypes, Written};

pub(super) const MINIMAX: Calls = Calls::new(
    "minimax",
    &["<minimax:tool_call>"],
    &[Marker::new(
        "<minimax:tool_call>",
        Place::Anywhere,
        Action::Open(|| {
            Invoke::boxed(&Tags {
                block: &["<invoke name=\"", "</minimax:tool_call>"],
                invoke: &["<parameter name=\"", "</invoke>"],
                key: &["\">"],
                value: &["</parameter>"],
            })
        }),
    )],
);

/// DeepSeek V3.2 calls the block `function_calls`, V4 `tool_calls`.
pub(super) const DSML: Calls = Calls::new(
    "dsml",
    &["｜DSML｜"],
    &[
        Marker::new(
            "<｜DSML｜function_calls>",
            Place::Anywhere,
            Action::Open(|| {
                const TAGS: &Tags = &dsml(&["<｜DSML｜invoke name=\"", "</｜DSML｜function_calls>"]);
                Invoke::boxed(TAGS)
            }),
        ),
        Marker::new(
            "<｜DSML｜tool_calls>",
            Place::Anywhere,
            Action::Open(|| {
                const TAGS: &Tags = &dsml(&["<｜DSML｜invoke name=\"", "</｜DSML｜tool_calls>"]);
                Invoke::boxed(TAGS)
            }),
        ),
    ],
);

/// DSML says of every parameter whether it is a string.
const fn dsml(block: Literals) -> Tags {
    Tags {
        block,
        invoke: &["<｜DSML｜parameter name=\"", "</｜DSML｜invoke>"],
        key: &["\" string=\"true\">", "\" string=\"false\">"],
        value: &["</｜DSML｜parameter>"],
    }
}

/// Muse Glimmer, whose headings [`muse`](super::muse) reads.
pub(super) const MUSE: Marker = Marker::new(
    "<atem:function_calls>",
    Place::Anywhere,
    Action::Open(|| {
        Invoke::boxed(&Tags {
            block: &["<atem:invoke name=\"", "</atem:function_calls>"],
            invoke: &["<atem:parameter name=\"", "</atem:invoke>"],
            key: &["\">"],
            value: &["</atem:parameter>"],
        })
    }),
);

/// The literals of one spelling.
#[derive(Debug)]
struct Tags {
    /// The beginning of a call, and the block's end.
    block: Literals,
    /// The beginning of a parameter, and the call's end.
    invoke: Literals,
    /// The end of a parameter's name. Where there are two, the first says that a string follows, the second JSON.
    key: Literals,
    /// The end of a value.
    value: Literals,
}

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Block,
    Name,
    Invoke,
    Key,
    Value,
}

#[derive(Debug)]
struct Invoke {
    tags: &'static Tags,
    at: At,
    name: String,
    key: String,
    /// Which of the ends of the parameter's name came.
    kind: usize,
    arguments: Arguments,
}

impl Invoke {
    fn boxed(tags: &'static Tags) -> Box<dyn Grammar> {
        let (name, key) = (String::new(), String::new());
        Box::new(Self { tags, at: At::Block, name, key, kind: 0, arguments: Arguments::default() })
    }

    fn want(&mut self, at: At, want: Want) -> Step {
        self.at = at;
        Step::Want(want)
    }

    /// Adds a value; `false` where it is not the JSON that it is said to be.
    fn add(&mut self, text: &str, types: &ToolTypes) -> bool {
        match (self.tags.key.len(), self.kind) {
            (1, _) => self.arguments.push_bare(&self.name, &self.key, text, Written::Json, types),
            (_, 0) => self.arguments.push_string(&self.key, text),
            _ if !is_inner_value(text) => return false,
            _ => self.arguments.push_json(&self.key, text.trim()),
        }
        true
    }
}

impl Grammar for Invoke {
    fn begin(&mut self) -> Want {
        Want::Tag(self.tags.block)
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Block, Piece::Tag(0)) => self.want(At::Name, Want::Name(&["\">"])),
            (At::Block, _) => Step::Done,
            (At::Name, Piece::Text(name, _)) if !name.is_empty() => {
                self.name = name;
                self.want(At::Invoke, Want::Tag(self.tags.invoke))
            }
            (At::Invoke, Piece::Tag(0)) => self.want(At::Key, Want::Text(self.tags.key)),
            (At::Invoke, _) => {
                let (name, arguments) = (std::mem::take(&mut self.name), self.arguments.take());
                calls.push(Call { name, id: None, arguments });
                self.want(At::Block, Want::Tag(self.tags.block))
            }
            (At::Key, Piece::Text(key, kind)) => {
                (self.key, self.kind) = (key, kind);
                self.want(At::Value, Want::Text(self.tags.value))
            }
            (At::Value, Piece::Text(text, _)) if self.add(&text, types) => {
                self.want(At::Invoke, Want::Tag(self.tags.invoke))
            }
            _ => Step::Fail,
        }
    }
}
