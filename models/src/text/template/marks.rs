//! Marks around the user's text inside of a rendering, by which it stays apart from the template's.
//!
//! A run of the user's text stands between [`OPEN`] and [`CLOSE`], two of the code points that Unicode reserves for
//! use inside of a program. Where the user's own text has one, [`marked`] puts another noncharacter in its place.
//! Concatenation and `in` work on marked strings as on plain ones; methods and filters read the marks through
//! [`Marked`], work on the plain text, and mark their results again.

use std::borrow::Cow;
use std::ops::Range;

/// Begins a run of the user's text.
const OPEN: char = '\u{fdd0}';
/// Ends a run of the user's text.
const CLOSE: char = '\u{fdd1}';
/// Stand for marks that the text itself has.
const SPARE: [char; 2] = ['\u{fdd2}', '\u{fdd3}'];

/// Whether `c` is one of the marks.
pub(super) fn is_mark(c: char) -> bool {
    c == OPEN || c == CLOSE
}

/// `text` as a run of the user's text. An empty one needs no marks.
pub(super) fn marked(text: &str) -> String {
    if text.is_empty() {
        return String::new();
    }
    format!("{OPEN}{}{CLOSE}", spared(text))
}

/// `text` with other characters in place of marks.
pub(super) fn spared(text: &str) -> Cow<'_, str> {
    if !text.contains(is_mark) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.replace(OPEN, SPARE[0].encode_utf8(&mut [0; 4])).replace(CLOSE, SPARE[1].encode_utf8(&mut [0; 4])))
}

/// `text` without marks.
pub(super) fn removed(text: &str) -> Cow<'_, str> {
    if text.contains(is_mark) { Cow::Owned(text.replace(is_mark, "")) } else { Cow::Borrowed(text) }
}

/// A marked string, read.
#[derive(Debug, PartialEq)]
pub(super) struct Marked<'a> {
    /// The text without marks.
    pub(super) text: Cow<'a, str>,
    /// The user's runs: byte ranges of `text`, in order, apart and not empty.
    pub(super) user: Vec<Range<usize>>,
}

impl<'a> Marked<'a> {
    /// Reads the marks. Templates may cut strings where a mark stands: a run without end lasts to the end of the text,
    /// and one without begin starts behind the run before it, so that a lost mark makes more text the user's.
    pub(super) fn read(marked: &'a str) -> Self {
        if !marked.contains(is_mark) {
            return Self { text: Cow::Borrowed(marked), user: Vec::new() };
        }
        let mut text = String::with_capacity(marked.len());
        let mut user: Vec<Range<usize>> = Vec::new();
        let mut open = None;
        let mut push = |from: usize, to: usize| match user.last_mut() {
            Some(last) if last.end == from => last.end = to,
            _ if from < to => user.push(from..to),
            _ => {}
        };
        let mut border = 0;
        for c in marked.chars() {
            match c {
                OPEN => open = open.or(Some(text.len())),
                CLOSE => {
                    push(open.take().unwrap_or(border), text.len());
                    border = text.len();
                }
                c => text.push(c),
            }
        }
        if let Some(from) = open {
            push(from, text.len());
        }
        Self { text: Cow::Owned(text), user }
    }

    /// The part of the text in `range`, marked.
    pub(super) fn part(&self, range: Range<usize>) -> String {
        let mut out = String::with_capacity(range.len());
        self.push_part(range, &mut out);
        out
    }

    /// Appends the part of the text in `range`, marked.
    pub(super) fn push_part(&self, range: Range<usize>, out: &mut String) {
        let mut at = range.start;
        let first = self.user.partition_point(|run| run.end <= range.start);
        for run in self.user[first..].iter().take_while(|run| run.start < range.end) {
            let (start, end) = (run.start.max(range.start), run.end.min(range.end));
            if start < end {
                out.push_str(&self.text[at..start]);
                out.push(OPEN);
                out.push_str(&self.text[start..end]);
                out.push(CLOSE);
                at = end;
            }
        }
        out.push_str(&self.text[at..range.end.max(at)]);
    }

    /// The text, changed by `change`, which keeps nothing of its length: all of it is the user's if any was.
    pub(super) fn changed(&self, change: impl FnOnce(&str) -> String) -> String {
        let text = change(&self.text);
        if self.user.is_empty() { text } else { marked(&text) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        text.replace(OPEN, "⟦").replace(CLOSE, "⟧")
    }

    fn hidden(text: &str) -> String {
        text.replace('⟦', "\u{fdd0}").replace('⟧', "\u{fdd1}")
    }

    #[test]
    fn a_lost_mark_makes_more_text_the_users() {
        for (text, user) in [
            ("a⟦b⟧c", vec!["b"]),
            ("⟦a⟧⟦b⟧", vec!["ab"]),
            ("a⟦b", vec!["b"]),
            ("ab⟧c", vec!["ab"]),
            ("⟦a⟧bc⟧d", vec!["abc"]),
            ("⟦a⟦b⟧c", vec!["ab"]),
            ("⟦⟧a", vec![]),
            ("⟧a", vec![]),
        ] {
            let text = hidden(text);
            let read = Marked::read(&text);
            let found: Vec<&str> = read.user.iter().map(|run| &read.text[run.clone()]).collect();
            assert_eq!(found, user, "{}", shown(&text));
            assert_eq!(read.text, removed(&text));
        }
    }

    #[test]
    fn parts_keep_their_marks() {
        let text = hidden("ab⟦cd⟧ef⟦gh⟧");
        let read = Marked::read(&text);
        for (range, part) in [
            (0..8, "ab⟦cd⟧ef⟦gh⟧"),
            (1..3, "b⟦c⟧"),
            (3..5, "⟦d⟧e"),
            (4..6, "ef"),
            (7..8, "⟦h⟧"),
            (2..2, ""),
            (8..8, ""),
        ] {
            assert_eq!(shown(&read.part(range)), part);
        }
    }

    #[test]
    fn the_users_own_marks_do_not_count() {
        let text = marked("a\u{fdd1}b\u{fdd0}c");
        let read = Marked::read(&text);
        assert_eq!((read.user.len(), read.user[0].clone()), (1, 0..read.text.len()));
        assert_eq!(read.text, spared("a\u{fdd1}b\u{fdd0}c"));
    }
}
