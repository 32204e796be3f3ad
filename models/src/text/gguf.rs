//! Tokenizers of GGUF metadata (`tokenizer.ggml.*`).

use std::borrow::Cow;

use handmill_runtime::format::Gguf;
use handmill_runtime::format::gguf::Array;

use super::added::{MAX_IDS, Tokens, specials};
use super::bpe::Bpe;
use super::byte_level;
use super::decode::{Decoding, LeadingSpace};
use super::ends;
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts, in_range};
use super::pipeline::{Pipeline, TextRules};
use super::pre_tokenizers::PreSplit;
use super::special::{Place, SpecialSplit};
use super::spm::{PieceTable, SpacePrefix, byte_token, push_piece};
use super::vocab::{NONE, TokenKind, Vocab};

/// Reads the tokenizer of a GGUF file.
pub(crate) fn load(gguf: &Gguf) -> Result<Parts> {
    let model: &str = gguf.require("tokenizer.ggml.model")?;
    let pre = gguf.get_str("tokenizer.ggml.pre")?;
    let is_gemma4 =
        model == "gemma4" || pre == Some("gemma4") || is_architecture(gguf, "gemma4")? && merges(gguf)?.is_some();
    match model {
        "gemma4" | "gpt2" | "llama" if is_gemma4 => gemma4(gguf),
        "gpt2" => byte_pairs(gguf),
        "llama" => pieces(gguf),
        name => Err(TextError::Unsupported {
            what: "tokenizer.ggml.model",
            name: name.to_owned(),
            supported: "gpt2 (byte-level BPE), llama (sentencepiece BPE), gemma4 (BPE by merges with visible spaces)",
        }),
    }
}

fn byte_pairs(gguf: &Gguf) -> Result<Parts> {
    // Files older than the key lack it; newer files write `default`.
    let (pre, kind) = PreSplit::named(gguf.get_str("tokenizer.ggml.pre")?.unwrap_or("default"))?;
    let tokens = read_tokens(gguf)?;
    let vocab = vocab(gguf, &tokens, |text, kind, out| match kind {
        // Added tokens are written as plain text, with any characters.
        TokenKind::Normal | TokenKind::Byte | TokenKind::Unused => byte_level::push_bytes(text, out),
        _ => out.extend_from_slice(text.as_bytes()),
    })?;
    let model = match merges(gguf)? {
        Some(merges) => Bpe::new(&vocab, merges, kind.ignore_merges),
        // Kimi K2's vocabulary is tiktoken's, and converters leave the merges out.
        None if kind.by_ids => Bpe::by_ids(&vocab),
        None => return Err(missing_merges(gguf)),
    };
    let special = SpecialSplit::new(&specials(&tokens, |_| Place::default()))?;
    let defaults = Defaults { add_bos: kind.add_bos, ..Defaults::default() };
    let decoding = Decoding { byte_level: true, leading_space: LeadingSpace::Kept };
    let rules = TextRules { nfc: kind.nfc, add_space: false };
    let pipeline = Pipeline::byte_level(special, rules, pre, model);
    finish(gguf, vocab, Encoder::Pipeline(Box::new(pipeline)), decoding, defaults)
}

fn pieces(gguf: &Gguf) -> Result<Parts> {
    let (tokens, vocab) = read_pieces(gguf)?;
    let prefix = gguf.get_bool("tokenizer.ggml.add_space_prefix")?.unwrap_or(true);
    let rule = if prefix { SpacePrefix::AfterEveryToken } else { SpacePrefix::Never };
    let scores = match gguf.get_array("tokenizer.ggml.scores")? {
        Some(scores) => {
            let scores = scores.f32s().ok_or_else(|| broken(gguf, "tokenizer.ggml.scores must be floats"))?;
            Some(scores.collect::<Vec<f32>>())
        }
        None => None,
    };
    let mut warnings = Vec::new();
    let unknown = special_id(gguf, "unknown", &vocab, &mut warnings)?.unwrap_or(Some(0)).unwrap_or(NONE);
    // Converters of a tokenizer.json know no scores and write equal ones; the merges then give the order.
    let told = |scores: &Vec<f32>| (0..vocab.len()).any(|id| scores.get(id) != scores.first());
    let table = match (scores.filter(told), merges(gguf)?) {
        (Some(scores), _) => PieceTable::new(&vocab, scores.into_iter(), unknown, rule),
        (None, Some(merges)) => PieceTable::by_merges(&vocab, merges, unknown, rule),
        (None, None) => {
            let scores = array(gguf, "tokenizer.ggml.scores")?.f32s().into_iter().flatten();
            PieceTable::new(&vocab, scores, unknown, rule)
        }
    };
    let place: fn(&str) -> Place = if is_phi3(gguf)? { phi3_place } else { |_| Place::default() };
    let special = SpecialSplit::new(&specials(&tokens, |id| place(&tokens[id as usize].0)))?;
    let defaults = Defaults { add_bos: true, bos: Some(1), eos: Some(2), warnings };
    let decoding = Decoding { byte_level: false, leading_space: LeadingSpace::of_pieces(prefix) };
    finish(gguf, vocab, Encoder::Pieces(Box::new(table), special), decoding, defaults)
}

