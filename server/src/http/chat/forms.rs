//! Forms that answers are bound to.

use std::sync::OnceLock;

use serde_json::Value;

use crate::{
    constrain::{Constraint, ConstraintError, Grammars, Mask, Reasoning},
    http::{App, error::ApiError, fields::Fields},
};

/// A form, and the field that asks for it.
#[derive(Debug)]
pub(crate) struct Form {
    pub field: String,
    pub constraint: Constraint,
}

/// A schema, or its text.
pub(crate) fn of_schema(schema: &Value, field: &str) -> Result<Constraint, ApiError> {
    match schema {
        Value::String(text) => {
            let schema = serde_json::from_str(text);
            schema.map(Constraint::JsonSchema).map_err(|error| ApiError::field(field, format!("is not JSON: {error}")))
        }
        Value::Object(_) => Ok(Constraint::JsonSchema(schema.clone())),
        _ => Err(ApiError::field(field, "must be a JSON schema")),
    }
}

/// The form of a format whose field `schema` has a schema.
pub(crate) fn of_format(format: &Fields) -> Result<Form, ApiError> {
    let schema = format.get("schema").ok_or_else(|| format.wrong("schema", "is missing"))?;
    let field = format.place("schema");
    Ok(Form { constraint: of_schema(schema, &field)?, field })
}

/// The masks of an answer in that form.
pub(crate) fn mask(app: &App, form: &Form, reasoning: &Reasoning) -> Result<Box<Mask>, ApiError> {
    // A large schema takes a while, in which this thread answers nobody else.
    let made = tokio::task::block_in_place(|| {
        let grammars = app.grammars.get_or_init(|| Grammars::new(&app.tokenizer, app.scheduler.n_vocab()));
        grammars.as_ref().map_err(ConstraintError::clone)?.mask(&form.constraint, reasoning)
    });
    made.map(Box::new).map_err(|error| ApiError::field(form.field.clone(), format!("cannot be followed: {error}")))
}

/// Made when the first answer wants them.
pub(crate) type LazyGrammars = OnceLock<Result<Grammars, ConstraintError>>;
