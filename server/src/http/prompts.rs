//! Prompts and inputs: a text, texts, ids, lists of ids, texts and ids in turn; texts with a gap.

use handmill_models::text::Infill;
use serde_json::Value;

use super::{App, error::ApiError, fields::ids};

/// Most prompts of one request.
const MOST: usize = 4096;

/// A prompt.
#[derive(Clone, Debug)]
pub(crate) struct Prompt {
    /// The text that was given, or that of the ids.
    pub text: String,
    pub ids: Vec<u32>,
}

/// Reads the field of that name.
pub(crate) fn read(app: &App, name: &str, value: Option<&Value>) -> Result<Vec<Prompt>, ApiError> {
    let wrong =
        || ApiError::field(name, "must be a string, a list of strings, a list of token ids or a list of such lists");
    let of_ids = |list: &[Value]| {
        let ids = ids(list, name)?;
        Ok(Prompt { text: app.tokenizer.decode(&ids, false), ids })
    };
    match value {
        None => Err(ApiError::field(name, "is missing")),
        Some(Value::String(text)) => Ok(vec![of_text(app, name, text)?]),
        Some(Value::Array(list)) if list.is_empty() => Err(ApiError::field(name, "is empty")),
        Some(Value::Array(list)) if list.len() > MOST && !list[0].is_number() => {
            Err(ApiError::field(name, format!("has {} elements; it may have {MOST}", list.len())))
        }
        Some(Value::Array(list)) if list.iter().all(Value::is_number) => Ok(vec![of_ids(list)?]),
        Some(Value::Array(list)) if list.iter().any(Value::is_number) => Ok(vec![of_parts(app, name, list)?]),
        Some(Value::Array(list)) => list
            .iter()
            .map(|one| match one {
                Value::String(text) => of_text(app, name, text),
                Value::Array(list) => of_ids(list),
                _ => Err(wrong()),
            })
            .collect(),
        Some(_) => Err(wrong()),
    }
}

/// Clients that send texts write control tokens in them by their names.
fn of_text(app: &App, name: &str, text: &str) -> Result<Prompt, ApiError> {
    let ids = app.tokenizer.encode(text, true, true).map_err(|error| ApiError::field(name, error))?;
    Ok(Prompt { text: text.to_owned(), ids })
}

/// One prompt of texts and ids in turn, as llama-server has them. What the tokenizer adds to a text goes with its beginning.
fn of_parts(app: &App, name: &str, parts: &[Value]) -> Result<Prompt, ApiError> {
    let mut all = Vec::new();
    for (i, part) in parts.iter().enumerate() {
        match part {
            Value::String(text) => {
                all.extend(app.tokenizer.encode(text, i == 0, true).map_err(|error| ApiError::field(name, error))?);
            }
            _ => all.extend(ids(std::slice::from_ref(part), name)?),
        }
    }
    Ok(Prompt { text: app.tokenizer.decode(&all, false), ids: all })
}

/// The prompt that has the model fill a gap; `name` is the field of what stands behind it.
pub(crate) fn of_gap(app: &App, gap: &Infill<'_>, name: &str) -> Result<Prompt, ApiError> {
    let ids = app.tokenizer.infill(gap).map_err(|error| ApiError::field(name, error))?;
    let ids = ids.ok_or_else(|| {
        ApiError::field(name, "is not supported by this model: its vocabulary has no tokens that mark a gap")
    })?;
    Ok(Prompt { text: gap.prefix.to_owned(), ids })
}
