//! Fields that chats and completions have in common: how tokens are chosen, and how many.

use handmill_models::engine::sampling::SamplingParams;
use serde_json::{Map, Value};

use super::random;
use crate::{
    http::{App, error::ApiError, fields::Fields},
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
pub(super) struct Stream {
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
        sampling: sampling(app, fields)?,
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

fn sampling(app: &App, fields: &Fields) -> Result<SamplingParams, ApiError> {
    let mut params = app.options.sampling.clone();
    let numbers: [(&str, &mut f32); 5] = [
        ("temperature", &mut params.temperature),
        ("top_p", &mut params.top_p),
        ("min_p", &mut params.min_p),
        ("presence_penalty", &mut params.presence_penalty),
        ("frequency_penalty", &mut params.frequency_penalty),
    ];
    for (name, param) in numbers {
        if let Some(number) = fields.number(name)? {
            *param = number as f32;
        }
    }
    // vLLM's name and llama-server's.
    for name in ["repetition_penalty", "repeat_penalty"] {
        if let Some(number) = fields.number(name)? {
            params.repetition_penalty = number as f32;
        }
    }
    // -1 stands for all of them.
    if let Some(k) = fields.integer("top_k")? {
        params.top_k = if k == -1 { 0 } else { usize::try_from(k).map_err(|_| below("top_k"))? };
    }
    if let Some(n) = fields.integer("repeat_last_n")? {
        params.penalty_last_n =
            if n == -1 { usize::MAX } else { usize::try_from(n).map_err(|_| below("repeat_last_n"))? };
    }
    if let Some(biases) = fields.object("logit_bias")? {
        params.logit_bias = logit_bias(biases, app.tokenizer.vocab_size())?;
    }
    // Any other negative number is a seed like all.
    params.seed = match fields.integer("seed")? {
        None | Some(-1) => random(),
        Some(seed) => seed as u64,
    };
    params.validate().map_err(|error| match &error {
        handmill_models::engine::sampling::SamplingError::OutOfRange { name, value, allowed } => {
            ApiError::field(*name, format!("is {value}; it must be {allowed}"))
        }
        _ => ApiError::status(400, error.to_string()),
    })?;
    Ok(params)
}

fn below(name: &str) -> ApiError {
    ApiError::field(name, "must be -1 or more")
}

/// Biases by token; `false` forbids one.
fn logit_bias(biases: &Map<String, Value>, vocab: usize) -> Result<Vec<(u32, f32)>, ApiError> {
    let read = |(id, bias): (&String, &Value)| {
        let token = id.parse().ok().filter(|id: &u32| (*id as usize) < vocab);
        let token =
            token.ok_or_else(|| ApiError::field("logit_bias", format!("names {id:?}, which is no token id")))?;
        match bias {
            Value::Bool(false) => Ok((token, f32::NEG_INFINITY)),
            _ => match bias.as_f64() {
                // OpenAI's strongest: the token is forbidden.
                Some(bias) if bias <= -100.0 => Ok((token, f32::NEG_INFINITY)),
                Some(bias) if bias <= 100.0 => Ok((token, bias as f32)),
                _ => Err(ApiError::field("logit_bias", format!("of {id} must be a number from -100 to 100"))),
            },
        }
    };
    biases.iter().map(read).collect()
}
