//! Values as Python writes them: `str()`, `repr()` and `json.dumps`.

use std::fmt::Write;
use std::sync::Arc;

use minijinja::value::{Enumerator, Object, ObjectRepr, Value, ValueKind};
use minijinja::{Error, ErrorKind};

use super::marks;

/// Deepest nesting that is written; `json.dumps` fails at about 1,000.
const MAX_DEPTH: usize = 200;

/// Longest text of a value: a list may hold one long string many times.
const MAX_TEXT: usize = 64 << 20;

/// Refuses to write on, where a value is nested too deep or its text has grown too long.
fn check(out: &str, depth: usize) -> Result<(), Error> {
    match () {
        () if depth > MAX_DEPTH => Err(failed(format!("a value nested over {MAX_DEPTH} deep cannot be written"))),
        () if out.len() > MAX_TEXT => Err(failed(format!("a value's text is longer than {MAX_TEXT} bytes"))),
        () => Ok(()),
    }
}

/// A failed operation in the words of `message`.
pub(super) fn failed(message: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message)
}

/// The items of a generator of Python's, which `json.dumps` refuses.
#[derive(Debug)]
pub(super) struct Generator(Vec<Value>);

impl Generator {
    pub(super) fn value(items: Vec<Value>) -> Value {
        Value::from_object(Self(items))
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.0.clone())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// The text of `value` in a template's output: Python's `str()`, where undefined is empty.
pub(super) fn str_of(value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => Ok(text.to_owned()),
        None if value.is_undefined() => Ok(String::new()),
        None => {
            let mut out = String::new();
            repr(value, 0, &mut out)?;
            Ok(out)
        }
    }
}

/// Appends Python's `repr()` of `value`.
fn repr(value: &Value, depth: usize, out: &mut String) -> Result<(), Error> {
    check(out, depth)?;
    match value.kind() {
        ValueKind::Undefined => out.push_str("Undefined"),
        ValueKind::Number => number(value, out),
        ValueKind::String => repr_str(value.as_str().unwrap_or_default(), out),
        ValueKind::Seq | ValueKind::Iterable => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut n = 0;
            for item in value.try_iter()? {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(&item, depth + 1, out)?;
                n += 1;
            }
            out.push_str(match (tuple, n) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            for (n, key) in value.try_iter()?.enumerate() {
                out.push_str(if n > 0 { ", " } else { "" });
                repr(&key, depth + 1, out)?;
                out.push_str(": ");
                repr(&value.get_item(&key)?, depth + 1, out)?;
            }
            out.push('}');
        }
        _ => write!(out, "{value}").map_err(|e| failed(e.to_string()))?,
    }
    Ok(())
}

/// Appends a string in quotes: single ones, unless it has those and no double ones.
fn repr_str(text: &str, out: &mut String) {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\\' => out.push_str("\\\\"),
            c if c == quote => out.extend(['\\', c]),
            c if is_printable(c) => out.push(c),
            c => match c as u32 {
                code @ ..0x100 => out.push_str(&format!("\\x{code:02x}")),
                code @ ..0x10000 => out.push_str(&format!("\\u{code:04x}")),
                code => out.push_str(&format!("\\U{code:08x}")),
            },
        }
    }
    out.push(quote);
}

/// Whether `repr()` shows `c` as it is: no control or format character, no private one, and no space but U+0020.
fn is_printable(c: char) -> bool {
    let format = matches!(c, '\u{ad}' | '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{e007f}'
        | '\u{f0000}'..);
    c == ' ' || !(format || c.is_control() || c.is_whitespace())
}

/// Appends a number or a truth value.
fn number(value: &Value, out: &mut String) {
    match f64::try_from(value.clone()) {
        Ok(float) if !value.is_integer() => out.push_str(&float_repr(float)),
        _ => out.push_str(&value.to_string()),
    }
}

/// Python's `repr()` of a float: the shortest digits that read back, with an exponent below 1e-4 and from 1e16 on.
fn float_repr(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() {
            "nan"
        } else if value > 0.0 {
            "inf"
        } else {
            "-inf"
        }
        .to_owned();
    }
    if value == 0.0 || (1e-4..1e16).contains(&value.abs()) {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    // Rust writes 1e16 and 1.5e-7, Python 1e+16 and 1.5e-07.
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = exponent.strip_prefix('-').map_or(('+', exponent), |rest| ('-', rest));
    format!("{digits}e{sign}{exponent:0>2}")
}

