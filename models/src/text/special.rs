//! Tokens that stand in the text as themselves: cutting them out before the rest is encoded, and which of them end
//! a turn.

use aho_corasick::{AhoCorasick, MatchKind};

use super::error::{Result, TextError};
use super::vocab::{TokenKind, Vocab};

/// Markers that end an answer in the chat formats of the families, whatever the file's keys say.
const END_OF_TURN: &[&str] = &[
    "<|im_end|>",
    "<|eot_id|>",
    "<|eom_id|>",
    "<|eot|>",
    "<|eom|>",
    "<|end_of_text|>",
    "<|endoftext|>",
    "<|end_of_turn|>",
    "<end_of_turn>",
    "<turn|>",
    "<eos>",
    "</s>",
    "<|end|>",
    "<|return|>",
    "<|call|>",
    "<｜end▁of▁sentence｜>",
];

/// A part of a text: plain, or one token.
pub(crate) enum Fragment<'t> {
    Text(&'t str),
    Token(u32),
}

/// Finds tokens in text: at each place the longest that starts there.
#[derive(Debug, Default)]
struct Finder {
    automaton: Option<AhoCorasick>,
    ids: Vec<u32>,
}

impl Finder {
    fn new<'a>(tokens: impl Iterator<Item = (u32, &'a str)>) -> Result<Self> {
        let (ids, texts): (Vec<u32>, Vec<&str>) = tokens.filter(|(_, text)| !text.is_empty()).unzip();
        if ids.is_empty() {
            return Ok(Self::default());
        }
        let automaton = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&texts)
            .map_err(|e| TextError::broken("special tokens", e.to_string()))?;
        Ok(Self { automaton: Some(automaton), ids })
    }
}

/// Cuts special tokens out of a text.
#[derive(Debug, Default)]
pub(crate) struct SpecialSplit {
    /// Control, unknown and user-defined tokens.
    all: Finder,
    /// Only the user-defined ones: they belong to the text and are always matched.
    user_defined: Finder,
}

impl SpecialSplit {
    /// `tokens` are the ids that are not plain text, with the text they are written as.
    pub(crate) fn new(tokens: &[(u32, TokenKind, String)]) -> Result<Self> {
        let user_defined = tokens.iter().filter(|t| t.1 == TokenKind::UserDefined);
        Ok(Self {
            all: Finder::new(tokens.iter().map(|t| (t.0, t.2.as_str())))?,
            user_defined: Finder::new(user_defined.map(|t| (t.0, t.2.as_str())))?,
        })
    }

    /// Calls `each` with the fragments of `text` in order, none of them empty.
    pub(crate) fn split<'t>(&self, text: &'t str, parse_special: bool, mut each: impl FnMut(Fragment<'t>)) {
        let finder = if parse_special { &self.all } else { &self.user_defined };
        let mut at = 0;
        if let Some(automaton) = &finder.automaton {
            for found in automaton.find_iter(text) {
                if found.start() > at {
                    each(Fragment::Text(&text[at..found.start()]));
                }
                each(Fragment::Token(finder.ids[found.pattern().as_usize()]));
                at = found.end();
            }
        }
        if at < text.len() {
            each(Fragment::Text(&text[at..]));
        }
    }
}

/// The ids of the vocabulary that are known end-of-turn markers. Only tokens apart from plain text count: a model may
/// well write `</s>` as text.
pub(crate) fn end_of_turn_markers(vocab: &Vocab) -> Vec<u32> {
    let mut found: Vec<(u32, &str)> = Vec::new();
    let mut harmony = false;
    for (id, kind) in vocab.kinds() {
        if !matches!(kind, TokenKind::Control | TokenKind::UserDefined) {
            continue;
        }
        let Ok(text) = std::str::from_utf8(vocab.bytes(id)) else { continue };
        if let Some(marker) = END_OF_TURN.iter().find(|m| **m == text) {
            // Text that merely looks like the end of a sequence is user-defined in some files.
            if *marker != "</s>" || kind == TokenKind::Control {
                found.push((id, text));
            }
        }
        harmony |= text == "<|channel|>";
    }
    // In the harmony format <|end|> closes a message in the middle of an answer.
    harmony &= found.iter().any(|(_, text)| *text == "<|return|>");
    found.into_iter().filter(|(_, text)| !harmony || *text != "<|end|>").map(|(id, _)| id).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, parse_special: bool) -> Vec<String> {
        let token = |id, kind, text: &str| (id, kind, text.to_owned());
        let special = SpecialSplit::new(&[
            token(7, TokenKind::Control, "<|a|>"),
            token(8, TokenKind::Control, "<|a|>b"),
            token(9, TokenKind::UserDefined, "<tool>"),
            token(10, TokenKind::Control, ""),
        ])
        .unwrap();
        let mut out = Vec::new();
        special.split(text, parse_special, |f| {
            out.push(match f {
                Fragment::Text(t) => t.to_owned(),
                Fragment::Token(id) => format!("#{id}"),
            })
        });
        out
    }

    #[test]
    fn control_tokens_only_where_asked_for() {
        assert_eq!(split("x<|a|><tool>y<|a|>b", true), ["x", "#7", "#9", "y", "#8"]);
        assert_eq!(split("x<|a|><tool>y<|a|>b", false), ["x<|a|>", "#9", "y<|a|>b"]);
        assert!(split("", true).is_empty());
    }

    fn markers(tokens: &[(&str, TokenKind)]) -> Vec<u32> {
        let mut vocab = Vocab::default();
        for (text, kind) in tokens {
            assert!(vocab.push(*kind, |b| b.extend_from_slice(text.as_bytes())));
        }
        end_of_turn_markers(&vocab)
    }

    #[test]
    fn end_of_turn_by_family() {
        use TokenKind::{Control, Normal, UserDefined};
        assert_eq!(markers(&[("<|im_end|>", Control), ("<|im_start|>", Control), ("</s>", UserDefined)]), [0]);
        assert_eq!(markers(&[("<|end|>", Control), ("<|endoftext|>", Control)]), [0, 1], "phi-3");
        let harmony = [("<|end|>", Control), ("<|return|>", Control), ("<|call|>", Control), ("<|channel|>", Control)];
        assert_eq!(markers(&harmony), [1, 2], "gpt-oss goes on after <|end|>");
        assert_eq!(markers(&[("</s>", Normal), ("<end_of_turn>", UserDefined)]), [1]);
    }
}
