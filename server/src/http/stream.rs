//! Streams: server-sent events, or lines of JSON.

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

/// A comment among events, which clients skip.
pub(crate) const COMMENT: &str = ": still here\n\n";

/// Sends the events of one stream.
pub(crate) struct Sender {
    lines: mpsc::Sender<Bytes>,
    /// Sent where nothing else is for a while; none where clients would take it for news.
    keep_alive: Option<&'static str>,
}

/// The client has left.
#[derive(Debug)]
pub(crate) struct Left;

impl Sender {
    /// An event without a name.
    pub async fn data(&self, value: &Value) -> Result<(), Left> {
        self.line(format!("data: {value}\n\n")).await
    }

    /// The end, as OpenAI's streams have it.
    pub async fn done(&self) -> Result<(), Left> {
        self.line("data: [DONE]\n\n".to_owned()).await
    }

    /// An event of that name.
    pub async fn event(&self, name: &str, value: &Value) -> Result<(), Left> {
        self.line(format!("event: {name}\ndata: {value}\n\n")).await
    }

    /// A line of JSON by itself.
    pub async fn json(&self, value: &Value) -> Result<(), Left> {
        self.line(format!("{value}\n")).await
    }

    async fn line(&self, line: String) -> Result<(), Left> {
        self.lines.send(line.into()).await.map_err(|_| Left)
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

/// Events, and their sender for a task of its own. The stream ends when the sender is dropped.
pub(crate) fn events(keep_alive: &'static str) -> (Sender, Response) {
    stream("text/event-stream; charset=utf-8", Some(keep_alive))
}

/// Lines of JSON. Their clients read each line as news, so that nothing can be sent for the sake of it.
pub(crate) fn lines() -> (Sender, Response) {
    stream("application/x-ndjson", None)
}

fn stream(kind: &'static str, keep_alive: Option<&'static str>) -> (Sender, Response) {
    let (lines, receiver) = mpsc::channel(WAITING);
    let mut response = Response::new(Body::new(Events(receiver)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    // nginx would gather events otherwise.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    (Sender { lines, keep_alive }, response)
}

/// Waits for `next`, with signs of life while it does not come and an end where the client leaves.
pub(crate) async fn or_keep_alive<T>(
    sender: &Sender,
    every: Duration,
    next: impl Future<Output = T>,
) -> Result<T, Left> {
    tokio::pin!(next);
    loop {
        tokio::select! {
            value = &mut next => return Ok(value),
            () = sender.lines.closed() => return Err(Left),
            () = tokio::time::sleep(every) => {
                if let Some(sign) = sender.keep_alive {
                    sender.line(sign.to_owned()).await?;
                }
            }
        }
    }
}
