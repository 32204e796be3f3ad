//! Messages with a role, content and calls, as OpenAI's chats and Ollama's have them, in the form that templates read: content as
//! one text, arguments of calls as objects.

use serde_json::{Map, Value, json};

use crate::http::error::ApiError;

/// Puts the messages of the field `messages` into templates' form.
///
/// # Errors
/// Messages and parts of a wrong type, and parts that are no text, by their place.
pub(crate) fn read(messages: Vec<Value>) -> Result<Vec<Value>, ApiError> {
    messages.into_iter().enumerate().map(|(i, message)| read_one(&format!("messages[{i}]"), message)).collect()
}

fn read_one(at: &str, message: Value) -> Result<Value, ApiError> {
    let Value::Object(mut message) = message else { return Err(ApiError::field(at, "must be an object")) };
    if !message.get("role").is_some_and(Value::is_string) {
        return Err(ApiError::field(format!("{at}.role"), "must be a string"));
    }
    if let Some(Value::Array(parts)) = message.get("content") {
        let text = joined(&format!("{at}.content"), parts)?;
        message.insert("content".to_owned(), text.into());
    }
    match message.get("content") {
        None | Some(Value::Null | Value::String(_)) => {}
        Some(_) => return Err(ApiError::field(format!("{at}.content"), "must be a string or a list of parts")),
    }
    if message.get("content").is_none() && message.get("tool_calls").is_none_or(Value::is_null) {
        return Err(ApiError::field(format!("{at}.content"), "is missing"));
    }
    match message.get_mut("tool_calls") {
        None => {}
        Some(Value::Null) => drop(message.shift_remove("tool_calls")),
        Some(Value::Array(calls)) => {
            for (i, call) in calls.iter_mut().enumerate() {
                arguments(&format!("{at}.tool_calls[{i}]"), call)?;
            }
        }
        Some(_) => return Err(ApiError::field(format!("{at}.tool_calls"), "must be a list")),
    }
    Ok(message.into())
}

/// The texts of content parts, of all APIs.
pub(crate) fn joined(at: &str, parts: &[Value]) -> Result<String, ApiError> {
    let text = |(i, part)| part_text(&format!("{at}[{i}]"), part);
    let texts: Result<Vec<String>, ApiError> = parts.iter().enumerate().map(text).collect();
    Ok(texts?.join("\n"))
}

/// The member of that name of the object at `at`, which must be a string.
pub(crate) fn string<'a>(at: &str, object: &'a Value, name: &str) -> Result<&'a str, ApiError> {
    let text = object.get(name).and_then(Value::as_str);
    text.ok_or_else(|| ApiError::field(format!("{at}.{name}"), "must be a string"))
}

/// The text of one part.
pub(crate) fn part_text(at: &str, part: &Value) -> Result<String, ApiError> {
    let text = |name: &str| string(at, part, name).map(str::to_owned);
    match part.get("type").and_then(Value::as_str) {
        Some("text" | "input_text" | "output_text") => text("text"),
        Some("refusal") => text("refusal"),
        Some(kind) => {
            let why = format!("is {kind:?}, which is not supported: the model reads text alone");
            Err(ApiError::field(format!("{at}.type"), why))
        }
        None => match part {
            Value::String(text) => Ok(text.clone()),
            _ => Err(ApiError::field(at, "must be an object with a `type`")),
        },
    }
}

/// A call in an assistant's message.
pub(crate) fn call(id: &str, name: &str, arguments: Value) -> Value {
    json!({ "id": id, "type": "function", "function": { "name": name, "arguments": arguments } })
}

/// The message with what the call of that id in the `earlier` messages brought. Some templates want the tool's name.
pub(crate) fn result(earlier: &[Value], id: &str, content: String) -> Value {
    let mut message = json!({ "role": "tool", "tool_call_id": id, "content": content });
    let mut calls = earlier.iter().rev().filter_map(|message| message.get("tool_calls")?.as_array()).flatten();
    if let Some(name) = calls.find(|call| call["id"] == id).and_then(|call| call.pointer("/function/name")) {
        message["name"] = name.clone();
    }
    message
}

