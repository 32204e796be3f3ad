//! Fields that chats and completions have in common: how many tokens and choices, and how they come.

use serde_json::Value;

use crate::{
    http::{App, error::ApiError, fields::Fields, sampling},
    scheduler::AnswerOptions,
};

/// Most choices of one prompt.
const MOST_CHOICES: usize = 128;
/// Most of the likeliest tokens that can be asked for.
pub(super) const MOST_LIKELIEST: usize = 20;

/// What a request says of its answers.
#[derive(Debug)]
pub(super) struct Params {
    pub answer: AnswerOptions,
    pub n: usize,
    pub priority: i64,
    pub stream: Option<Stream>,
}

/// How answers are streamed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stream {
    /// Usage in a last chunk.
    pub usage: bool,
    /// And in all others.
    pub always: bool,
}

/// Reads them; `max_tokens` are the names of that field, the strongest first.
pub(super) fn read(app: &App, fields: &Fields, max_tokens: &[&str]) -> Result<Params, ApiError> {
    fields.refuse(&["use_beam_search"], "is not supported")?;
    let mut limit = None;
    for name in max_tokens {
        limit = limit.or(fields.count(name, 0, usize::MAX)?);
    }
    let n = fields.count("n", 1, MOST_CHOICES)?.unwrap_or(1);
    if fields.count("best_of", 1, usize::MAX)?.is_some_and(|best| best != n) {
        return Err(ApiError::field("best_of", "must be `n`: all choices are returned"));
    }
    let answer = AnswerOptions {
        sampling: sampling::read(app, fields)?,
        max_tokens: limit,
        stop: fields.strings("stop")?,
        ignore_eos: fields.boolean("ignore_eos")?,
        ..AnswerOptions::default()
    };
    // As in vLLM a lower number is more urgent.
    let priority = fields.integer("priority")?.unwrap_or(0).saturating_neg();
    Ok(Params { answer, n, priority, stream: stream(fields)? })
}

fn stream(fields: &Fields) -> Result<Option<Stream>, ApiError> {
    let streams = fields.boolean("stream")?;
    let options = fields.object("stream_options")?;
    if !streams {
        return match options {
            Some(_) => Err(ApiError::field("stream_options", "goes with `stream` alone")),
            None => Ok(None),
        };
    }
    let option = |name: &str| match options.and_then(|options| options.get(name)) {
        None | Some(Value::Null) => Ok(false),
        Some(Value::Bool(on)) => Ok(*on),
        Some(_) => Err(ApiError::field(format!("stream_options.{name}"), "must be true or false")),
    };
    let (usage, always) = (option("include_usage")?, option("continuous_usage_stats")?);
    Ok(Some(Stream { usage, always: usage && always }))
}
