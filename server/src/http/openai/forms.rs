//! Fields that bind an answer to a form: OpenAI's `response_format`, vLLM's `structured_outputs` and `guided_*`, llama-server's
//! `grammar` and `json_schema`.

use serde_json::Value;

use crate::{
    constrain::Constraint,
    http::{
        chat::forms::{Form, of_schema},
        error::ApiError,
        fields::Fields,
    },
};

/// Reads the fields; none where the answer is free.
pub(crate) fn read(fields: &Fields) -> Result<Option<Form>, ApiError> {
    let mut found: Vec<Form> = Vec::new();
    let mut add = |field: String, constraint| found.push(Form { field, constraint });
    if let Some(format) = fields.object("response_format")? {
        let schema = |at: &str| format.get("json_schema").and_then(|schema| schema.get(at));
        match format.get("type").and_then(Value::as_str) {
            Some("text") => {}
            // llama-server takes a schema here, too.
            Some("json_object") => match format.get("schema") {
                None | Some(Value::Null) => add("response_format".to_owned(), Constraint::JsonObject),
                Some(schema) => add("response_format.schema".to_owned(), of_schema(schema, "response_format.schema")?),
            },
            Some("json_schema") => {
                let at = "response_format.json_schema.schema";
                let schema = schema("schema").ok_or_else(|| ApiError::field(at, "is missing"))?;
                add(at.to_owned(), of_schema(schema, at)?);
            }
            Some(other) => {
                return Err(ApiError::field(
                    "response_format.type",
                    format!("is {other:?}; it must be text, json_object or json_schema"),
                ));
            }
            None => return Err(ApiError::field("response_format.type", "must be a string")),
        }
    }
    let none = serde_json::Map::new();
    let outputs = fields.object("structured_outputs")?.unwrap_or(&none);
    for (name, prefix) in [("", "guided_"), ("structured_outputs.", "")] {
        for kind in ["json", "json_object", "regex", "choice", "grammar"] {
            let field = format!("{name}{prefix}{kind}");
            let value = if name.is_empty() { fields.get(&field) } else { outputs.get(kind) };
            let Some(value) = value.filter(|value| !value.is_null() && **value != Value::Bool(false)) else { continue };
            let constraint = of_kind(kind, value, &field)?;
            add(field, constraint);
        }
    }
    if let Some(grammar) = fields.string("grammar")?.filter(|grammar| !grammar.is_empty()) {
        add("grammar".to_owned(), of_grammar(grammar));
    }
    if let Some(schema) = fields.get("json_schema") {
        add("json_schema".to_owned(), of_schema(schema, "json_schema")?);
    }
    if let [first, second, ..] = &found[..] {
        let why = format!("cannot be asked for together with `{}`", first.field);
        return Err(ApiError::field(second.field.clone(), why));
    }
    Ok(found.pop())
}

fn of_kind(kind: &str, value: &Value, field: &str) -> Result<Constraint, ApiError> {
    let wrong = |wanted: &str| ApiError::field(field, format!("must be {wanted}"));
    match (kind, value) {
        ("json", schema) => of_schema(schema, field),
        ("json_object", Value::Bool(true)) => Ok(Constraint::JsonObject),
        ("json_object", _) => Err(wrong("true or false")),
        ("regex", Value::String(expression)) => Ok(Constraint::Regex(expression.clone())),
        ("grammar", Value::String(grammar)) => Ok(of_grammar(grammar)),
        ("choice", Value::Array(texts)) => {
            let texts: Option<Vec<String>> = texts.iter().map(|text| text.as_str().map(str::to_owned)).collect();
            texts.map(Constraint::Choice).ok_or_else(|| wrong("a list of strings"))
        }
        ("choice", _) => Err(wrong("a list of strings")),
        _ => Err(wrong("a string")),
    }
}

/// llama.cpp's grammars have `::=`, Lark's do not.
fn of_grammar(grammar: &str) -> Constraint {
    if grammar.contains("::=") { Constraint::Gbnf(grammar.to_owned()) } else { Constraint::Lark(grammar.to_owned()) }
}
