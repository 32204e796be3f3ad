//! Patterns that cut a text: plain strings, classes of characters, and expressions as a `tokenizer.json` writes them.
//!
//! Expressions without look-around run on automata, in linear time. The usual last alternatives `\s+(?!\S)|\s+`, which
//! leave the last space of a run to the word after it, are one more pattern of the same automaton: what it matches gives
//! its last character back. All other look-around goes to an engine that backtracks, within a limit.

use regex_automata::{Input, meta};

use super::error::{Result, TextError};

/// Bytes of the longest expression that is read: those of real tokenizers have some thousand.
const MAX_EXPRESSION: usize = 1 << 16;
/// Bytes of the largest compiled expression.
const MAX_COMPILED: usize = 10 << 20;
/// Most steps back in the search for one match.
const MAX_BACKTRACKS: usize = 10_000_000;
/// Digits in groups of three from the right, as in large numbers, which [`Engine::Thousands`] counts.
pub(crate) const THOUSANDS: &str = r"(?=(\d{3})+(?!\d))";
/// The number of the last alternatives in [`Engine::Spaces`].
const SPACES: usize = 1;

/// A pattern ready to search.
#[derive(Debug)]
pub(crate) struct Pattern(Engine);

#[derive(Debug)]
enum Engine {
    /// This text; it is not empty.
    Literal(String),
    /// Single characters of a class.
    Chars(fn(char) -> bool),
    Plain(meta::Regex),
    /// An expression and, where it does not match, `\s+(?!\S)|\s+`. No match is empty.
    Spaces(meta::Regex),
    /// Runs of digits, in groups of three of which the first may be shorter.
    Thousands(meta::Regex),
    LookAround(fancy_regex::Regex),
}

impl Pattern {
    /// The pattern that matches `text` itself.
    pub(crate) fn literal(what: &str, text: &str) -> Result<Self> {
        // An empty text is found between any two characters, as an empty expression is.
        if text.is_empty() { Self::expression(what, text) } else { Ok(Self(Engine::Literal(text.to_owned()))) }
    }

    /// The pattern that matches each character of which `class` is true.
    pub(crate) fn chars(class: fn(char) -> bool) -> Self {
        Self(Engine::Chars(class))
    }

    /// The pattern of an expression in the syntax of the crates `regex` and `fancy-regex`; `what` names its file.
    ///
    /// # Errors
    /// Expressions that are broken or too large.
    pub(crate) fn expression(what: &str, pattern: &str) -> Result<Self> {
        if pattern.len() > MAX_EXPRESSION {
            let reason = format!("an expression of {} bytes, over the limit of {MAX_EXPRESSION}", pattern.len());
            return Err(TextError::broken(what, reason));
        }
        let front = [r"|\s+(?!\S)|\s+", r"|\s+(?!\S)|\s"].into_iter().find_map(|end| pattern.strip_suffix(end));
        if let Some(front) = front
            && let Ok(spaces) = Self::with_spaces(what, front)
        {
            return Ok(spaces);
        }
        match automaton(&[pattern]) {
            Ok(regex) => Ok(Self(Engine::Plain(regex))),
            Err(error) => look_around(what, pattern, &error),
        }
    }

    /// The pattern `front|\s+(?!\S)|\s+`.
    ///
    /// # Errors
    /// A `front` that is broken, looks around, or matches the empty text.
    pub(crate) fn with_spaces(what: &str, front: &str) -> Result<Self> {
        let refused = |reason: String| TextError::broken(what, format!("the expression `{front}`: {reason}"));
        let parsed = regex_syntax::parse(front).map_err(|e| refused(e.to_string()))?;
        if parsed.properties().minimum_len() == Some(0) {
            return Err(refused("it matches the empty text".to_owned()));
        }
        Ok(Self(Engine::Spaces(automaton(&[front, r"\s+"]).map_err(|e| refused(message(&e)))?)))
    }

    /// The pattern [`THOUSANDS`], of which each match is a group.
    pub(crate) fn thousands(what: &str) -> Result<Self> {
        let digits = automaton(&[r"\p{N}+"]).map_err(|e| TextError::broken(what, message(&e)))?;
        Ok(Self(Engine::Thousands(digits)))
    }

