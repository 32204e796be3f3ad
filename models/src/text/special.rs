//! Tokens that appear in the text as themselves: they are cut out before the rest is encoded.

use std::ops::Range;

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::{Result, TextError};
use super::vocab::TokenKind;

/// A token that is matched in the text.
#[derive(Clone, Debug)]
pub(crate) struct Special {
    pub(crate) id: u32,
    pub(crate) kind: TokenKind,
    pub(crate) text: String,
    pub(crate) place: Place,
}

/// The surroundings that a special token absorbs or requires. The names are those of `added_tokens_decoder`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place {
    /// Whether it absorbs the white space before it.
    pub(crate) lstrip: bool,
    /// Whether it absorbs the white space after it.
    pub(crate) rstrip: bool,
    /// Whether it is matched only where no letter or digit touches it.
    pub(crate) single_word: bool,
}

/// A part of a text: plain, or one token.
pub(crate) enum Fragment<'t> {
    /// Where it starts, and the text.
    Text(usize, &'t str),
    Token(u32),
}

/// Finds tokens in text: at each place the longest token that starts there.
#[derive(Debug, Default)]
struct Finder {
    automaton: Option<AhoCorasick>,
    tokens: Vec<Found>,
}

/// A token that a [`Finder`] finds.
#[derive(Debug)]
struct Found {
    id: u32,
    kind: TokenKind,
    place: Place,
    /// It is left as text.
    passed_over: bool,
}

impl Finder {
    fn new<'a>(tokens: impl Iterator<Item = &'a Special>) -> Result<Self> {
        let found = |t: &Special| Found { id: t.id, kind: t.kind, place: t.place, passed_over: false };
        let (tokens, texts): (Vec<_>, Vec<&str>) =
            tokens.filter(|t| !t.text.is_empty()).map(|t| (found(t), t.text.as_str())).unzip();
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts)
            .map_err(|e| TextError::broken("special tokens", e.to_string()))?;
        Ok(Self { automaton: Some(automaton), tokens })
    }
}

/// Cuts special tokens out of a text.
#[derive(Debug, Default)]
pub(crate) struct SpecialSplit {
    /// Control, unknown and user-defined tokens.
    all: Finder,
    /// Without control and unknown tokens: the others belong to the text and are always matched.
    text_only: Finder,
}

impl SpecialSplit {
    /// `tokens` are all tokens that are not plain text.
    pub(crate) fn new(tokens: &[Special]) -> Result<Self> {
        let user_defined = tokens.iter().filter(|t| t.kind == TokenKind::UserDefined);
        Ok(Self { all: Finder::new(tokens.iter())?, text_only: Finder::new(user_defined)? })
    }

    /// The tokens of a `tokenizer.json`. Where control tokens are not parsed, each still hides the tokens that lie
    /// inside of it, as in the library behind the format.
    pub(crate) fn hiding(tokens: &[Special]) -> Result<Self> {
        let mut text_only = Finder::new(tokens.iter())?;
        for found in &mut text_only.tokens {
            found.passed_over = found.kind != TokenKind::UserDefined;
        }
        Ok(Self { all: Finder::new(tokens.iter())?, text_only })
    }

    /// Whether there are control tokens.
    pub(crate) fn has_control(&self) -> bool {
        self.all.tokens.iter().any(|found| found.kind != TokenKind::UserDefined)
    }

