//! `normalizer` and `pre_tokenizer` of a `tokenizer.json`.

use serde_json::Value;

use super::super::error::{Result, TextError};
use super::super::normalize::Normalizer;
use super::super::pattern::Pattern;
use super::super::pre_tokenizers::{Behavior, PreSplit, Prepend, Stage};
use super::{flatten, unsupported};

/// What the crate `tokenizers` takes for punctuation: ASCII's, and Unicode's as its table of version 8 had it (two
/// characters have left the class since).
const PUNCTUATION: &str = r"[!-/:-@\[-`{-~\x{166D}\x{111C9}]|[\p{P}&&\p{Age=8.0}]";

/// A key of a component that must be there.
pub(super) fn required<'v, T>(
    what: &str,
    part: &'v Value,
    key: &str,
    get: impl Fn(&'v Value) -> Option<T>,
) -> Result<T> {
    let name = part["type"].as_str().unwrap_or_default();
    get(&part[key]).ok_or_else(|| TextError::broken(what, format!("`{key}` of its {name} is {}", part[key])))
}

/// `{"String": "a"}` or `{"Regex": "a+"}`.
pub(super) fn pattern(what: &str, part: &Value) -> Result<Pattern> {
    let value = &part["pattern"];
    match (value["String"].as_str(), value["Regex"].as_str()) {
        (Some(text), _) => Pattern::literal(what, text),
        (_, Some(expression)) => Pattern::expression(what, expression),
        (None, None) => required(what, part, "pattern", |_| None),
    }
}

/// The steps of `normalizer`.
pub(super) fn normalizers(what: &str, value: &Value) -> Result<Vec<Normalizer>> {
    let mut parts = Vec::new();
    flatten(value, "normalizers", &mut parts);
    let mut steps = Vec::new();
    for part in parts {
        let text = |key: &str| required(what, part, key, Value::as_str).map(str::to_owned);
        steps.push(match part["type"].as_str().unwrap_or_default() {
            "NFC" => Normalizer::Nfc,
            "NFD" => Normalizer::Nfd,
            "NFKC" => Normalizer::Nfkc,
            "NFKD" => Normalizer::Nfkd,
            "Lowercase" => Normalizer::Lowercase,
            "Strip" => Normalizer::Strip {
                left: required(what, part, "strip_left", Value::as_bool)?,
                right: required(what, part, "strip_right", Value::as_bool)?,
            },
            "Replace" => Normalizer::Replace { pattern: pattern(what, part)?, content: text("content")? },
            "Prepend" => Normalizer::Prepend(text("prepend")?),
            name => {
                let supported = "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Strip, Replace, Prepend";
                return Err(unsupported(what, "normalizer", name, supported));
            }
        });
    }
    Ok(steps)
}

/// The steps of `pre_tokenizer`.
#[derive(Default)]
pub(super) struct PreTokenizer {
    pub(super) stages: Vec<Stage>,
    /// Words are written in the printable alphabet of bytes.
    pub(super) bytes: bool,
}

/// Reads `pre_tokenizer`.
pub(super) fn pre_tokenizers(what: &str, value: &Value) -> Result<PreTokenizer> {
    let mut parts = Vec::new();
    flatten(value, "pretokenizers", &mut parts);
    let mut pre = PreTokenizer::default();
    for part in parts {
        let name = part["type"].as_str().unwrap_or_default();
        if pre.bytes {
            return Err(unsupported(
                what,
                "pre_tokenizer",
                &format!("{name} behind ByteLevel"),
                "ByteLevel as the last",
            ));
        }
        let flag = |key: &str| required(what, part, key, Value::as_bool);
        let flag_or = |key: &str, default| if part[key].is_null() { Ok(default) } else { flag(key) };
        let split = |pattern, behavior, invert| Stage::Split { pattern, behavior, invert };
        match name {
            "ByteLevel" => {
                pre.bytes = true;
                if flag("add_prefix_space")? {
                    pre.stages.push(Stage::PrefixSpace);
                }
                if flag_or("use_regex", true)? {
                    pre.stages.extend(PreSplit::named("gpt-2")?.0.stages);
                }
            }
            "Split" => {
                pre.stages.push(split(pattern(what, part)?, behavior(what, part)?, flag_or("invert", false)?));
            }
            "Digits" => {
                let single = flag("individual_digits")?;
                let behavior = if single { Behavior::Isolated } else { Behavior::Contiguous };
                pre.stages.push(split(Pattern::chars(char::is_numeric), behavior, false));
            }
            "Whitespace" => {
                pre.stages.push(split(Pattern::expression(what, r"\w+|[^\w\s]+")?, Behavior::Removed, true));
            }
            "WhitespaceSplit" => {
                pre.stages.push(split(Pattern::chars(char::is_whitespace), Behavior::Removed, false));
            }
            "Punctuation" => {
                let behavior = if part["behavior"].is_null() { Behavior::Isolated } else { behavior(what, part)? };
                pre.stages.push(split(Pattern::expression(what, PUNCTUATION)?, behavior, false));
            }
            "Metaspace" => {
                let (replacement, prepend) = metaspace(what, part)?;
                pre.stages.push(Stage::Metaspace { replacement, prepend, split: flag_or("split", true)? });
            }
            _ => {
                let supported =
                    "Sequence, Split, ByteLevel, Metaspace, Digits, Whitespace, WhitespaceSplit, Punctuation";
                return Err(unsupported(what, "pre_tokenizer", name, supported));
            }
        }
    }
    Ok(pre)
}

fn behavior(what: &str, part: &Value) -> Result<Behavior> {
    required(what, part, "behavior", |value| {
        Some(match value.as_str()? {
            "Removed" => Behavior::Removed,
            "Isolated" => Behavior::Isolated,
            "MergedWithPrevious" => Behavior::MergedWithPrevious,
            "MergedWithNext" => Behavior::MergedWithNext,
            "Contiguous" => Behavior::Contiguous,
            _ => return None,
        })
    })
}

/// Sign and rule of `Metaspace`, whose older spelling has `add_prefix_space` in the place of `prepend_scheme`.
pub(super) fn metaspace(what: &str, part: &Value) -> Result<(char, Prepend)> {
    let only = |value: &Value| {
        let mut chars = value.as_str()?.chars();
        chars.next().filter(|_| chars.next().is_none())
    };
    let sign = required(what, part, "replacement", only)?;
    let prepend = match (part["prepend_scheme"].as_str(), part["add_prefix_space"].as_bool()) {
        (Some("never") | None, Some(false)) | (Some("never"), _) => Prepend::Never,
        (Some("first"), None | Some(true)) => Prepend::First,
        (Some("always") | None, None | Some(true)) => Prepend::Always,
        _ => return required(what, part, "prepend_scheme", |_| None),
    };
    Ok((sign, prepend))
}
