//! Routes in front of a [`Scheduler`].

mod anthropic;
mod chat;
mod choices;
mod doors;
mod error;
mod fields;
mod ids;
mod listen;
mod llama;
mod monitor;
mod native;
mod ollama;
mod openai;
mod page;
mod prompts;
mod sampling;
mod stream;
mod times;
mod vectors;

use std::{
    net::TcpListener,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::Request,
    http::{HeaderValue, header},
    middleware,
    response::Response,
    routing::{get, post},
};
use handmill_models::{Model, text::Tokenizer};
use http_body_util::LengthLimitError;
use serde_json::Value;

use crate::{Error, Scheduler, ServerOptions, Stop};
use error::ApiError;

pub use listen::bind;

/// What all routes have.
pub(crate) struct App {
    pub scheduler: Scheduler,
    pub options: ServerOptions,
    pub model: Model,
    pub tokenizer: Arc<Tokenizer>,
    pub grammars: chat::forms::LazyGrammars,
    /// Whether only this machine can connect.
    pub local_only: bool,
    /// Seconds since the epoch at the start.
    pub started: u64,
}

/// Serves until `stop` is asked, and until what is then under way has ended. The scheduler is drained afterwards.
///
/// # Errors
/// A model without a tokenizer; no threads.
pub fn serve(
    listener: TcpListener,
    model: &Model,
    scheduler: Scheduler,
    options: ServerOptions,
    stop: &Stop,
) -> Result<(), Error> {
    let tokenizer = model.tokenizer()?.clone();
    let app = Arc::new(App {
        scheduler,
        options,
        model: model.clone(),
        tokenizer,
        grammars: OnceLock::new(),
        local_only: listener.local_addr().is_ok_and(|address| address.ip().is_loopback()),
        started: ids::now(),
    });
    // The engine has threads of its own; these only wait, parse and write.
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("http").enable_all().build();
    let runtime = runtime.map_err(Error::Threads)?;
    let served = runtime.block_on(listen::run(listener, router(app.clone()), &app, stop));
    app.scheduler.join();
    served
}

fn router(app: Arc<App>) -> Router {
    Router::new()
        .route("/", get(page::index))
        .route("/page/{name}", get(page::file))
        .route("/health", get(native::health))
        .route("/version", get(native::version))
        .route("/props", get(native::props))
        .route("/metrics", get(monitor::metrics))
        .route("/slots", get(monitor::slots))
        .route("/tokenize", post(native::tokenize))
        .route("/detokenize", post(native::detokenize))
        .route("/tokenizer_info", get(native::tokenizer_info))
        .route("/completion", post(llama::completion))
        .route("/completions", post(llama::completion))
        .route("/infill", post(llama::infill))
        .route("/apply-template", post(llama::apply_template))
        .route("/v1/models", get(openai::models::list))
        .route("/models", get(openai::models::list))
        .route("/v1/models/{*name}", get(openai::models::one))
        .route("/v1/chat/completions", post(openai::chat::answer))
        .route("/chat/completions", post(openai::chat::answer))
        .route("/v1/completions", post(openai::completions::answer))
        .route("/v1/responses", post(openai::responses::answer))
        .route("/responses", post(openai::responses::answer))
        .route("/v1/embeddings", post(openai::embeddings::answer))
        .route("/v1/messages", post(anthropic::answer))
        .route("/v1/messages/count_tokens", post(anthropic::count_tokens))
        .route("/api/version", get(ollama::models::version))
        .route("/api/tags", get(ollama::models::tags))
        .route("/api/ps", get(ollama::models::ps))
        .route("/api/show", post(ollama::models::show))
        .route("/api/chat", post(ollama::answer::chat))
        .route("/api/generate", post(ollama::answer::generate))
        .route("/api/embed", post(ollama::embed::embed))
        .route("/api/embeddings", post(ollama::embed::embeddings))
        .fallback(doors::unknown_path)
        .method_not_allowed_fallback(doors::wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), doors::check))
        .with_state(app)
}

/// The body of a request.
pub(crate) async fn body(app: &App, request: Request) -> Result<Bytes, ApiError> {
    let limit = app.options.max_body_bytes;
    let read = axum::body::to_bytes(request.into_body(), limit);
    let read = tokio::time::timeout(app.options.body_timeout, read).await;
    let read = read.map_err(|_| ApiError::status(408, "the request's body did not come in time"))?;
    read.map_err(|error| match error.into_inner().downcast::<LengthLimitError>() {
        Ok(_) => ApiError::status(413, format!("the request's body is longer than {limit} bytes")),
        Err(error) => ApiError::status(400, format!("the request's body could not be read: {error}")),
    })
}

/// A response with JSON.
pub(crate) fn json(value: &Value) -> Response {
    let mut response = Response::new(Body::from(value.to_string()));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
