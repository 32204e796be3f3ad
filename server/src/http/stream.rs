//! Server-sent events.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, header},
    response::Response,
};
use http_body::Frame;
use serde_json::Value;
use tokio::sync::mpsc;

/// Events that wait for a slow reader; further ones make their sender wait.
const WAITING: usize = 64;

/// Sends the events of one stream.
pub(crate) struct Sender(mpsc::Sender<Bytes>);

/// The client has left.
#[derive(Debug)]
pub(crate) struct Left;

impl Sender {
    pub async fn data(&self, value: &Value) -> Result<(), Left> {
        self.line(format!("data: {value}\n\n")).await
    }

    /// The end, as OpenAI's streams have it.
    pub async fn done(&self) -> Result<(), Left> {
        self.line("data: [DONE]\n\n".to_owned()).await
    }

    /// A comment, which clients skip.
    pub async fn comment(&self) -> Result<(), Left> {
        self.line(": still here\n\n".to_owned()).await
    }

    async fn line(&self, line: String) -> Result<(), Left> {
        self.0.send(line.into()).await.map_err(|_| Left)
    }
}

/// The other end: what is sent, as a body.
struct Events(mpsc::Receiver<Bytes>);

impl http_body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

/// A stream, and its sender for a task of its own. The stream ends when the sender is dropped.
pub(crate) fn new() -> (Sender, Response) {
    let (sender, receiver) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::new(Events(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (Sender(sender), response)
}

/// Waits for `next`, with comments while it does not come and an end where the client leaves.
pub(crate) async fn or_comments<T>(sender: &Sender, every: Duration, next: impl Future<Output = T>) -> Result<T, Left> {
    tokio::pin!(next);
    loop {
        tokio::select! {
            value = &mut next => return Ok(value),
            () = sender.0.closed() => return Err(Left),
            () = tokio::time::sleep(every) => sender.comment().await?,
        }
    }
}
