//! Special tokens in the small JSON files of a checkpoint folder, in any of them: `tokenizer_config.json`,
//! `added_tokens.json`, `special_tokens_map.json`, `generation_config.json`, `config.json`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;

use handmill_runtime::format::read_json_object;
use serde_json::{Map, Value};

use super::ends;
use super::error::Result;
use super::special::{Place, Special};
use super::vocab::TokenKind;

/// Limit of ids: a table must not grow to gigabytes for one wrong id.
pub(crate) const MAX_IDS: usize = 1 << 24;

/// A token that a file adds to the vocabulary, or names in it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Added {
    pub(crate) text: String,
    /// `None` where no file gives it.
    pub(crate) id: Option<u32>,
    /// `None` where no file gives it.
    pub(crate) special: Option<bool>,
    pub(crate) place: Place,
}

impl Added {
    /// The token's kind: control tokens steer the model; the others are part of the text and always matched.
    pub(crate) fn kind(&self) -> TokenKind {
        let marker = || {
            let bars = |open, close| self.text.starts_with(open) && self.text.ends_with(close);
            bars("<|", "|>") || bars("<｜", "｜>") || ends::is_unmistakable(&self.text)
        };
        if self.special.unwrap_or_else(marker) { TokenKind::Control } else { TokenKind::UserDefined }
    }
}

/// An id in one of the files; it may be out of range.
#[derive(Clone, Debug)]
pub(crate) struct SaidId {
    /// Key and file, for messages.
    pub(crate) what: String,
    pub(crate) id: i128,
}

/// The contents of all these files.
#[derive(Debug, Default)]
pub(crate) struct SideFiles {
    /// By id, those without one last.
    pub(crate) added: Vec<Added>,
    pub(crate) bos: Option<String>,
    /// The names of tokens that end a text or an answer.
    pub(crate) ends: Vec<String>,
    pub(crate) bos_ids: Vec<SaidId>,
    pub(crate) end_ids: Vec<SaidId>,
    /// Rows of the model's head.
    pub(crate) rows: Option<usize>,
    pub(crate) add_bos: Option<bool>,
    pub(crate) add_prefix_space: Option<bool>,
    pub(crate) legacy: Option<bool>,
    /// `tokenizer_class` without `Fast`.
    pub(crate) class: String,
    pub(crate) model_type: String,
    pub(crate) warnings: Vec<String>,
}

