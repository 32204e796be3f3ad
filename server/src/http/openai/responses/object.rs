//! Items of an answer as JSON.

use serde_json::{Value, json};

use crate::http::chat::{Choice, blocks::Block};

/// Whether an item or a response goes on, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    InProgress,
    Completed,
    /// It was cut off.
    Incomplete,
}

impl Status {
    pub fn of(choice: Option<&Choice>) -> Self {
        match choice.and_then(|choice| choice.end.as_ref()) {
            None => Self::InProgress,
            Some(end) if end.is_complete() => Self::Completed,
            Some(_) => Self::Incomplete,
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Incomplete => "incomplete",
        }
    }
}

/// What names of items of that kind begin with.
pub(super) fn id_prefix(block: &Block) -> &'static str {
    match block {
        Block::Reasoning(_) => "rs_",
        Block::Text(_) => "msg_",
        Block::Call { .. } => "fc_",
    }
}

/// The one part of an item that has parts.
pub(super) fn part(block: &Block) -> Option<Value> {
    match block {
        Block::Reasoning(text) => Some(json!({ "type": "reasoning_text", "text": text })),
        Block::Text(text) => Some(json!({ "type": "output_text", "text": text, "annotations": [], "logprobs": [] })),
        Block::Call { .. } => None,
    }
}

/// An item; its part only comes with it once it has ended.
pub(super) fn item(id: &str, block: &Block, status: Status) -> Value {
    let parts: Vec<Value> = part(block).filter(|_| status != Status::InProgress).into_iter().collect();
    let status = status.name();
    match block {
        Block::Reasoning(_) => {
            json!({ "id": id, "type": "reasoning", "status": status, "summary": [], "content": parts })
        }
        Block::Text(_) => {
            json!({ "id": id, "type": "message", "status": status, "role": "assistant", "content": parts })
        }
        Block::Call { id: call_id, name, arguments } => json!({
            "id": id,
            "type": "function_call",
            "status": status,
            "call_id": call_id,
            "name": name,
            "arguments": arguments,
        }),
    }
}

pub(super) fn usage(choice: &Choice) -> Value {
    let usage = choice.usage;
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": { "cached_tokens": usage.cached_tokens },
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": { "reasoning_tokens": choice.reasoning_tokens },
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
    })
}
