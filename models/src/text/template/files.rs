//! The template among the files of a model.

use std::path::Path;

use handmill_runtime::format::{Checkpoint, Gguf, Kind, read_json_object};
use serde_json::{Map, Value};

use super::super::error::{Result, TextError};
use super::super::source::{Bare, BareKind, TextSource};
use super::super::tokenizer::Tokenizer;
use super::super::vocab::TokenKind;
use super::super::{file, folder};
use super::jinja::Jinja;
use super::mistral::Version;
use super::{ChatTemplate, Format, harmony};

impl ChatTemplate {
    /// The template that belongs to an opened checkpoint: of a GGUF file `tokenizer.chat_template`, of a folder
    /// `chat_template.jinja`, `chat_template` in `tokenizer_config.json`, or `chat_template.json`. Of named ones
    /// (`tokenizer.chat_template.NAME`, `additional_chat_templates/NAME.jinja`) `tool_use` renders conversations with
    /// tools, and `default` the others. Where there is no template, `tekken.json` or `tokenizer.model.vN` chooses the
    /// version of Mistral's format, and control tokens choose harmony. `None` where there are neither.
    ///
    /// # Errors
    /// Files that cannot be read; templates that cannot be compiled.
    pub fn from_checkpoint(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        match checkpoint.kind() {
            Kind::Gguf(gguf) => of_gguf(gguf),
            Kind::HuggingFace(folder) => Self::from_folder(folder.dir()),
        }
    }

    /// The template of a checkpoint folder, as [`from_checkpoint`](Self::from_checkpoint).
    ///
    /// # Errors
    /// As [`from_checkpoint`](Self::from_checkpoint).
    pub fn from_folder(folder: &Path) -> Result<Option<Self>> {
        let config = read_json_object(&folder.join("tokenizer_config.json"))?.unwrap_or_default();
        let mut templates = Templates::default();
        templates.of_files(folder)?;
        if templates.list.is_empty() {
            templates.of_value(&folder.join("tokenizer_config.json"), config.get("chat_template"));
        }
        if templates.list.is_empty() {
            let path = folder.join("chat_template.json");
            let object = read_json_object(&path)?.unwrap_or_default();
            templates.of_value(&path, object.get("chat_template"));
        }
        let Some(mut template) = templates.compiled()? else { return of_tokenizer_files(folder) };
        let map = read_json_object(&folder.join("special_tokens_map.json"))?.unwrap_or_default();
        for (key, value) in map.iter().chain(&config).filter(|(key, _)| key.ends_with("_token")) {
            if let Some(token) = value.as_str().or_else(|| value.get("content")?.as_str()) {
                template.special_tokens.insert(key.clone(), token.into());
            }
        }
        Ok(Some(template))
    }

    /// The coded format of a bare tokenizer's file.
    pub(in super::super) fn of_bare(bare: &Bare) -> Result<Option<Self>> {
        let Bare { kind, what, name, bytes } = bare;
        match kind {
            BareKind::Tekken => {
                let file: Map<String, Value> = serde_json::from_slice(bytes)
                    .map_err(|e| TextError::broken(&**what, format!("not a valid tekken.json: {e}")))?;
                let version = file.get("config").and_then(|config| config["version"].as_str()).unwrap_or_default();
                let version = Version::named(version).ok_or_else(|| {
                    TextError::broken(&**what, format!("config.version is `{version}`, which is no version"))
                })?;
                Ok(Some(Format::Mistral(version, false).into()))
            }
            BareKind::Sentencepiece => {
                let version = name.split_once(".model.").and_then(|(_, version)| Version::named(version));
                Ok(version.map(|version| Format::Mistral(version, true).into()))
            }
            BareKind::Json if may_be_harmony(bytes) => Ok(of_vocabulary(&bare.tokenizer()?)),
            BareKind::Json => Ok(None),
        }
    }

    /// This template with the special tokens of `other`, and with its rule for BOS: for a text from elsewhere in place
    /// of a model's own.
    pub fn in_place_of(mut self, other: &Self) -> Self {
        self.special_tokens = other.special_tokens.clone();
        self.may_add_bos = other.may_add_bos;
        self
    }
}

/// Named templates: where each comes from, its name, and its text.
#[derive(Default)]
struct Templates {
    list: Vec<(String, String, String)>,
}

impl Templates {
    fn push(&mut self, what: impl Into<String>, name: &str, source: &str) {
        self.list.push((what.into(), name.to_owned(), source.to_owned()));
    }

    /// `chat_template.jinja`, and those in the folder for others.
    fn of_files(&mut self, folder: &Path) -> Result<()> {
        let mut paths = vec![("default".to_owned(), folder.join("chat_template.jinja"))];
        let entries = std::fs::read_dir(folder.join("additional_chat_templates")).into_iter().flatten().flatten();
        for path in entries.map(|entry| entry.path()) {
            if let (Some(name), Some("jinja")) = (path.file_stem(), path.extension().and_then(|e| e.to_str())) {
                paths.push((name.to_string_lossy().into_owned(), path));
            }
        }
        for (name, path) in paths.into_iter().filter(|(_, path)| path.is_file()) {
            let what = path.display().to_string();
            let text = String::from_utf8(file::read(&path)?)
                .map_err(|_| TextError::broken(what.clone(), "a template must be UTF-8 text"))?;
            self.push(what, &name, &text);
        }
        Ok(())
    }

