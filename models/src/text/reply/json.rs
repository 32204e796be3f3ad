//! JSON inside replies: its end is found while it streams, and arguments keep the text that the model wrote.

use serde_json::Value;

/// Arrays and objects may be nested this deep, as deep as `serde_json` reads them.
const MAX_DEPTH: usize = 120;

/// What may come next in a JSON text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Value,
    /// A value, or the end of an array that is still empty.
    ValueOrEnd,
    /// A key, or the end of an object that is still empty.
    KeyOrEnd,
    Key,
    Colon,
    CommaOrEnd,
    String,
    Escape,
    /// This many hexadecimal digits.
    Hex(u8),
    /// A number, `true`, `false` or `null`.
    Bare,
}

/// Finds the end of one JSON object, array or string, and refuses the first character that cannot belong to it.
#[derive(Debug, Default)]
pub(super) struct JsonScan {
    state: State,
    /// The open brackets, as their closing ones.
    open: Vec<char>,
    /// Whether the string at hand is a key.
    key: bool,
    bare: String,
    complete: bool,
}

impl JsonScan {
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next character. `false` says that the text is no JSON; the scan is then over.
    pub fn push(&mut self, c: char) -> bool {
        match self.state {
            State::String => return self.push_string(c),
            State::Escape => {
                self.state = if c == 'u' { State::Hex(4) } else { State::String };
                return "\"\\/bfnrtu".contains(c);
            }
            State::Hex(n) => {
                self.state = if n == 1 { State::String } else { State::Hex(n - 1) };
                return c.is_ascii_hexdigit();
            }
            State::Bare if c.is_ascii_alphanumeric() || "+-.".contains(c) => {
                self.bare.push(c);
                return self.bare_begins();
            }
            State::Bare if serde_json::from_str::<Value>(&self.bare).is_err() => return false,
            State::Bare => self.state = State::CommaOrEnd,
            _ => {}
        }
        if " \t\r\n".contains(c) {
            return true;
        }
        match (self.state, c) {
            (State::Value | State::ValueOrEnd, '{' | '[') => {
                self.open.push(if c == '{' { '}' } else { ']' });
                self.state = if c == '{' { State::KeyOrEnd } else { State::ValueOrEnd };
                self.open.len() <= MAX_DEPTH
            }
            (State::Value | State::ValueOrEnd | State::Key | State::KeyOrEnd, '"') => {
                self.key = matches!(self.state, State::Key | State::KeyOrEnd);
                self.state = State::String;
                true
            }
            (State::Value | State::ValueOrEnd, _) if c.is_ascii_alphanumeric() || c == '-' => {
                self.bare = c.to_string();
                self.state = State::Bare;
                self.bare_begins()
            }
            (State::Colon, ':') => {
                self.state = State::Value;
                true
            }
            (State::CommaOrEnd, ',') => {
                self.state = if self.open.last() == Some(&'}') { State::Key } else { State::Value };
                true
            }
            (State::CommaOrEnd | State::ValueOrEnd | State::KeyOrEnd, '}' | ']') => self.close(c),
            _ => false,
        }
    }

    fn push_string(&mut self, c: char) -> bool {
        match c {
            '\\' => self.state = State::Escape,
            '"' if self.key => self.state = State::Colon,
            '"' => self.value_ends(),
            _ => return c >= ' ',
        }
        true
    }

    fn close(&mut self, c: char) -> bool {
        let fits = self.open.pop() == Some(c);
        self.value_ends();
        fits
    }

    fn value_ends(&mut self) {
        self.state = State::CommaOrEnd;
        self.complete = self.open.is_empty();
    }

    /// Whether `bare` may still become a number or a word of JSON.
    fn bare_begins(&self) -> bool {
        let word = ["true", "false", "null"].iter().any(|w| w.starts_with(&self.bare));
        word || (self.bare.len() <= 64 && self.bare.chars().all(|c| c.is_ascii_digit() || "+-.eE".contains(c)))
    }
}

/// Whether `text` is a JSON value that may stand inside another: nested a little less deep than readers allow.
pub(super) fn is_inner_value(text: &str) -> bool {
    let mut scan = JsonScan::default();
    let nested = text.trim_start().starts_with(['{', '[']);
    serde_json::from_str::<Value>(text).is_ok() && (!nested || text.trim().chars().all(|c| scan.push(c)))
}

/// The members of a JSON object, with the text of their values; `None` if `text` is no JSON object.
pub(super) fn members(text: &str) -> Option<Vec<(String, &str)>> {
    let Value::Object(_) = serde_json::from_str(text).ok()? else { return None };
    let inner = text.trim().strip_prefix('{')?.strip_suffix('}')?;
    split(inner).into_iter().map(member).collect()
}

/// The texts of the elements of a JSON array; `None` if `text` is none.
pub(super) fn elements(text: &str) -> Option<Vec<&str>> {
    let Value::Array(_) = serde_json::from_str(text).ok()? else { return None };
    Some(split(text.trim().strip_prefix('[')?.strip_suffix(']')?))
}

fn member(text: &str) -> Option<(String, &str)> {
    let mut keys = serde_json::Deserializer::from_str(text).into_iter::<String>();
    let key = keys.next()?.ok()?;
    let value = text[keys.byte_offset()..].trim_start().strip_prefix(':')?;
    Some((key, value.trim()))
}

/// Cuts valid JSON at its outermost commas.
fn split(inner: &str) -> Vec<&str> {
    let (mut parts, mut from, mut depth) = (Vec::new(), 0, 0);
    let (mut string, mut escaped) = (false, false);
    for (at, b) in inner.bytes().enumerate() {
        match b {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => string = !string,
            _ if string => {}
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(inner[from..at].trim());
                from = at + 1;
            }
            _ => {}
        }
    }
    let last = inner[from..].trim();
    if !last.is_empty() {
        parts.push(last);
    }
    parts
}

/// A call's arguments as JSON text: an object as it was written, or one that was written as a string. None at all and
/// `null` mean no arguments.
pub(super) fn arguments(text: Option<&str>) -> Option<String> {
    let text = text.unwrap_or("null");
    match serde_json::from_str(text).ok()? {
        Value::Object(_) => Some(text.to_owned()),
        Value::Null => Some("{}".to_owned()),
        Value::String(inner) if inner.trim().is_empty() => Some("{}".to_owned()),
        Value::String(inner) => match serde_json::from_str(&inner).ok()? {
            Value::Object(_) => Some(inner),
            _ => None,
        },
        _ => None,
    }
}

/// Appends `text` as a JSON string.
pub(super) fn push_string(out: &mut String, text: &str) {
    out.push_str(&Value::from(text).to_string());
}
