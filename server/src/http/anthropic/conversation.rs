//! System texts and messages of content blocks, in the form that templates read.

use serde_json::{Value, json};

use crate::http::{
    chat::messages::{Turn, call, joined, part_text, result, string},
    error::ApiError,
};

/// Begins the line that Claude Code puts in front of its system text. It is for Anthropic's accounting, and its `cch=` is another
/// one in each request, so that no two prompts would begin alike.
const BILLING: &str = "x-anthropic-billing-header:";

/// The field `system`: a text, or blocks of text. Without the line of [`BILLING`], wherever a block begins with it, and the line
/// ends behind it.
pub(super) fn system(system: Option<Value>) -> Result<Option<String>, ApiError> {
    let text = match system {
        None => None,
        Some(Value::String(text)) => Some(without_billing(&text).to_owned()),
        Some(Value::Array(mut blocks)) => {
            for block in &mut blocks {
                if let Some(Value::String(text)) = block.get_mut("text") {
                    *text = without_billing(text).to_owned();
                }
            }
            // One that had nothing else would leave a line end.
            blocks.retain(|block| block.get("text").is_none_or(|text| text != ""));
            Some(joined("system", &blocks)?)
        }
        Some(_) => return Err(ApiError::field("system", "must be a string or a list of blocks")),
    };
    Ok(text.filter(|text| !text.is_empty()))
}

fn without_billing(text: &str) -> &str {
    if !text.starts_with(BILLING) {
        return text;
    }
    text.split_once('\n').map_or("", |(_, rest)| rest.trim_start_matches(['\r', '\n']))
}

/// The field `messages`.
pub(super) fn messages(list: &[Value]) -> Result<Vec<Value>, ApiError> {
    if list.last().is_some_and(|message| message["role"] == "assistant") {
        return Err(ApiError::field("messages", "ends with the assistant's: beginnings of answers are not supported"));
    }
    let mut all = Vec::new();
    for (i, message) in list.iter().enumerate() {
        let at = format!("messages[{i}]");
        let role = message.get("role").and_then(Value::as_str);
        let role = role.filter(|role| ["user", "assistant", "system"].contains(role));
        let role = role.ok_or_else(|| ApiError::field(format!("{at}.role"), "must be `user` or `assistant`"))?;
        let at = format!("{at}.content");
        match message.get("content") {
            Some(Value::String(text)) => all.push(json!({ "role": role, "content": text })),
            Some(Value::Array(blocks)) if role == "assistant" => all.push(of_assistant(&at, blocks)?),
            Some(Value::Array(blocks)) => of_user(role, &at, blocks, &mut all)?,
            Some(_) => return Err(ApiError::field(at, "must be a string or a list of blocks")),
            None => return Err(ApiError::field(at, "is missing")),
        }
    }
    Ok(all)
}

/// Results of tools are messages of their own; the texts between them are one each.
fn of_user(role: &str, at: &str, blocks: &[Value], all: &mut Vec<Value>) -> Result<(), ApiError> {
    let mut texts = Vec::new();
    for (i, block) in blocks.iter().enumerate() {
        let at = format!("{at}[{i}]");
        if block["type"] != "tool_result" {
            texts.push(part_text(&at, block)?);
            continue;
        }
        say(role, &mut texts, all);
        let content = match block.get("content") {
            None | Some(Value::Null) => String::new(),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Array(parts)) => joined(&format!("{at}.content"), parts)?,
            Some(_) => return Err(ApiError::field(format!("{at}.content"), "must be a string or a list of blocks")),
        };
        let result = result(all, string(&at, block, "tool_use_id")?, content);
        all.push(result);
    }
    say(role, &mut texts, all);
    Ok(())
}

fn say(role: &str, texts: &mut Vec<String>, all: &mut Vec<Value>) {
    if !texts.is_empty() {
        all.push(json!({ "role": role, "content": std::mem::take(texts).join("\n") }));
    }
}

fn of_assistant(at: &str, blocks: &[Value]) -> Result<Value, ApiError> {
    let mut turn = Turn::default();
    for (i, block) in blocks.iter().enumerate() {
        let at = format!("{at}[{i}]");
        match block.get("type").and_then(Value::as_str) {
            Some("thinking") => turn.reasoning.push(string(&at, block, "thinking")?.to_owned()),
            // Of another model, for its own eyes.
            Some("redacted_thinking") => {}
            Some("tool_use") => {
                let (id, name) = (string(&at, block, "id")?, string(&at, block, "name")?);
                match block.get("input") {
                    Some(input @ Value::Object(_)) => turn.calls.push(call(id, name, input.clone())),
                    _ => return Err(ApiError::field(format!("{at}.input"), "must be an object")),
                }
            }
            _ => turn.texts.push(part_text(&at, block)?),
        }
    }
    // Templates want a message even where it says nothing.
    Ok(turn.take().unwrap_or_else(|| json!({ "role": "assistant", "content": "" })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_changes_is_left_out_of_the_beginning() {
        let line = "x-anthropic-billing-header: cc_version=2.1.37.0d9; cc_entrypoint=cli; cch=fa690;";
        let block = |text: &str| json!({ "type": "text", "text": text, "cache_control": { "type": "ephemeral" } });
        for given in [
            json!([block(line), block("You help."), block("More.")]),
            json!([block(&format!("{line}\n\nYou help.")), block("More.")]),
            json!(format!("{line}\nYou help.\nMore.")),
            json!([block("You help."), block("More.")]),
        ] {
            assert_eq!(system(Some(given)).unwrap().as_deref(), Some("You help.\nMore."));
        }
        assert_eq!(system(Some(json!([block(line)]))).unwrap(), None);
        // Anywhere else it is text like all.
        let quoted = format!("Of {line}");
        assert_eq!(system(Some(quoted.clone().into())).unwrap(), Some(quoted));
    }

    #[test]
    fn blocks_become_messages() {
        let given = json!([
            { "role": "user", "content": "Weather?" },
            { "role": "assistant", "content": [
                { "type": "thinking", "thinking": "A tool.", "signature": "x" },
                { "type": "text", "text": "I look." },
                { "type": "tool_use", "id": "t1", "name": "weather", "input": { "city": "Bonn" } },
            ] },
            { "role": "user", "content": [
                { "type": "tool_result", "tool_use_id": "t1", "content": [{ "type": "text", "text": "Rain" }] },
                { "type": "text", "text": "And?" },
                { "type": "text", "text": "Tell." },
            ] },
        ]);
        let call = json!({ "id": "t1", "type": "function",
            "function": { "name": "weather", "arguments": { "city": "Bonn" } } });
        let expected = json!([
            { "role": "user", "content": "Weather?" },
            { "role": "assistant", "content": "I look.", "reasoning_content": "A tool.", "tool_calls": [call] },
            { "role": "tool", "tool_call_id": "t1", "content": "Rain", "name": "weather" },
            { "role": "user", "content": "And?\nTell." },
        ]);
        assert_eq!(Value::from(messages(given.as_array().unwrap()).unwrap()), expected);
    }
}
