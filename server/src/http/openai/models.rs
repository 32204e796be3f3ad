//! `/v1/models`: the one that is served.

use std::sync::Arc;

use axum::{
    extract::{Path, State},
    response::Response,
};
use serde_json::{Value, json};

use crate::http::{App, error::ApiError, json as respond};

fn model(app: &App) -> Value {
    let info = app.model.info();
    json!({
        "id": app.options.model_name,
        "object": "model",
        "created": app.started,
        "owned_by": "handmill",
        "max_model_len": app.scheduler.n_ctx(),
        "meta": { "architecture": info.architecture, "n_vocab": info.vocab_size, "n_ctx_train": info.context },
    })
}

pub(crate) async fn list(State(app): State<Arc<App>>) -> Response {
    respond(&json!({ "object": "list", "data": [model(&app)] }))
}

pub(crate) async fn one(State(app): State<Arc<App>>, Path(name): Path<String>) -> Result<Response, ApiError> {
    if name == app.options.model_name {
        return Ok(respond(&model(&app)));
    }
    let own = &app.options.model_name;
    Err(ApiError::status(404, format!("there is no model {name:?} here, but {own:?}")).code("model_not_found"))
}
