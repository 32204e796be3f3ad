//! Reading the JSON files of a checkpoint folder as Python writes them: with `NaN` and `Infinity`, which JSON lacks, and
//! with `4096.0` where a whole number is meant.

use super::{FormatError, lfs};
use serde_json::{Map, Value};
use std::path::Path;

/// Limit of a file's size: the configurations and indexes of the largest models have a few megabytes.
const MAX_BYTES: u64 = 64 << 20;

/// Reads `path` as a JSON object; `None` where there is no such file. Whole numbers become integers, also those written
/// as `4096.0`. `NaN`, `Infinity` and `-Infinity` become text, so that a reader who wants a number refuses the key and
/// names the value.
///
/// # Errors
/// A file that cannot be read, is a pointer of Git LFS, or is not such an object.
pub fn read_object(path: &Path) -> Result<Option<Map<String, Value>>, FormatError> {
    let io = |source| FormatError::Io { path: path.into(), source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(io(e)),
        Ok(meta) if meta.len() > MAX_BYTES => {
            return Err(problem(path, format!("{} bytes of JSON; up to {MAX_BYTES} are read", meta.len())));
        }
        Ok(_) => {}
    }
    let text = std::fs::read(path).map_err(io)?;
    lfs::refuse_pointer(path, &text)?;
    let object = parse_object(path, &text).or_else(|strict| match quote_words(&text) {
        Some(quoted) => parse_object(path, &quoted),
        None => Err(strict),
    });
    let mut object = object?;
    object.values_mut().for_each(integers);
    Ok(Some(object))
}

/// Parses `text`, a part of the file at `path`, as an object of strict JSON.
pub(super) fn parse_object(path: &Path, text: &[u8]) -> Result<Map<String, Value>, FormatError> {
    match serde_json::from_slice(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(problem(path, "a JSON object was expected".into())),
        Err(e) => Err(problem(path, format!("not valid JSON: {e}; fetch the file again"))),
    }
}

/// The error for a JSON file with the fault `what`.
pub(super) fn problem(path: &Path, what: String) -> FormatError {
    FormatError::Json { path: path.into(), what }
}

/// `text` with quotes around Python's words for numbers that are not finite; `None` where it has no such words outside
/// of strings.
fn quote_words(text: &[u8]) -> Option<Vec<u8>> {
    const WORDS: [&[u8]; 3] = [b"-Infinity", b"Infinity", b"NaN"];
    let (mut out, mut in_string, mut found, mut at) = (Vec::with_capacity(text.len() + 64), false, false, 0);
    while at < text.len() {
        let rest = &text[at..];
        let word = WORDS.iter().find(|word| !in_string && rest.starts_with(word));
        at += match word {
            Some(word) => {
                found = true;
                out.extend([b"\"", *word, b"\""].concat());
                word.len()
            }
            None => {
                let len = if in_string && rest[0] == b'\\' { rest.len().min(2) } else { 1 };
                in_string ^= rest[0] == b'"';
                out.extend(&rest[..len]);
                len
            }
        };
    }
    found.then_some(out)
}

/// Turns floats into integers where they are whole and exact.
fn integers(value: &mut Value) {
    const EXACT: f64 = (1u64 << 53) as f64;
    match value {
        Value::Array(list) => list.iter_mut().for_each(integers),
        Value::Object(object) => object.values_mut().for_each(integers),
        Value::Number(number) if number.is_f64() => {
            if let Some(v) = number.as_f64().filter(|v| v.fract() == 0.0 && v.abs() <= EXACT) {
                *value = Value::from(v as i64);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn words_of_python_are_text_and_whole_floats_are_integers() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("config.json");
        let text = r#"{"a": [0.0, Infinity, -Infinity,NaN], "b": "NaN \" Infinity", "c": 4096.0, "d": -2.0, "e": 1e30,
            "f": {"g": 1.5, "h": 1E3}, "i": "\\", "j": NaN}"#;
        std::fs::write(&path, text).expect("writing");
        let expected = json!({"a": [0, "Infinity", "-Infinity", "NaN"], "b": "NaN \" Infinity", "c": 4096, "d": -2,
            "e": 1e30, "f": {"g": 1.5, "h": 1000}, "i": "\\", "j": "NaN"});
        let read = read_object(&path).expect("an object").expect("a file");
        assert_eq!(Value::Object(read), expected);
        for (text, expected) in [("{\"a\": NaN", "not valid JSON"), ("{\"a\": Nan}", "line 1"), ("NaN", "object")] {
            std::fs::write(&path, text).expect("writing");
            let message = read_object(&path).expect_err("no object").to_string();
            assert!(message.contains("config.json") && message.contains(expected), "{text}: {message}");
        }
    }
}
