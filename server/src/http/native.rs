//! Routes that are no one's API, or several's: health, version, properties, and a tokenizer's two directions in the shapes of
//! both llama-server and vLLM.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::{Map, Value, json};

use super::{
    App, body,
    error::ApiError,
    fields::{Fields, ids},
    json,
};

pub(super) async fn health() -> Response {
    json(&json!({ "status": "ok" }))
}

pub(super) async fn version() -> Response {
    json(&json!({ "version": env!("CARGO_PKG_VERSION") }))
}

pub(super) async fn props(State(app): State<Arc<App>>) -> Response {
    let (status, params) = (app.scheduler.status(), &app.options.sampling);
    let template = app.options.template.as_ref().map(|template| template.source());
    json(&json!({
        "model_alias": app.options.model_name,
        "build_info": concat!("handmill ", env!("CARGO_PKG_VERSION")),
        "device": app.scheduler.device(),
        "chat_template": template,
        "default_generation_settings": {
            "n_ctx": app.scheduler.n_ctx(),
            "params": {
                "temperature": params.temperature,
                "top_k": params.top_k,
                "top_p": params.top_p,
                "min_p": params.min_p,
                "repeat_penalty": params.repetition_penalty,
            },
        },
        "status": {
            "running": status.running,
            "waiting": status.waiting,
            "set_aside": status.set_aside,
            "cache_tokens": status.cache_tokens,
            "free_tokens": status.free_tokens,
            "kept_tokens": status.kept_tokens,
        },
    }))
}

/// `content` and `add_special` are llama-server's names, `prompt` and `add_special_tokens` vLLM's; each with its own default.
pub(super) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let (text, special) = match (fields.string("content")?, fields.string("prompt")?) {
        (Some(text), _) => (text, fields.boolean_or("add_special", false)?),
        (None, Some(text)) => (text, fields.boolean_or("add_special_tokens", true)?),
        (None, None) => return Err(ApiError::field("content", "is missing: give the text in it, or in `prompt`")),
    };
    let ids = app.tokenizer.encode(text, special, fields.boolean_or("parse_special", true)?);
    let ids = ids.map_err(|error| ApiError::status(400, error.to_string()))?;
    let mut answer = json!({ "count": ids.len(), "max_model_len": app.scheduler.n_ctx() });
    answer["tokens"] = match fields.boolean("with_pieces")? {
        false => json!(ids),
        true => ids.iter().map(|&id| json!({ "id": id, "piece": piece(&app, id) })).collect(),
    };
    if fields.boolean("return_token_strs")? {
        answer["token_strs"] = ids.iter().map(|&id| Value::from(app.token_text(id))).collect();
    }
    Ok(json(&answer))
}

/// What lm-eval asks vLLM for.
pub(super) async fn tokenizer_info(State(app): State<Arc<App>>) -> Response {
    let name = |id: Option<u32>| id.map(|id| app.tokenizer.decode(&[id], false));
    json(&json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": name(app.tokenizer.bos()),
        "eos_token": name(app.tokenizer.eos()),
        "pad_token": name(app.tokenizer.eos()),
        "add_bos_token": app.tokenizer.add_bos_default(),
        "vocab_size": app.tokenizer.vocab_size(),
        "model_max_length": app.scheduler.n_ctx(),
        "chat_template": app.options.template.as_ref().map(|template| template.source()),
    }))
}

/// A token's text, or its bytes where they are none.
fn piece(app: &App, id: u32) -> Value {
    let bytes = app.tokenizer.token_bytes(id).unwrap_or_default();
    String::from_utf8(bytes).map_or_else(|error| json!(error.into_bytes()), Value::from)
}

pub(super) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let tokens = fields.list("tokens")?.ok_or_else(|| ApiError::field("tokens", "is missing"))?;
    let text = app.tokenizer.decode(&ids(tokens, "tokens")?, false);
    let both = ["content", "prompt"].map(|name| (name.to_owned(), Value::from(text.clone())));
    Ok(json(&Value::Object(Map::from_iter(both))))
}
