//! A request of `/v1/chat/completions`: its fields.

use handmill_models::text::Conversation;
use serde_json::Value;

use super::{
    forms,
    params::{self, MOST_LIKELIEST, Stream},
};
use crate::http::{
    App,
    chat::{
        Ask, messages,
        prompt::set_effort,
        tools::{ToolChoice, Tools},
    },
    error::ApiError,
    fields::Fields,
};

/// Reads the fields: what is asked for, and how it is streamed.
pub(crate) fn read(app: &App, mut fields: Fields) -> Result<(Ask, Option<Stream>), ApiError> {
    let mut params = params::read(app, &fields, &["max_completion_tokens", "max_tokens"])?;
    let likeliest = fields.count("top_logprobs", 0, MOST_LIKELIEST)?;
    params.answer.log_probabilities = match (fields.boolean("logprobs")?, likeliest) {
        (true, n) => Some(n.unwrap_or(0)),
        (false, None | Some(0)) => None,
        (false, Some(_)) => return Err(ApiError::field("top_logprobs", "goes with `logprobs` alone")),
    };
    fields.refuse(&["functions", "function_call"], "is not supported: use `tools` and `tool_choice`")?;
    let conversation = conversation(&mut fields)?;
    let ask = Ask {
        conversation,
        tools: tools(&fields)?,
        form: forms::read(&fields)?,
        answer: params.answer,
        n: params.n,
        priority: params.priority,
        field: "messages",
    };
    Ok((ask, params.stream))
}

fn conversation(fields: &mut Fields) -> Result<Conversation, ApiError> {
    let mut conversation = Conversation::new(messages::read(fields.take_list("messages")?)?);
    if let Some(documents) = fields.list("documents")? {
        conversation.documents = Some(documents.clone());
    }
    if let Some(effort) = fields.string("reasoning_effort")? {
        set_effort(&mut conversation, effort);
    }
    if let Some(variables) = fields.object("chat_template_kwargs")? {
        conversation.variables.extend(variables.clone());
    }
    Ok(conversation)
}

fn tools(fields: &Fields) -> Result<Tools, ApiError> {
    Ok(Tools {
        all: Tools::read(fields.list("tools")?)?,
        choice: choice(fields)?,
        parallel: fields.boolean_or("parallel_tool_calls", true)?,
    })
}

/// The field `tool_choice`, of chats and responses.
pub(super) fn choice(fields: &Fields) -> Result<ToolChoice, ApiError> {
    let wrong = || ApiError::field("tool_choice", "must be `auto`, `none`, `required` or the name of a function");
    match fields.get("tool_choice") {
        None => Ok(ToolChoice::Auto),
        Some(Value::String(word)) => match word.as_str() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" | "any" => Ok(ToolChoice::Forced(None)),
            _ => Err(wrong()),
        },
        Some(named) => {
            let name = named.pointer("/function/name").or(named.get("name")).and_then(Value::as_str);
            Ok(ToolChoice::Forced(Some(name.ok_or_else(wrong)?.to_owned())))
        }
    }
}
