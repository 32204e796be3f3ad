//! Harmony, of gpt-oss: messages with a channel and perhaps a recipient.
//!
//! `analysis` is reasoning, a message to a recipient is a call, everything else is the answer. A call's content is JSON,
//! except that of the built-in tool `python`: it is code, whatever kind the heading gives, and the call's arguments are
//! `{"code": …}`. Source: the format's description at <https://cookbook.openai.com/articles/openai-harmony>.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Literals, Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls {
    opened_by: Some(("<|start|>assistant", || Box::new(Heading::at(At::Role)))),
    ..Calls::new(
        "harmony",
        &["<|channel|>"],
        &[
            Marker::new("<|start|>", Place::Anywhere, Action::Open(|| Box::new(Heading::at(At::Role)))),
            Marker::new("<|channel|>", Place::Anywhere, Action::Open(|| Box::new(Heading::at(At::Channel)))),
            Marker::new("<|end|>", Place::Anywhere, Action::EndReasoning),
            Marker::new("<|call|>", Place::Anywhere, Action::EndReasoning),
            Marker::new("<|return|>", Place::Anywhere, Action::EndReasoning),
        ],
    )
};

/// Part of a heading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Role,
    Channel,
    Recipient,
    /// The kind of a message's content, such as `json`.
    Kind,
    Arguments,
    Code,
}

/// The built-in tool that runs code. A function of this name has `functions.` in front.
const PYTHON: &str = "python";

/// What ends a message.
const MESSAGE_ENDS: Literals = &["<|call|>", "<|end|>", "<|return|>"];

/// What may follow a part. The kind of content follows after a token, or as a plain word.
const ENDS: Literals = &["<|message|>", " json<|message|>", " code<|message|>", "to=", "<|channel|>", "<|constrain|>"];

#[derive(Debug)]
struct Heading {
    at: At,
    channel: String,
    recipient: String,
}

impl Heading {
    fn at(at: At) -> Self {
        Self { at, channel: String::new(), recipient: String::new() }
    }

    fn want(&mut self, at: At) -> Want {
        self.at = at;
        match at {
            At::Role | At::Channel | At::Recipient => Want::Name(ENDS),
            At::Kind => Want::Name(&["<|message|>"]),
            At::Arguments => Want::Json,
            At::Code => Want::TextOrEnd(MESSAGE_ENDS),
        }
    }

    fn name(&self) -> &str {
        self.recipient.strip_prefix("functions.").unwrap_or(&self.recipient)
    }
}

impl Grammar for Heading {
    fn begin(&mut self) -> Want {
        self.want(self.at)
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        let (text, end) = match piece {
            Piece::Text(text, end) => (text, end),
            Piece::Value(json) => {
                let call = arguments(Some(&json)).map(|arguments| {
                    let name = self.name().to_owned();
                    Call { name, id: None, arguments }
                });
                return Step::after(call, calls, Step::Done);
            }
            Piece::Tag(_) => return Step::Fail,
        };
        if self.at == At::Code {
            return Step::after(Call::of_code(PYTHON, &text), calls, Step::Done);
        }
        // A kind ends with the heading.
        let end = if self.at == At::Kind { 0 } else { end };
        match self.at {
            At::Recipient => self.recipient = text,
            At::Channel => self.channel = text,
            At::Role if !text.is_empty() && text != "assistant" => return Step::Fail,
            _ => {}
        }
        match ENDS[end] {
            "to=" => Step::Want(self.want(At::Recipient)),
            "<|channel|>" => Step::Want(self.want(At::Channel)),
            "<|constrain|>" => Step::Want(self.want(At::Kind)),
            _ if self.recipient == PYTHON => Step::Want(self.want(At::Code)),
            _ if !self.name().is_empty() => Step::Want(self.want(At::Arguments)),
            _ if self.channel == "analysis" => Step::Reasoning,
            _ => Step::Text,
        }
    }
}
