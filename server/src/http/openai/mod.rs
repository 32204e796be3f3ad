//! OpenAI's routes.

pub mod chat;
pub mod chat_request;
pub mod completions;
pub mod embeddings;
pub mod forms;
pub mod logprobs;
pub mod models;
mod params;
pub mod responses;

use handmill_models::StopReason;
use serde_json::{Value, json};

use crate::scheduler::Usage;

/// The name of why an answer ended.
fn finish_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::EndOfTurn | StopReason::StopText => "stop",
        _ => "length",
    }
}

/// Adds the usage of another choice. `first` says whether it is the first of its prompt, which counts once.
fn add_usage(sum: &mut Usage, usage: Usage, first: bool) {
    sum.completion_tokens += usage.completion_tokens;
    if first {
        sum.prompt_tokens += usage.prompt_tokens;
        sum.cached_tokens += usage.cached_tokens;
    }
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
    })
}
