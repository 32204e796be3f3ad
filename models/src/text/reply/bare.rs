//! Calls without the markers that the template asks for: small models of the Hermes family write the JSON alone, in a code
//! block, or between other tags. Such JSON is a call where the reply begins with it and it names one of the tools.

use super::call::{Call, Grammar, Step};
use super::json::members;
use super::lexer::{Literals, Piece, Want};
use super::marked_json::named;
use super::markers::{Action, Marker, Place};
use super::values::ToolTypes;

/// Markers of such calls.
pub(super) const MARKERS: &[Marker] = &[
    Marker::new("{", Place::Start, Action::Open(|| Bare::boxed(&[]))),
    Marker::new("```json", Place::Start, Action::Open(|| Bare::boxed(&["```"]))),
    Marker::new("<tools>", Place::Start, Action::Open(|| Bare::boxed(&["</tools>"]))),
    Marker::new("<function_call>", Place::Start, Action::Open(|| Bare::boxed(&["</function_call>"]))),
];

/// The first key of a call. Another first key tells at once that an object is none.
const KEY: Literals = &["\"name\""];

#[derive(Debug)]
struct Bare {
    /// What ends the block that the object is in; nothing where there is none.
    end: Literals,
    at: At,
    call: Option<Call>,
}

#[derive(Clone, Copy, Debug)]
enum At {
    Bracket,
    Key,
    Value,
    End,
}

impl Bare {
    fn boxed(end: Literals) -> Box<dyn Grammar> {
        Box::new(Self { end, at: if end.is_empty() { At::Key } else { At::Bracket }, call: None })
    }

    fn want(&mut self, at: At, want: Want) -> Step {
        self.at = at;
        Step::Want(want)
    }
}

impl Grammar for Bare {
    fn begin(&mut self) -> Want {
        Want::Tag(if self.end.is_empty() { KEY } else { &["{"] })
    }

    fn next(&mut self, piece: Piece, types: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match (self.at, piece) {
            (At::Bracket, Piece::Tag(_)) => self.want(At::Key, Want::Tag(KEY)),
            (At::Key, Piece::Tag(_)) => self.want(At::Value, Want::JsonFrom("{\"name\"")),
            (At::Value, Piece::Value(json)) => {
                let has_arguments = members(&json).is_some_and(|all| all.iter().any(|(key, _)| key == "arguments"));
                let call = named(&json).filter(|call| has_arguments && types.has(&call.name));
                if self.end.is_empty() || call.is_none() {
                    return Step::after(call, calls, Step::Done);
                }
                self.call = call;
                self.want(At::End, Want::Tag(self.end))
            }
            (At::End, Piece::Tag(_)) => Step::after(self.call.take(), calls, Step::Done),
            _ => Step::Fail,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{
        ReplyParser, ReplySyntax,
        tests::{c, join, t},
    };

    #[test]
    fn json_without_its_markers_is_a_call_of_a_tool_that_is_there() {
        let (name, tools) = ("get_weather", [json!({ "type": "function", "function": { "name": "get_weather" } })]);
        let call = format!("{{\n  \"name\": \"{name}\", \"arguments\": {{\"a\": 1}}\n}}");
        let parts = |text: &str, with_tools: bool| {
            let syntax = ReplySyntax::named("hermes").unwrap();
            let mut parser = ReplyParser::new(&syntax, "\n");
            if with_tools {
                parser = parser.with_tools(&tools);
            }
            let mut events = Vec::new();
            text.chars().for_each(|c| parser.push(c.encode_utf8(&mut [0; 4]), &mut events));
            parser.finish(true, &mut events);
            join(events)
        };
        let whole = [c(name, "{\"a\": 1}")];
        assert_eq!(parts(&call, true), whole);
        assert_eq!(parts(&format!("\n```json\n{call}\n```\n"), true), whole);
        assert_eq!(parts(&format!("<tools>\n{call}\n</tools>"), true), whole);
        assert_eq!(parts(&format!("{call}\n{call}"), true), [whole.clone(), whole.clone()].concat());
        assert_eq!(parts(&format!("<tool_call>\n{call}\n</tool_call>"), true), whole);
        // Without tools, behind text, of another name, without arguments, cut off, in an open block: text.
        assert_eq!(parts(&call, false), [t(&call)]);
        let cut = &call[..call.len() - 1];
        for text in [
            &format!("So: {call}"),
            &call.replace(name, "another"),
            &call.replace("arguments", "argument"),
            "{\"city\": \"Bonn\"}",
            "{}",
            "```json\n{\"a\": 1}\n```",
            cut,
            &format!("```json\n{call}"),
            &format!("```json\n{call} and more\n```"),
        ] {
            assert_eq!(parts(text, true), [t(text)], "{text}");
        }
    }
}
