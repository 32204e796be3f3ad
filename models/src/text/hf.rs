//! `tokenizer.json`, encoded through the `tokenizers` crate. Decoding is ours, from the bytes of each token: that is
//! what makes streams equal to the whole.

use serde_json::Value;
use tokenizers::{AddedVocabulary, Encoding, Model, OffsetReferential, OffsetType, PostProcessor, PreTokenizer, Token};

use super::byte_level;
use super::error::{Result, TextError};
use super::spm::SPACE;
use super::stream::Decoding;
use super::vocab::{TokenKind, Vocab};

/// The encoder: the file's own pipeline.
#[derive(Debug)]
pub(crate) struct Pipeline {
    tokenizer: tokenizers::Tokenizer,
    /// The added tokens once more, set so that control tokens in a text stay text.
    literal: AddedVocabulary,
}

/// Everything a `tokenizer.json` says.
pub(crate) struct Loaded {
    pub(crate) pipeline: Pipeline,
    pub(crate) vocab: Vocab,
    pub(crate) decoding: Decoding,
    /// What the post-processor puts before and after a text.
    pub(crate) prefix: Vec<u32>,
    pub(crate) suffix: Vec<u32>,
}

/// Reads a `tokenizer.json`; `what` names it in errors.
pub(crate) fn load(what: &str, json: &[u8]) -> Result<Loaded> {
    let tokenizer = tokenizers::Tokenizer::from_bytes(json)
        .map_err(|e| TextError::broken(what, format!("not a tokenizer.json: {e}")))?;
    let style = decoder_style(what, &tokenizer)?;
    let vocab = token_table(what, &tokenizer, style)?;
    let (prefix, suffix) = around(what, &tokenizer)?;
    let mut literal = tokenizer.get_added_vocabulary().clone();
    literal.set_encode_special_tokens(true);
    let decoding = Decoding { byte_level: style.byte_level, strip_leading_space: style.strip };
    Ok(Loaded { pipeline: Pipeline { tokenizer, literal }, vocab, decoding, prefix, suffix })
}

impl Pipeline {
    /// Appends the ids of `text`.
    pub(crate) fn encode(&self, text: &str, parse_special: bool, out: &mut Vec<u32>) -> Result<()> {
        let failed = |e: tokenizers::Error| TextError::Encode(e.to_string());
        let added = if parse_special { self.tokenizer.get_added_vocabulary() } else { &self.literal };
        let mut pieces = added.extract_and_normalize(self.tokenizer.get_normalizer(), text);
        if let Some(pre) = self.tokenizer.get_pre_tokenizer() {
            pre.pre_tokenize(&mut pieces).map_err(failed)?;
        }
        let model = self.tokenizer.get_model();
        pieces.tokenize(|piece| model.tokenize(piece.get())).map_err(failed)?;
        for (_, _, tokens) in pieces.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            out.extend(tokens.iter().flatten().map(|t| t.id));
        }
        Ok(())
    }
}

/// What the decoder of the file does, as far as we need to know.
#[derive(Clone, Copy, Default)]
struct Style {
    byte_level: bool,
    byte_fallback: bool,
    /// `▁` reads as a space.
    visible_spaces: bool,
    /// One leading space is taken away.
    strip: bool,
}

