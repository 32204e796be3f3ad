//! A request of `/v1/chat/completions`: from its fields to a prompt.

use handmill_models::text::{Conversation, LocalTime, ReplyParser};
use serde_json::Value;

use super::{
    forms::{self, Form},
    messages,
    params::{self, MOST_LIKELIEST, Params},
};
use crate::{
    constrain::{Calls, Constraint, Reasoning},
    http::{App, error::ApiError, fields::Fields},
    scheduler::{Request, Work},
};

/// A conversation that is to be answered.
pub(super) struct ChatRequest {
    pub params: Params,
    pub request: Request,
    /// A parser for each choice's reply.
    pub parsers: Vec<ReplyParser>,
    /// Whether one answer may call several tools.
    pub parallel: bool,
}

/// Reads the fields.
pub(super) fn read(app: &App, mut fields: Fields) -> Result<ChatRequest, ApiError> {
    let mut params = params::read(app, &fields, &["max_completion_tokens", "max_tokens"])?;
    params.answer.show_special = true;
    let likeliest = fields.count("top_logprobs", 0, MOST_LIKELIEST)?;
    params.answer.log_probabilities = match (fields.boolean("logprobs")?, likeliest) {
        (true, n) => Some(n.unwrap_or(0)),
        (false, None | Some(0)) => None,
        (false, Some(_)) => return Err(ApiError::field("top_logprobs", "goes with `logprobs` alone")),
    };
    fields.refuse(&["functions", "function_call"], "is not supported: use `tools` and `tool_choice`")?;
    let parallel = fields.get("parallel_tool_calls").is_none() || fields.boolean("parallel_tool_calls")?;
    let (conversation, choice) = conversation(&mut fields)?;
    let form = forms::read(&fields)?;
    let template = app.options.template.as_ref();
    let template = template.ok_or_else(|| {
        ApiError::status(400, "the model has no chat template; /v1/completions continues texts")
            .code("no_chat_template")
    })?;
    // The epoch, where the system knows no time.
    let now = (app.options.now)().or_else(|| LocalTime::new(1970, 1, 1, 0, 0, 0));
    let now = now.ok_or_else(|| ApiError::status(500, "the system's clock cannot be read"))?;
    let refused =
        |error: handmill_models::text::TextError| ApiError::field("messages", format!("cannot be rendered: {error}"));
    let prompt = template.render(&conversation, now).map_err(refused)?;
    let ids = prompt.encode(&app.tokenizer).map_err(refused)?;
    let tools = conversation.tools.as_deref().unwrap_or_default();
    let (syntax, text) = (template.reply_syntax(&conversation), prompt.text());
    let reasoning = match (syntax.open_reasoning(&text), syntax.reasoning_marks()) {
        (Some(close), _) => Reasoning::Open(close.to_owned()),
        (None, Some((open, close))) => Reasoning::Between(open.to_owned(), close.to_owned()),
        (None, None) => Reasoning::None,
    };
    let form = match (choice, form) {
        (ToolChoice::Free, form) => form,
        (ToolChoice::Forced(_), Some(form)) => {
            return Err(ApiError::field(form.field, "cannot be asked for together with a forced call"));
        }
        (ToolChoice::Forced(name), None) => {
            let form = template.call_form(&conversation, now, &app.tokenizer).ok_or_else(|| {
                ApiError::field("tool_choice", "cannot force a call: the form of this model's calls is not known")
            })?;
            let function = |tool: &Value| tool.get("function").cloned();
            let chosen = tools
                .iter()
                .filter_map(function)
                .filter(|tool| name.as_ref().is_none_or(|name| tool["name"] == **name));
            let constraint = Constraint::Calls(Box::new(Calls { form, tools: chosen.collect(), parallel }));
            Some(Form { field: "tools".to_owned(), constraint })
        }
    };
    if let Some(form) = form {
        params.answer.mask = Some(forms::mask(app, &form, &reasoning)?);
    }
    let parsers = (0..params.n).map(|_| ReplyParser::new(&syntax, &text).with_tools(tools)).collect();
    let priority = params.priority;
    let request = Request { priority, ..Request::new(ids, Work::Answer(params.answer.clone())) };
    Ok(ChatRequest { params, request, parsers, parallel })
}

/// Whether the answer must call a tool.
enum ToolChoice {
    Free,
    /// It must: this one, or any.
    Forced(Option<String>),
}

fn conversation(fields: &mut Fields) -> Result<(Conversation, ToolChoice), ApiError> {
    let messages = match fields.take("messages") {
        Some(Value::Array(list)) if !list.is_empty() => messages::read(list)?,
        Some(Value::Array(_)) => return Err(ApiError::field("messages", "is empty")),
        Some(_) => return Err(ApiError::field("messages", "must be a list")),
        None => return Err(ApiError::field("messages", "is missing")),
    };
    let mut conversation = Conversation::new(messages);
    let (tools, choice) = tools(fields)?;
    conversation.tools = tools;
    if let Some(documents) = fields.list("documents")? {
        conversation.documents = Some(documents.clone());
    }
    if let Some(effort) = fields.string("reasoning_effort")? {
        if effort == "none" {
            conversation.set_thinking(false);
        }
        conversation.variables.insert("reasoning_effort".to_owned(), effort.into());
    }
    if let Some(variables) = fields.object("chat_template_kwargs")? {
        conversation.variables.extend(variables.clone());
    }
    Ok((conversation, choice))
}

/// The tools that the model hears of, none where it may not call any; and whether it must call one.
fn tools(fields: &Fields) -> Result<(Option<Vec<Value>>, ToolChoice), ApiError> {
    let all = fields.list("tools")?;
    let wrong = || ApiError::field("tool_choice", "must be `auto`, `none`, `required` or the name of a function");
    let (mut none, mut choice) = (false, ToolChoice::Free);
    match fields.get("tool_choice") {
        None => {}
        Some(Value::String(word)) => match word.as_str() {
            "auto" => {}
            "none" => none = true,
            "required" | "any" => choice = ToolChoice::Forced(None),
            _ => return Err(wrong()),
        },
        Some(named) => {
            let name = named.pointer("/function/name").or(named.get("name")).and_then(Value::as_str);
            choice = ToolChoice::Forced(Some(name.ok_or_else(wrong)?.to_owned()));
        }
    }
    let mut tools = Vec::new();
    for (i, tool) in all.into_iter().flatten().enumerate() {
        let at = format!("tools[{i}]");
        match tool.get("type").and_then(Value::as_str) {
            Some("function") => {}
            // Tools that the client's own servers run.
            Some(_) => continue,
            None => return Err(ApiError::field(format!("{at}.type"), "must be a string")),
        }
        if !tool.pointer("/function/name").is_some_and(Value::is_string) {
            return Err(ApiError::field(format!("{at}.function.name"), "must be a string"));
        }
        tools.push(tool.clone());
    }
    if let ToolChoice::Forced(name) = &choice {
        let known = |tool: &Value| name.as_ref().is_none_or(|name| tool["function"]["name"] == **name);
        if !tools.iter().any(known) {
            return Err(ApiError::field("tool_choice", "asks for a function that is not among `tools`"));
        }
    }
    Ok((Some(tools).filter(|tools| !tools.is_empty() && !none), choice))
}
