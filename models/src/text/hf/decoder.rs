//! `decoder` and `post_processor` of a `tokenizer.json`.

use serde_json::Value;

use super::super::byte_level;
use super::super::decode::LeadingSpace;
use super::super::error::{Result, TextError};
use super::super::normalize::replace;
use super::super::pattern::Pattern;
use super::super::pre_tokenizers::Prepend;
use super::super::spm::byte_token;
use super::stages::{metaspace, pattern, required};
use super::{flatten, unsupported};

/// The facts of the file's decoder, most of which hold for each token alone.
#[derive(Debug)]
pub(super) struct Decoder {
    steps: Vec<Step>,
    /// Tokens are written in the printable alphabet of bytes.
    pub(super) byte_level: bool,
    pub(super) leading_space: LeadingSpace,
}

/// A change of one token's text.
#[derive(Debug)]
enum Step {
    Replace(Pattern, String),
    /// Tokens like `<0x0A>` are bytes.
    Bytes,
}

impl Decoder {
    pub(super) fn new(what: &str, value: &Value) -> Result<Self> {
        let mut parts = Vec::new();
        flatten(value, "decoders", &mut parts);
        let mut decoder = Self { steps: Vec::new(), byte_level: false, leading_space: LeadingSpace::Kept };
        // Behind this the text is one piece.
        let mut fused = false;
        for part in parts {
            let name = part["type"].as_str().unwrap_or_default();
            match name {
                "ByteLevel" if !fused && decoder.steps.is_empty() => (decoder.byte_level, fused) = (true, true),
                "ByteFallback" if !fused => decoder.steps.push(Step::Bytes),
                "Fuse" => fused = true,
                "Replace" if !fused => {
                    let content = required(what, part, "content", Value::as_str)?.to_owned();
                    decoder.steps.push(Step::Replace(pattern(what, part)?, content));
                }
                "Strip" if part["content"] == " " && part["start"] == 0 && part["stop"] == 0 => {}
                "Strip" if fused && part["content"] == " " && part["start"] == 1 && part["stop"] == 0 => {
                    decoder.leading_space = LeadingSpace::OfText;
                }
                "Metaspace" if !fused => {
                    let (sign, prepend) = metaspace(what, part)?;
                    let pattern = Pattern::literal(what, sign.encode_utf8(&mut [0; 4]))?;
                    decoder.steps.push(Step::Replace(pattern, " ".to_owned()));
                    if prepend != Prepend::Never {
                        decoder.leading_space = LeadingSpace::InFirstToken;
                    }
                }
                _ => {
                    let supported = "ByteLevel alone, or Replace, Metaspace and ByteFallback before Fuse, and Strip of \
                                     one space at the start behind it";
                    let name = if name.is_empty() { String::new() } else { format!("{name} {part}") };
                    return Err(unsupported(what, "decoder", &name, supported));
                }
            }
        }
        Ok(decoder)
    }

    /// Appends the bytes that the token `text` decodes to, and says whether it is a byte that need not be text.
    pub(super) fn push_bytes(&self, text: &str, out: &mut Vec<u8>) -> Result<bool> {
        if self.byte_level {
            byte_level::push_bytes(text, out);
            return Ok(false);
        }
        let mut changed: Option<String> = None;
        for step in &self.steps {
            let now = changed.as_deref().unwrap_or(text);
            match step {
                Step::Replace(pattern, content) => changed = replace(pattern, content, now, 0)?.0.or(changed),
                Step::Bytes => {
                    if let Some(byte) = byte_token(now) {
                        out.push(byte);
                        return Ok(true);
                    }
                }
            }
        }
        out.extend_from_slice(changed.as_deref().unwrap_or(text).as_bytes());
        Ok(false)
    }
}

/// The ids that `post_processor` puts before and behind a text.
pub(super) fn around(what: &str, value: &Value) -> Result<(Vec<u64>, Vec<u64>)> {
    let mut parts = Vec::new();
    flatten(value, "processors", &mut parts);
    let mut found = None;
    for part in parts {
        let name = part["type"].as_str().unwrap_or_default();
        // The second id of `["<s>", 1]`.
        let pair = |key: &str| required(what, part, key, |pair| pair[1].as_u64());
        let around = match name {
            // It only changes where tokens stand in the text.
            "ByteLevel" => continue,
            "TemplateProcessing" => template(what, part)?,
            "RobertaProcessing" | "BertProcessing" => (vec![pair("cls")?], vec![pair("sep")?]),
            _ => {
                let supported = "Sequence, TemplateProcessing, ByteLevel, RobertaProcessing, BertProcessing";
                return Err(unsupported(what, "post_processor", name, supported));
            }
        };
        if found.replace(around).is_some() {
            return Err(unsupported(what, "post_processor", &format!("{name} behind another"), "one that adds tokens"));
        }
    }
    Ok(found.unwrap_or_default())
}

fn template(what: &str, part: &Value) -> Result<(Vec<u64>, Vec<u64>)> {
    let broken = |reason: String| TextError::broken(what, format!("its TemplateProcessing {reason}"));
    let (mut before, mut behind, mut texts) = (Vec::new(), Vec::new(), 0);
    for piece in required(what, part, "single", Value::as_array)? {
        if piece["Sequence"]["id"] == "A" {
            texts += 1;
            continue;
        }
        let name = piece["SpecialToken"]["id"].as_str().ok_or_else(|| broken(format!("has the piece {piece}")))?;
        let ids = part["special_tokens"][name]["ids"].as_array();
        for id in ids.ok_or_else(|| broken(format!("names no ids for `{name}`")))? {
            let id = id.as_u64().ok_or_else(|| broken(format!("gives `{name}` the id {id}")))?;
            if texts == 0 { before.push(id) } else { behind.push(id) }
        }
    }
    if texts == 1 { Ok((before, behind)) } else { Err(broken(format!("has the text {texts} times"))) }
}
