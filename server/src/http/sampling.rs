//! Fields that say how tokens are chosen. All APIs call them alike.

use handmill_models::engine::sampling::{SamplingError, SamplingParams};
use serde_json::{Map, Value};

use super::{App, error::ApiError, fields::Fields, ids::random};

/// Reads them; what a request does not say is as the server's options have it.
pub(crate) fn read(app: &App, fields: &Fields) -> Result<SamplingParams, ApiError> {
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
        params.top_k = if k == -1 { 0 } else { usize::try_from(k).map_err(|_| below(fields, "top_k"))? };
    }
    if let Some(n) = fields.integer("repeat_last_n")? {
        params.penalty_last_n =
            if n == -1 { usize::MAX } else { usize::try_from(n).map_err(|_| below(fields, "repeat_last_n"))? };
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
        SamplingError::OutOfRange { name, value, allowed } => {
            fields.wrong(name, format!("is {value}; it must be {allowed}"))
        }
        _ => ApiError::status(400, error.to_string()),
    })?;
    Ok(params)
}

fn below(fields: &Fields, name: &str) -> ApiError {
    fields.wrong(name, "must be -1 or more")
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
