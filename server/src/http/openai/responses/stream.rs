//! A response as it grows: the events of its stream, and the object at its end.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::object::{Status, id_prefix, item, part, usage};
use crate::http::{
    App,
    chat::{
        Chat, Choice, News,
        blocks::{Block, Blocks, Change},
    },
    error::ApiError,
    ids::{new_id, now},
    stream::{Left, Sender, or_keep_alive},
};

/// A response so far.
pub(super) struct Progress {
    /// What stays the same.
    head: Map<String, Value>,
    blocks: Blocks,
    /// Names of the blocks' items.
    ids: Vec<String>,
    /// Items that have ended.
    output: Vec<Value>,
    /// Number of the next event.
    sequence: u64,
}

impl Progress {
    /// `said` are fields of the request that the response repeats.
    pub fn new(app: &App, said: Map<String, Value>) -> Self {
        let head = json!({
            "id": new_id("resp_"),
            "object": "response",
            "created_at": now(),
            "model": app.options.model_name,
        });
        let mut head = if let Value::Object(head) = head { head } else { Map::new() };
        head.extend(said);
        Self { head, blocks: Blocks::default(), ids: Vec::new(), output: Vec::new(), sequence: 0 }
    }

    /// The response as it is now.
    pub fn response(&self, choice: Option<&Choice>) -> Value {
        let status = Status::of(choice);
        let cut = (status == Status::Incomplete).then(|| json!({ "reason": "max_output_tokens" }));
        let mut response = self.head.clone();
        let rest = [
            ("status", status.name().into()),
            ("error", Value::Null),
            ("incomplete_details", json!(cut)),
            ("output", self.output.clone().into()),
            ("usage", json!(choice.filter(|choice| choice.end.is_some()).map(usage))),
        ];
        response.extend(rest.into_iter().map(|(name, value)| (name.to_owned(), value)));
        response.into()
    }

    /// Sends the events.
    pub async fn stream(mut self, mut chat: Chat, every: Duration, sender: Sender) -> Result<(), Left> {
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response(None);
            self.send(&sender, json!({ "type": kind, "response": response })).await?;
        }
        while let Some(news) = or_keep_alive(&sender, every, chat.next()).await? {
            let events = match news {
                Ok(news) => self.take(&chat, news),
                Err(error) => {
                    let failed = self.failed(&error);
                    return self.send(&sender, failed).await;
                }
            };
            for event in events {
                self.send(&sender, event).await?;
            }
        }
        Ok(())
    }

    async fn send(&mut self, sender: &Sender, mut event: Value) -> Result<(), Left> {
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        sender.event(event["type"].as_str().unwrap_or_default(), &event).await
    }

    fn failed(&self, error: &ApiError) -> Value {
        let (message, code) = error.parts();
        let mut response = self.response(None);
        response["status"] = "failed".into();
        response["error"] = json!({ "code": code.unwrap_or("server_error"), "message": message });
        json!({ "type": "response.failed", "response": response })
    }

    /// Takes the news; what a stream says of them.
    pub fn take(&mut self, chat: &Chat, news: News) -> Vec<Value> {
        let choice = chat.choices.get(news.index);
        let (mut changes, mut events) = (Vec::new(), Vec::new());
        news.events.into_iter().for_each(|event| self.blocks.take(event, &mut changes));
        for (index, change) in changes {
            self.change(index, change, Status::Completed, &mut events);
        }
        if news.ends {
            let mut changes = Vec::new();
            self.blocks.end(&mut changes);
            let status = Status::of(choice);
            for (index, change) in changes {
                // The last item is cut off with the answer.
                self.change(index, change, status, &mut events);
            }
            events.push(json!({ "type": format!("response.{}", status.name()), "response": self.response(choice) }));
        }
        events
    }

    fn change(&mut self, index: usize, change: Change, end: Status, events: &mut Vec<Value>) {
        let Some(block) = self.blocks.all.get(index) else { return };
        if change == Change::Begins {
            self.ids.push(new_id(id_prefix(block)));
        }
        let Some(id) = self.ids.get(index) else { return };
        let event = |kind: &str, more: Value| {
            let mut event = json!({ "type": format!("response.{kind}"), "output_index": index });
            if let (Value::Object(event), Value::Object(more)) = (&mut event, more) {
                event.extend(more);
            }
            event
        };
        let of_part = |kind: &str, part: Value| {
            event(&format!("content_part.{kind}"), json!({ "item_id": id, "content_index": 0, "part": part }))
        };
        match change {
            Change::Begins => {
                // What came since is in the blocks already.
                let block = block.begun();
                events.push(event("output_item.added", json!({ "item": item(id, &block, Status::InProgress) })));
                events.extend(part(&block).map(|part| of_part("added", part)));
            }
            Change::Grows(delta) => {
                let more = json!({ "item_id": id, "content_index": 0, "delta": delta });
                events.push(match block {
                    Block::Reasoning(_) => event("reasoning_text.delta", more),
                    Block::Text(_) => event("output_text.delta", with_logprobs(more)),
                    Block::Call { .. } => {
                        event("function_call_arguments.delta", json!({ "item_id": id, "delta": delta }))
                    }
                });
            }
            Change::Ends => {
                events.push(match block {
                    Block::Reasoning(text) => {
                        event("reasoning_text.done", json!({ "item_id": id, "content_index": 0, "text": text }))
                    }
                    Block::Text(text) => {
                        let more = json!({ "item_id": id, "content_index": 0, "text": text });
                        event("output_text.done", with_logprobs(more))
                    }
                    Block::Call { name, arguments, .. } => {
                        let more = json!({ "item_id": id, "name": name, "arguments": arguments });
                        event("function_call_arguments.done", more)
                    }
                });
                events.extend(part(block).map(|part| of_part("done", part)));
                let item = item(id, block, end);
                events.push(event("output_item.done", json!({ "item": item })));
                self.output.push(item);
            }
        }
    }
}

/// Clients want a list, though it is empty.
fn with_logprobs(mut event: Value) -> Value {
    event["logprobs"] = json!([]);
    event
}