impl SideFiles {
    /// Reads the files that `folder` has.
    ///
    /// # Errors
    /// Files that cannot be read or are not JSON objects.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let object = |name: &str| -> Result<Value> {
            Ok(Value::Object(read_json_object(&folder.join(name))?.unwrap_or_default()))
        };
        let mut files = Self::default();
        let tokenizer = object("tokenizer_config.json")?;
        files.decoder(&tokenizer["added_tokens_decoder"]);
        files.added_tokens(&object("added_tokens.json")?);
        files.names(&tokenizer, "tokenizer_config.json");
        files.names(&object("special_tokens_map.json")?, "special_tokens_map.json");
        let config = object("config.json")?;
        let text_config = &config["text_config"];
        for (value, name) in [
            (&object("generation_config.json")?, "generation_config.json"),
            (&config, "config.json"),
            (text_config, "text_config of config.json"),
        ] {
            files.ids(value, name);
        }
        let rows = [text_config, &config].into_iter().find_map(|c| c["vocab_size"].as_u64());
        files.rows = rows.and_then(|n| usize::try_from(n).ok());
        files.add_bos = tokenizer["add_bos_token"].as_bool();
        files.add_prefix_space = tokenizer["add_prefix_space"].as_bool();
        files.legacy = tokenizer["legacy"].as_bool();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        files.class = text(&tokenizer["tokenizer_class"]).trim_end_matches("Fast").to_owned();
        files.model_type = text(&config["model_type"]);
        files.sort();
        Ok(files)
    }

    /// Adds tokens whose ids are known.
    pub(crate) fn add_all(&mut self, tokens: impl Iterator<Item = Added>, file: &str) {
        tokens.for_each(|token| self.add(token, file));
        self.sort();
    }

    fn sort(&mut self) {
        self.added.sort_by_key(|token| token.id.unwrap_or(u32::MAX));
    }

    /// Adds a token, or the new facts about it.
    fn add(&mut self, token: Added, file: &str) {
        if token.text.is_empty() {
            return;
        }
        let Some(old) = self.added.iter_mut().find(|old| old.text == token.text) else {
            self.added.push(token);
            return;
        };
        if let (Some(old), Some(new)) = (old.id, token.id)
            && old != new
        {
            self.warnings
                .push(format!("{file} gives `{}` the id {new}, another file {old}: {old} is taken", token.text));
        }
        old.id = old.id.or(token.id);
        // A file that calls a token special is right; a list that leaves it open or denies it may be wrong.
        old.special = match (old.special, token.special) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (old, new) => old.or(new),
        };
    }

    /// `added_tokens_decoder`: id → token.
    fn decoder(&mut self, table: &Value) {
        const FILE: &str = "added_tokens_decoder of tokenizer_config.json";
        for (id, token) in table.as_object().into_iter().flatten() {
            let Some(text) = name_of(token) else { continue };
            let flag = |key: &str| token[key].as_bool().unwrap_or(false);
            let place = Place { lstrip: flag("lstrip"), rstrip: flag("rstrip"), single_word: flag("single_word") };
            let Some(id) = self.id(id.parse().ok(), text, id, FILE) else { continue };
            self.add(Added { text: text.to_owned(), id: Some(id), special: token["special"].as_bool(), place }, FILE);
        }
    }

    /// `added_tokens.json`: token → id.
    fn added_tokens(&mut self, table: &Value) {
        const FILE: &str = "added_tokens.json";
        for (text, id) in table.as_object().into_iter().flatten() {
            let Some(id) = self.id(whole(id), text, &id.to_string(), FILE) else { continue };
            self.add(Added { text: text.clone(), id: Some(id), special: None, place: Place::default() }, FILE);
        }
    }

    fn id(&mut self, id: Option<i128>, text: &str, said: &str, file: &str) -> Option<u32> {
        let fits = id.and_then(|id| u32::try_from(id).ok()).filter(|&id| (id as usize) < MAX_IDS);
        if fits.is_none() {
            self.warnings.push(format!("{file} gives `{text}` the id {said}, which no vocabulary has: it is left out"));
        }
        fits
    }

    /// `bos_token`, `eos_token`, `additional_special_tokens` and the like.
    fn names(&mut self, config: &Value, file: &str) {
        let lists = |key: &str| matches!(key, "additional_special_tokens" | "extra_special_tokens");
        // The order in which transformers numbers tokens without ids; the last two names are GGUF's.
        const KEYS: [&str; 9] = [
            "bos_token",
            "eos_token",
            "unk_token",
            "sep_token",
            "pad_token",
            "cls_token",
            "mask_token",
            "eot_token",
            "eom_token",
        ];
        let empty = Map::new();
        let config = config.as_object().unwrap_or(&empty);
        for key in KEYS {
            let Some(name) = config.get(key).and_then(name_of) else { continue };
            self.name(key, name, file);
        }
        for (key, list) in config.iter().filter(|(key, _)| lists(key)) {
            match list {
                Value::Array(list) => list.iter().filter_map(name_of).for_each(|name| self.name(key, name, file)),
                Value::Object(list) => {
                    for (key, value) in list {
                        name_of(value).into_iter().for_each(|name| self.name(key, name, file));
                    }
                }
                _ => {}
            }
        }
    }

    fn name(&mut self, key: &str, name: &str, file: &str) {
        match key {
            "bos_token" => self.bos = self.bos.take().or_else(|| Some(name.to_owned())),
            "eos_token" | "eot_token" | "eom_token" if !self.ends.iter().any(|e| e == name) => {
                self.ends.push(name.to_owned());
            }
            // A letter or a mark that some files use for padding stays text.
            "pad_token" | "unk_token" if name.chars().count() == 1 => return,
            _ => {}
        }
        self.add(Added { text: name.to_owned(), id: None, special: Some(true), place: Place::default() }, file);
    }

    /// `bos_token_id`, `eos_token_id` and the like, each one id or a list.
    fn ids(&mut self, config: &Value, file: &str) {
        for (key, ends) in
            [("bos_token_id", false), ("eos_token_id", true), ("eot_token_id", true), ("eom_token_id", true)]
        {
            let list = match &config[key] {
                Value::Array(list) => list.as_slice(),
                one => std::slice::from_ref(one),
            };
            for value in list.iter().filter(|value| !value.is_null()) {
                let what = format!("{key} of {file}");
                let ids = if ends { &mut self.end_ids } else { &mut self.bos_ids };
                match whole(value) {
                    Some(id) => ids.push(SaidId { what, id }),
                    None => self.warnings.push(format!("{what} is {value}, which is no token id: it is left out")),
                }
            }
        }
    }

    /// The tokens with their ids. A token without an id gets the id that a file gives for its role, or else the next
    /// free one, in a vocabulary of `len` tokens where `find` looks up names.
    pub(crate) fn with_ids(&mut self, len: usize, find: impl Fn(&str) -> Option<u32>) -> Vec<(u32, Added)> {
        let mut placed: Vec<(u32, Added)> = Vec::new();
        let mut next = self.added.iter().filter_map(|t| t.id).map(|id| id as usize + 1).fold(len, usize::max);
        for token in &self.added {
            let said = |ids: &[SaidId], placed: &[(u32, Added)]| {
                let beyond = |id: &u32| *id as usize >= len && !placed.iter().any(|(other, _)| other == id);
                ids.iter()
                    .filter_map(|said| u32::try_from(said.id).ok())
                    .filter(|id| (*id as usize) < MAX_IDS)
                    .find(beyond)
            };
            let found = token.id.or_else(|| find(&token.text)).or_else(|| {
                let ids = match () {
                    () if self.bos.as_ref() == Some(&token.text) => &self.bos_ids[..],
                    () if self.ends.contains(&token.text) => &self.end_ids[..],
                    () => &[],
                };
                said(ids, &placed)
            });
            let id = match found {
                Some(id) => id,
                // An id beyond the model's rows cannot be meant.
                None if self.rows.is_none_or(|rows| next < rows) && next < MAX_IDS => next as u32,
                None => {
                    let text = &token.text;
                    self.warnings.push(format!("no file says the id of the special token `{text}`: it is left out"));
                    continue;
                }
            };
            if let Some(rows) = self.rows.filter(|&rows| id as usize >= rows && id as usize >= len) {
                let said = format!("a file gives `{}` the id {id}, and the model has {rows} rows", token.text);
                self.warnings.push(said + ": it is left out");
                continue;
            }
            next = next.max(id as usize + 1);
            placed.push((id, token.clone()));
        }
        placed
    }
}

