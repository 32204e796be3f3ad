//! `/api/embed`, and `/api/embeddings`, its elder.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::{Request, State},
    response::Response,
};
use serde_json::json;

use super::time::nanos;
use crate::http::{App, body, error::ApiError, fields::Fields, json as respond, prompts, vectors};

/// Vectors of a text or of several. Inputs that are too long are refused whatever `truncate` says: they are never cut.
pub(crate) async fn embed(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let start = Instant::now();
    let fields = Fields::parse(&body(&app, request).await?)?;
    vectors::check(&app)?;
    fields.refuse(&["dimensions"], "is not supported: vectors are as long as the model makes them")?;
    let inputs = prompts::read(&app, "input", fields.get("input"))?;
    let (vectors, tokens) = vectors::of(&app, inputs.into_iter().map(|input| input.ids).collect(), "input").await?;
    Ok(respond(&json!({
        "model": app.options.model_name,
        "embeddings": vectors,
        "total_duration": nanos(start.elapsed()),
        "load_duration": 0,
        "prompt_eval_count": tokens,
    })))
}

/// The vector of one text.
pub(crate) async fn embeddings(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    vectors::check(&app)?;
    let prompts = prompts::read(&app, "prompt", fields.get("prompt"))?;
    let ids = prompts.into_iter().take(1).map(|prompt| prompt.ids).collect();
    let (vectors, _) = vectors::of(&app, ids, "prompt").await?;
    Ok(respond(&json!({ "embedding": vectors.first() })))
}