/// Gemma 4: no space in front, and BOS even where a file of the first weeks denies it (llama.cpp#21500). llama.cpp
/// calls the model `gemma4`; Ollama calls it `llama`, gives only the pre-tokenizer that name, and marks bytes as plain
/// text.
fn gemma4(gguf: &Gguf) -> Result<Parts> {
    let (tokens, vocab) = read_pieces(gguf)?;
    let merges = merges(gguf)?.ok_or_else(|| missing_merges(gguf))?;
    let named = |name: &str| tokens.iter().position(|(text, _)| text == name).map(|id| id as u32);
    let mut warnings = Vec::new();
    let unknown = special_id(gguf, "unknown", &vocab, &mut warnings)?.unwrap_or_else(|| named("<unk>"));
    let table = PieceTable::by_merges(&vocab, merges, unknown.unwrap_or(NONE), SpacePrefix::Never);
    let special = SpecialSplit::new(&specials(&tokens, |_| Place::default()))?;
    let defaults = Defaults { add_bos: true, bos: named("<bos>"), eos: named("<eos>"), warnings };
    let decoding = Decoding { byte_level: false, leading_space: LeadingSpace::Kept };
    let mut parts = finish(gguf, vocab, Encoder::Pieces(Box::new(table), special), decoding, defaults)?;
    parts.prefix = parts.bos.into_iter().collect();
    Ok(parts)
}

fn is_architecture(gguf: &Gguf, name: &str) -> Result<bool> {
    Ok(gguf.get_str("general.architecture")? == Some(name))
}

/// Whether the file holds the vocabulary of Phi 3 (llama.cpp#7432): GGUF has no keys for the flags of its special
/// tokens.
fn is_phi3(gguf: &Gguf) -> Result<bool> {
    let name = gguf.get_str("general.name")?.unwrap_or_default().to_ascii_lowercase();
    let named = ["phi-3", "phi3", "phi 3"].iter().any(|phi3| name.contains(phi3));
    Ok(named || is_architecture(gguf, "phi3")? || is_architecture(gguf, "phimoe")?)
}

/// The flags in Phi 3's tokenizer.json.
fn phi3_place(text: &str) -> Place {
    Place { rstrip: !matches!(text, "<unk>" | "<s>" | "<|endoftext|>"), ..Place::default() }
}

fn read_tokens(gguf: &Gguf) -> Result<Tokens<'_>> {
    let texts = array(gguf, "tokenizer.ggml.tokens")?;
    let count = texts.len();
    let texts = texts.strings().ok_or_else(|| broken(gguf, "tokenizer.ggml.tokens must be strings"))?;
    if count == 0 || count >= MAX_IDS {
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
    let tokens = texts.map(|text| {
        let number = kinds.as_mut().and_then(Iterator::next).unwrap_or(TokenKind::Normal as i32);
        match TokenKind::from_number(number.into()) {
            TokenKind::Normal if ends::is_unmistakable(&text) => (text, TokenKind::Control),
            kind => (text, kind),
        }
    });
    Ok(tokens.collect())
}

fn vocab(gguf: &Gguf, tokens: &Tokens<'_>, push: impl Fn(&str, TokenKind, &mut Vec<u8>)) -> Result<Vocab> {
    let mut vocab = Vocab::with_capacity(tokens.len());
    for (text, kind) in tokens {
        if !vocab.push(*kind, |out| push(text, *kind, out)) {
            return Err(broken(gguf, "more than 4 GiB of tokens"));
        }
    }
    Ok(vocab)
}