    /// Calls `each` with start and end of every match in `text`, in order.
    ///
    /// # Errors
    /// A search that takes too many steps back, and the errors of `each`.
    pub(crate) fn matches(&self, text: &str, each: &mut dyn FnMut(usize, usize) -> Result<()>) -> Result<()> {
        match &self.0 {
            Engine::Literal(literal) => {
                text.match_indices(literal.as_str()).try_for_each(|(at, found)| each(at, at + found.len()))
            }
            Engine::Chars(class) => {
                let found = text.char_indices().filter(|&(_, c)| class(c));
                found.map(|(at, c)| (at, at + c.len_utf8())).try_for_each(|(start, end)| each(start, end))
            }
            Engine::Plain(regex) => regex.find_iter(text).try_for_each(|found| each(found.start(), found.end())),
            Engine::Spaces(regex) => {
                let mut at = 0;
                while let Some(found) = regex.search(&Input::new(text).range(at..)) {
                    at = found.end();
                    if found.pattern().as_usize() == SPACES && at < text.len() {
                        let last = text[found.range()].chars().next_back().map_or(0, char::len_utf8);
                        at -= if found.len() > last { last } else { 0 };
                    }
                    each(found.start(), at)?;
                }
                Ok(())
            }
            Engine::Thousands(digits) => digits.find_iter(text).try_for_each(|found| {
                let run = &text[found.range()];
                let mut at = 0;
                let mut left = run.chars().count();
                while left > 0 {
                    let group = (left - 1) % 3 + 1;
                    let len: usize = run[at..].chars().take(group).map(char::len_utf8).sum();
                    each(found.start() + at, found.start() + at + len)?;
                    at += len;
                    left -= group;
                }
                Ok(())
            }),
            Engine::LookAround(regex) => regex.find_iter(text).try_for_each(|found| {
                let found = found.map_err(|e| TextError::Encode(format!("the expression `{regex}`: {e}")))?;
                each(found.start(), found.end())
            }),
        }
    }
}

fn automaton(patterns: &[&str]) -> Result<meta::Regex, Box<meta::BuildError>> {
    let config = meta::Config::new().nfa_size_limit(Some(MAX_COMPILED)).hybrid_cache_capacity(2 << 20);
    meta::Regex::builder().configure(config).build_many(patterns).map_err(Box::new)
}

/// The reason in one line: the error of a syntax is its source, and draws the place below the expression.
fn message(error: &meta::BuildError) -> String {
    match error.syntax_error() {
        Some(error) => error.to_string().lines().last().unwrap_or_default().trim().to_owned(),
        None => error.to_string(),
    }
}

fn look_around(what: &str, pattern: &str, error: &meta::BuildError) -> Result<Pattern> {
    let broken = |reason: String| TextError::broken(what, format!("the expression `{pattern}`: {reason}"));
    if error.size_limit().is_some() {
        return Err(broken(message(error)));
    }
    let mut builder = fancy_regex::RegexBuilder::new(pattern);
    builder.backtrack_limit(MAX_BACKTRACKS).delegate_size_limit(MAX_COMPILED);
    // Where neither engine reads it, the error of the one with more syntax is the better one.
    Ok(Pattern(Engine::LookAround(builder.build().map_err(|e| broken(e.to_string()))?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &Pattern, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut each = |start: usize, end: usize| {
            out.push(text[start..end].to_owned());
            Ok(())
        };
        pattern.matches(text, &mut each).unwrap();
        out
    }

    #[test]
    fn the_last_space_is_given_back_only_by_the_last_alternatives() {
        let front = Pattern::expression("test", r" ?\p{L}+|x\s\s|\s+(?!\S)|\s+").unwrap();
        assert!(matches!(front.0, Engine::Spaces(_)));
        assert_eq!(found(&front, "a   b x  1 \t"), ["a", "  ", " b", " x", " ", " ", " \t"]);
        let spaces = Pattern::expression("test", r"-\s+|\s+(?!\S)|\s").unwrap();
        assert_eq!(found(&spaces, "-   b   c"), ["-   ", "  ", " "]);
        let looks = Pattern::expression("test", r"(?<=b)\s+|\s+(?!\S)|\s+").unwrap();
        assert!(matches!(looks.0, Engine::LookAround(_)));
        assert_eq!(found(&looks, "a   b   c"), ["  ", " ", "   "]);
    }

    #[test]
    fn groups_of_three_and_classes() {
        assert_eq!(found(&Pattern::thousands("test").unwrap(), "of 1234567, 12"), ["1", "234", "567", "12"]);
        assert_eq!(found(&Pattern::chars(char::is_numeric), "a12½"), ["1", "2", "½"]);
        assert_eq!(found(&Pattern::literal("test", "aa").unwrap(), "aaaaa"), ["aa", "aa"]);
        assert_eq!(found(&Pattern::literal("test", "").unwrap(), "ab"), ["", "", ""]);
    }

    #[test]
    fn bombs_are_errors() {
        for bomb in [r"(?:\p{L}{1000}){1000}", r"(?:(?:a{1000}){1000}){1000}(?=b)", "(", &"a".repeat(70_000)] {
            let error = Pattern::expression("my.json", bomb).unwrap_err().to_string();
            assert!(error.contains("my.json"), "{error}");
        }
        let slow = Pattern::expression("test", r"(?:(?=a)a|(?=a)a)*c").unwrap();
        let start = std::time::Instant::now();
        let error = slow.matches(&"a".repeat(100), &mut |_, _| Ok(())).unwrap_err().to_string();
        assert!(error.contains("acktrack"), "{error}");
        assert!(start.elapsed().as_secs() < 60);
    }
}
