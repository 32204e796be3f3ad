//! `/v1/embeddings`: vectors of length 1.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use crate::http::{App, body, error::ApiError, fields::Fields, json as respond, prompts, vectors};

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    vectors::check(&app)?;
    fields.refuse(&["dimensions"], "is not supported: vectors are as long as the model makes them")?;
    let base64 = match fields.string("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::field("encoding_format", "must be `float` or `base64`")),
    };
    let inputs = prompts::read(&app, "input", fields.get("input"))?;
    let (vectors, tokens) = vectors::of(&app, inputs.into_iter().map(|input| input.ids).collect(), "input").await?;
    let data = vectors
        .iter()
        .enumerate()
        .map(|(index, vector)| json!({ "object": "embedding", "index": index, "embedding": encoded(vector, base64) }));
    Ok(respond(&json!({
        "object": "list",
        "data": data.collect::<Value>(),
        "model": app.options.model_name,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

/// The numbers, or their bytes, least significant first.
fn encoded(vector: &[f32], base64: bool) -> Value {
    if !base64 {
        return json!(vector);
    }
    let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
    BASE64_STANDARD.encode(bytes).into()
}
