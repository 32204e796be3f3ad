//! Reads sentencepiece's `tokenizer.model`: a protobuf message `ModelProto`, of which a handful of fields matter.
//!
//! Source: sentencepiece_model.proto. Field 1 is a piece (1 text, 2 score, 3 kind), field 2 the trainer's settings,
//! field 3 the normalizer's.

use super::error::{Result, TextError};

/// One piece of the vocabulary.
pub(crate) struct Piece<'a> {
    pub(crate) text: &'a str,
    pub(crate) score: f32,
    /// A number of [`TokenKind`](super::vocab::TokenKind).
    pub(crate) kind: i64,
}

/// What matters of a `tokenizer.model`.
pub(crate) struct Model<'a> {
    pub(crate) pieces: Vec<Piece<'a>>,
    pub(crate) bos: Option<u32>,
    pub(crate) eos: Option<u32>,
    pub(crate) unknown: Option<u32>,
    pub(crate) add_dummy_prefix: bool,
}

/// The value of a protobuf field.
enum Field<'a> {
    Int(u64),
    Float(f32),
    Bytes(&'a [u8]),
    /// 64 bits of something we do not need.
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

impl<'a> Model<'a> {
    /// Reads the message.
    ///
    /// # Errors
    /// Bytes that are no such message; models other than BPE (unigram, word, char) and normalizers other than
    /// identity, by name.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self> {
        let mut model = Model { pieces: Vec::new(), bos: None, eos: None, unknown: None, add_dummy_prefix: true };
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
        let id = |id: i64| u32::try_from(id).ok().filter(|&id| (id as usize) < model.pieces.len());
        (model.unknown, model.bos, model.eos) = (id(special[0]), id(special[1]), id(special[2]));
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
