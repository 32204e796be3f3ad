//! Reads the pieces that a [`Grammar`](super::call::Grammar) wants, one character at a time.

use super::json::JsonScan;
use super::python::BracketScan;

/// A tool's or parameter's name may have this many bytes. Longer ones are text.
const MAX_NAME: usize = 256;

pub(super) type Literals = &'static [&'static str];

/// What a grammar wants next. Of several literals none may be the beginning of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Want {
    /// White space, then one of these literals.
    Tag(Literals),
    /// A name, then one of these literals. White space around the name is dropped. The name may be empty.
    Name(Literals),
    /// Any text, then one of these literals.
    Text(Literals),
    /// Any text, then one of these literals or the end of the turn, which counts as one more literal.
    TextOrEnd(Literals),
    /// White space, then a JSON object, array or string.
    Json,
    /// The rest of a JSON text that began so. The piece holds all of it.
    JsonFrom(&'static str),
    /// The rest of Python's text in brackets that began with this bracket: up to its end, strings and brackets heeded.
    /// The piece holds all of it.
    PythonFrom(char),
}

/// What was wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Number of the literal.
    Tag(usize),
    /// Name or text, and the number of the literal after it.
    Text(String, usize),
    /// Text of JSON or Python.
    Value(String),
}

/// What a character led to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Progress {
    More,
    Piece(Piece),
    /// The text cannot be what was wanted. The last bytes, as many as this says, may begin something else.
    Fail(usize),
}

/// Reads one piece.
#[derive(Debug)]
pub(super) struct Lexer {
    want: Want,
    /// Name, text or JSON so far.
    text: String,
    /// Begins one of the wanted literals.
    partial: String,
    json: JsonScan,
    python: BracketScan,
}

impl Lexer {
    pub fn new(want: Want) -> Self {
        let (json, python) = (JsonScan::default(), BracketScan::default());
        let mut lexer = Self { want, text: String::new(), partial: String::new(), json, python };
        match lexer.want {
            Want::JsonFrom(text) => text.chars().for_each(|c| drop(lexer.push_json(c))),
            Want::PythonFrom(c) => drop(lexer.push_python(c)),
            _ => {}
        }
        lexer
    }

    pub fn push(&mut self, c: char) -> Progress {
        match self.want {
            Want::Tag(tags) => self.push_tag(c, tags),
            Want::Name(ends) => self.push_until(c, ends, true),
            Want::Text(ends) | Want::TextOrEnd(ends) => self.push_until(c, ends, false),
            Want::Json | Want::JsonFrom(_) => self.push_json(c),
            Want::PythonFrom(_) => self.push_python(c),
        }
    }

    /// The piece that the end of the turn completes, if there is one.
    pub fn end(&mut self) -> Option<Piece> {
        let Want::TextOrEnd(ends) = self.want else { return None };
        let text = std::mem::take(&mut self.text) + &std::mem::take(&mut self.partial);
        Some(Piece::Text(text, ends.len()))
    }

    fn push_tag(&mut self, c: char, tags: Literals) -> Progress {
        if self.partial.is_empty() && c.is_whitespace() {
            return Progress::More;
        }
        self.partial.push(c);
        match Match::of(&self.partial, tags) {
            Match::Whole(i) => Progress::Piece(Piece::Tag(i)),
            Match::Begins => Progress::More,
            Match::None => Progress::Fail(self.partial.len()),
        }
    }

    fn push_until(&mut self, c: char, ends: Literals, name: bool) -> Progress {
        self.partial.push(c);
        loop {
            match Match::of(&self.partial, ends) {
                Match::Whole(i) => {
                    let text = std::mem::take(&mut self.text);
                    let text = if name { text.trim().to_owned() } else { text };
                    return Progress::Piece(Piece::Text(text, i));
                }
                Match::Begins => return Progress::More,
                Match::None => {}
            }
            let first = self.partial.remove(0);
            if name && !self.name_takes(first) {
                return Progress::Fail(first.len_utf8() + self.partial.len());
            }
            self.text.push(first);
            if self.partial.is_empty() {
                return Progress::More;
            }
        }
    }

    /// Whether a name may go on with `c`. After white space nothing more comes.
    fn name_takes(&self, c: char) -> bool {
        if c.is_whitespace() {
            return self.text.len() < MAX_NAME;
        }
        let ended = !self.text.trim_start().is_empty() && self.text.ends_with(char::is_whitespace);
        (c.is_alphanumeric() || "_-.:/$".contains(c)) && !ended && self.text.len() < MAX_NAME
    }

    fn push_json(&mut self, c: char) -> Progress {
        if self.text.is_empty() {
            if c.is_whitespace() {
                return Progress::More;
            }
            if !"{[\"".contains(c) {
                return Progress::Fail(c.len_utf8());
            }
        }
        if !self.json.push(c) {
            return Progress::Fail(c.len_utf8());
        }
        self.text.push(c);
        match self.json.is_complete() {
            true => Progress::Piece(Piece::Value(std::mem::take(&mut self.text))),
            false => Progress::More,
        }
    }

    fn push_python(&mut self, c: char) -> Progress {
        if !self.python.push(c) {
            return Progress::Fail(c.len_utf8());
        }
        self.text.push(c);
        match self.python.is_complete() {
            true => Progress::Piece(Piece::Value(std::mem::take(&mut self.text))),
            false => Progress::More,
        }
    }
}

/// How a text relates to some literals.
enum Match {
    Whole(usize),
    Begins,
    None,
}

impl Match {
    fn of(text: &str, literals: Literals) -> Self {
        match literals.iter().position(|l| *l == text) {
            Some(i) => Self::Whole(i),
            None if literals.iter().any(|l| l.starts_with(text)) => Self::Begins,
            None => Self::None,
        }
    }
}
