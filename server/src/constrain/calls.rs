//! Grammars of answers that must call tools, in the form of the model's own template.

use std::fmt::Write as _;

use handmill_models::text::{ArgumentForm, CallForm, CallText};
use serde_json::{Map, Value, json};

use super::{ConstraintError, foreign_reference};

/// An answer that calls tools.
#[derive(Clone, Debug, PartialEq)]
pub struct Calls {
    /// How the model writes calls.
    pub form: CallForm,
    /// The tools that it may call: objects with `name` and perhaps `parameters`, a JSON schema.
    pub tools: Vec<Value>,
    /// Whether it may call several.
    pub parallel: bool,
}

/// Control tokens by their names.
pub(super) type Controls = [(String, u32)];

/// The rules of `calls` in Lark; the first is `start`.
pub(super) fn to_lark(calls: &Calls, controls: &Controls) -> Result<String, ConstraintError> {
    if calls.tools.is_empty() {
        return Err(ConstraintError::NoChoice);
    }
    let mut rules = String::new();
    let mut names = Vec::new();
    for (n, tool) in calls.tools.iter().enumerate() {
        let name = tool.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| ConstraintError::Grammar("a tool has no name".to_owned()))?;
        let none = json!({ "type": "object", "properties": {}, "additionalProperties": false });
        let schema = tool.get("parameters").filter(|schema| !schema.is_null()).unwrap_or(&none);
        if let Some(foreign) = foreign_reference(schema) {
            return Err(ConstraintError::ForeignReference(foreign.to_owned()));
        }
        let arguments = arguments(&mut rules, n, &calls.form.arguments, schema, controls);
        line(&mut rules, &format!("call_{n}: {} {arguments}", literal(name, &[])));
        names.push(format!("call_{n}"));
    }
    let all = names.join(" | ");
    line(&mut rules, &format!("call: {all}"));
    let more = match &calls.form.between {
        Some(between) if calls.parallel => format!("({} call)*", fixed(between, controls)),
        _ => String::new(),
    };
    let (begin, end) = (fixed(&calls.form.begin, controls), fixed(&calls.form.end, controls));
    Ok(format!("start: {begin} call {more} {end}\n{rules}"))
}

fn line(rules: &mut String, rule: &str) {
    // Writing to a string does not fail.
    let _ = writeln!(rules, "{rule}");
}

/// Terms for the arguments of tool `n`.
fn arguments(rules: &mut String, n: usize, form: &ArgumentForm, schema: &Value, controls: &Controls) -> String {
    match form {
        ArgumentForm::Pairs { before, open, before_string, before_json, close } => {
            let mut terms = fixed(before, controls);
            let none = Map::new();
            let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&none);
            let required = schema.get("required").and_then(Value::as_array);
            let is_required = |key: &str| required.is_some_and(|keys| keys.iter().any(|k| k == key));
            for (i, (key, value)) in properties.iter().enumerate() {
                let head = |middle: &str| literal(&format!("{open}{key}{middle}"), controls);
                let rule = match strings(value) {
                    Some(texts) if texts.is_empty() => {
                        line(rules, &format!("text_{n}_{i}[suffix={}]: /(?s:.*)/", Value::from(close.as_str())));
                        format!("{} text_{n}_{i}", head(before_string))
                    }
                    Some(texts) => {
                        let texts: Vec<String> = texts.iter().map(|text| literal(text, &[])).collect();
                        format!("{} ({}) {}", head(before_string), texts.join(" | "), literal(close, controls))
                    }
                    None => {
                        format!("{} %json {} {}", head(before_json), plain(value, schema), literal(close, controls))
                    }
                };
                line(rules, &format!("pair_{n}_{i}: {rule}"));
                let _ = write!(terms, " pair_{n}_{i}{}", if is_required(key) { "" } else { "?" });
            }
            terms
        }
        ArgumentForm::Json { before } => format!("{} %json {}", fixed(before, controls), plain(schema, schema)),
    }
}

/// Where a schema takes strings alone: those that it lists, none for any.
fn strings(schema: &Value) -> Option<Vec<&str>> {
    match (schema.get("enum").and_then(Value::as_array), schema.get("type").and_then(Value::as_str)) {
        (Some(values), _) => values.iter().map(Value::as_str).collect(),
        (None, Some("string")) => Some(Vec::new()),
        _ => None,
    }
}

/// The schema with the definitions of the whole, for JSON without spaces but those that templates write too: a small model
/// might never end its spaces.
fn plain(schema: &Value, whole: &Value) -> Value {
    let mut schema = schema.clone();
    if let Value::Object(map) = &mut schema {
        for key in ["$defs", "definitions"] {
            if let (None, Some(definitions)) = (map.get(key), whole.get(key)) {
                map.insert(key.to_owned(), definitions.clone());
            }
        }
        let spaces = json!({ "whitespace_flexible": false, "item_separator": ", ", "key_separator": ": " });
        map.insert("x-guidance".to_owned(), spaces);
    }
    schema
}

/// Terms for parts that do not differ.
fn fixed(parts: &[CallText], controls: &Controls) -> String {
    let term = |part: &CallText| match part {
        CallText::Text(text) => literal(text, controls),
        CallText::Id => "/[a-zA-Z0-9]{9}/".to_owned(),
    };
    parts.iter().map(term).collect::<Vec<_>>().join(" ")
}

/// Terms for a text, in which names of control tokens stand for these.
fn literal(text: &str, controls: &Controls) -> String {
    let mut terms = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        // Of those that begin first the longest.
        let found = controls.iter().filter_map(|(name, id)| Some((rest.find(name.as_str())?, name, id)));
        let next = found.min_by_key(|(at, name, _)| (*at, usize::MAX - name.len()));
        let end = next.map_or(rest.len(), |(at, ..)| at);
        if end > 0 {
            terms.push(Value::from(&rest[..end]).to_string());
        }
        let Some((at, name, id)) = next else { break };
        terms.push(format!("<[{id}]>"));
        rest = &rest[at + name.len()..];
    }
    terms.join(" ")
}
