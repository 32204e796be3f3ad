//! Calls as JSON between markers: `<tool_call>{"name": …, "arguments": …}</tool_call>` and its many relatives.

use super::bare;
use super::call::{Call, Grammar, NewGrammar, Step};
use super::json::{arguments, elements, members};
use super::lexer::{Piece, Want};
use super::markers::{Action, Marker, Place};
use super::syntax::Calls;
use super::values::ToolTypes;

/// Hermes 2 and 3, Qwen 2.5 and 3, QwQ, Granite 4, MiMo, Bielik, Reka: one call a block.
pub(super) const HERMES: Calls = Calls {
    bare: bare::MARKERS,
    ..Calls::new(
        "hermes",
        &["<tool_call>"],
        &[open("<tool_call>", Place::Text, || MarkedJson::boxed(&[], &["</tool_call>"], named))],
    )
};

/// Command R and R+: `Action:` and a list in a code block.
pub(super) const COMMAND_R: Calls = Calls::new(
    "command-r",
    &["Action:\\n```json"],
    &[open("Action:", Place::Text, || MarkedJson::boxed(&["```json"], &["```"], named))],
);

/// Command R7B and A: a list.
pub(super) const COMMAND_R7B: Calls = Calls::new(
    "command-r7b",
    &["<|START_ACTION|>"],
    &[open("<|START_ACTION|>", Place::Anywhere, || MarkedJson::boxed(&[], &["<|END_ACTION|>"], named))],
);

/// Apertus: a list of objects whose one key is the tool's name.
pub(super) const APERTUS: Calls = Calls::new(
    "apertus",
    &["<|tools_prefix|>"],
    &[open("<|tools_prefix|>", Place::Anywhere, || MarkedJson::boxed(&[], &["<|tools_suffix|>"], keyed))],
);

/// Apriel: a list.
pub(super) const APRIEL: Calls = Calls::new(
    "apriel",
    &["<tool_calls>"],
    &[open("<tool_calls>", Place::Text, || MarkedJson::boxed(&[], &["</tool_calls>"], named))],
);

/// Phi-4-mini: one call or a list.
pub(super) const PHI: Calls = Calls::new(
    "phi",
    &["<|/tool_call|>"],
    &[open("<|tool_call|>", Place::Anywhere, || MarkedJson::boxed(&[], &["<|/tool_call|>"], named))],
);

/// Granite 3: a list, without an end marker.
pub(super) const GRANITE: Calls = Calls::new(
    "granite",
    &["<|tool_call|>"],
    &[open("<|tool_call|>", Place::Anywhere, || MarkedJson::boxed(&[], &[], named))],
);

/// GigaChat: one call, without an end marker.
pub(super) const GIGACHAT: Calls = Calls::new(
    "gigachat",
    &["<|function_call|>"],
    &[open("<|function_call|>", Place::Anywhere, || MarkedJson::boxed(&[], &[], named))],
);

/// Firefunction: a list right after the word.
pub(super) const FUNCTOOLS: Calls =
    Calls::new("functools", &["functools["], &[open("functools", Place::Text, || MarkedJson::boxed(&[], &[], named))]);

const fn open(text: &'static str, place: Place, grammar: NewGrammar) -> Marker {
    Marker::new(text, place, Action::Open(grammar))
}

/// Reads one JSON value between markers. Its calls come out when all of it is complete.
#[derive(Debug)]
pub(super) struct MarkedJson {
    /// Alternatives of a text that must come before the value, none for no such text.
    before: &'static [&'static str],
    after: &'static [&'static str],
    read: fn(&str) -> Option<Call>,
    calls: Vec<Call>,
}

impl MarkedJson {
    pub fn boxed(
        before: &'static [&'static str],
        after: &'static [&'static str],
        read: fn(&str) -> Option<Call>,
    ) -> Box<dyn Grammar> {
        Box::new(Self { before, after, read, calls: Vec::new() })
    }
}

impl Grammar for MarkedJson {
    fn begin(&mut self) -> Want {
        if self.before.is_empty() { Want::Json } else { Want::Tag(self.before) }
    }

    fn next(&mut self, piece: Piece, _: &ToolTypes, calls: &mut Vec<Call>) -> Step {
        match piece {
            Piece::Tag(_) if self.calls.is_empty() => Step::Want(Want::Json),
            Piece::Value(json) => {
                let objects = elements(&json).unwrap_or_else(|| vec![json.as_str()]);
                let Some(read) = objects.into_iter().map(self.read).collect::<Option<Vec<Call>>>() else {
                    return Step::Fail;
                };
                self.calls = read;
                if self.calls.is_empty() {
                    return Step::Fail;
                }
                if !self.after.is_empty() {
                    return Step::Want(Want::Tag(self.after));
                }
                calls.append(&mut self.calls);
                Step::Done
            }
            _ => {
                calls.append(&mut self.calls);
                Step::Done
            }
        }
    }
}

/// Reads `{"name": …, "arguments": …}`, with `tool_name`, `parameters` and `id` or `tool_call_id` as some templates
/// have them, or with name and arguments in a `function`.
pub(super) fn named(text: &str) -> Option<Call> {
    let members = members(text)?;
    let get = |keys: &[&str]| members.iter().find(|(k, _)| keys.contains(&k.as_str())).map(|(_, v)| *v);
    let id = get(&["id", "tool_call_id"]).and_then(|id| serde_json::from_str::<String>(id).ok());
    let name = get(&["name", "tool_name"]);
    if let (None, Some(function)) = (name, get(&["function"]).filter(|f| f.starts_with('{'))) {
        // A `function` inside a `function` is none: so this ends.
        let members = self::members(function)?;
        let inner = members.iter().find(|(k, _)| k == "name").map(|(_, v)| *v)?;
        let given = members.iter().find(|(k, _)| k == "arguments").map(|(_, v)| *v);
        return call(inner, given, id);
    }
    call(name.or_else(|| get(&["function"]))?, get(&["arguments", "parameters"]), id)
}

fn call(name: &str, given: Option<&str>, id: Option<String>) -> Option<Call> {
    let name: String = serde_json::from_str(name).ok()?;
    let arguments = arguments(given)?;
    (!name.is_empty()).then_some(Call { name, id, arguments })
}

/// Reads `{"tool's name": arguments}`.
fn keyed(text: &str) -> Option<Call> {
    let mut members = members(text)?.into_iter();
    let (name, given) = members.next()?;
    let arguments = arguments(Some(given))?;
    (members.next().is_none() && !name.is_empty()).then_some(Call { name, id: None, arguments })
}
