//! The fields of a request.

use handmill_models::text::Conversation;
use serde_json::{Value, json};

use super::conversation::{messages, system};
use crate::{
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
        sampling,
    },
    scheduler::AnswerOptions,
};

/// Reads them: what is asked for, and whether it is streamed.
pub(super) fn read(app: &App, mut fields: Fields) -> Result<(Ask, bool), ApiError> {
    let most = fields.count("max_tokens", 1, usize::MAX)?;
    let most = most.ok_or_else(|| ApiError::field("max_tokens", "is missing"))?;
    let (mut conversation, tools) = conversation(&mut fields)?;
    let mut output = fields.inner("output_config")?;
    if let Some(effort) = output.string("effort")? {
        set_effort(&mut conversation, effort);
    }
    let form = form(&output.inner("format")?)?;
    let answer = AnswerOptions {
        sampling: sampling::read(app, &fields)?,
        max_tokens: Some(most),
        stop: fields.strings("stop_sequences")?,
        ..AnswerOptions::default()
    };
    let streams = fields.boolean("stream")?;
    Ok((Ask { conversation, tools, form, answer, n: 1, priority: 0, field: "messages" }, streams))
}

/// What a prompt is made of.
pub(super) fn conversation(fields: &mut Fields) -> Result<(Conversation, Tools), ApiError> {
    let mut all = messages(&fields.take_list("messages")?)?;
    if let Some(text) = system(fields.take("system"))? {
        all.insert(0, json!({ "role": "system", "content": text }));
    }
    let mut conversation = Conversation::new(all);
    let thinking = fields.inner("thinking")?;
    match thinking.string("type")? {
        // The model does as its template likes.
        None => {}
        Some("enabled" | "adaptive") => conversation.set_thinking(true),
        Some("disabled") => conversation.set_thinking(false),
        Some(_) => return Err(thinking.wrong("type", "must be `enabled`, `adaptive` or `disabled`")),
    }
    let tools = tools(fields)?;
    Ok((conversation, tools))
}

/// A format in which the answer must be.
fn form(format: &Fields) -> Result<Option<Form>, ApiError> {
    match format.string("type")? {
        None => Ok(None),
        Some("json_schema") => of_format(format).map(Some),
        Some(_) => Err(format.wrong("type", "must be `json_schema`")),
    }
}

fn tools(fields: &mut Fields) -> Result<Tools, ApiError> {
    let mut all = Vec::new();
    for (i, tool) in fields.list("tools")?.into_iter().flatten().enumerate() {
        // Tools of other types are Anthropic's own, which the model here does not know.
        if matches!(tool.get("type"), None | Some(Value::Null)) || tool["type"] == "custom" {
            all.push(Tools::function(&format!("tools[{i}]"), tool, "input_schema")?);
        }
    }
    let choice = fields.inner("tool_choice")?;
    let parallel = !choice.boolean("disable_parallel_tool_use")?;
    let wanted = match choice.string("type")? {
        None | Some("auto") => ToolChoice::Auto,
        Some("none") => ToolChoice::None,
        Some("any") => ToolChoice::Forced(None),
        Some("tool") => {
            let name = choice.string("name")?.ok_or_else(|| choice.wrong("name", "is missing"))?;
            ToolChoice::Forced(Some(name.to_owned()))
        }
        Some(_) => return Err(choice.wrong("type", "must be `auto`, `any`, `tool` or `none`")),
    };
    Ok(Tools { all, choice: wanted, parallel })
}
