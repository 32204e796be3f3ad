//! The variables of a template, made of a conversation, with the user's text marked.

use minijinja::value::Value;
use serde_json::{Map, Value as Json};

use super::conversation::Conversation;
use super::marks;
use super::source::Words;

/// The user's strings that are marked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Marking<'w> {
    /// No string: the rendering is the reference for the others.
    None,
    /// All strings but the template's words.
    All(&'w Words),
    /// Strings with a character beside letters, digits and plain punctuation: without one, a string has no control
    /// token.
    Suspicious(&'w Words),
}

impl Marking<'_> {
    fn string(self, text: &str) -> Value {
        match self {
            Self::All(words) if !words.has_string(text) => Value::from(marks::marked(text)),
            Self::Suspicious(words) if is_suspicious(text) && !words.has_string(text) => {
                Value::from(marks::marked(text))
            }
            _ => Value::from(text),
        }
    }

    fn key(self, key: &str) -> Value {
        match self {
            Self::All(words) | Self::Suspicious(words) if words.has_name(key) => Value::from(key),
            _ => self.string(key),
        }
    }

    pub(super) fn value(self, value: &Json) -> Value {
        match value {
            Json::Null => Value::from(()),
            Json::Bool(value) => Value::from(*value),
            Json::Number(number) => match (number.as_i64(), number.as_u64()) {
                (Some(number), _) => Value::from(number),
                (_, Some(number)) => Value::from(number),
                _ => Value::from(number.as_f64().unwrap_or(f64::NAN)),
            },
            Json::String(text) => self.string(text),
            Json::Array(list) => list.iter().map(|item| self.value(item)).collect(),
            Json::Object(object) => {
                Value::from_pairs(object.iter().map(|(key, value)| (self.key(key), self.value(value))))
            }
        }
    }

    fn message(self, message: &Json) -> Value {
        let Json::Object(object) = message else { return self.value(message) };
        // Templates write `<|` + role + `|>`.
        let role = |key: &str, value: &Json| match value.as_str() {
            Some(role) if key == "role" && role.chars().all(|c| c.is_alphanumeric() || c == '_') => Value::from(role),
            _ => self.value(value),
        };
        Value::from_pairs(object.iter().map(|(key, value)| (self.key(key), role(key, value))))
    }

    /// The variables of `conversation`, behind which `tokens` stand back. `tools` and `documents` are none where there
    /// are none, as transformers has it.
    pub(super) fn variables(self, tokens: &Map<String, Json>, conversation: &Conversation) -> Value {
        let list = |list: &Option<Vec<Json>>| match list {
            Some(list) => list.iter().map(|item| self.value(item)).collect(),
            None => Value::from(()),
        };
        let own = [
            ("messages", conversation.messages.iter().map(|message| self.message(message)).collect()),
            ("tools", list(&conversation.tools)),
            ("documents", list(&conversation.documents)),
            ("add_generation_prompt", Value::from(conversation.add_generation_prompt)),
        ];
        // The names of special tokens are the template's own text.
        let variable = |(key, value): (&String, &Json)| match value {
            Json::String(token) if key.ends_with("_token") => (Value::from(key), Value::from(token)),
            _ => (Value::from(key), self.value(value)),
        };
        let variables = tokens.iter().chain(&conversation.variables).map(variable);
        Value::from_pairs(variables.chain(own.map(|(key, value)| (Value::from(key), value))))
    }
}

/// Whether a control token may be in `text` or end in it.
fn is_suspicious(text: &str) -> bool {
    !text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_-.,:;!?'\"()".contains(c))
}
