//! What coded formats share: a text under construction, and the parts of messages in the form of chat completions.

use std::ops::Range;

use serde_json::Value;

use super::super::error::{Result, TextError};
use super::context::Marking;
use super::prompt::Prompt;
use super::python::{JsonStyle, to_json};

/// A prompt under construction.
#[derive(Debug, Default)]
pub(super) struct Text {
    text: String,
    user: Vec<Range<usize>>,
}

impl Text {
    /// Appends text of the format.
    pub(super) fn own(&mut self, text: &str) {
        self.text.push_str(text);
    }

    /// Appends text of the user.
    pub(super) fn user(&mut self, text: &str) {
        if !text.is_empty() {
            self.user.push(self.text.len()..self.text.len() + text.len());
            self.text.push_str(text);
        }
    }

    pub(super) fn prompt(self) -> Prompt {
        Prompt::new(self.text, self.user)
    }
}

/// `value` as `json.dumps(value, ensure_ascii=False)` writes it.
pub(super) fn json_dumps(value: &Value) -> String {
    // It fails only for values that JSON cannot have, or that no reader of JSON nests so deep.
    to_json(&Marking::None.value(value), &JsonStyle::default()).unwrap_or_default()
}

/// The text of message `n`: its content, or the texts of its parts with `between` them, thoughts left out.
///
/// # Errors
/// Contents of another type, and parts that are not text.
pub(super) fn text_of(n: usize, message: &Value, between: &str) -> Result<String> {
    let wrong = |what: &str| TextError::Conversation(format!("the content of messages[{n}] {what}"));
    match &message["content"] {
        Value::Null => Ok(String::new()),
        Value::String(text) => Ok(text.clone()),
        Value::Array(parts) => {
            let parts = parts.iter().filter(|part| part["type"] != "thinking");
            let texts = parts.map(|part| match (part.as_str(), part["text"].as_str()) {
                (Some(text), _) | (None, Some(text)) => Ok(text),
                _ => Err(wrong("has parts that are not text, and the model's format has only text")),
            });
            Ok(texts.collect::<Result<Vec<_>>>()?.join(between))
        }
        _ => Err(wrong("is neither a string nor a list of parts")),
    }
}

/// A call of a tool.
pub(super) struct Call<'v> {
    pub(super) name: &'v str,
    /// An object, or its JSON as a string.
    arguments: &'v Value,
    pub(super) id: Option<&'v str>,
}

impl Call<'_> {
    /// The arguments as they came: a string, or the JSON of a value.
    pub(super) fn arguments_text(&self) -> String {
        self.arguments.as_str().map_or_else(|| json_dumps(self.arguments), str::to_owned)
    }

    /// The arguments, read where they are JSON in a string.
    pub(super) fn arguments_value(&self) -> Value {
        parsed(self.arguments)
    }
}

/// A value, read where it is JSON in a string.
pub(super) fn parsed(value: &Value) -> Value {
    value.as_str().and_then(|text| serde_json::from_str(text).ok()).unwrap_or_else(|| value.clone())
}

/// The calls of a message.
pub(super) fn tool_calls(message: &Value) -> Vec<Call<'_>> {
    let calls = message["tool_calls"].as_array().into_iter().flatten();
    calls
        .map(|call| {
            let function = call.get("function").unwrap_or(call);
            let id = call["id"].as_str().filter(|id| !id.is_empty() && *id != "null");
            Call { name: function["name"].as_str().unwrap_or_default(), arguments: &function["arguments"], id }
        })
        .collect()
}

/// The name of the function that the call `id` of an earlier message called.
pub(super) fn called_name<'v>(before: &'v [Value], id: &str) -> Option<&'v str> {
    before.iter().rev().flat_map(tool_calls).find(|call| call.id == Some(id)).map(|call| call.name)
}
