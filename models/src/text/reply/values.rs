//! Values of parameters that a syntax writes as bare text.

use std::collections::HashMap;

use serde_json::Value;

use super::json::{is_inner_value, push_string};
use super::python;

/// The types of the tools' parameters: tool → parameter → names of JSON types.
#[derive(Clone, Debug, Default)]
pub(super) struct ToolTypes(HashMap<String, HashMap<String, Vec<String>>>);

impl ToolTypes {
    /// Reads a request's tools, wrapped in `{"type": "function", "function": …}` or bare.
    pub fn of(tools: &[Value]) -> Self {
        let mut types = HashMap::new();
        for tool in tools {
            let function = tool.get("function").unwrap_or(tool);
            let Some(name) = function["name"].as_str() else { continue };
            let parameters = &function["parameters"]["properties"];
            let of_tool = parameters.as_object().into_iter().flatten().map(|(k, schema)| (k.clone(), names(schema)));
            types.insert(name.to_owned(), of_tool.filter(|(_, names)| !names.is_empty()).collect());
        }
        Self(types)
    }

    /// Whether there is a tool of that name.
    pub fn has(&self, tool: &str) -> bool {
        self.0.contains_key(tool)
    }

    /// Whether a parameter is a string and nothing else.
    fn is_string(&self, tool: &str, parameter: &str) -> bool {
        self.get(tool, parameter).is_some_and(|names| names.iter().all(|n| n == "string"))
    }

    fn get(&self, tool: &str, parameter: &str) -> Option<&Vec<String>> {
        self.0.get(tool)?.get(parameter)
    }
}

/// The types that a schema names; none if it does not say.
fn names(schema: &Value) -> Vec<String> {
    match &schema["type"] {
        Value::String(name) => vec![name.clone()],
        Value::Array(names) => names.iter().filter_map(|n| n.as_str().map(str::to_owned)).collect(),
        _ if schema["enum"].as_array().is_some_and(|e| e.iter().all(Value::is_string)) => vec!["string".to_owned()],
        _ => Vec::new(),
    }
}

/// How a template writes values that are no strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Written {
    /// As JSON.
    Json,
    /// As JSON, or as Python prints them: `True`, `None`, `{'a': 1}`.
    Python,
}

/// A JSON object of parameters, built one at a time.
#[derive(Debug, Default)]
pub(super) struct Arguments {
    json: String,
}

impl Arguments {
    /// Adds a parameter whose value is JSON text already.
    pub fn push_json(&mut self, key: &str, value: &str) {
        self.json.push(if self.json.is_empty() { '{' } else { ',' });
        push_string(&mut self.json, key);
        self.json.push(':');
        self.json.push_str(value);
    }

    /// Adds a string.
    pub fn push_string(&mut self, key: &str, value: &str) {
        self.push_json(key, &Value::from(value).to_string());
    }

    /// Adds a value of bare text: a string where the tool's schema says so; else what `written` reads, if it is no
    /// string; else a string again.
    pub fn push_bare(&mut self, tool: &str, key: &str, value: &str, written: Written, types: &ToolTypes) {
        match bare(value, written) {
            Some(json) if !types.is_string(tool, key) => self.push_json(key, &json),
            _ => self.push_string(key, value),
        }
    }

    /// The object; the builder is empty afterwards.
    pub fn take(&mut self) -> String {
        let mut json = std::mem::take(&mut self.json);
        json.push_str(if json.is_empty() { "{}" } else { "}" });
        json
    }
}

/// Bare text as the JSON text of a value that is no string.
fn bare(value: &str, written: Written) -> Option<String> {
    let text = value.trim();
    if text.starts_with('"') {
        return None;
    }
    if is_inner_value(text) {
        return Some(text.to_owned());
    }
    let python = || python::value(text).filter(|json| !json.starts_with('"'));
    if written == Written::Python { python() } else { None }
}

/// Bare text inside a list or an object whose brackets are tags: a number, a word of JSON or a string, as JSON text.
pub(super) fn scalar(text: &str) -> String {
    let json = bare(text, Written::Json).filter(|json| !json.starts_with(['{', '[']));
    json.unwrap_or_else(|| Value::from(text).to_string())
}