/// The text of a token, which is a string or has the key `content`.
fn name_of(value: &Value) -> Option<&str> {
    value.as_str().or_else(|| value.get("content")?.as_str()).filter(|name| !name.is_empty())
}

/// A whole number, also in the form of a float.
fn whole(value: &Value) -> Option<i128> {
    let float = || value.as_f64().filter(|v| v.fract() == 0.0 && v.abs() < 1e15).map(|v| v as i128);
    value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from)).or_else(float)
}

/// A vocabulary under construction: text and kind of each id. Texts of a mapped file are not copied.
pub(crate) type Tokens<'a> = Vec<(Cow<'a, str>, TokenKind)>;

/// Adds the tokens of the side files to `tokens`; returns all tokens that are matched as themselves.
pub(crate) fn apply(files: &mut SideFiles, tokens: &mut Tokens<'_>) -> Vec<Special> {
    // Only the few names without an id are looked up here.
    let find = |name: &str| tokens.iter().position(|(text, _)| text == name).map(|id| id as u32);
    let placed = files.with_ids(tokens.len(), find);
    let mut places = HashMap::new();
    for (id, token) in placed {
        let at = id as usize;
        if at >= tokens.len() {
            tokens.resize(at + 1, (Cow::Borrowed(""), TokenKind::Unused));
        }
        let kind = match (&tokens[at], token.kind()) {
            ((text, kind @ (TokenKind::Control | TokenKind::Unknown)), _) if *text == token.text => *kind,
            (_, kind) => kind,
        };
        places.insert(id, token.place);
        tokens[at] = (Cow::Owned(token.text), kind);
    }
    specials(tokens, |id| places.get(&id).copied().unwrap_or_default())
}

/// The tokens of a vocabulary that are matched as themselves.
pub(crate) fn specials(tokens: &Tokens<'_>, place: impl Fn(u32) -> Place) -> Vec<Special> {
    let matched = |kind| matches!(kind, TokenKind::Control | TokenKind::Unknown | TokenKind::UserDefined);
    let tokens = tokens.iter().enumerate().filter(|(_, (_, kind))| matched(*kind));
    tokens
        .map(|(id, (text, kind))| Special {
            id: id as u32,
            kind: *kind,
            text: text.clone().into_owned(),
            place: place(id as u32),
        })
        .collect()
}
