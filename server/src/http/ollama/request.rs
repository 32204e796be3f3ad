//! The fields of `/api/chat` and `/api/generate`.

use handmill_models::text::{Conversation, Infill};
use serde_json::{Map, Value, json};

use crate::{
    constrain::{Constraint, Reasoning},
    http::{
        App,
        chat::{
            Ask,
            forms::{Form, mask, of_schema},
            messages,
            prompt::set_effort,
            tools::{ToolChoice, Tools},
        },
        error::ApiError,
        fields::Fields,
        prompts, sampling,
    },
    scheduler::AnswerOptions,
};

/// What is asked for.
pub(super) enum Asked {
    Chat(Box<Ask>),
    /// A text that is continued as it is.
    Text {
        ids: Vec<u32>,
        answer: AnswerOptions,
    },
    /// Nothing: clients do so to have the model loaded.
    Nothing,
}

/// Reads the fields of a chat.
pub(super) fn chat(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    let answer = answer(app, &mut fields)?;
    let messages = match fields.take("messages") {
        None => return Ok(Asked::Nothing),
        Some(Value::Array(list)) if list.is_empty() => return Ok(Asked::Nothing),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(ApiError::field("messages", "must be a list")),
    };
    let messages = messages.into_iter().enumerate().map(|(i, message)| message_of(&format!("messages[{i}]"), message));
    let messages = messages::read(messages.collect::<Result<_, _>>()?)?;
    ask(&fields, messages, answer, "messages")
}

/// Reads the fields of a completion.
pub(super) fn generate(app: &App, mut fields: Fields) -> Result<Asked, ApiError> {
    let mut answer = answer(app, &mut fields)?;
    for (name, why) in [
        ("images", "is not supported: the model reads text alone"),
        ("template", "is not supported: the model has its own"),
        ("context", "is not supported: send a conversation to /api/chat"),
    ] {
        if fields.get(name).is_some_and(|value| !is_empty(value)) {
            return Err(ApiError::field(name, why));
        }
    }
    let prompt = fields.string("prompt")?.unwrap_or_default();
    if prompt.is_empty() {
        return Ok(Asked::Nothing);
    }
    if let Some(suffix) = fields.string("suffix")?.filter(|suffix| !suffix.is_empty()) {
        let prompt = prompts::of_gap(app, &Infill::new(prompt, suffix), "suffix")?;
        return Ok(Asked::Text { ids: prompt.ids, answer });
    }
    // A model without a template continues texts.
    if fields.boolean("raw")? || app.options.template.is_none() {
        if let Some(form) = form(&fields)? {
            answer.mask = Some(mask(app, &form, &Reasoning::None)?);
        }
        let prompts = prompts::read(app, "prompt", fields.get("prompt"))?;
        return Ok(prompts.into_iter().next().map_or(Asked::Nothing, |prompt| Asked::Text { ids: prompt.ids, answer }));
    }
    let system = fields.string("system")?.filter(|text| !text.is_empty());
    let said = [("system", system), ("user", Some(prompt))].into_iter();
    let messages = said.filter_map(|(role, text)| Some(json!({ "role": role, "content": text? }))).collect();
    ask(&fields, messages, answer, "prompt")
}

fn ask(fields: &Fields, messages: Vec<Value>, answer: AnswerOptions, field: &'static str) -> Result<Asked, ApiError> {
    let mut conversation = Conversation::new(messages);
    match fields.get("think") {
        None => {}
        Some(Value::Bool(think)) => conversation.set_thinking(*think),
        Some(Value::String(level)) if ["low", "medium", "high"].contains(&level.as_str()) => {
            conversation.set_thinking(true);
            set_effort(&mut conversation, level);
        }
        Some(_) => return Err(ApiError::field("think", "must be true, false, `low`, `medium` or `high`")),
    }
    let tools = Tools { all: Tools::read(fields.list("tools")?)?, choice: ToolChoice::Auto, parallel: true };
    let form = form(fields)?;
    Ok(Asked::Chat(Box::new(Ask { conversation, tools, form, answer, n: 1, priority: 0, field })))
}

/// The field `options`.
fn answer(app: &App, fields: &mut Fields) -> Result<AnswerOptions, ApiError> {
    let options = fields.inner("options")?;
    let n_ctx = app.scheduler.n_ctx();
    if let Some(wanted) = options.count("num_ctx", 0, usize::MAX)?.filter(|wanted| *wanted > n_ctx) {
        return Err(options.wrong("num_ctx", format!("is {wanted}, and the context of this server holds {n_ctx}")));
    }
    Ok(AnswerOptions {
        sampling: sampling::read(app, &options)?,
        // Negative numbers leave it to the context.
        max_tokens: options.integer("num_predict")?.and_then(|n| usize::try_from(n).ok()),
        stop: options.strings("stop")?,
        ..AnswerOptions::default()
    })
}

/// The field `format`: `json`, or a schema.
fn form(fields: &Fields) -> Result<Option<Form>, ApiError> {
    let constraint = match fields.get("format") {
        None => return Ok(None),
        Some(Value::String(none)) if none.is_empty() => return Ok(None),
        Some(Value::String(json)) if json == "json" => Constraint::JsonObject,
        Some(schema @ Value::Object(_)) => of_schema(schema, "format")?,
        Some(_) => return Err(ApiError::field("format", "must be `json` or a JSON schema")),
    };
    Ok(Some(Form { field: "format".to_owned(), constraint }))
}

/// A message with the names that OpenAI's have.
fn message_of(at: &str, message: Value) -> Result<Value, ApiError> {
    let Value::Object(mut message) = message else { return Err(ApiError::field(at, "must be an object")) };
    if message.get("images").is_some_and(|images| !is_empty(images)) {
        return Err(ApiError::field(format!("{at}.images"), "is not supported: the model reads text alone"));
    }
    message.entry("content").or_insert_with(|| "".into());
    rename(&mut message, "thinking", "reasoning_content");
    rename(&mut message, "tool_name", "name");
    if let Some(Value::Array(calls)) = message.get_mut("tool_calls") {
        for call in calls.iter_mut().filter_map(Value::as_object_mut) {
            call.entry("type").or_insert_with(|| "function".into());
        }
    }
    Ok(message.into())
}

fn rename(message: &mut Map<String, Value>, from: &str, to: &str) {
    if let Some(value) = message.shift_remove(from).filter(|value| !is_empty(value)) {
        message.insert(to.to_owned(), value);
    }
}

/// Whether a value is what clients send for nothing.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}