    /// A text, or a list of objects with `name` and `template`.
    fn of_value(&mut self, path: &Path, value: Option<&Value>) {
        let what = format!("chat_template of {}", path.display());
        match value {
            Some(Value::String(source)) => self.push(what, "default", source),
            Some(Value::Array(list)) => {
                for named in list {
                    if let (Some(name), Some(source)) = (named["name"].as_str(), named["template"].as_str()) {
                        self.push(format!("{what}, `{name}`"), name, source);
                    }
                }
            }
            Some(Value::Object(named)) => {
                for (name, source) in named {
                    self.push(format!("{what}, `{name}`"), name, source.as_str().unwrap_or_default());
                }
            }
            _ => {}
        }
    }

    /// The templates to use, compiled: `default` or else the first, and `tool_use`.
    fn compiled(&self) -> Result<Option<ChatTemplate>> {
        let named = |wanted: &str| self.list.iter().find(|(_, name, _)| name == wanted);
        let compile = |(what, _, source): &(String, String, String)| Jinja::new(what, source);
        let Some(default) = named("default").or_else(|| self.list.first()) else { return Ok(None) };
        let mut template = ChatTemplate::from(Format::Jinja(Box::new(compile(default)?)));
        template.with_tools = named("tool_use").map(compile).transpose()?;
        Ok(Some(template))
    }
}

fn of_gguf(gguf: &Gguf) -> Result<Option<ChatTemplate>> {
    const KEY: &str = "tokenizer.chat_template";
    let mut templates = Templates::default();
    let what = |key: &str| format!("{key} of {}", gguf.path().display());
    if let Some(source) = gguf.get_str(KEY)? {
        templates.push(what(KEY), "default", source);
    }
    let keys: Vec<&str> = gguf.metadata().map(|(key, _)| key).collect();
    for key in keys {
        if let Some(name) = key.strip_prefix(KEY).and_then(|rest| rest.strip_prefix('.'))
            && let Some(source) = gguf.get_str(key)?
        {
            templates.push(what(key), name, source);
        }
    }
    let template = match templates.compiled()? {
        Some(template) => Some(template),
        None => {
            let tokens = gguf.get_array("tokenizer.ggml.tokens")?.and_then(|tokens| tokens.strings());
            let found = tokens.into_iter().flatten().any(|token| token == harmony::TOKENS[0]);
            if found { of_vocabulary(&Tokenizer::from_gguf(gguf)?) } else { None }
        }
    };
    let Some(mut template) = template else { return Ok(None) };
    template.may_add_bos = true;
    let tokens = gguf.get_array("tokenizer.ggml.tokens")?;
    for (variable, key) in [
        ("bos_token", "bos_token_id"),
        ("eos_token", "eos_token_id"),
        ("unk_token", "unknown_token_id"),
        ("pad_token", "padding_token_id"),
    ] {
        let id = gguf.get(&format!("tokenizer.ggml.{key}")).and_then(|id| id.as_i128());
        let id = id.and_then(|id| usize::try_from(id).ok());
        let text = id.and_then(|id| tokens.as_ref()?.strings()?.nth(id));
        if let Some(text) = text {
            template.special_tokens.insert(variable.to_owned(), text.into_owned().into());
        }
    }
    Ok(Some(template))
}

/// The coded format of a folder whose files have no template.
fn of_tokenizer_files(folder: &Path) -> Result<Option<ChatTemplate>> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    names.sort_unstable();
    let mistral = names.iter().find(|name| folder::is_tekken(name) || name.starts_with("tokenizer.model.v"));
    if let Some(name) = mistral {
        return TextSource::open(folder.join(name))?.template();
    }
    let json = folder.join("tokenizer.json");
    if json.is_file() && may_be_harmony(&file::read(&json)?) {
        return Ok(of_vocabulary(&Tokenizer::from_folder(folder)?));
    }
    Ok(None)
}

/// Whether a `tokenizer.json` has the name of one of harmony's tokens, which is quicker to find than to read its vocabulary.
fn may_be_harmony(json: &[u8]) -> bool {
    let name = harmony::TOKENS[0].as_bytes();
    json.windows(name.len()).any(|bytes| bytes == name)
}

/// Harmony, where the vocabulary has its control tokens.
fn of_vocabulary(tokenizer: &Tokenizer) -> Option<ChatTemplate> {
    let is_control = |name: &&str| {
        let id = tokenizer.encode(name, false, true).ok().filter(|ids| ids.len() == 1).map(|ids| ids[0]);
        id.and_then(|id| tokenizer.token_kind(id)) == Some(TokenKind::Control)
    };
    harmony::TOKENS.iter().all(is_control).then(|| Format::Harmony.into())
}
