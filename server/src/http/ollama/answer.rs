//! `/api/chat` and `/api/generate`: lines of JSON, or one object.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    response::Response,
};
use handmill_models::{ToolCall, text::ReplyEvent};
use serde_json::{Map, Value, json};

use super::{
    request::{self, Asked},
    time,
};
use crate::{
    http::{
        App, body,
        chat::{Chat, Choice, End, News, arguments},
        error::{ApiError, Shape},
        fields::Fields,
        json as respond, stream,
        times::Times,
    },
    scheduler::Usage,
};

/// An answer under way.
struct Answer {
    app: Arc<App>,
    is_chat: bool,
    times: Times,
}

/// A part of an answer, or all of it.
#[derive(Default)]
struct Part {
    text: String,
    thinking: String,
    calls: Vec<Value>,
}

pub(crate) async fn chat(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let streams = fields.boolean_or("stream", true)?;
    let asked = request::chat(&app, fields)?;
    Answer { app, is_chat: true, times: Times::new() }.run(asked, streams).await
}

pub(crate) async fn generate(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let streams = fields.boolean_or("stream", true)?;
    let asked = request::generate(&app, fields)?;
    Answer { app, is_chat: false, times: Times::new() }.run(asked, streams).await
}

impl Answer {
    async fn run(self, asked: Asked, streams: bool) -> Result<Response, ApiError> {
        let chat = match asked {
            Asked::Chat(ask) => Chat::start(&self.app, *ask)?,
            Asked::Text { ids, answer } => Chat::of_text(&self.app, ids, answer, "prompt")?,
            Asked::Nothing => return Ok(respond(&self.last(&Part::default(), "load", Usage::default()))),
        };
        if !streams {
            return self.whole(chat).await;
        }
        let (sender, response) = stream::lines();
        tokio::spawn(async move { self.stream(chat, sender).await });
        Ok(response)
    }

    async fn whole(mut self, mut chat: Chat) -> Result<Response, ApiError> {
        while let Some(news) = chat.next().await {
            self.mark(&news?);
        }
        let choice = chat.choices.pop().unwrap_or_default();
        let calls = choice.reply.calls.iter().filter_map(call).collect();
        let (reason, usage) = (reason(&choice), choice.usage);
        let part = Part { text: choice.reply.text, thinking: choice.reply.reasoning, calls };
        Ok(respond(&self.last(&part, reason, usage)))
    }

    async fn stream(mut self, mut chat: Chat, sender: stream::Sender) -> Result<(), stream::Left> {
        let every = self.app.options.keep_alive;
        while let Some(news) = stream::or_keep_alive(&sender, every, chat.next()).await? {
            let lines = match news {
                Ok(news) => self.lines(&chat, news),
                Err(error) => return sender.json(&error.json_in(Shape::Ollama)).await,
            };
            for line in &lines {
                sender.json(line).await?;
            }
        }
        Ok(())
    }

    /// What a stream says of the news.
    fn lines(&mut self, chat: &Chat, news: News) -> Vec<Value> {
        self.mark(&news);
        let Some(choice) = chat.choices.get(news.index) else { return Vec::new() };
        let (mut part, mut lines) = (Part::default(), Vec::new());
        for event in news.events {
            match event {
                ReplyEvent::Text(text) => part.text += &text,
                ReplyEvent::Reasoning(text) => part.thinking += &text,
                // A call comes when it is whole.
                ReplyEvent::CallEnds { index } => part.calls.extend(choice.reply.calls.get(index).and_then(call)),
                _ => {}
            }
        }
        if !(part.text.is_empty() && part.thinking.is_empty() && part.calls.is_empty()) {
            lines.push(self.line(&part, false));
        }
        if news.ends {
            lines.push(self.last(&Part::default(), reason(choice), choice.usage));
        }
        lines
    }

    fn mark(&mut self, news: &News) {
        if news.starts {
            self.times.start();
        }
        if news.scored.is_some() {
            self.times.token();
        }
    }

    fn line(&self, part: &Part, done: bool) -> Value {
        let mut said = Map::new();
        if self.is_chat {
            said.insert("role".to_owned(), "assistant".into());
        }
        said.insert(if self.is_chat { "content" } else { "response" }.to_owned(), part.text.as_str().into());
        if !part.thinking.is_empty() {
            said.insert("thinking".to_owned(), part.thinking.as_str().into());
        }
        if !part.calls.is_empty() {
            said.insert("tool_calls".to_owned(), part.calls.clone().into());
        }
        let mut line = json!({ "model": self.app.options.model_name, "created_at": time::now() });
        match &mut line {
            Value::Object(line) if !self.is_chat => line.extend(said),
            line => line["message"] = said.into(),
        }
        line["done"] = done.into();
        line
    }

    /// The line that ends an answer.
    fn last(&self, part: &Part, reason: &str, usage: Usage) -> Value {
        let mut line = self.line(part, true);
        line["done_reason"] = reason.into();
        if let (Value::Object(line), Value::Object(times)) = (&mut line, time::json(&self.times, usage)) {
            line.extend(times);
        }
        line
    }
}

fn reason(choice: &Choice) -> &'static str {
    if choice.end.as_ref().is_some_and(End::is_complete) { "stop" } else { "length" }
}

/// A call; none where the answer ended before its arguments did.
fn call(call: &ToolCall) -> Option<Value> {
    let function = json!({ "name": call.name, "arguments": arguments(&call.arguments)? });
    Some(json!({ "id": call.id, "function": function }))
}
