//! `/v1/chat/completions`.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use handmill_models::{
    Reply, StopReason,
    text::{ReplyEvent, ReplyParser},
};
use serde_json::{Map, Value, json};

use super::{
    add_usage, chat_request, chat_request::ChatRequest, finish_reason, logprobs, new_id, now, params::Stream,
    usage_json,
};
use crate::{
    http::{App, body, choices::Choices, error::ApiError, fields::Fields, json as respond, stream},
    scheduler::{Event, Usage},
};

/// A request that is under way.
struct Chat {
    app: Arc<App>,
    id: String,
    created: u64,
    logprobs: bool,
    parallel: bool,
}

/// One choice so far.
struct Choice {
    parser: ReplyParser,
    reply: Reply,
    /// What the last event brought.
    news: Vec<ReplyEvent>,
    /// Names that calls were given which have none of their own.
    call_ids: Vec<String>,
    logprobs: Vec<Value>,
    finish_reason: Option<&'static str>,
    usage: Usage,
}

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let ChatRequest { params, request, parsers, parallel } = chat_request::read(&app, fields)?;
    let submitted = Choices::submit(&app.scheduler, vec![request], params.n);
    let choices = submitted.map_err(|error| ApiError::of_request(&error, "messages"))?;
    let logprobs = params.answer.log_probabilities.is_some();
    let chat = Chat { app, id: new_id("chatcmpl"), created: now(), logprobs, parallel };
    let each = parsers.into_iter().map(Choice::new).collect();
    match params.stream {
        None => chat.whole(choices, each).await,
        Some(options) => {
            let (sender, response) = stream::new();
            tokio::spawn(async move { chat.stream(choices, each, options, sender).await });
            Ok(response)
        }
    }
}

impl Choice {
    fn new(parser: ReplyParser) -> Self {
        Self {
            parser,
            reply: Reply::default(),
            news: Vec::new(),
            call_ids: Vec::new(),
            logprobs: Vec::new(),
            finish_reason: None,
            usage: Usage::default(),
        }
    }

    /// The end of the reply, whose last text has been pushed.
    fn finish(&mut self, reason: StopReason) {
        self.parser.finish(reason == StopReason::EndOfTurn, &mut self.news);
        let name = finish_reason(reason);
        let begins = |event: &ReplyEvent| matches!(event, ReplyEvent::CallBegins { .. });
        let called = !self.call_ids.is_empty() || self.news.iter().any(begins);
        self.finish_reason = Some(if called && name == "stop" { "tool_calls" } else { name });
    }
}

