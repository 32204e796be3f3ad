//! Normalizers: changes of the text before it is cut into words, as the `normalizer` of a `tokenizer.json` names them.
//!
//! Unicode's forms come from the crate that `tokenizers` itself uses. Its tables are those of Unicode 9: newer ones
//! would change characters that models were trained to see unchanged.

use std::borrow::Cow;
use std::str::Chars;

use unicode_normalization_alignments::{IsNormalized, UnicodeNormalization};
use unicode_normalization_alignments::{is_nfc_quick, is_nfd_quick, is_nfkc_quick, is_nfkd_quick};

use super::error::Result;
use super::pattern::Pattern;

/// One step.
#[derive(Debug)]
pub(crate) enum Normalizer {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    /// Character by character: a final Σ is σ too.
    Lowercase,
    /// Takes white space away.
    Strip {
        left: bool,
        right: bool,
    },
    Replace {
        pattern: Pattern,
        content: String,
    },
    /// Puts this in front of a text that is not empty.
    Prepend(String),
}

/// The text after all of `steps`, and the bytes at its start that stand for the first `head` bytes of `text`.
///
/// # Errors
/// Those of a pattern's search.
pub(crate) fn normalize<'t>(steps: &[Normalizer], text: &'t str, head: usize) -> Result<(Cow<'t, str>, usize)> {
    let mut text = Cow::Borrowed(text);
    let mut head = head;
    for step in steps {
        let changed;
        (changed, head) = step.apply(&text, head)?;
        if let Some(changed) = changed {
            text = Cow::Owned(changed);
        }
    }
    Ok((text, head))
}

impl Normalizer {
    /// The changed text, `None` where it is the same, and the new `head`.
    fn apply(&self, text: &str, head: usize) -> Result<(Option<String>, usize)> {
        // The head of a composed text is its first character.
        let composed = |text: String, head: usize| {
            let first = text.chars().next().map_or(0, char::len_utf8);
            (Some(text), if head > 0 { first } else { 0 })
        };
        Ok(match self {
            Normalizer::Nfc if same(text, is_nfc_quick) => (None, head),
            Normalizer::Nfd if same(text, is_nfd_quick) => (None, head),
            Normalizer::Nfkc if same(text, is_nfkc_quick) => (None, head),
            Normalizer::Nfkd if same(text, is_nfkd_quick) => (None, head),
            Normalizer::Nfc => composed(chars(text.nfc()).collect(), head),
            Normalizer::Nfkc => composed(chars(text.nfkc()).collect(), head),
            Normalizer::Nfd => (Some(chars(text.nfd()).collect()), bytes(text[..head].nfd())),
            Normalizer::Nfkd => (Some(chars(text.nfkd()).collect()), bytes(text[..head].nfkd())),
            Normalizer::Lowercase => {
                let lower = |text: &str| text.chars().flat_map(char::to_lowercase).collect::<String>();
                (Some(lower(text)), lower(&text[..head]).len())
            }
            Normalizer::Strip { left, right } => {
                let begun = if *left { text.trim_start() } else { text };
                let head = head.saturating_sub(text.len() - begun.len());
                let stripped = if *right { begun.trim_end() } else { begun };
                ((stripped.len() < text.len()).then(|| stripped.to_owned()), head.min(stripped.len()))
            }
            Normalizer::Replace { pattern, content } => replace(pattern, content, text, head)?,
            Normalizer::Prepend(_) if text.is_empty() => (None, head),
            Normalizer::Prepend(front) => {
                (Some(format!("{front}{text}")), if head > 0 { front.len() + head } else { 0 })
            }
        })
    }
}

/// The characters of a normalized text without what each says of its place in the old one.
fn chars(normalized: impl Iterator<Item = (char, isize)>) -> impl Iterator<Item = char> {
    normalized.map(|(c, _)| c)
}

fn bytes(normalized: impl Iterator<Item = (char, isize)>) -> usize {
    chars(normalized).map(char::len_utf8).sum()
}

/// Whether `quick` is sure that nothing changes.
fn same<'t>(text: &'t str, quick: fn(Chars<'t>) -> IsNormalized) -> bool {
    text.is_ascii() || quick(text.chars()) == IsNormalized::Yes
}

/// `text` with `content` in the place of each match. What replaces several characters stands for the last of them.
pub(crate) fn replace(pattern: &Pattern, content: &str, text: &str, head: usize) -> Result<(Option<String>, usize)> {
    let mut out = String::new();
    let mut new_head = 0;
    let mut at = 0;
    let mut found = false;
    pattern.matches(text, &mut |start, end| {
        found = true;
        out.push_str(&text[at..start]);
        new_head += head.min(start).saturating_sub(at);
        out.push_str(content);
        new_head += if end <= head && head > 0 { content.len() } else { 0 };
        at = end;
        Ok(())
    })?;
    if !found {
        return Ok((None, head));
    }
    out.push_str(&text[at..]);
    new_head += head.saturating_sub(at);
    Ok((Some(out), new_head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(steps: &[Normalizer], text: &str, head: usize, expected: (&str, usize)) {
        let (found, head) = normalize(steps, text, head).unwrap();
        assert_eq!((found.as_ref(), head), expected, "{steps:?}");
    }

    #[test]
    fn every_normalizer_and_the_head_of_the_text() {
        let literal = |text| Pattern::literal("test", text).unwrap();
        check(&[Normalizer::Nfc], "e\u{301}a", 1, ("éa", 2));
        check(&[Normalizer::Nfd], "éa", 2, ("e\u{301}a", 3));
        check(&[Normalizer::Nfkc], "ﬁa", 3, ("fia", 1));
        check(&[Normalizer::Nfkd], "a½", 1, ("a1\u{2044}2", 1));
        check(&[Normalizer::Lowercase], "ΑΣ", 2, ("ας".replace('ς', "σ").as_str(), 2));
        check(&[Normalizer::Strip { left: true, right: true }], " \na b ", 1, ("a b", 0));
        check(&[Normalizer::Strip { left: true, right: false }], "a ", 1, ("a ", 1));
        check(&[Normalizer::Prepend("▁".to_owned())], "ab", 1, ("▁ab", 4));
        check(&[Normalizer::Prepend("▁".to_owned())], "", 0, ("", 0));
        let space = || Normalizer::Replace { pattern: literal(" "), content: "▁".to_owned() };
        check(&[space()], " a b", 1, ("▁a▁b", 3));
        check(&[Normalizer::Prepend("▁".to_owned()), space()], "a b", 1, ("▁a▁b", 4));
        check(&[Normalizer::Replace { pattern: literal("aa"), content: "b".to_owned() }], "aac", 1, ("bc", 0));
    }
}
