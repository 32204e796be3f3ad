//! Reads `tokenizer.json`. The `tokenizers` crate encodes; decoding is ours, from the bytes of each token, so that a
//! stream equals the whole.

use serde::Deserialize;
use serde_json::Value;
use tokenizers::{AddedToken, Encoding, Model, PostProcessor, Token};

use super::added::{Added, MAX_IDS, SideFiles};
use super::byte_level;
use super::decode::Decoding;
use super::error::{Result, TextError};
use super::parts::{Encoder, Parts, in_range};
use super::pipeline::Pipeline;
use super::special::Place;
use super::spm::{SPACE, byte_token};
use super::vocab::{TokenKind, Vocab};

/// Reads a `tokenizer.json` and adds the facts of the files beside it; `what` names it in errors.
pub(crate) fn load(what: &str, json: &[u8], files: &mut SideFiles) -> Result<Parts> {
    let mut tokenizer = read(what, json, files)?;
    let style = decoder_style(what, &tokenizer)?;
    let fillers = add_tokens(what, &mut tokenizer, files);
    let vocab = token_table(what, &tokenizer, style, fillers)?;
    // They also belong to a file that stands alone.
    let mut warnings = std::mem::take(&mut files.warnings);
    let mut special = |ids: Vec<u32>| -> Vec<u32> {
        let of = format!("a special token of the post-processor of {what}");
        ids.into_iter().filter_map(|id| in_range(id.into(), &vocab, &of, &mut warnings)).collect()
    };
    let (prefix, suffix) = around(what, &tokenizer)?;
    let (prefix, suffix) = (special(prefix), special(suffix));
    let decoding = Decoding { byte_level: style.byte_level, strip_leading_space: style.strip };
    Ok(Parts {
        encoder: Encoder::Pipeline(Box::new(Pipeline::new(tokenizer))),
        bos: prefix.first().copied(),
        eos: suffix.first().copied(),
        ends: suffix.clone(),
        vocab,
        decoding,
        prefix,
        suffix,
        warnings,
    })
}

/// The part of the file that gives ids to added tokens.
#[derive(Deserialize)]
struct File {
    #[serde(default)]
    added_tokens: Vec<Listed>,
}

#[derive(Deserialize)]
struct Listed {
    id: u32,
    #[serde(flatten)]
    token: AddedToken,
}

/// The pipeline of the file. The crate ignores the ids of added tokens and counts on from the vocabulary; tokens whose
/// ids would change are taken out of the pipeline and put into `files`, to be added with their own ids.
fn read(what: &str, json: &[u8], files: &mut SideFiles) -> Result<tokenizers::Tokenizer> {
    let broken = |e: String| TextError::broken(what, format!("not a tokenizer.json: {e}"));
    let tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|e| broken(e.to_string()))?;
    let mut listed = serde_json::from_slice::<File>(json).map_err(|e| broken(e.to_string()))?.added_tokens;
    listed.retain(|listed| !listed.token.content.is_empty());
    if listed.iter().all(|listed| tokenizer.token_to_id(&listed.token.content) == Some(listed.id)) {
        return Ok(tokenizer);
    }
    listed.retain(|listed| tokenizer.get_model().token_to_id(&listed.token.content) != Some(listed.id));
    let mut file: Value = serde_json::from_slice(json).map_err(|e| broken(e.to_string()))?;
    if let Some(tokens) = file["added_tokens"].as_array_mut() {
        tokens.retain(|token| !listed.iter().any(|listed| token["content"] == listed.token.content));
    }
    let added = |Listed { id, token }: Listed| {
        let place = Place { lstrip: token.lstrip, rstrip: token.rstrip, single_word: token.single_word };
        Added { text: token.content, id: Some(id), special: Some(token.special), place }
    };
    files.add_all(listed.into_iter().map(added), what);
    serde_json::from_value(file).map_err(|e| broken(e.to_string()))
}

/// Unicode reserves this character as a noncharacter, so no text has it.
const FILLER: char = '\u{10FFFF}';
/// Most free ids between those of a `tokenizer.json` and an id that a file beside it names.
const MAX_GAP: usize = 1 << 16;

