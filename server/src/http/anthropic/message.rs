//! A message as it is answered.

use axum::response::Response;
use handmill_models::StopReason;
use serde_json::{Map, Value, json};

use crate::{
    http::{
        App,
        chat::{
            Chat, Choice, arguments,
            blocks::{Block, Blocks},
        },
        error::ApiError,
        ids::new_id,
        json as respond,
    },
    scheduler::Usage,
};

/// Stands in reasoning for Anthropic's proof of where it comes from: some clients drop reasoning that has none.
pub(super) const SIGNATURE: &str = "handmill";

/// What stays the same of a message.
pub(super) struct Message {
    id: String,
    model: String,
}

impl Message {
    pub fn new(app: &App) -> Self {
        Self { id: new_id("msg_"), model: app.options.model_name.clone() }
    }

    /// The message with that content, and why it ended, if it has.
    pub fn json(&self, content: Value, choice: &Choice) -> Value {
        let mut message = json!({
            "id": self.id,
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": content,
        });
        if let Value::Object(message) = &mut message {
            message.extend(end(choice));
            message.insert("usage".to_owned(), usage(choice.usage));
        }
        message
    }

    pub async fn whole(self, mut chat: Chat) -> Result<Response, ApiError> {
        let mut blocks = Blocks::default();
        while let Some(news) = chat.next().await {
            news?.events.into_iter().for_each(|event| blocks.take(event, &mut Vec::new()));
        }
        let content = blocks.all.iter().filter_map(whole).collect();
        Ok(respond(&self.json(content, chat.choices.first().unwrap_or(&Choice::default()))))
    }
}

/// A block that is complete. A call whose arguments never were is left out: nobody may run it.
fn whole(block: &Block) -> Option<Value> {
    Some(match block {
        Block::Reasoning(text) => json!({ "type": "thinking", "thinking": text, "signature": SIGNATURE }),
        Block::Text(text) => json!({ "type": "text", "text": text }),
        Block::Call { id, name, arguments: input } => {
            json!({ "type": "tool_use", "id": id, "name": name, "input": arguments(input)? })
        }
    })
}

/// Why an answer ended; null while it goes on.
pub(super) fn end(choice: &Choice) -> Map<String, Value> {
    let end = choice.end.as_ref();
    let stop = end.and_then(|end| end.stop.clone());
    let reason = end.map(|end| match end.reason {
        _ if stop.is_some() => "stop_sequence",
        _ if choice.calls() => "tool_use",
        StopReason::EndOfTurn => "end_turn",
        _ => "max_tokens",
    });
    Map::from_iter([("stop_reason".to_owned(), json!(reason)), ("stop_sequence".to_owned(), json!(stop))])
}

/// Tokens of the prompt that were in the cache are no `input_tokens`.
pub(super) fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens - usage.cached_tokens,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}
