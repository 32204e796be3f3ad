//! The way of a text to ids: added tokens are cut out, the rest is normalized, cut into words, and encoded by BPE.
//!
//! The order and its names are those of a `tokenizer.json`; byte-level BPE of the other files is the same with fewer
//! steps.

use std::ops::Range;

use super::bpe::Bpe;
use super::error::Result;
use super::merge::Merger;
use super::normalize::{Normalizer, normalize};
use super::pre_tokenizers::{Piece, PreSplit, Stage};
use super::special::{Fragment, SpecialSplit, touches};
use super::vocab::Vocab;

/// The encoder.
#[derive(Debug)]
pub(crate) struct Pipeline {
    /// Tokens that are cut out of the text as it is.
    pub(crate) added: SpecialSplit,
    pub(crate) normalizers: Vec<Normalizer>,
    /// Tokens that are cut out of the normalized text.
    pub(crate) normalized: SpecialSplit,
    pub(crate) pre: PreSplit,
    pub(crate) model: Bpe,
    /// The texts of the model's tokens, where they are not what the tokens decode to.
    pub(crate) texts: Option<Vocab>,
}

/// Steps before the words of byte-level BPE in files that are no `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TextRules {
    /// The text is composed (NFC) first.
    pub(crate) nfc: bool,
    /// A text that does not start with a space is given one.
    pub(crate) add_space: bool,
}

impl Pipeline {
    /// Byte-level BPE by `model`.
    pub(crate) fn byte_level(added: SpecialSplit, rules: TextRules, mut pre: PreSplit, model: Bpe) -> Self {
        if rules.add_space {
            pre.stages.insert(0, Stage::PrefixSpace);
        }
        let normalizers = if rules.nfc { vec![Normalizer::Nfc] } else { Vec::new() };
        Self { added, normalizers, normalized: SpecialSplit::default(), pre, model, texts: None }
    }

    /// Appends the ids of `text`; `vocab` is that of the tokenizer. Control tokens are parsed only outside of the
    /// `literal` byte ranges of `text`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        parse_special: bool,
        literal: &[Range<usize>],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let vocab = self.texts.as_ref().unwrap_or(vocab);
        let mut merger = Merger::default();
        self.added.split(text, parse_special, literal, |fragment| match fragment {
            Fragment::Token(id) => {
                out.push(id);
                Ok(())
            }
            Fragment::Text(start, plain) => {
                let whole = start..start + plain.len();
                if !(parse_special && self.normalized.has_control() && touches(literal, whole.clone())) {
                    return self.plain(vocab, plain, start == 0, parse_special, &mut merger, out);
                }
                // Normalizing moves the ranges, so each is normalized on its own.
                let inside = literal.iter().map(|r| r.start.max(whole.start)..r.end.min(whole.end));
                let mut at = whole.start;
                for range in inside.filter(|r| r.start < r.end) {
                    self.plain(vocab, &text[at..range.start], at == 0, true, &mut merger, out)?;
                    self.plain(vocab, &text[range.clone()], range.start == 0, false, &mut merger, out)?;
                    at = range.end;
                }
                self.plain(vocab, &text[at..whole.end], at == 0, true, &mut merger, out)
            }
        })
    }

    /// Appends the ids of a text without tokens that are cut out of the text as it is. `at_start` tells whether the
    /// whole text begins with it.
    fn plain(
        &self,
        vocab: &Vocab,
        plain: &str,
        at_start: bool,
        parse_special: bool,
        merger: &mut Merger,
        out: &mut Vec<u32>,
    ) -> Result<()> {
        let first = plain.chars().next().map_or(0, char::len_utf8);
        if first == 0 {
            return Ok(());
        }
        let (plain, head) = normalize(&self.normalizers, plain, if at_start { first } else { 0 })?;
        let plain = Piece { text: &plain, head };
        self.normalized.split(plain.text, parse_special, &[], |fragment| match fragment {
            Fragment::Token(id) => {
                out.push(id);
                Ok(())
            }
            Fragment::Text(start, text) => {
                let mut word = |word: &str| {
                    self.model.word(vocab, word, merger, out);
                    Ok(())
                };
                self.pre.words(plain.part(start, start + text.len()), &mut word)
            }
        })
    }
}