fn decoder_style(what: &str, tokenizer: &tokenizers::Tokenizer) -> Result<Style> {
    let mut style = Style::default();
    let Some(decoder) = tokenizer.get_decoder() else { return Ok(style) };
    let value = serde_json::to_value(decoder).map_err(|e| TextError::broken(what, e.to_string()))?;
    let parts = value["decoders"].as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    for part in &parts {
        match part["type"].as_str().unwrap_or_default() {
            "ByteLevel" => style.byte_level = true,
            "ByteFallback" => style.byte_fallback = true,
            "Fuse" => {}
            "Replace" if part["pattern"]["String"] == SPACE && part["content"] == " " => style.visible_spaces = true,
            "Strip" if part["content"] == " " && part["stop"] == 0 => style.strip = part["start"] == 1,
            "Metaspace" if part["replacement"] == SPACE => {
                style.visible_spaces = true;
                style.strip = part["prepend_scheme"] != "never";
            }
            name => {
                return Err(TextError::Unsupported {
                    what: "the decoder of tokenizer.json",
                    name: format!("{name} {part}"),
                    supported: "ByteLevel, ByteFallback, Fuse, Metaspace, Replace of ▁ by a space, Strip of one leading space",
                });
            }
        }
    }
    Ok(style)
}

fn token_table(what: &str, tokenizer: &tokenizers::Tokenizer, style: Style) -> Result<Vocab> {
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let mut texts: Vec<Option<String>> = Vec::new();
    for (text, id) in tokenizer.get_vocab(true) {
        let at = id as usize;
        // Ids may have gaps, but a table must not grow to gigabytes for one wild id.
        if at >= 1 << 24 {
            return Err(TextError::broken(what, format!("token id {id} of `{text}` is out of any sensible range")));
        }
        if at >= texts.len() {
            texts.resize(at + 1, None);
        }
        texts[at] = Some(text);
    }
    let mut vocab = Vocab::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        let text = text.as_deref().unwrap_or_default();
        let byte = if style.byte_fallback { byte_token(text) } else { None };
        let kind = match added.get(&(id as u32)) {
            Some(token) if token.special => TokenKind::Control,
            Some(_) => TokenKind::UserDefined,
            None if byte.is_some() => TokenKind::Byte,
            None => TokenKind::Normal,
        };
        let pushed = vocab.push(kind, |out| match byte {
            Some(byte) if kind == TokenKind::Byte => out.push(byte),
            _ if style.byte_level => byte_level::push_bytes(text, out),
            _ if style.visible_spaces => out.extend_from_slice(text.replace(SPACE, " ").as_bytes()),
            _ => out.extend_from_slice(text.as_bytes()),
        });
        if !pushed {
            return Err(TextError::broken(what, "more than 4 GiB of tokens"));
        }
    }
    Ok(vocab)
}

/// The byte that a token like `<0x0A>` stands for.
pub(crate) fn byte_token(text: &str) -> Option<u8> {
    let digits = text.strip_prefix("<0x")?.strip_suffix('>')?;
    if digits.len() != 2 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    u8::from_str_radix(digits, 16).ok()
}

/// What the post-processor puts around a text, found by giving it a text of one token that cannot exist.
fn around(what: &str, tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    let Some(post) = tokenizer.get_post_processor() else { return Ok(Default::default()) };
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, "x".to_owned(), (0, 1))], 0);
    let all = post.process(text, None, true).map_err(|e| TextError::broken(what, format!("post-processor: {e}")))?;
    let mut parts = all.get_ids().split(|&id| id == u32::MAX);
    let prefix = parts.next().unwrap_or_default().to_vec();
    Ok((prefix, parts.next().unwrap_or_default().to_vec()))
}

/// The id or ids under a key of config.json or generation_config.json.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    let one = |v: &Value| v.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Value::Array(list) => list.iter().filter_map(one).collect(),
        v => one(v).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens() {
        assert_eq!(byte_token("<0x0A>"), Some(10));
        assert_eq!(byte_token("<0xff>"), Some(255));
        assert_eq!(byte_token("<0x+A>"), None);
        assert_eq!(byte_token("<0x0>"), None);
        assert_eq!(byte_token("0x0A"), None);
    }

    #[test]
    fn ids_alone_or_in_a_list() {
        assert_eq!(ids(&serde_json::json!(5)), [5]);
        assert_eq!(ids(&serde_json::json!([5, 7, null, -1])), [5, 7]);
        assert!(ids(&Value::Null).is_empty());
    }
}