/// The arguments of `json.dumps` that templates give.
#[derive(Debug, Default)]
pub(super) struct JsonStyle {
    /// Whether characters beyond ASCII are written as `\uXXXX`.
    pub(super) ensure_ascii: bool,
    /// The indent of one level; without one everything is on one line.
    pub(super) indent: Option<String>,
    /// The separators of items and of key and value, where they are given.
    pub(super) separators: Option<(String, String)>,
    pub(super) sort_keys: bool,
}

/// `value` as `json.dumps` writes it.
///
/// # Errors
/// Values that JSON has no form for, and nesting beyond a limit.
pub(super) fn to_json(value: &Value, style: &JsonStyle) -> Result<String, Error> {
    let mut out = String::new();
    JsonWriter { style, out: &mut out }.value(value, 0)?;
    Ok(out)
}

struct JsonWriter<'a> {
    style: &'a JsonStyle,
    out: &'a mut String,
}

impl JsonWriter<'_> {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        check(self.out, depth)?;
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.number(value),
            ValueKind::String => self.string(value.as_str().unwrap_or_default()),
            ValueKind::Iterable if value.downcast_object_ref::<Generator>().is_some() => {
                return Err(failed("Object of type generator is not JSON serializable"));
            }
            ValueKind::Seq | ValueKind::Iterable => {
                self.out.push('[');
                let mut n = 0;
                for item in value.try_iter()? {
                    self.before_item(n, depth);
                    self.value(&item, depth + 1)?;
                    n += 1;
                }
                self.close(n, depth, ']');
            }
            ValueKind::Map => self.map(value, depth)?,
            kind => return Err(failed(format!("{kind} is not JSON serializable"))),
        }
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut keys: Vec<Value> = value.try_iter()?.collect();
        if self.style.sort_keys {
            keys.sort_by_cached_key(|key| marks::removed(&key.to_string()).into_owned());
        }
        self.out.push('{');
        for (n, key) in keys.iter().enumerate() {
            self.before_item(n, depth);
            match key.kind() {
                ValueKind::String => self.string(key.as_str().unwrap_or_default()),
                ValueKind::Number | ValueKind::Bool | ValueKind::None => {
                    self.out.push('"');
                    self.value(key, depth + 1)?;
                    self.out.push('"');
                }
                kind => return Err(failed(format!("keys of a JSON object must be strings, and one is a {kind}"))),
            }
            self.out.push_str(self.style.separators.as_ref().map_or(": ", |(_, colon)| colon));
            self.value(&value.get_item(key)?, depth + 1)?;
        }
        self.close(keys.len(), depth, '}');
        Ok(())
    }

    fn number(&mut self, value: &Value) {
        match f64::try_from(value.clone()) {
            Ok(float) if !value.is_integer() && !float.is_finite() => {
                self.out.push_str(if float.is_nan() {
                    "NaN"
                } else if float > 0.0 {
                    "Infinity"
                } else {
                    "-Infinity"
                });
            }
            _ => number(value, self.out),
        }
    }

    fn before_item(&mut self, n: usize, depth: usize) {
        if n > 0 {
            let default = if self.style.indent.is_some() { "," } else { ", " };
            self.out.push_str(self.style.separators.as_ref().map_or(default, |(comma, _)| comma));
        }
        self.new_line(depth + 1);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.style.indent {
            self.out.push('\n');
            (0..depth).for_each(|_| self.out.push_str(indent));
        }
    }

    fn close(&mut self, n: usize, depth: usize, bracket: char) {
        if n > 0 {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn string(&mut self, text: &str) {
        self.out.push('"');
        for c in text.chars() {
            match c {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                c if (c as u32) < 0x20 => self.escaped(c as u16),
                c if self.style.ensure_ascii && (c as u32) >= 0x7f && !marks::is_mark(c) => {
                    let mut units = [0; 2];
                    c.encode_utf16(&mut units).iter().for_each(|&unit| self.escaped(unit));
                }
                c => self.out.push(c),
            }
        }
        self.out.push('"');
    }

    fn escaped(&mut self, unit: u16) {
        self.out.push_str(&format!("\\u{unit:04x}"));
    }
}
