//! llama-server's own routes: continued texts, gaps that are filled, conversations as text.

mod answer;
mod request;

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use handmill_models::text::Infill;
use serde_json::{Value, json};

use super::{
    App, body, chat::prompt::Prompt as Rendered, error::ApiError, fields::Fields, json as respond,
    openai::chat_request, prompts,
};
use answer::Completion;

pub(super) use request::params;

pub(super) async fn completion(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let asked = request::read(&app, &fields)?;
    // Several prompts have several answers, in a list.
    let are_several = |list: &Vec<Value>| !list.iter().any(Value::is_number);
    let several = fields.get("prompt").and_then(Value::as_array).is_some_and(are_several);
    let prompts = prompts::read(&app, "prompt", fields.get("prompt"))?;
    Completion::run(app, asked, prompts, several).await
}

pub(super) async fn infill(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body(&app, request).await?)?;
    let asked = request::read(&app, &fields)?;
    let files = files(&mut fields)?;
    let text = |name: &str| fields.string(name)?.ok_or_else(|| fields.wrong(name, "is missing"));
    let mut gap = Infill::new(text("input_prefix")?, text("input_suffix")?);
    (gap.start, gap.files) = (fields.string("prompt")?.unwrap_or_default(), &files);
    let prompt = prompts::of_gap(&app, &gap, "input_suffix")?;
    Completion::run(app, asked, vec![prompt], false).await
}

/// The field `input_extra`: other files, with their names.
fn files(fields: &mut Fields) -> Result<Vec<(String, String)>, ApiError> {
    let Some(list) = fields.list("input_extra")? else { return Ok(Vec::new()) };
    let read = |(i, file): (usize, &Value)| {
        let wrong = |name: &str| ApiError::field(format!("input_extra[{i}].{name}"), "must be a string");
        let text = file.get("text").and_then(Value::as_str).ok_or_else(|| wrong("text"))?;
        let name = match file.get("filename") {
            None | Some(Value::Null) => "tmp",
            Some(name) => name.as_str().ok_or_else(|| wrong("filename"))?,
        };
        Ok((name.to_owned(), text.to_owned()))
    };
    list.iter().enumerate().map(read).collect()
}

/// The text of a conversation, in the fields of a chat.
pub(super) async fn apply_template(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let (mut ask, _) = chat_request::read(&app, fields)?;
    ask.tools.offer(&mut ask.conversation)?;
    let rendered = Rendered::new(&app, &ask.conversation, ask.field)?;
    Ok(respond(&json!({ "prompt": rendered.text() })))
}
