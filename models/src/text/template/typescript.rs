//! JSON schemas as the TypeScript types that gpt-oss was trained to read (`json_schema_to_typescript` of
//! openai-harmony).

use serde_json::Value;

/// The type of `schema`, with descriptions and defaults as comments; `indent` stands before its further lines. The
/// nesting of `schema` is bounded by its reader.
pub(super) fn type_of(schema: &Value, indent: &str) -> String {
    if let Some(variants) = schema["oneOf"].as_array() {
        let variant = |variant: &Value| {
            let mut out = format!("\n{indent} | {}", nullable(variant, &format!("{indent}   ")));
            push_comments(comments(variant, None), &mut out);
            out
        };
        return variants.iter().map(variant).collect();
    }
    if let Some(types) = schema["type"].as_array() {
        let names: Vec<&str> = types.iter().filter_map(Value::as_str).map(number_or).collect();
        if !names.is_empty() {
            return names.join(" | ");
        }
    }
    match schema["type"].as_str() {
        Some("object") => object(schema, indent),
        Some("string") => {
            let values = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            let values: Vec<String> = values.map(|value| format!("\"{value}\"")).collect();
            if values.is_empty() { "string".to_owned() } else { values.join(" | ") }
        }
        Some(name @ ("number" | "integer" | "boolean")) => number_or(name).to_owned(),
        Some("array") => match schema.get("items") {
            Some(items) => type_of(items, indent) + "[]",
            None => "Array<any>".to_owned(),
        },
        _ => "any".to_owned(),
    }
}

fn number_or(name: &str) -> &str {
    if name == "integer" { "number" } else { name }
}

/// The type, with `null` where the schema allows it and the type does not say so.
fn nullable(schema: &Value, indent: &str) -> String {
    let name = type_of(schema, indent);
    if schema["nullable"] == true && !name.contains("null") { name + " | null" } else { name }
}

fn object(schema: &Value, indent: &str) -> String {
    let mut out = String::new();
    if let Some(text) = schema["description"].as_str() {
        out.push_str(&format!("{indent}// {text}\n"));
    }
    out.push_str("{\n");
    let required: Vec<&str> = schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (key, value) in schema["properties"].as_object().into_iter().flatten() {
        let key = format!("{key}{}", if required.contains(&key.as_str()) { "" } else { "?" });
        if let Some(title) = value["title"].as_str() {
            out.push_str(&format!("{indent}// {title}\n{indent}//\n"));
        }
        let variants = value["oneOf"].as_array();
        if let Some(text) = value["description"].as_str().filter(|_| value.get("oneOf").is_none()) {
            out.push_str(&format!("{indent}// {text}\n"));
        }
        let examples: Vec<&Value> = value["examples"].as_array().into_iter().flatten().collect();
        if !examples.is_empty() {
            out.push_str(&format!("{indent}// Examples:\n"));
            for example in examples.into_iter().filter_map(Value::as_str) {
                out.push_str(&format!("{indent}// - \"{example}\"\n"));
            }
        }
        match variants {
            Some(variants) => one_of(&key, value, variants, indent, &mut out),
            None => {
                out.push_str(&format!("{indent}{key}: {},", nullable(value, &format!("{indent}    "))));
                push_comments(default_of(value), &mut out);
                out.push('\n');
            }
        }
    }
    out.push_str(&format!("{indent}}}"));
    out
}

/// A property that has one of several types.
fn one_of(key: &str, value: &Value, variants: &[Value], indent: &str, out: &mut String) {
    let text = value["description"].as_str();
    let first = variants.first().and_then(|variant| variant["description"].as_str());
    let above = text.filter(|_| text != first);
    if let Some(text) = above {
        out.push_str(&format!("{indent}// {text}\n"));
    }
    if let Some(default) = default_of(value) {
        out.push_str(&format!("{indent}// {default}\n"));
    }
    out.push_str(&format!("{indent}{key}:\n"));
    for (n, variant) in variants.iter().enumerate() {
        out.push_str(&format!("{indent} | {}", nullable(variant, &format!("{indent}   "))));
        let hidden = if n == 0 && above.is_some() { variant["description"].as_str() } else { text };
        push_comments(comments(variant, hidden), out);
        out.push('\n');
    }
    out.push_str(&format!("{indent},\n"));
}

/// Description, unless it is `hidden`, and default of a variant.
fn comments(variant: &Value, hidden: Option<&str>) -> impl Iterator<Item = String> {
    let text = variant["description"].as_str().filter(|text| Some(*text) != hidden).map(str::to_owned);
    text.into_iter().chain(default_of(variant))
}

/// The default of a schema; a string stands in quotes, unless it is one of an enum.
fn default_of(schema: &Value) -> Option<String> {
    let is_enum = schema["enum"].as_array().is_some_and(|values| !values.is_empty());
    let default = schema.get("default")?;
    Some(match default.as_str() {
        Some(text) if is_enum => format!("default: {text}"),
        Some(text) => format!("default: \"{text}\""),
        None => format!("default: {default}"),
    })
}

fn push_comments(comments: impl IntoIterator<Item = String>, out: &mut String) {
    for (n, comment) in comments.into_iter().enumerate() {
        out.push_str(if n == 0 { " // " } else { " " });
        out.push_str(&comment);
    }
}