/// An assistant's turn, whose parts come one by one.
#[derive(Debug, Default)]
pub(crate) struct Turn {
    pub texts: Vec<String>,
    pub reasoning: Vec<String>,
    pub calls: Vec<Value>,
}

impl Turn {
    /// Whether nothing came yet.
    pub fn is_empty(&self) -> bool {
        self.texts.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    /// Its message; none where nothing came. The turn is then empty.
    pub fn take(&mut self) -> Option<Value> {
        if self.is_empty() {
            return None;
        }
        let Self { texts, reasoning, calls } = std::mem::take(self);
        let mut message = json!({ "role": "assistant", "content": texts.join("\n") });
        if !reasoning.is_empty() {
            message["reasoning_content"] = reasoning.join("\n").into();
        }
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        Some(message)
    }
}

/// The arguments of an earlier call, as an object. What a model wrote may be no JSON; then it stays as it is.
pub(crate) fn read_arguments(text: &str) -> Value {
    serde_json::from_str(text).ok().filter(Value::is_object).unwrap_or_else(|| text.into())
}

/// Reads the arguments of an earlier call, which are JSON in a string.
fn arguments(at: &str, call: &mut Value) -> Result<(), ApiError> {
    let function = call.get_mut("function").and_then(Value::as_object_mut);
    let function: &mut Map<String, Value> =
        function.ok_or_else(|| ApiError::field(format!("{at}.function"), "must be an object"))?;
    if !function.get("name").is_some_and(Value::is_string) {
        return Err(ApiError::field(format!("{at}.function.name"), "must be a string"));
    }
    let read = match function.get("arguments") {
        Some(Value::String(text)) => Some(read_arguments(text)),
        None => Some(Value::Object(Map::new())),
        Some(_) => None,
    };
    if let Some(read) = read {
        function.insert("arguments".to_owned(), read);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_become_one_text_and_arguments_objects() {
        let read = read(vec![
            json!({ "role": "user", "content": [{ "type": "text", "text": "a" }, { "type": "text", "text": "b" }] }),
            json!({ "role": "assistant", "content": null, "tool_calls": [
                { "id": "c", "type": "function", "function": { "name": "f", "arguments": "{\"x\": 1}" } },
                { "id": "d", "type": "function", "function": { "name": "f", "arguments": "no JSON" } },
            ] }),
            json!({ "role": "tool", "tool_call_id": "c", "content": "5" }),
        ])
        .unwrap();
        assert_eq!(read[0]["content"], "a\nb");
        assert_eq!(read[1]["tool_calls"][0]["function"]["arguments"], json!({ "x": 1 }));
        assert_eq!(read[1]["tool_calls"][1]["function"]["arguments"], "no JSON");
        assert_eq!(read[2]["content"], "5");
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_place() {
        for (message, place) in [
            (json!("hi"), "messages[0]"),
            (json!({ "content": "x" }), "messages[0].role"),
            (json!({ "role": "user" }), "messages[0].content"),
            (json!({ "role": "user", "content": 5 }), "messages[0].content"),
            (json!({ "role": "user", "content": [5] }), "messages[0].content[0]"),
            (json!({ "role": "user", "content": [{ "type": "text" }] }), "messages[0].content[0].text"),
            (
                json!({ "role": "user", "content": [{ "type": "image_url", "image_url": { "url": "x" } }] }),
                "messages[0].content[0].type",
            ),
            (json!({ "role": "assistant", "content": "", "tool_calls": 1 }), "messages[0].tool_calls"),
            (json!({ "role": "assistant", "tool_calls": [{}] }), "messages[0].tool_calls[0].function"),
        ] {
            let error = read(vec![message.clone()]).unwrap_err().json();
            assert_eq!(error["error"]["param"], place, "{message}");
        }
    }
}
