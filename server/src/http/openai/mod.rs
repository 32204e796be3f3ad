//! OpenAI's routes.

pub mod chat;
mod chat_request;
pub mod completions;
pub mod embeddings;
pub mod forms;
mod logprobs;
mod messages;
pub mod models;
mod params;
mod prompts;

use std::{
    hash::{BuildHasher, Hasher, RandomState},
    time::{SystemTime, UNIX_EPOCH},
};

use handmill_models::StopReason;
use serde_json::{Value, json};

use crate::scheduler::Usage;

/// Seconds since the epoch; 0 where the clock is before it.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A random number: the standard library's hash maps have one for their keys.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// The name of a new object.
fn new_id(prefix: &str) -> String {
    format!("{prefix}-{:016x}{:016x}", random(), random())
}

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
