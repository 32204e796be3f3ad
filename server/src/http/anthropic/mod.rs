//! Anthropic's routes: `/v1/messages` and `/v1/messages/count_tokens`.

mod conversation;
mod message;
mod request;
mod stream;

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use serde_json::json;

use super::{
    App, body,
    chat::{Chat, prompt::Prompt},
    error::ApiError,
    fields::Fields,
    json as respond,
};
use message::Message;

/// A sign of life among events, which clients skip.
const PING: &str = "event: ping\ndata: {\"type\":\"ping\"}\n\n";

/// `/v1/messages`.
pub(super) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let (ask, streams) = request::read(&app, fields)?;
    let chat = Chat::start(&app, ask)?;
    let message = Message::new(&app);
    if !streams {
        return message.whole(chat).await;
    }
    let (sender, response) = super::stream::events(PING);
    tokio::spawn(async move { stream::run(message, chat, app.options.keep_alive, sender).await });
    Ok(response)
}

/// `/v1/messages/count_tokens`.
pub(super) async fn count_tokens(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let mut fields = Fields::parse(&body(&app, request).await?)?;
    let (mut conversation, tools) = request::conversation(&mut fields)?;
    tools.offer(&mut conversation)?;
    let tokens = Prompt::new(&app, &conversation, "messages")?.ids.len();
    Ok(respond(&json!({ "input_tokens": tokens })))
}