impl Chat {
    /// Adds an event to its choice.
    fn take(&self, choice: &mut Choice, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Started(usage) => choice.usage = usage,
            Event::Token { scored, text } => {
                choice.usage.completion_tokens += 1;
                choice.parser.push(&text, &mut choice.news);
                if self.logprobs {
                    choice.logprobs.push(logprobs::of_chat(&self.app, &scored));
                }
            }
            Event::Finished { reason, text, usage } => {
                choice.parser.push(&text, &mut choice.news);
                choice.usage = usage;
                choice.finish(reason);
            }
            Event::Failed(error) => return Err(ApiError::of_request(&error, "messages")),
            Event::Prompt(_) | Event::Embedding(_) => {}
        }
        let parallel = self.parallel;
        choice.news.retain(|event| match event {
            ReplyEvent::CallBegins { index, .. }
            | ReplyEvent::CallArguments { index, .. }
            | ReplyEvent::CallEnds { index } => parallel || *index == 0,
            _ => true,
        });
        for event in &choice.news {
            choice.reply.take(event);
            if let ReplyEvent::CallBegins { id, .. } = event {
                choice.call_ids.push(id.clone().unwrap_or_else(|| new_id("call")));
            }
        }
        Ok(())
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.app.options.model_name,
            "choices": choices,
        })
    }

    fn usage(choices: &[Choice]) -> Value {
        let mut sum = Usage::default();
        choices.iter().enumerate().for_each(|(i, choice)| add_usage(&mut sum, choice.usage, i == 0));
        usage_json(sum)
    }

    async fn whole(self, mut events: Choices, mut choices: Vec<Choice>) -> Result<Response, ApiError> {
        while let Some((index, event)) = events.next().await {
            if let Some(choice) = choices.get_mut(index) {
                self.take(choice, event)?;
                choice.news.clear();
            }
        }
        let all = choices.iter().enumerate().map(|(index, choice)| {
            json!({
                "index": index,
                "message": message(choice),
                "logprobs": self.logprobs.then(|| json!({ "content": choice.logprobs })),
                "finish_reason": choice.finish_reason,
            })
        });
        let mut object = self.object("chat.completion", all.collect());
        object["usage"] = Self::usage(&choices);
        Ok(respond(&object))
    }

    async fn stream(
        self,
        mut events: Choices,
        mut choices: Vec<Choice>,
        options: Stream,
        sender: stream::Sender,
    ) -> Result<(), stream::Left> {
        let every = self.app.options.keep_alive;
        while let Some((index, event)) = stream::or_comments(&sender, every, events.next()).await? {
            let Some(choice) = choices.get_mut(index) else { continue };
            let starts = matches!(event, Event::Started(_));
            if let Err(error) = self.take(choice, event) {
                sender.data(&error.json()).await?;
                return sender.done().await;
            }
            let mut deltas = deltas(choice);
            if starts {
                deltas.push(json!({ "role": "assistant", "content": "" }));
            } else if deltas.is_empty() && !choice.logprobs.is_empty() {
                deltas.push(json!({}));
            }
            let ends = choice.finish_reason;
            let mut numbers = std::mem::take(&mut choice.logprobs);
            let chunks = deltas.into_iter().map(|delta| (delta, None)).chain(ends.map(|ends| (json!({}), Some(ends))));
            for (delta, ends) in chunks {
                let numbers = Some(std::mem::take(&mut numbers)).filter(|numbers| !numbers.is_empty());
                let choice = json!({
                    "index": index,
                    "delta": delta,
                    "logprobs": numbers.map(|numbers| json!({ "content": numbers })),
                    "finish_reason": ends,
                });
                let mut chunk = self.object("chat.completion.chunk", json!([choice]));
                if options.usage {
                    chunk["usage"] = if options.always { Self::usage(&choices) } else { Value::Null };
                }
                sender.data(&chunk).await?;
            }
        }
        if options.usage {
            let mut chunk = self.object("chat.completion.chunk", json!([]));
            chunk["usage"] = Self::usage(&choices);
            sender.data(&chunk).await?;
        }
        sender.done().await
    }
}

/// The whole message of a choice.
fn message(choice: &Choice) -> Value {
    let Reply { text, reasoning, calls, .. } = &choice.reply;
    let mut message = Map::new();
    message.insert("role".to_owned(), "assistant".into());
    // A message that calls tools need not have a text.
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { text.as_str().into() };
    message.insert("content".to_owned(), content);
    if !reasoning.is_empty() {
        message.insert("reasoning_content".to_owned(), reasoning.as_str().into());
    }
    if !calls.is_empty() {
        let calls = calls.iter().zip(&choice.call_ids).map(|(call, id)| {
            json!({ "id": id, "type": "function", "function": { "name": call.name, "arguments": call.arguments } })
        });
        message.insert("tool_calls".to_owned(), calls.collect());
    }
    message.into()
}

/// What the last event brought, as a stream has it.
fn deltas(choice: &mut Choice) -> Vec<Value> {
    let call_ids = &choice.call_ids;
    let delta = |event: ReplyEvent| match event {
        ReplyEvent::Text(text) => Some(json!({ "content": text })),
        ReplyEvent::Reasoning(text) => Some(json!({ "reasoning_content": text })),
        ReplyEvent::CallBegins { index, name, .. } => Some(json!({ "tool_calls": [{
            "index": index,
            "id": call_ids.get(index),
            "type": "function",
            "function": { "name": name, "arguments": "" },
        }] })),
        ReplyEvent::CallArguments { index, json } => {
            Some(json!({ "tool_calls": [{ "index": index, "function": { "arguments": json } }] }))
        }
        _ => None,
    };
    choice.news.drain(..).filter_map(delta).collect()
}
