//! Mistral's `tekken.json`: the ranks of tiktoken with the special tokens before them, read as mistral-common does.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::added::{Tokens, specials};
use super::bpe::Bpe;
use super::decode::{Decoding, LeadingSpace};
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts};
use super::pipeline::{Pipeline, TextRules};
use super::pre_tokenizers::PreSplit;
use super::special::{Place, SpecialSplit};
use super::vocab::{TokenKind, Vocab};

/// The special tokens of files up to version 7 that do not list theirs.
const BEFORE_V7: [&str; 20] = [
    "<unk>",
    "<s>",
    "</s>",
    "[INST]",
    "[/INST]",
    "[AVAILABLE_TOOLS]",
    "[/AVAILABLE_TOOLS]",
    "[TOOL_RESULTS]",
    "[/TOOL_RESULTS]",
    "[TOOL_CALLS]",
    "[IMG]",
    "<pad>",
    "[IMG_BREAK]",
    "[IMG_END]",
    "[PREFIX]",
    "[MIDDLE]",
    "[SUFFIX]",
    "[SYSTEM_PROMPT]",
    "[/SYSTEM_PROMPT]",
    "[TOOL_CONTENT]",
];

/// Reads a `tekken.json`; `what` names it in errors. BOS goes in front of a text.
pub(crate) fn load(what: &str, json: &[u8]) -> Result<Parts> {
    let broken = |reason: String| TextError::broken(what, format!("not a valid tekken.json: {reason}"));
    let file: Value = serde_json::from_slice(json).map_err(|e| broken(e.to_string()))?;
    let config = &file["config"];
    let number = |key: &str| {
        let n = config[key].as_u64().and_then(|n| usize::try_from(n).ok()).filter(|&n| n < super::added::MAX_IDS);
        n.ok_or_else(|| broken(format!("config.{key} should be a number of tokens, and it is {}", config[key])))
    };
    let pattern = config["pattern"].as_str().ok_or_else(|| broken("it has no config.pattern".to_owned()))?;
    let words = file["vocab"].as_array().ok_or_else(|| broken("it has no vocab".to_owned()))?;
    let (size, n_special) = (number("default_vocab_size")?, number("default_num_special_tokens")?);
    let n_words = size.checked_sub(n_special).filter(|n| (256..=words.len()).contains(n)).ok_or_else(|| {
        broken(format!("{size} tokens less {n_special} special ones are not the first of {} in vocab", words.len()))
    })?;
    let special = special_tokens(&file, n_special).map_err(broken)?;
    let mut vocab = Vocab::with_capacity(size);
    let mut pushed = special.iter().all(|(text, kind)| vocab.push(*kind, |out| out.extend_from_slice(text.as_bytes())));
    for (rank, word) in words[..n_words].iter().enumerate() {
        let bytes = word["token_bytes"].as_str().and_then(|text| STANDARD.decode(text).ok());
        let bytes = bytes.filter(|bytes| {
            let alphabet = rank >= 256 || *bytes == [rank as u8];
            word["rank"].as_u64() == Some(rank as u64) && alphabet && !bytes.is_empty()
        });
        let bytes = bytes.ok_or_else(|| broken(format!("entry {rank} of vocab is {word}")))?;
        pushed &= vocab.push(TokenKind::Normal, |out| out.extend_from_slice(&bytes));
    }
    if !pushed {
        return Err(broken("more than 4 GiB of tokens".to_owned()));
    }
    let named = |name: &str| special.iter().position(|(text, _)| text == name).map(|id| id as u32);
    let (bos, eos) = (named("<s>"), named("</s>"));
    let added = SpecialSplit::new(&specials(&special, |_| Place::default()))?;
    let pre = PreSplit::of_pattern(what, pattern)?;
    let pipeline = Pipeline::byte_level(added, TextRules::default(), pre, Bpe::by_ids(&vocab));
    Ok(Parts {
        encoder: Encoder::Pipeline(Box::new(pipeline)),
        vocab,
        decoding: Decoding { byte_level: true, leading_space: LeadingSpace::Kept },
        prefix: bos.into_iter().collect(),
        suffix: Vec::new(),
        bos,
        eos,
        ends: eos.into_iter().collect(),
        warnings: Vec::new(),
    })
}

/// The first `count` ids: the special tokens of the file, and names for the places that are kept free.
fn special_tokens(file: &Value, count: usize) -> Result<Tokens<'static>, String> {
    let mut tokens: Tokens<'static> =
        (0..count).map(|id| (format!("<SPECIAL_{id}>").into(), TokenKind::Control)).collect();
    let mut put = |id: usize, name: &str| match tokens.get_mut(id) {
        Some(token) => {
            token.0 = name.to_owned().into();
            Ok(())
        }
        None => Err(format!("the special token {name} has the rank {id}, and there are {count}")),
    };
    match &file["special_tokens"] {
        Value::Array(list) => {
            for token in list {
                let rank = token["rank"].as_u64().and_then(|n| usize::try_from(n).ok());
                let (Some(id), Some(name)) = (rank, token["token_str"].as_str()) else {
                    return Err(format!("{token} is no special token"));
                };
                put(id, name)?;
            }
        }
        Value::Null => {
            let version = file["config"]["version"].as_str().unwrap_or_default();
            if version.strip_prefix('v').and_then(|n| n.parse::<u32>().ok()).is_none_or(|n| n > 7) {
                return Err(format!("its version is `{version}`, and it lists no special_tokens"));
            }
            for (id, name) in BEFORE_V7.into_iter().enumerate() {
                put(id, name)?;
            }
        }
        _ => return Err("special_tokens is no list".to_owned()),
    }
    Ok(tokens)
}
