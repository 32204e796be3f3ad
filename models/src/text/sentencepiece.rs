//! Reads sentencepiece's `tokenizer.model`: a protobuf message `ModelProto`, of which a few fields are needed.
//!
//! Source: sentencepiece_model.proto. Field 1 is a piece (1 text, 2 score, 3 kind), field 2 the trainer's settings,
//! field 3 the normalizer's.

use super::added::{self, SideFiles, Tokens};
use super::decode::{Decoding, LeadingSpace};
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts};
use super::special::SpecialSplit;
use super::spm::{PieceTable, SpacePrefix, byte_token, push_piece};
use super::vocab::{NONE, TokenKind, Vocab};

/// Reads a `tokenizer.model` of type BPE and adds the facts of the files beside it. BOS goes in front of a text and no
/// EOS behind it, as in Llama and Mistral.
pub(crate) fn load(model: &[u8], files: &mut SideFiles) -> Result<Parts> {
    let model = Model::parse(model)?;
    let mut tokens: Tokens<'_> = Vec::with_capacity(model.pieces.len());
    for piece in &model.pieces {
        tokens.push((piece.text.into(), TokenKind::from_number(piece.kind)));
    }
    let special = added::apply(files, &mut tokens);
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (text, kind) in &tokens {
        let pushed = vocab.push(*kind, |out| match byte_token(text) {
            Some(byte) if *kind == TokenKind::Byte => out.push(byte),
            _ => push_piece(text, out),
        });
        if !pushed {
            return Err(TextError::broken("sentencepiece model", "more than 4 GiB of pieces"));
        }
    }
    let prefix = match (model.add_dummy_prefix, files.add_prefix_space, files.legacy) {
        (false, ..) | (_, Some(false), _) => SpacePrefix::Never,
        (_, _, Some(false)) => SpacePrefix::AtStart,
        _ => SpacePrefix::AfterControl,
    };
    // A token of the files beside the model may replace its own BOS.
    let named = files.bos.as_ref().and_then(|name| special.iter().find(|token| token.text == *name));
    let bos = named.map(|token| token.id).or(model.bos);
    let scores = model.pieces.iter().map(|p| p.score);
    let table = PieceTable::new(&vocab, scores, model.unknown.unwrap_or(NONE), prefix);
    Ok(Parts {
        encoder: Encoder::Pieces(Box::new(table), SpecialSplit::new(&special)?),
        vocab,
        decoding: Decoding { byte_level: false, leading_space: LeadingSpace::of_pieces(prefix != SpacePrefix::Never) },
        prefix: bos.into_iter().collect(),
        suffix: Vec::new(),
        bos,
        eos: model.eos,
        ends: model.eos.into_iter().collect(),
        warnings: model.warnings,
    })
}

/// One piece of the vocabulary.
struct Piece<'a> {
    text: &'a str,
    score: f32,
    /// A number of [`TokenKind`].
    kind: i64,
}

/// The parts of a `tokenizer.model` that we need.
struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    bos: Option<u32>,
    eos: Option<u32>,
    unknown: Option<u32>,
    add_dummy_prefix: bool,
    warnings: Vec<String>,
}

/// The value of a protobuf field.
enum Field<'a> {
    Int(u64),
    Float(f32),
    Bytes(&'a [u8]),
    /// 64 bits of a field that we do not need.
    Wide,
}

/// Walks the fields of one message.
struct Fields<'a> {
    rest: &'a [u8],
}

impl<'a> Fields<'a> {
    /// The next field and its number, `None` at the end, an error where the bytes are no message.
    fn next(&mut self) -> Result<Option<(u64, Field<'a>)>> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let field = match tag & 7 {
            0 => Field::Int(self.varint()?),
            1 => {
                self.take(8)?;
                Field::Wide
            }
            2 => {
                let len = self.varint()?;
                Field::Bytes(self.take(usize::try_from(len).unwrap_or(usize::MAX))?)
            }
            5 => {
                let mut le = [0; 4];
                le.copy_from_slice(self.take(4)?);
                Field::Float(f32::from_le_bytes(le))
            }
            wire => return Err(broken(&format!("wire type {wire}"))),
        };
        Ok(Some((tag >> 3, field)))
    }

    fn take(&mut self, n: usize) -> Result<&'a [u8]> {
        let (head, rest) = self.rest.split_at_checked(n).ok_or_else(|| broken("it ends in the middle of a field"))?;
        self.rest = rest;
        Ok(head)
    }

    fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.take(1)?[0];
            value |= u64::from(byte & 0x7F) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(broken("a number of more than 64 bits"))
    }
}