/// Adds the tokens of the files beside a `tokenizer.json`. The pipeline counts on from its last id, so ids without a
/// name are filled up; returns those.
fn add_tokens(what: &str, tokenizer: &mut tokenizers::Tokenizer, files: &mut SideFiles) -> std::ops::Range<u32> {
    let end = |tokenizer: &tokenizers::Tokenizer| {
        let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder().keys().max().map_or(0, |id| id + 1);
        added.max(tokenizer.get_vocab_size(false) as u32)
    };
    let first = end(tokenizer);
    let mut next = first;
    let mut list = Vec::new();
    for (id, token) in files.with_ids(first as usize, |text| tokenizer.token_to_id(text)) {
        let clash = match (tokenizer.token_to_id(&token.text), tokenizer.id_to_token(id)) {
            (Some(known), _) => {
                list.extend(promoted(tokenizer, known, &token));
                (known != id).then(|| format!("there it has the id {known}"))
            }
            (None, Some(other)) => Some(format!("there that is `{other}`")),
            (None, None) if id < next || (id - next) as usize > MAX_GAP => Some(format!("there are {next} ids")),
            (None, None) => {
                list.extend((next..id).map(|filler| AddedToken::from(format!("{FILLER}{filler}"), true)));
                list.push(flags(AddedToken::from(token.text.clone(), token.kind() == TokenKind::Control), &token));
                next = id + 1;
                None
            }
        };
        if let Some(clash) = clash {
            let text = &token.text;
            files
                .warnings
                .push(format!("a file beside {what} gives `{text}` the id {id}, but {clash}: {what} is followed"));
        }
    }
    tokenizer.add_tokens(&list);
    first..next
}

fn flags(token: AddedToken, said: &Added) -> AddedToken {
    let place = said.place;
    token.normalized(false).lstrip(place.lstrip).rstrip(place.rstrip).single_word(place.single_word)
}

/// The token of that id with the facts of the files beside its `tokenizer.json`, where they differ.
fn promoted(tokenizer: &tokenizers::Tokenizer, id: u32, said: &Added) -> Option<AddedToken> {
    match tokenizer.get_added_vocabulary().get_added_tokens_decoder().get(&id) {
        Some(token) if token.special || said.special != Some(true) => None,
        Some(token) => Some(AddedToken { special: true, ..token.clone() }),
        None => Some(flags(AddedToken::from(said.text.clone(), said.kind() == TokenKind::Control), said)),
    }
}

/// The facts of the file's decoder that our decoder needs.
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

fn token_table(
    what: &str,
    tokenizer: &tokenizers::Tokenizer,
    style: Style,
    fillers: std::ops::Range<u32>,
) -> Result<Vocab> {
    let added = tokenizer.get_added_vocabulary().get_added_tokens_decoder();
    let mut texts: Vec<Option<String>> = Vec::new();
    for (text, id) in tokenizer.get_vocab(true) {
        let at = id as usize;
        // Ids may have gaps, but a table must not grow to gigabytes for one wrong id.
        if at >= MAX_IDS {
            return Err(TextError::broken(what, format!("token id {id} of `{text}` is out of any sensible range")));
        }
        if at >= texts.len() {
            texts.resize(at + 1, None);
        }
        if !(fillers.contains(&id) && text.starts_with(FILLER)) {
            texts[at] = Some(text);
        }
    }
    let mut vocab = Vocab::with_capacity(texts.len());
    for (id, text) in texts.iter().enumerate() {
        let no_text = text.is_none();
        let text = text.as_deref().unwrap_or_default();
        let byte = if style.byte_fallback { byte_token(text) } else { None };
        let kind = match added.get(&(id as u32)).filter(|token| token.content == text) {
            _ if no_text => TokenKind::Unused,
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

/// The tokens that the post-processor puts around a text, found with a text of one token that cannot exist.
fn around(what: &str, tokenizer: &tokenizers::Tokenizer) -> Result<(Vec<u32>, Vec<u32>)> {
    let Some(post) = tokenizer.get_post_processor() else { return Ok(Default::default()) };
    let text = Encoding::from_tokens(vec![Token::new(u32::MAX, "x".to_owned(), (0, 1))], 0);
    let all = post.process(text, None, true).map_err(|e| TextError::broken(what, format!("post-processor: {e}")))?;
    let mut parts = all.get_ids().split(|&id| id == u32::MAX);
    let prefix = parts.next().unwrap_or_default().to_vec();
    Ok((prefix, parts.next().unwrap_or_default().to_vec()))
}
