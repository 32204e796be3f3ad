//! DeepSeek V3, R1 and V3.1: a section of calls between control tokens.
//!
//! V3 and R1 write `type<｜tool▁sep｜>name` and the arguments in a code block, V3.1 `name<｜tool▁sep｜>arguments`.

use super::call::{Call, Grammar, Step};
use super::json::arguments;
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

pub(super) const CALLS: Calls = Calls::new(
    "deepseek",
    &["<｜tool▁calls▁begin｜>"],
    &[Marker::new("<｜tool▁calls▁begin｜>", Place::Anywhere, Action::Open(|| Box::new(DeepSeek::default())))],
);

#[derive(Clone, Copy, Debug, Default)]
enum At {
    #[default]
    Section,
    /// Before the separator.
    First,
    /// After it.
    Second,
    Json,
    Fence,
    End,
}

#[derive(Debug, Default)]
struct DeepSeek {
    at: At,
    name: String,
    fenced: bool,
    arguments: String,
}

impl DeepSeek {
    fn want(&mut self, at: At, want: Want) -> Step {
        self.at = at;
        Step::Want(want)
    }
}

impl Grammar for DeepSeek {
    fn begin(&mut self) -> Want {
        Want::Tag(&["<｜tool▁call▁begin｜>", "<｜tool▁calls▁end｜>"])
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Section, Piece::Tag(0)) => self.want(At::First, Want::Name(&["<｜tool▁sep｜>"])),
            (At::Section, _) => Step::Done,
            (At::First, Piece::Text(name, _)) if !name.is_empty() => {
                self.name = name;
                self.want(At::Second, Want::Name(&["```json", "{"]))
            }
            (At::Second, Piece::Text(name, end)) => {
                if !name.is_empty() {
                    self.name = name;
                }
                self.fenced = end == 0;
                self.want(At::Json, if self.fenced { Want::Json } else { Want::JsonFrom("{") })
            }
            (At::Json, Piece::Value(json)) => {
                let Some(arguments) = arguments(Some(&json)) else { return Step::Fail };
                self.arguments = arguments;
                match self.fenced {
                    true => self.want(At::Fence, Want::Tag(&["```"])),
                    false => self.want(At::End, Want::Tag(&["<｜tool▁call▁end｜>"])),
                }
            }
            (At::Fence, _) => self.want(At::End, Want::Tag(&["<｜tool▁call▁end｜>"])),
            (At::End, _) => {
                let (name, arguments) = (std::mem::take(&mut self.name), std::mem::take(&mut self.arguments));
                calls.push(Call { name, id: None, arguments });
                self.at = At::Section;
                Step::Want(self.begin())
            }
            _ => Step::Fail,
        }
    }
}
