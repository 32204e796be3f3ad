//! Python's literals, as some models write arguments: `f(a=1, b='x', c=[True, None])`. They come out as JSON.

use super::json::push_string;
use super::values::Arguments;

/// Brackets may be nested this deep.
const MAX_DEPTH: usize = 100;

/// Finds the end of a text in brackets.
#[derive(Debug, Default)]
pub(super) struct BracketScan {
    /// The open brackets, as their closing ones.
    open: Vec<char>,
    quote: Option<char>,
    escaped: bool,
    complete: bool,
}

impl BracketScan {
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next character; `false` where brackets do not match.
    pub fn push(&mut self, c: char) -> bool {
        if let Some(quote) = self.quote {
            match c {
                _ if self.escaped => self.escaped = false,
                '\\' => self.escaped = true,
                _ if c == quote => self.quote = None,
                _ => {}
            }
            return true;
        }
        match c {
            '\'' | '"' => self.quote = Some(c),
            '(' => self.open.push(')'),
            '[' => self.open.push(']'),
            '{' => self.open.push('}'),
            ')' | ']' | '}' if self.open.pop() != Some(c) => return false,
            _ => {}
        }
        self.complete = self.open.is_empty();
        self.open.len() <= MAX_DEPTH
    }
}

/// A call: the function's name, and its keyword arguments as a JSON object.
pub(super) type PythonCall = (String, String);

/// Reads `[f(a=1), g()]` or `f(a=1)`, the whole text.
pub(super) fn calls(text: &str) -> Option<Vec<PythonCall>> {
    let mut reader = Reader::new(text);
    let mut calls = Vec::new();
    let list = reader.take("[");
    loop {
        if list && reader.take("]") {
            break;
        }
        calls.push(reader.call()?);
        if !list {
            break;
        }
        if !reader.take(",") {
            reader.take("]").then_some(())?;
            break;
        }
    }
    reader.at_end().then_some(calls)
}

/// A literal as JSON text; `None` if `text` is none.
pub(super) fn value(text: &str) -> Option<String> {
    let mut reader = Reader::new(text);
    let mut json = String::new();
    reader.value(&mut json, 0)?;
    reader.at_end().then_some(json)
}

struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn new(rest: &'a str) -> Self {
        Self { rest }
    }

    /// Skips white space, then takes `token` if it is next.
    fn take(&mut self, token: &str) -> bool {
        self.rest = self.rest.trim_start();
        match self.rest.strip_prefix(token) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn at_end(&self) -> bool {
        self.rest.trim().is_empty()
    }

    /// A name with dots; `None` if there is none.
    fn name(&mut self) -> Option<&'a str> {
        self.rest = self.rest.trim_start();
        let end = self.rest.find(|c: char| !(c.is_alphanumeric() || "_.-".contains(c))).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        (!name.is_empty()).then_some(name)
    }

    fn call(&mut self) -> Option<PythonCall> {
        let name = self.name()?.to_owned();
        self.take("(").then_some(())?;
        Some((name, self.keywords()?))
    }

    fn keywords(&mut self) -> Option<String> {
        let mut arguments = Arguments::default();
        loop {
            if self.take(")") {
                return Some(arguments.take());
            }
            let key = self.name()?;
            self.take("=").then_some(())?;
            let mut json = String::new();
            self.value(&mut json, 0)?;
            arguments.push_json(key, &json);
            if !self.take(",") {
                return self.take(")").then(|| arguments.take());
            }
        }
    }

    fn value(&mut self, json: &mut String, depth: usize) -> Option<()> {
        if depth > MAX_DEPTH {
            return None;
        }
        self.rest = self.rest.trim_start();
        match self.rest.chars().next()? {
            quote @ ('\'' | '"') => {
                let text = self.string(quote)?;
                push_string(json, &text);
            }
            '[' => self.list(json, "[", "]", depth)?,
            '(' => self.list(json, "(", ")", depth)?,
            '{' => self.dict(json, depth)?,
            _ => {
                let word = self.bare()?;
                json.push_str(word);
            }
        }
        Some(())
    }

    fn list(&mut self, json: &mut String, open: &str, close: &str, depth: usize) -> Option<()> {
        self.take(open);
        json.push('[');
        let mut first = true;
        while !self.take(close) {
            if !first {
                json.push(',');
            }
            first = false;
            self.value(json, depth + 1)?;
            if !self.take(",") {
                self.take(close).then_some(())?;
                break;
            }
        }
        json.push(']');
        Some(())
    }

    fn dict(&mut self, json: &mut String, depth: usize) -> Option<()> {
        self.take("{");
        let mut members = Arguments::default();
        while !self.take("}") {
            self.rest = self.rest.trim_start();
            let quote = self.rest.chars().next().filter(|c| "'\"".contains(*c))?;
            let key = self.string(quote)?;
            self.take(":").then_some(())?;
            let mut value = String::new();
            self.value(&mut value, depth + 1)?;
            members.push_json(&key, &value);
            if !self.take(",") {
                self.take("}").then_some(())?;
                break;
            }
        }
        json.push_str(&members.take());
        Some(())
    }

    /// A quoted string. Its escapes are those that Python and JSON share, and Python's own for quotes, `\x` and `\U`.
    fn string(&mut self, quote: char) -> Option<String> {
        let mut text = String::new();
        let mut chars = self.rest.char_indices();
        chars.next();
        while let Some((at, c)) = chars.next() {
            match c {
                _ if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                '\\' => {
                    let (_, escape) = chars.next()?;
                    let digits = match escape {
                        'x' => 2,
                        'u' => 4,
                        'U' => 8,
                        _ => 0,
                    };
                    match escape {
                        'n' => text.push('\n'),
                        't' => text.push('\t'),
                        'r' => text.push('\r'),
                        'b' => text.push('\u{8}'),
                        'f' => text.push('\u{c}'),
                        '\n' => {}
                        '\\' | '\'' | '"' | '/' => text.push(escape),
                        _ if digits > 0 => {
                            let hex: Option<String> = (0..digits).map(|_| chars.next().map(|(_, c)| c)).collect();
                            text.push(char::from_u32(u32::from_str_radix(&hex?, 16).ok()?)?);
                        }
                        // As Python does with escapes that it does not know.
                        _ => text.extend(['\\', escape]),
                    }
                }
                _ => text.push(c),
            }
        }
        None
    }

    /// A number or one of the words for true, false and nothing.
    fn bare(&mut self) -> Option<&'a str> {
        let end =
            self.rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-._".contains(c))).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        match word {
            "True" | "true" => Some("true"),
            "False" | "false" => Some("false"),
            "None" | "null" => Some("null"),
            _ => serde_json::from_str::<serde_json::Number>(word).is_ok().then_some(word),
        }
    }
}
