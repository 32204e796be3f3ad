//! The fields of a request.

use handmill_models::text::Conversation;
use serde_json::{Map, Value, json};

use super::items;
use crate::{
    constrain::Constraint,
    http::{
        App,
        chat::{
            Ask,
            forms::{Form, of_format},
            prompt::set_effort,
            tools::{ToolChoice, Tools},
        },
        error::ApiError,
        fields::Fields,
        openai::chat_request::choice,
        sampling,
    },
    scheduler::AnswerOptions,
};

/// What is asked for.
pub(super) struct Asked {
    pub ask: Ask,
    pub streams: bool,
    /// The fields that the answer repeats.
    pub said: Map<String, Value>,
}

/// Reads the fields.
pub(super) fn read(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    let why =
        "refers to what an earlier request left, and this server keeps nothing: send the whole conversation in `input`";
    fields.refuse(&["previous_response_id", "conversation"], why)?;
    fields.refuse(&["prompt"], "is not supported: send `instructions` and `input`")?;
    fields.refuse(&["background"], "is not supported: an answer lasts as long as its request")?;
    let instructions = fields.string("instructions")?.map(str::to_owned);
    let input = fields.take("input").ok_or_else(|| ApiError::field("input", "is missing"))?;
    let mut conversation = Conversation::new(items::messages(input, instructions.as_deref())?);
    let mut reasoning = fields.inner("reasoning")?;
    let effort = reasoning.take("effort");
    match &effort {
        None => {}
        Some(Value::String(effort)) => set_effort(&mut conversation, effort),
        Some(_) => return Err(reasoning.wrong("effort", "must be a string")),
    }
    let mut text = fields.inner("text")?;
    let format = text.get("format").cloned();
    let form = form(&text.inner("format")?)?;
    let tools = tools(&fields)?;
    let answer = AnswerOptions {
        sampling: sampling::read(app, &fields)?,
        max_tokens: fields.count("max_output_tokens", 1, usize::MAX)?,
        ..AnswerOptions::default()
    };
    let or = |name: &str, otherwise: Value| fields.get(name).cloned().unwrap_or(otherwise);
    let said = json!({
        "instructions": instructions,
        "max_output_tokens": answer.max_tokens,
        "metadata": or("metadata", json!({})),
        "parallel_tool_calls": tools.parallel,
        "previous_response_id": null,
        "reasoning": { "effort": effort, "summary": null },
        "store": false,
        "temperature": or("temperature", json!(answer.sampling.temperature)),
        "text": { "format": format.unwrap_or_else(|| json!({ "type": "text" })) },
        "tool_choice": or("tool_choice", "auto".into()),
        "tools": or("tools", json!([])),
        "top_p": or("top_p", json!(answer.sampling.top_p)),
        "truncation": "disabled",
    });
    let said = if let Value::Object(said) = said { said } else { Map::new() };
    let streams = fields.boolean("stream")?;
    let ask = Ask { conversation, tools, form, answer, n: 1, priority: 0, field: "input" };
    Ok(Asked { ask, streams, said })
}

/// The form of `text.format`.
fn form(format: &Fields) -> Result<Option<Form>, ApiError> {
    match format.string("type")? {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Form { field: "text.format".to_owned(), constraint: Constraint::JsonObject })),
        Some("json_schema") => of_format(format).map(Some),
        Some(_) => Err(format.wrong("type", "must be `text`, `json_object` or `json_schema`")),
    }
}

/// The functions among the tools. Those of other types are left out, never refused: Codex always offers some.
fn tools(fields: &Fields) -> Result<Tools, ApiError> {
    let mut all = Vec::new();
    for (i, tool) in fields.list("tools")?.into_iter().flatten().enumerate() {
        let at = format!("tools[{i}]");
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => all.push(Tools::function(&at, tool, "parameters")?),
            Some(_) => {}
            None => return Err(ApiError::field(format!("{at}.type"), "must be a string")),
        }
    }
    let wanted = fields.get("tool_choice");
    let choice = match wanted.filter(|choice| choice["type"] == "allowed_tools") {
        None => choice(fields)?,
        Some(allowed) => {
            let names = allowed.get("tools").and_then(Value::as_array);
            let names = names.ok_or_else(|| ApiError::field("tool_choice.tools", "must be a list"))?;
            all.retain(|tool| names.iter().any(|name| name["name"] == tool["function"]["name"]));
            match allowed.get("mode").and_then(Value::as_str) {
                Some("auto") => ToolChoice::Auto,
                Some("required") => ToolChoice::Forced(None),
                _ => return Err(ApiError::field("tool_choice.mode", "must be `auto` or `required`")),
            }
        }
    };
    Ok(Tools { all, choice, parallel: fields.boolean_or("parallel_tool_calls", true)? })
}
