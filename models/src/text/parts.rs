//! The result of every loader: an encoder, a vocabulary and the special ids.

use std::ops::Range;

use super::decode::Decoding;
use super::error::Result;
use super::merge::Merger;
use super::pipeline::Pipeline;
use super::special::{Fragment, SpecialSplit};
use super::spm::{PieceTable, SpacePrefix};
use super::vocab::Vocab;

/// The ways to encode.
#[derive(Debug)]
pub(crate) enum Encoder {
    Pipeline(Box<Pipeline>),
    Pieces(Box<PieceTable>, SpecialSplit),
}

/// The contents of a tokenizer's file.
pub(crate) struct Parts {
    pub(crate) encoder: Encoder,
    pub(crate) vocab: Vocab,
    pub(crate) decoding: Decoding,
    /// Ids that go before and after a text when special tokens are added.
    pub(crate) prefix: Vec<u32>,
    pub(crate) suffix: Vec<u32>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    /// The ids that end an answer according to the file.
    pub(crate) ends: Vec<u32>,
    /// Impossible values in the file, and what replaced them.
    pub(crate) warnings: Vec<String>,
}

impl Encoder {
    /// Appends the ids of `text`. Control tokens are parsed only outside of the `literal` byte ranges of `text`.
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        text: &str,
        parse_special: bool,
        literal: &[Range<usize>],
        out: &mut Vec<u32>,
    ) -> Result<()> {
        match self {
            Encoder::Pipeline(pipeline) => pipeline.encode(vocab, text, parse_special, literal, out),
            Encoder::Pieces(pieces, special) => {
                let mut merger = Merger::default();
                let mut space_next = pieces.prefix != SpacePrefix::Never;
                special.split(text, parse_special, literal, |fragment| {
                    match fragment {
                        Fragment::Token(id) => {
                            let in_text = pieces.is_part_of_text(vocab, id);
                            if space_next && in_text && pieces.prefix == SpacePrefix::AfterControl {
                                // The prefix goes in front of the whole text, even where the text starts with a token.
                                pieces.encode(vocab, "", true, &mut merger, out);
                            }
                            space_next = match pieces.prefix {
                                SpacePrefix::Never | SpacePrefix::AtStart => false,
                                SpacePrefix::AfterEveryToken => true,
                                SpacePrefix::AfterControl => !in_text,
                            };
                            out.push(id);
                        }
                        Fragment::Text(_, text) => {
                            pieces.encode(vocab, text, std::mem::take(&mut space_next), &mut merger, out);
                        }
                    }
                    Ok(())
                })
            }
        }
    }
}

/// The id, if it is in the vocabulary; else a warning goes to `warnings`. `what` names the source of the id.
pub(crate) fn in_range(id: i128, vocab: &Vocab, what: &str, warnings: &mut Vec<String>) -> Option<u32> {
    let fits = u32::try_from(id).ok().filter(|&id| (id as usize) < vocab.len());
    if fits.is_none() {
        warnings.push(format!("{what} is {id}, but the vocabulary has {} tokens: it is left out", vocab.len()));
    }
    fits
}
