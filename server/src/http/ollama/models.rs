//! The model that is served, as `/api/tags`, `/api/ps` and `/api/show` tell of it; and `/api/version`.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use axum::{
    extract::{Request, State},
    response::Response,
};
use handmill_models::text::Conversation;
use serde_json::{Value, json};

use super::time;
use crate::{
    constrain::Reasoning,
    http::{App, body, chat::prompt::Prompt, error::ApiError, fields::Fields, json as respond},
};

/// The version of Ollama whose API these routes follow: clients ask for it to know what there is.
const VERSION: &str = "0.13.5";
/// When a model is put away that stays: clients want a date.
const NEVER: &str = "2318-01-01T00:00:00Z";

pub(crate) async fn version() -> Response {
    respond(&json!({ "version": VERSION }))
}

pub(crate) async fn tags(State(app): State<Arc<App>>) -> Response {
    let mut model = entry(&app);
    model["modified_at"] = time::rfc3339(app.started, 0).into();
    respond(&json!({ "models": [model] }))
}

pub(crate) async fn ps(State(app): State<Arc<App>>) -> Response {
    let mut model = entry(&app);
    model["expires_at"] = NEVER.into();
    model["size_vram"] = 0.into();
    model["context_length"] = app.scheduler.n_ctx().into();
    respond(&json!({ "models": [model] }))
}

/// What is known of the model. The context is the one that this server has, because clients divide by it.
pub(crate) async fn show(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    // There is one model, whatever the request calls it.
    Fields::parse(&body(&app, request).await?)?;
    let (info, params, n_ctx) = (app.model.info(), &app.options.sampling, app.scheduler.n_ctx());
    let parameters = [
        format!("num_ctx {n_ctx}"),
        format!("temperature {}", params.temperature),
        format!("top_k {}", params.top_k),
        format!("top_p {}", params.top_p),
        format!("min_p {}", params.min_p),
    ];
    let architecture = &info.architecture;
    let mut facts = json!({
        "general.architecture": architecture,
        "general.parameter_count": info.parameters,
    });
    facts[format!("{architecture}.context_length")] = n_ctx.into();
    facts[format!("{architecture}.embedding_length")] = info.width.into();
    facts[format!("{architecture}.block_count")] = info.n_layers.into();
    Ok(respond(&json!({
        "modelfile": format!("FROM {}\n", app.options.model_name),
        "parameters": parameters.join("\n"),
        "template": app.options.template.as_ref().map_or("{{ .Prompt }}", |template| template.source()),
        "details": details(&app),
        "model_info": facts,
        "capabilities": capabilities(&app),
        "modified_at": time::rfc3339(app.started, 0),
    })))
}

fn entry(app: &App) -> Value {
    let name = &app.options.model_name;
    let size = app.model.checkpoint().file_size();
    json!({ "name": name, "model": name, "size": size, "digest": digest(app), "details": details(app) })
}

/// Clients show its beginning and compare it. It is none of the files' bytes, which would take long to read: models of other
/// names, sizes or kinds have others.
fn digest(app: &App) -> String {
    let part = |n: u8| {
        let mut hasher = DefaultHasher::new();
        let model = (&app.options.model_name, app.model.checkpoint().file_size(), &app.model.info().architecture);
        (n, model).hash(&mut hasher);
        format!("{:016x}", hasher.finish())
    };
    (0..4).map(part).collect()
}

fn details(app: &App) -> Value {
    let info = app.model.info();
    json!({
        "parent_model": "",
        "format": if app.model.is_gguf() { "gguf" } else { "safetensors" },
        "family": info.architecture,
        "families": [info.architecture],
        "parameter_size": rounded(info.parameters),
        "quantization_level": element_type(app),
    })
}

/// The element type that most parameters have.
fn element_type(app: &App) -> String {
    let mut elements = BTreeMap::new();
    for tensor in app.model.checkpoint().tensors() {
        *elements.entry(tensor.dtype_name.to_uppercase()).or_insert(0) += tensor.shape.iter().product::<usize>();
    }
    elements.into_iter().max_by_key(|(_, n)| *n).map(|(name, _)| name).unwrap_or_default()
}

/// As `1.5B`, `494.03M` or `60.75K`.
fn rounded(parameters: u64) -> String {
    let n = parameters as f64;
    match parameters {
        1_000_000_000.. => format!("{:.1}B", n / 1e9),
        1_000_000.. => format!("{:.2}M", n / 1e6),
        _ => format!("{:.2}K", n / 1e3),
    }
}

fn capabilities(app: &App) -> Vec<&'static str> {
    let ask = |tools: Option<Vec<Value>>| {
        let message = json!({ "role": "user", "content": "Hello" });
        let conversation = Conversation { tools, ..Conversation::new(vec![message]) };
        let prompt = Prompt::new(app, &conversation, "messages").ok()?;
        Some((prompt.ids.clone(), !matches!(prompt.reasoning(), Reasoning::None)))
    };
    let (plain, parameters) = (ask(None), json!({ "type": "object", "properties": {} }));
    let tool =
        json!({ "type": "function", "function": { "name": "look", "description": "Looks", "parameters": parameters } });
    let with_tool = ask(Some(vec![tool]));
    // A template that says nothing of a tool has no place for any.
    let tools = with_tool.is_some_and(|(ids, _)| plain.as_ref().is_none_or(|(plain, _)| ids != *plain));
    let thinking = plain.is_some_and(|(_, reasons)| reasons);
    let all = [("completion", true), ("tools", tools), ("thinking", thinking), ("embedding", app.scheduler.embeds())];
    all.into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect()
}
