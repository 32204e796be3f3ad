//! The items of `input` as messages that templates read.

use serde_json::{Value, json};

use crate::http::{
    chat::messages::{Turn, call, joined, read_arguments, result, string},
    error::ApiError,
};

/// The messages. Instructions and the system's and developer's words in front are one message, because few templates know more
/// than one, or the role `developer`.
pub(super) fn messages(input: Value, instructions: Option<&str>) -> Result<Vec<Value>, ApiError> {
    let list = match input {
        Value::String(text) => vec![json!({ "role": "user", "content": text })],
        Value::Array(list) if list.is_empty() => return Err(ApiError::field("input", "is empty")),
        Value::Array(list) => list,
        _ => return Err(ApiError::field("input", "must be a string or a list of items")),
    };
    let mut system: Vec<String> = instructions.filter(|text| !text.is_empty()).map(str::to_owned).into_iter().collect();
    let (mut all, mut turn) = (Vec::new(), Turn::default());
    for (i, item) in list.iter().enumerate() {
        let at = format!("input[{i}]");
        match kind(&at, item)? {
            "message" => {
                let text = text(&at, item, "content")?;
                match string(&at, item, "role")? {
                    "assistant" => turn.texts.push(text),
                    "system" | "developer" if all.is_empty() && turn.is_empty() => system.push(text),
                    role @ ("user" | "system" | "developer") => {
                        all.extend(turn.take());
                        let role = if role == "user" { "user" } else { "system" };
                        all.push(json!({ "role": role, "content": text }));
                    }
                    _ => {
                        let why = "must be `user`, `assistant`, `system` or `developer`";
                        return Err(ApiError::field(format!("{at}.role"), why));
                    }
                }
            }
            "reasoning" => {
                // It begins a turn.
                if !(turn.texts.is_empty() && turn.calls.is_empty()) {
                    all.extend(turn.take());
                }
                turn.reasoning.extend(reasoning(item));
            }
            kind @ ("function_call" | "custom_tool_call") => {
                let (id, name) = (string(&at, item, "call_id")?, string(&at, item, "name")?);
                let arguments = match kind {
                    "function_call" => read_arguments(string(&at, item, "arguments")?),
                    _ => json!({ "input": string(&at, item, "input")? }),
                };
                turn.calls.push(call(id, name, arguments));
            }
            "function_call_output" | "custom_tool_call_output" => {
                all.extend(turn.take());
                let message = result(&all, string(&at, item, "call_id")?, text(&at, item, "output")?);
                all.push(message);
            }
            "item_reference" => {
                let why = "refers to an earlier answer, and this server keeps none: send the item itself";
                return Err(ApiError::field(format!("{at}.type"), why));
            }
            // What tools of OpenAI's own servers left: the model here had none of them.
            _ => {}
        }
    }
    all.extend(turn.take());
    if !system.is_empty() {
        all.insert(0, json!({ "role": "system", "content": system.join("\n\n") }));
    }
    if all.is_empty() {
        return Err(ApiError::field("input", "has nothing that the model can read"));
    }
    Ok(all)
}

/// The type of an item; messages need not say theirs.
fn kind<'a>(at: &str, item: &'a Value) -> Result<&'a str, ApiError> {
    match item.get("type") {
        Some(Value::String(kind)) => Ok(kind),
        None | Some(Value::Null) if item.get("role").is_some() => Ok("message"),
        _ => Err(ApiError::field(format!("{at}.type"), "must be a string")),
    }
}

/// A text, or parts of one.
fn text(at: &str, item: &Value, name: &str) -> Result<String, ApiError> {
    match item.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Array(parts)) => joined(&format!("{at}.{name}"), parts),
        _ => Err(ApiError::field(format!("{at}.{name}"), "must be a string or a list of parts")),
    }
}

/// The text of reasoning, or where a provider hides it, of its summary.
fn reasoning(item: &Value) -> Option<String> {
    let texts = |name: &str| {
        let parts = item.get(name)?.as_array()?;
        let texts: Vec<&str> = parts.iter().filter_map(|part| part.get("text")?.as_str()).collect();
        (!texts.is_empty()).then(|| texts.join("\n"))
    };
    texts("content").or_else(|| texts("summary"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_become_messages() {
        let part = |kind: &str, text: &str| json!([{ "type": kind, "text": text }]);
        let input = json!([
            { "type": "message", "role": "developer", "content": part("input_text", "Ask before you write.") },
            { "type": "message", "role": "user", "content": part("input_text", "Look.") },
            { "type": "reasoning", "id": "rs_1", "summary": [], "content": part("reasoning_text", "A list."), "encrypted_content": null },
            { "type": "message", "role": "assistant", "content": part("output_text", "I look.") },
            { "type": "function_call", "call_id": "c1", "name": "shell", "arguments": "{\"command\": [\"ls\"]}" },
            { "type": "web_search_call", "id": "ws_1", "status": "completed" },
            { "type": "function_call_output", "call_id": "c1", "output": "a b" },
            { "type": "reasoning", "summary": part("summary_text", "Done."), "encrypted_content": "x" },
            { "role": "assistant", "content": "Two files." },
            { "role": "user", "content": "Thanks." },
        ]);
        let call = json!({ "id": "c1", "type": "function",
            "function": { "name": "shell", "arguments": { "command": ["ls"] } } });
        let expected = json!([
            { "role": "system", "content": "You code.\n\nAsk before you write." },
            { "role": "user", "content": "Look." },
            { "role": "assistant", "content": "I look.", "reasoning_content": "A list.", "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "c1", "content": "a b", "name": "shell" },
            { "role": "assistant", "content": "Two files.", "reasoning_content": "Done." },
            { "role": "user", "content": "Thanks." },
        ]);
        assert_eq!(Value::from(messages(input, Some("You code.")).unwrap()), expected);
    }
}
