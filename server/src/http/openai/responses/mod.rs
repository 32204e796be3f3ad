//! `/v1/responses`. Nothing is kept of an answer: the next request has the whole conversation in it.

mod items;
mod object;
mod request;
mod stream;

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};

use crate::http::{App, body, chat::Chat, error::ApiError, fields::Fields, json as respond, stream as http_stream};
use request::Asked;
use stream::Progress;

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let Asked { ask, streams, said } = request::read(&app, fields)?;
    let mut chat = Chat::start(&app, ask)?;
    let mut progress = Progress::new(&app, said);
    if streams {
        let (sender, response) = http_stream::events(http_stream::COMMENT);
        tokio::spawn(async move { progress.stream(chat, app.options.keep_alive, sender).await });
        return Ok(response);
    }
    while let Some(news) = chat.next().await {
        progress.take(&chat, news?);
    }
    Ok(respond(&progress.response(chat.choices.first())))
}
