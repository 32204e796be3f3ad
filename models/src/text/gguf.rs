//! Tokenizers out of GGUF metadata (`tokenizer.ggml.*`).

use handmill_runtime::format::Gguf;
use handmill_runtime::format::gguf::Array;

use super::bpe::BytePairs;
use super::byte_level;
use super::error::{Result, TextError};
use super::hf::byte_token;
use super::pre_split::PreSplit;
use super::special::SpecialSplit;
use super::spm::{PieceTable, SPACE, SpacePrefix};
use super::stream::Decoding;
use super::tokenizer::{Encoder, Parts};
use super::vocab::{NONE, TokenKind, Vocab};

/// Reads the tokenizer of a GGUF file.
pub(crate) fn load(gguf: &Gguf) -> Result<Parts> {
    let model: &str = gguf.require("tokenizer.ggml.model")?;
    match model {
        "gpt2" => byte_pairs(gguf),
        "llama" => pieces(gguf),
        name => Err(TextError::Unsupported {
            what: "tokenizer.ggml.model",
            name: name.to_owned(),
            supported: "gpt2 (byte-level BPE), llama (sentencepiece BPE)",
        }),
    }
}

fn byte_pairs(gguf: &Gguf) -> Result<Parts> {
    // Files from before the key existed leave it out; the name `default` is what the key says since.
    let (pre, kind) = PreSplit::named(gguf.get_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let mut tokens = Tokens::default();
    let vocab = read_vocab(gguf, &mut tokens, |text, kind, out| match kind {
        // Added tokens are written as they are, whatever characters they have.
        TokenKind::Normal | TokenKind::Byte | TokenKind::Unused => byte_level::push_bytes(text, out),
        _ => out.extend_from_slice(text.as_bytes()),
    })?;
    let merges = array(gguf, "tokenizer.ggml.merges")?.strings();
    let merges = merges.ok_or_else(|| broken(gguf, "tokenizer.ggml.merges must be strings"))?;
    let encoder = BytePairs::new(&vocab, merges, pre, kind.nfc, kind.ignore_merges);
    let defaults = Defaults { add_bos: kind.add_bos, bos: None, eos: None };
    let decoding = Decoding { byte_level: true, strip_leading_space: false };
    finish(gguf, vocab, Encoder::BytePairs(encoder, SpecialSplit::new(&tokens.special)?), decoding, defaults)
}

fn pieces(gguf: &Gguf) -> Result<Parts> {
    let mut tokens = Tokens::default();
    let vocab = read_vocab(gguf, &mut tokens, |text, kind, out| match byte_token(text) {
        Some(byte) if kind == TokenKind::Byte => out.push(byte),
        _ => push_piece(text, out),
    })?;
    let scores = array(gguf, "tokenizer.ggml.scores")?.f32s();
    let scores = scores.ok_or_else(|| broken(gguf, "tokenizer.ggml.scores must be floats"))?;
    let prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let rule = if prefix { SpacePrefix::AfterEveryToken } else { SpacePrefix::Never };
    let unknown = gguf.get_u32("tokenizer.ggml.unknown_token_id")?.unwrap_or(0);
    let unknown = if (unknown as usize) < vocab.len() { unknown } else { NONE };
    let table = PieceTable::new(&vocab, scores, unknown, rule);
    let defaults = Defaults { add_bos: true, bos: Some(1), eos: Some(2) };
    let decoding = Decoding { byte_level: false, strip_leading_space: prefix };
    finish(gguf, vocab, Encoder::Pieces(table, SpecialSplit::new(&tokens.special)?), decoding, defaults)
}

/// Appends the text of a sentencepiece piece, with plain spaces.
pub(crate) fn push_piece(text: &str, out: &mut Vec<u8>) {
    for (i, part) in text.split(SPACE).enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend_from_slice(part.as_bytes());
    }
}

/// The tokens that are not plain text, as the file writes them.
#[derive(Default)]
struct Tokens {
    special: Vec<(u32, TokenKind, String)>,
}

fn read_vocab(gguf: &Gguf, tokens: &mut Tokens, push: impl Fn(&str, TokenKind, &mut Vec<u8>)) -> Result<Vocab> {
    let texts = array(gguf, "tokenizer.ggml.tokens")?;
    let count = texts.len();
    let texts = texts.strings().ok_or_else(|| broken(gguf, "tokenizer.ggml.tokens must be strings"))?;
    if count == 0 || count >= 1 << 24 {
        return Err(broken(gguf, &format!("tokenizer.ggml.tokens has {count} tokens")));
    }
    let mut kinds = match gguf.get_array("tokenizer.ggml.token_type")? {
        None => None,
        Some(kinds) => {
            if kinds.len() != count {
                let reason = format!("tokenizer.ggml.token_type has {} kinds for {count} tokens", kinds.len());
                return Err(broken(gguf, &reason));
            }
            Some(kinds.i32s().ok_or_else(|| broken(gguf, "tokenizer.ggml.token_type must be integers"))?)
        }
    };
    let mut vocab = Vocab::with_capacity(count);
    for (id, text) in texts.enumerate() {
        let number = kinds.as_mut().and_then(Iterator::next).unwrap_or(TokenKind::Normal as i32);
        let kind = TokenKind::from_number(number.into());
        if matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined) {
            tokens.special.push((id as u32, kind, text.clone().into_owned()));
        }
        if !vocab.push(kind, |out| push(&text, kind, out)) {
            return Err(broken(gguf, "more than 4 GiB of tokens"));
        }
    }
    Ok(vocab)
}

/// What holds where the file has no key.
struct Defaults {
    add_bos: bool,
    bos: Option<u32>,
    eos: Option<u32>,
}

fn finish(gguf: &Gguf, vocab: Vocab, encoder: Encoder, decoding: Decoding, defaults: Defaults) -> Result<Parts> {
    let known = |id: Option<u32>| id.filter(|&id| (id as usize) < vocab.len());
    let key = |name: &str| gguf.get_u32(&format!("tokenizer.ggml.{name}_token_id")).map(known);
    let bos = key("bos")?.or(known(defaults.bos));
    let eos = key("eos")?.or(known(defaults.eos));
    let ends = [eos, key("eot")?, key("eom")?].into_iter().flatten().collect();
    let add_bos = gguf.get_bool("tokenizer.ggml.add_bos_token")?.unwrap_or(defaults.add_bos);
    let add_eos = gguf.get_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(Parts {
        prefix: bos.filter(|_| add_bos).into_iter().collect(),
        suffix: eos.filter(|_| add_eos).into_iter().collect(),
        encoder,
        vocab,
        decoding,
        bos,
        eos,
        ends,
    })
}

fn array<'a>(gguf: &'a Gguf, key: &str) -> Result<Array<'a>> {
    Ok(gguf.require(key)?)
}

fn broken(gguf: &Gguf, reason: &str) -> TextError {
    TextError::broken(gguf.path().display().to_string(), reason)
}
