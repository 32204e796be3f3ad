//! `/v1/embeddings`: vectors of length 1.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};

use super::prompts;
use crate::{
    http::{App, body, choices::Choices, error::ApiError, fields::Fields, json as respond},
    scheduler::{Event, Request, Work},
};

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    if !app.scheduler.embeds() {
        let why = "this server was started without embeddings (handmill serve --embeddings)";
        return Err(ApiError::status(501, why).code("no_embeddings"));
    }
    fields.refuse(&["dimensions"], "is not supported: vectors are as long as the model makes them")?;
    let base64 = match fields.string("encoding_format")? {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(ApiError::field("encoding_format", "must be `float` or `base64`")),
    };
    let inputs = prompts::read(&app, "input", fields.get("input"))?;
    let n = inputs.len();
    let requests = inputs.into_iter().map(|input| Request::new(input.ids, Work::Embed(app.options.pooling)));
    let submitted = Choices::submit(&app.scheduler, requests.collect(), 1);
    let mut choices = submitted.map_err(|error| ApiError::of_request(&error, "input"))?;
    let (mut data, mut tokens) = (vec![Value::Null; n], 0);
    while let Some((index, event)) = choices.next().await {
        match event {
            Event::Embedding(vector) => {
                if let Some(element) = data.get_mut(index) {
                    *element = json!({ "object": "embedding", "index": index, "embedding": encoded(&vector, base64) });
                }
            }
            Event::Finished { usage, .. } => tokens += usage.prompt_tokens,
            Event::Failed(error) => return Err(ApiError::of_request(&error, "input")),
            _ => {}
        }
    }
    Ok(respond(&json!({
        "object": "list",
        "data": data,
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