/// A vocabulary with visible spaces and with tokens for bytes.
fn read_pieces(gguf: &Gguf) -> Result<(Tokens<'_>, Vocab)> {
    let mut tokens = read_tokens(gguf)?;
    // Some converters mark the tokens of bytes as plain text.
    for (_, kind) in tokens.iter_mut().filter(|(text, kind)| *kind == TokenKind::Normal && byte_token(text).is_some()) {
        *kind = TokenKind::Byte;
    }
    let vocab = vocab(gguf, &tokens, |text, kind, out| match byte_token(text) {
        Some(byte) if kind == TokenKind::Byte => out.push(byte),
        _ => push_piece(text, out),
    })?;
    Ok((tokens, vocab))
}

/// Defaults for missing keys, and the warnings so far.
#[derive(Default)]
struct Defaults {
    add_bos: bool,
    bos: Option<u32>,
    eos: Option<u32>,
    warnings: Vec<String>,
}

/// The value of `tokenizer.ggml.NAME_token_id`: `None` where the key is missing, `Some(None)` where the id is not in
/// this vocabulary. Such an id is left out; a default in its place would be another token (llama.cpp#3634).
fn special_id(gguf: &Gguf, name: &str, vocab: &Vocab, warnings: &mut Vec<String>) -> Result<Option<Option<u32>>> {
    let key = format!("tokenizer.ggml.{name}_token_id");
    let Some(value) = gguf.get(&key) else { return Ok(None) };
    match value.as_i128() {
        Some(id) => Ok(Some(in_range(id, vocab, &key, warnings))),
        // Not an integer: the error names the value.
        None => Ok(gguf.get_u32(&key)?.map(Some)),
    }
}

fn finish(gguf: &Gguf, vocab: Vocab, encoder: Encoder, decoding: Decoding, defaults: Defaults) -> Result<Parts> {
    let mut warnings = defaults.warnings;
    let known = |id: Option<u32>| id.filter(|&id| (id as usize) < vocab.len());
    let mut id = |name: &str| special_id(gguf, name, &vocab, &mut warnings);
    let bos = id("bos")?.unwrap_or(known(defaults.bos));
    let eos = id("eos")?.unwrap_or(known(defaults.eos));
    let mut ends: Vec<u32> = eos.into_iter().collect();
    for name in ["eot", "eom", "fim_pad", "fim_rep", "fim_sep"] {
        ends.extend(id(name)?.flatten());
    }
    // These ids are not used here, but one out of range shows that the file and its vocabulary do not belong together.
    for name in [
        "unknown",
        "padding",
        "seperator",
        "mask",
        "cls",
        "fim_pre",
        "fim_suf",
        "fim_mid",
        "prefix",
        "suffix",
        "middle",
    ] {
        id(name)?;
    }
    // Ollama writes a list beside the key of one.
    const LIST: &str = "tokenizer.ggml.eos_token_ids";
    if let Some(list) = gguf.get_array(LIST)? {
        let list = list.integers::<i128>().ok_or_else(|| broken(gguf, &format!("{LIST} must be integers")))?;
        ends.extend(list.filter_map(|id| in_range(id, &vocab, LIST, &mut warnings)));
    }
    let add_bos = gguf.get_bool("tokenizer.ggml.add_bos_token")?;
    if add_bos == Some(true) && bos.is_none() && gguf.get("tokenizer.ggml.bos_token_id").is_none() {
        warnings
            .push("tokenizer.ggml.add_bos_token is true, but no key says which token BOS is: none is added".to_owned());
    }
    let add_eos = gguf.get_bool("tokenizer.ggml.add_eos_token")?.unwrap_or(false);
    Ok(Parts {
        prefix: bos.filter(|_| add_bos.unwrap_or(defaults.add_bos)).into_iter().collect(),
        suffix: eos.filter(|_| add_eos).into_iter().collect(),
        encoder,
        vocab,
        decoding,
        bos,
        eos,
        ends,
        warnings,
    })
}

fn merges(gguf: &Gguf) -> Result<Option<impl ExactSizeIterator<Item = Cow<'_, str>>>> {
    let Some(merges) = gguf.get_array("tokenizer.ggml.merges")? else { return Ok(None) };
    Ok(Some(merges.strings().ok_or_else(|| broken(gguf, "tokenizer.ggml.merges must be strings"))?))
}

fn missing_merges(gguf: &Gguf) -> TextError {
    broken(gguf, "tokenizer.ggml.merges is missing, which this tokenizer needs; convert the model again")
}

fn array<'a>(gguf: &'a Gguf, key: &str) -> Result<Array<'a>> {
    Ok(gguf.require(key)?)
}

fn broken(gguf: &Gguf, reason: &str) -> TextError {
    TextError::broken(gguf.path().display().to_string(), reason)
}

#[cfg(test)]
#[path = "gguf_tests.rs"]
mod tests;
