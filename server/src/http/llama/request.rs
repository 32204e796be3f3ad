//! The fields of `/completion` and `/infill`.

use serde_json::{Value, json};

use crate::{
    constrain::Reasoning,
    http::{App, chat::forms::mask, error::ApiError, fields::Fields, openai::forms, sampling},
    scheduler::{AnswerOptions, AnswerParams},
};

/// Most of the likeliest tokens that can be asked for.
const MOST_LIKELIEST: usize = 256;

/// Ways of choosing tokens that are not there, with the number that turns each of them off.
const OTHER_SAMPLERS: [(&str, f64); 8] = [
    ("mirostat", 0.0),
    ("dynatemp_range", 0.0),
    ("typical_p", 1.0),
    ("xtc_probability", 0.0),
    ("dry_multiplier", 0.0),
    ("top_n_sigma", -1.0),
    ("adaptive_target", -1.0),
    ("t_max_predict_ms", 0.0),
];

/// What is asked for.
pub(super) struct Asked {
    pub answer: AnswerOptions,
    pub streams: bool,
    /// Whether the whole answer says its token ids.
    pub tokens: bool,
    /// What `generation_settings` says.
    pub settings: Value,
}

pub(super) fn read(app: &App, fields: &Fields) -> Result<Asked, ApiError> {
    for (name, off) in OTHER_SAMPLERS {
        // Any negative number is as good.
        let is_off = |number: f64| number == off || off <= 0.0 && number < 0.0;
        if fields.number(name)?.is_some_and(|number| !is_off(number)) {
            return Err(fields.wrong(name, format!("is not supported: leave it out, or set it to {off}")));
        }
    }
    fields.refuse(&["post_sampling_probs", "lora", "image_data"], "is not supported")?;
    let sampling = sampling::read(app, fields)?;
    let max_tokens = fields.integer("n_predict")?.or(fields.integer("max_tokens")?);
    let mut answer = AnswerOptions {
        sampling,
        // Negative numbers leave it to the context.
        max_tokens: max_tokens.and_then(|n| usize::try_from(n).ok()),
        stop: fields.strings("stop")?,
        ignore_eos: fields.boolean("ignore_eos")?,
        log_probabilities: fields.count("n_probs", 0, MOST_LIKELIEST)?.filter(|n| *n > 0),
        ..AnswerOptions::default()
    };
    if let Some(form) = forms::read(fields)? {
        answer.mask = Some(mask(app, &form, &Reasoning::None)?);
    }
    let mut settings = params(&AnswerParams::of(&answer));
    settings["n_ctx"] = app.scheduler.n_ctx().into();
    settings["stop"] = answer.stop.clone().into();
    let (streams, tokens) = (fields.boolean("stream")?, fields.boolean("return_tokens")?);
    Ok(Asked { answer, streams, tokens, settings })
}

/// How a request is answered, in llama-server's names.
pub(in crate::http) fn params(answer: &AnswerParams) -> Value {
    let AnswerParams { sampling, max_tokens, ignore_eos, log_probabilities } = answer;
    let most = max_tokens.map_or(json!(-1), |most| json!(most));
    let last_n = if sampling.penalty_last_n == usize::MAX { json!(-1) } else { json!(sampling.penalty_last_n) };
    json!({
        "n_predict": most,
        "max_tokens": most,
        "seed": sampling.seed,
        "temperature": sampling.temperature,
        "top_k": sampling.top_k,
        "top_p": sampling.top_p,
        "min_p": sampling.min_p,
        "repeat_last_n": last_n,
        "repeat_penalty": sampling.repetition_penalty,
        "presence_penalty": sampling.presence_penalty,
        "frequency_penalty": sampling.frequency_penalty,
        "ignore_eos": ignore_eos,
        "n_probs": log_probabilities.unwrap_or(0),
    })
}