fn broken(reason: &str) -> TextError {
    TextError::broken("sentencepiece model", format!("not a valid tokenizer.model: {reason}"))
}

/// Whether the bytes are lines of base64 and a number: tiktoken's files have the same name.
fn is_tiktoken(bytes: &[u8]) -> bool {
    let line = bytes.split(|&b| b == b'\n').next().unwrap_or_default();
    let Some((token, rank)) = std::str::from_utf8(line).ok().and_then(|line| line.trim_end().split_once(' ')) else {
        return false;
    };
    !token.is_empty()
        && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"+/=".contains(&b))
        && rank.parse::<u32>().is_ok()
}

impl<'a> Model<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// Bytes that are not such a message; models other than BPE (unigram, word, char) and normalizers other than
    /// identity, by name.
    fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut model = Model {
            pieces: Vec::new(),
            bos: None,
            eos: None,
            unknown: None,
            add_dummy_prefix: true,
            warnings: Vec::new(),
        };
        if is_tiktoken(bytes) {
            return Err(broken(
                "it is a vocabulary of tiktoken, which is not read; a tokenizer.json of the same model is",
            ));
        }
        // The defaults of the format: unk 0, bos 1, eos 2.
        let mut special = [0, 1, 2];
        let mut kind = 1;
        let mut fields = Fields { rest: bytes };
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(piece)) => model.pieces.push(parse_piece(piece)?),
                (2, Field::Bytes(trainer)) => {
                    let mut fields = Fields { rest: trainer };
                    while let Some((number, field)) = fields.next()? {
                        match (number, field) {
                            (3, Field::Int(k)) => kind = k,
                            (n @ 40..=42, Field::Int(id)) => special[n as usize - 40] = id as i64,
                            _ => {}
                        }
                    }
                }
                (3, Field::Bytes(normalizer)) => model.parse_normalizer(normalizer)?,
                _ => {}
            }
        }
        if model.pieces.is_empty() {
            return Err(broken("it has no pieces"));
        }
        if kind != 2 {
            let name = ["", "unigram", "", "word", "char"].get(kind as usize).copied().unwrap_or("");
            let name = if name.is_empty() { format!("number {kind}") } else { name.to_owned() };
            return Err(TextError::Unsupported { what: "sentencepiece model type", name, supported: "bpe" });
        }
        let count = model.pieces.len();
        let mut ids = [None; 3];
        for ((id, said), name) in ids.iter_mut().zip(special).zip(["unk_id", "bos_id", "eos_id"]) {
            *id = u32::try_from(said).ok().filter(|&id| (id as usize) < count);
            // -1 means none.
            if id.is_none() && said != -1 {
                let what = format!("{name} of the sentencepiece model is {said}, but it has {count} pieces");
                model.warnings.push(format!("{what}: it is left out"));
            }
        }
        [model.unknown, model.bos, model.eos] = ids;
        Ok(model)
    }

    fn parse_normalizer(&mut self, bytes: &[u8]) -> Result<()> {
        let mut fields = Fields { rest: bytes };
        let (mut name, mut has_map, mut squeezes) = ("", false, true);
        while let Some((number, field)) = fields.next()? {
            match (number, field) {
                (1, Field::Bytes(n)) => name = std::str::from_utf8(n).unwrap_or("not UTF-8"),
                (2, Field::Bytes(map)) => has_map = !map.is_empty(),
                (3, Field::Int(on)) => self.add_dummy_prefix = on != 0,
                (4, Field::Int(on)) => squeezes = on != 0,
                _ => {}
            }
        }
        if has_map || squeezes {
            let name = if has_map { name.to_owned() } else { "remove_extra_whitespaces".to_owned() };
            return Err(TextError::Unsupported { what: "sentencepiece normalizer", name, supported: "identity" });
        }
        Ok(())
    }
}

fn parse_piece(bytes: &[u8]) -> Result<Piece<'_>> {
    let mut piece = Piece { text: "", score: 0.0, kind: 1 };
    let mut fields = Fields { rest: bytes };
    while let Some((number, field)) = fields.next()? {
        match (number, field) {
            (1, Field::Bytes(text)) => {
                piece.text = std::str::from_utf8(text).map_err(|_| broken("a piece that is not UTF-8"))?;
            }
            (2, Field::Float(score)) => piece.score = score,
            (3, Field::Int(kind)) => piece.kind = kind as i64,
            _ => {}
        }
    }
    Ok(piece)
}
