//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use handmill_models::{Reply, text::ReplyEvent};
use serde_json::{Map, Value, json};

use super::{chat_request, finish_reason, logprobs, params::Stream, usage_json};
use crate::{
    http::{
        App, body,
        chat::{Chat, Choice, News},
        error::ApiError,
        fields::Fields,
        ids::{new_id, now},
        json as respond, stream,
    },
    scheduler::Scored,
};

/// A request that is under way.
struct Completion {
    app: Arc<App>,
    id: String,
    created: u64,
    logprobs: bool,
}

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let (ask, stream) = chat_request::read(&app, fields)?;
    let logprobs = ask.answer.log_probabilities.is_some();
    let chat = Chat::start(&app, ask)?;
    let completion = Completion { app, id: new_id("chatcmpl-"), created: now(), logprobs };
    match stream {
        None => completion.whole(chat).await,
        Some(options) => {
            let (sender, response) = stream::events(stream::COMMENT);
            tokio::spawn(async move { completion.stream(chat, options, sender).await });
            Ok(response)
        }
    }
}

impl Completion {
    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.app.options.model_name,
            "choices": choices,
        })
    }

    /// The numbers of a token, where they are wanted.
    fn numbers(&self, scored: Option<&Scored>) -> Option<Value> {
        scored.filter(|_| self.logprobs).map(|scored| logprobs::of_chat(&self.app, scored))
    }

    async fn whole(self, mut chat: Chat) -> Result<Response, ApiError> {
        let mut logprobs = vec![Vec::new(); chat.choices.len()];
        while let Some(news) = chat.next().await {
            let news = news?;
            if let Some(all) = logprobs.get_mut(news.index) {
                all.extend(self.numbers(news.scored.as_ref()));
            }
        }
        let all = chat.choices.iter().zip(logprobs).enumerate().map(|(index, (choice, logprobs))| {
            json!({
                "index": index,
                "message": message(&choice.reply),
                "logprobs": self.logprobs.then(|| json!({ "content": logprobs })),
                "finish_reason": reason(choice),
            })
        });
        let mut object = self.object("chat.completion", all.collect());
        object["usage"] = usage_json(chat.usage());
        Ok(respond(&object))
    }

    async fn stream(self, mut chat: Chat, options: Stream, sender: stream::Sender) -> Result<(), stream::Left> {
        let every = self.app.options.keep_alive;
        while let Some(news) = stream::or_keep_alive(&sender, every, chat.next()).await? {
            let News { index, starts, events, scored, ends } = match news {
                Ok(news) => news,
                Err(error) => {
                    sender.data(&error.json()).await?;
                    return sender.done().await;
                }
            };
            let mut numbers = self.numbers(scored.as_ref());
            let mut deltas: Vec<Value> = events.into_iter().filter_map(delta).collect();
            if starts {
                deltas.push(json!({ "role": "assistant", "content": "" }));
            } else if deltas.is_empty() && numbers.is_some() {
                deltas.push(json!({}));
            }
            let ends = chat.choices.get(index).filter(|_| ends).and_then(reason);
            let chunks = deltas.into_iter().map(|delta| (delta, None)).chain(ends.map(|ends| (json!({}), Some(ends))));
            for (delta, ends) in chunks {
                let choice = json!({
                    "index": index,
                    "delta": delta,
                    "logprobs": numbers.take().map(|numbers| json!({ "content": [numbers] })),
                    "finish_reason": ends,
                });
                let mut chunk = self.object("chat.completion.chunk", json!([choice]));
                if options.usage {
                    chunk["usage"] = if options.always { usage_json(chat.usage()) } else { Value::Null };
                }
                sender.data(&chunk).await?;
            }
        }
        if options.usage {
            let mut chunk = self.object("chat.completion.chunk", json!([]));
            chunk["usage"] = usage_json(chat.usage());
            sender.data(&chunk).await?;
        }
        sender.done().await
    }
}

/// The name of why an answer ended.
fn reason(choice: &Choice) -> Option<&'static str> {
    let end = choice.end.as_ref()?;
    Some(if choice.calls() { "tool_calls" } else { finish_reason(end.reason) })
}

/// The whole message of a choice.
fn message(Reply { text, reasoning, calls, .. }: &Reply) -> Value {
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    // A message that calls tools need not have a text.
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.as_str().into() };
    message.insert("content".to_owned(), content);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".to_owned(), reasoning.as_str().into());
    }
    if !calls.is_empty() {
        let calls = calls.iter().map(|call| {
            let function = json!({ "name": call.name, "arguments": call.arguments });
            json!({ "id": call.id, "type": "function", "function": function })
        });
        message.insert("tool_calls".to_owned(), calls.collect());
    }
    message.into()
}

/// An event as a stream has it.
fn delta(event: ReplyEvent) -> Option<Value> {
    match event {
        ReplyEvent::Text(text) => Some(json!({ "content": text })),
        ReplyEvent::Reasoning(text) => Some(json!({ "reasoning_content": text })),
        ReplyEvent::CallBegins { index, name, id } => Some(json!({ "tool_calls": [{
            "index": index,
            "id": id,
            "type": "function",
            "function": { "name": name, "arguments": "" },
        }] })),
        ReplyEvent::CallArguments { index, json } => {
            Some(json!({ "tool_calls": [{ "index": index, "function": { "arguments": json } }] }))
        }
        _ => None,
    }
}