    /// Calls `each` with the fragments of `text` in order, none of them empty. Control tokens are parsed only outside
    /// of the `literal` byte ranges of `text`, which are in order and apart.
    ///
    /// # Errors
    /// Those of `each`.
    pub(crate) fn split<'t>(
        &self,
        text: &'t str,
        parse_special: bool,
        literal: &[Range<usize>],
        mut each: impl FnMut(Fragment<'t>) -> Result<()>,
    ) -> Result<()> {
        let finder = if parse_special { &self.all } else { &self.text_only };
        let mut at = 0;
        if let Some(automaton) = &finder.automaton {
            for found in automaton.find_iter(text) {
                let &Found { id, kind, place, passed_over } = &finder.tokens[found.pattern().as_usize()];
                if kind != TokenKind::UserDefined && touches(literal, found.range()) {
                    continue;
                }
                let behind = &text[found.end()..];
                let touched = || text[..found.start()].ends_with(is_word) || behind.starts_with(is_word);
                if passed_over || place.single_word && touched() {
                    continue;
                }
                // The token before may have absorbed the white space that this one starts with.
                let before = &text[at.min(found.start())..found.start()];
                let plain = if place.lstrip { before.trim_end() } else { before };
                if !plain.is_empty() {
                    each(Fragment::Text(at, plain))?;
                }
                each(Fragment::Token(id))?;
                at = found.end() + if place.rstrip { behind.len() - behind.trim_start().len() } else { 0 };
            }
        }
        if at < text.len() {
            each(Fragment::Text(at, &text[at..]))?;
        }
        Ok(())
    }
}

/// Whether one of `ranges`, which are in order and apart, has a byte of `range`.
pub(crate) fn touches(ranges: &[Range<usize>], range: Range<usize>) -> bool {
    let next = ranges.partition_point(|r| r.end <= range.start);
    ranges.get(next).is_some_and(|r| r.start < range.end)
}

/// `\w` of regular expressions.
fn is_word(c: char) -> bool {
    regex_syntax::is_word_character(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, parse_special: bool) -> Vec<String> {
        split_literal(text, parse_special, &[])
    }

    fn split_literal(text: &str, parse_special: bool, literal: &[Range<usize>]) -> Vec<String> {
        let plain = Place::default();
        let token = |id, kind, text: &str, place| Special { id, kind, text: text.to_owned(), place };
        let special = SpecialSplit::new(&[
            token(7, TokenKind::Control, "<|a|>", plain),
            token(8, TokenKind::Control, "<|a|>b", plain),
            token(9, TokenKind::UserDefined, "<tool>", plain),
            token(10, TokenKind::Control, "", plain),
            token(11, TokenKind::Control, "<r>", Place { rstrip: true, ..plain }),
            token(12, TokenKind::Control, "<l>", Place { lstrip: true, ..plain }),
            token(13, TokenKind::Control, "<w>", Place { single_word: true, ..plain }),
            token(14, TokenKind::Control, "\n\n", plain),
        ])
        .unwrap();
        let mut out = Vec::new();
        let mut each = |f: Fragment<'_>| {
            out.push(match f {
                Fragment::Text(_, t) => t.to_owned(),
                Fragment::Token(id) => format!("#{id}"),
            });
            Ok(())
        };
        special.split(text, parse_special, literal, &mut each).unwrap();
        out
    }

    #[test]
    fn control_tokens_only_where_asked_for() {
        assert_eq!(split("x<|a|><tool>y<|a|>b", true), ["x", "#7", "#9", "y", "#8"]);
        assert_eq!(split("x<|a|><tool>y<|a|>b", false), ["x<|a|>", "#9", "y<|a|>b"]);
        assert!(split("", true).is_empty());
    }

    #[test]
    fn what_touches_a_literal_range_is_no_control_token() {
        let text = "x<|a|><tool>y<|a|>";
        for (ranges, fragments) in [
            ([0..2, 13..13], vec!["x<|a|>", "#9", "y", "#7"]),
            ([0..1, 6..13], vec!["x", "#7", "#9", "y", "#7"]),
            ([1..9, 9..text.len()], vec!["x<|a|>", "#9", "y<|a|>"]),
        ] {
            assert_eq!(split_literal(text, true, &ranges), fragments, "{ranges:?}");
        }
    }

    #[test]
    fn white_space_beside_a_token_is_swallowed_where_it_says_so() {
        assert_eq!(split("x <r> \n y", true), ["x ", "#11", "y"]);
        assert_eq!(split("x <l> y", true), ["x", "#12", " y"]);
        assert_eq!(split("<r>\u{3000}<l>", true), ["#11", "#12"]);
        assert_eq!(split("<r> \n\n<r>", true), ["#11", "#14", "#11"]);
        assert_eq!(split("x<w> <w>_ <w>", true), ["x<w> <w>_ ", "#13"]);
    }
}
