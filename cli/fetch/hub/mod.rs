//! Models of the Hugging Face hub: `hf:owner/name`, `hf:owner/name:file`, `hf:owner/name:KIND`, all with `@revision` after
//! the name if wanted.
//!
//! The hub's API names the commit, the files and their digests; the files come from its `resolve` addresses. Like the
//! hub's own clients, this honours `HF_ENDPOINT` and `HF_TOKEN`. Cached files are used without asking the hub again.

mod listing;
mod name;

pub use name::HubName;

use super::{
    FetchError,
    cache::{self, Cache},
    download::{Wanted, download},
    http::{self, Http, Request},
    progress::Progress,
};
use crate::terminal::{harmless_line, note};
use handmill_models::licence::Licence;
use listing::{Listed, listing, names, names_of, of_kind, with_splits};
use name::{plain_path, plain_piece};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// Small files of a checkpoint folder that are fetched where the repository has them.
const FOLDER_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    // What the model may be used for.
    "LICENSE",
    "README.md",
];

/// Tokenizer files of repositories that have neither of those above.
const OTHER_TOKENIZERS: &[&str] = &["tekken.json", "vocab.json", "merges.txt"];

/// The kind of quantisation that is taken of several where none is named, as llama.cpp takes it.
const USUAL_KIND: &str = "Q4_K_M";

const INDEX: &str = "model.safetensors.index.json";

/// The path of the model here: a file where one was named (or the repository has just one GGUF file), else a folder.
pub fn locate(cache: &Cache, name: &HubName, make_http: impl FnOnce() -> Http) -> Result<PathBuf, FetchError> {
    let root = cache.dir().join("hf").join(&name.repo);
    if let Some((path, note)) = cached(&root, name) {
        cache::note_used(&note);
        return Ok(path);
    }
    let _lock = cache.lock(&lock_name(&name.repo), || {
        note(&format!("another process is fetching {}; waiting for it", name.repo));
    })?;
    if let Some((path, _)) = cached(&root, name) {
        return Ok(path);
    }
    fetch(&make_http(), cache, &root, name)
}

/// The path of a model that is in the cache already.
pub fn already(cache: &Cache, name: &HubName) -> Option<PathBuf> {
    Some(cached(&cache.dir().join("hf").join(&name.repo), name)?.0)
}

/// The name under which a repository is locked.
pub fn lock_name(repo: &str) -> String {
    format!("hf:{repo}")
}

/// A note that all files of a model are there.
pub struct Note {
    /// The note itself.
    pub at: PathBuf,
    /// The path of the model in its commit's folder; empty for the folder.
    pub path: String,
    /// Its files there.
    pub files: Vec<String>,
    /// The part of the repository's card that is about the licence.
    pub card: Value,
}

/// The notes in a commit's folder.
pub fn notes(folder: &Path) -> Vec<Note> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let is_note = |path: &PathBuf| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(".complete-"))
    };
    let paths = entries.map(|entry| entry.path()).filter(is_note);
    let read = |at: PathBuf| {
        let mut kept: Value = serde_json::from_slice(&fs::read(&at).ok()?).ok()?;
        let path = kept["path"].as_str().filter(|path| path.is_empty() || plain_path(path))?.to_owned();
        let files = kept["files"].as_object()?.keys().filter(|file| plain_path(file)).cloned().collect();
        Some(Note { at, path, files, card: kept["card"].take() })
    };
    paths.filter_map(read).collect()
}

/// The path at which an earlier fetch of the same name put it, if all of it is still there, and the note of that.
fn cached(root: &Path, name: &HubName) -> Option<(PathBuf, PathBuf)> {
    let commit = fs::read_to_string(root.join("refs").join(file_key(&name.revision))).ok()?;
    let folder = root.join(commit.trim());
    let note = folder.join(complete_name(name));
    let kept: Value = serde_json::from_slice(&fs::read(&note).ok()?).ok()?;
    let whole = kept["files"].as_object()?.iter().all(|(file, size)| {
        plain_path(file) && fs::metadata(folder.join(file)).is_ok_and(|meta| Some(meta.len()) == size.as_u64())
    });
    let path = kept["path"].as_str().filter(|path| path.is_empty() || plain_path(path))?;
    whole.then(|| (if path.is_empty() { folder } else { folder.join(path) }, note))
}

/// A file name for something that may contain slashes.
fn file_key(text: &str) -> String {
    text.replace('/', "--")
}

/// Name of the note that all files of `name` are there.
fn complete_name(name: &HubName) -> String {
    format!(".complete-{}.json", name.file.as_deref().map_or("folder".to_owned(), file_key))
}

fn fetch(http: &Http, cache: &Cache, root: &Path, name: &HubName) -> Result<PathBuf, FetchError> {
    let var = |name| env::var(name).ok().filter(|v| !v.is_empty());
    let endpoint = var("HF_ENDPOINT").unwrap_or_else(|| "https://huggingface.co".to_owned());
    let endpoint = endpoint.trim_end_matches('/');
    let token = var("HF_TOKEN");
    let repo = &name.repo;

    let url = format!("{endpoint}/api/models/{repo}/revision/{}?blobs=true", name.revision.replace('/', "%2F"));
    let what = format!("hf:{repo}");
    let request = Request { url: &url, what: &what, accept: "application/json", bearer: token.as_deref(), from: None };
    let info = http.get_json(&request)?;
    let commit = info["sha"].as_str().filter(|sha| plain_piece(sha) && !sha.contains('/')).ok_or_else(|| {
        FetchError::Answer { what: what.clone(), host: http::host(&url), reason: "no commit in it".to_owned() }
    })?;
    let listed = listing(&info);
    let folder = root.join(commit);
    let first_time = !folder.exists();
    cache::create_dir(&folder)?;
    if first_time {
        let licence = licence_of_card(&info["cardData"], repo).to_string();
        note(&format!("{repo}, licence: {}", harmless_line(&licence)));
    }

    let run = Run { http, token, base: format!("{endpoint}/{repo}/resolve/{commit}"), folder: &folder, repo };
    let (path, files) = run.choose(&listed, name)?;
    run.fetch_all(&files)?;

    let sizes: serde_json::Map<String, Value> = files
        .iter()
        .filter_map(|file| Some((file.name.clone(), fs::metadata(folder.join(&file.name)).ok()?.len().into())))
        .collect();
    let write = |path: PathBuf, text: String| fs::write(&path, text).map_err(|e| FetchError::io("write", &path, e));
    write(
        folder.join(complete_name(name)),
        json!({ "path": path, "files": sizes, "card": card(&info["cardData"]) }).to_string(),
    )?;
    cache::create_dir(&root.join("refs"))?;
    write(root.join("refs").join(file_key(&name.revision)), commit.to_owned())?;
    cached(root, name).map(|(path, _)| path).ok_or_else(|| FetchError::Answer {
        what,
        host: http::host(&url),
        reason: format!("the files under {} do not last", cache.dir().display()),
    })
}

/// Data that one fetch of a repository shares.
struct Run<'a> {
    http: &'a Http,
    token: Option<String>,
    base: String,
    folder: &'a Path,
    repo: &'a str,
}

impl Run<'_> {
    /// The wanted files, and the path of the model among them (empty: the folder).
    fn choose<'l>(&self, all: &'l [Listed], name: &HubName) -> Result<(String, Vec<&'l Listed>), FetchError> {
        let find = |wanted: &str| all.iter().find(|file| file.name == wanted);
        let lacks = |text: String| FetchError::Repository { text: format!("hf:{} {text}", self.repo) };
        if let Some(wanted) = &name.file {
            let file = find(wanted).or_else(|| of_kind(wanted, all));
            let file = file.ok_or_else(|| lacks(format!("has no file {wanted}; it has {}", names(all))))?;
            return Ok((file.name.clone(), with_splits(file, all)));
        }
        let usual = ["tokenizer.json", "tokenizer.model"].iter().any(|&name| find(name).is_some());
        let others = if usual { &[] } else { OTHER_TOKENIZERS };
        let small = || FOLDER_FILES.iter().chain(others).filter_map(|&wanted| find(wanted));
        if let Some(index) = find(INDEX) {
            self.fetch_all(&[index])?;
            let path = self.folder.join(INDEX);
            let text = fs::read(&path).map_err(|e| FetchError::io("read", &path, e))?;
            let value: Value = serde_json::from_slice(&text).unwrap_or_default();
            let map = value["weight_map"].as_object().ok_or_else(|| lacks(format!("has a {INDEX} without weights")))?;
            let mut shards: Vec<&str> = map.values().filter_map(Value::as_str).collect();
            shards.sort_unstable();
            shards.dedup();
            let shards = shards
                .into_iter()
                .map(|shard| find(shard).ok_or_else(|| lacks(format!("lacks {shard}, which its index names"))))
                .collect::<Result<Vec<_>, _>>()?;
            return Ok((String::new(), small().chain([index]).chain(shards).collect()));
        }
        if let Some(weights) = find("model.safetensors") {
            return Ok((String::new(), small().chain([weights]).collect()));
        }
        let ggufs: Vec<&Listed> = all.iter().filter(|file| file.name.ends_with(".gguf")).collect();
        match ggufs[..] {
            [one] => Ok((one.name.clone(), vec![one])),
            [] => Err(lacks("has neither model.safetensors nor .gguf files".to_owned())),
            [first, ..] => {
                if let Some(file) = of_kind(USUAL_KIND, all) {
                    note(&format!("hf:{} has several .gguf files; taking {}", self.repo, file.name));
                    return Ok((file.name.clone(), with_splits(file, all)));
                }
                let example = format!("for example hf:{}:{}", self.repo, first.name);
                Err(lacks(format!(
                    "has several .gguf files, name one of them, {example}; they are {}",
                    names_of(&ggufs)
                )))
            }
        }
    }

    /// Fetches those files that are not there yet.
    fn fetch_all(&self, files: &[&Listed]) -> Result<(), FetchError> {
        let missing: Vec<&&Listed> = files.iter().filter(|file| !self.folder.join(&file.name).exists()).collect();
        let total = missing.iter().filter_map(|file| file.size).sum();
        if missing.is_empty() {
            return Ok(());
        }
        let mut progress = Progress::new("fetching", self.repo, total);
        let mut done = 0;
        for file in missing {
            let dest = self.folder.join(&file.name);
            if let Some(parent) = dest.parent() {
                cache::create_dir(parent)?;
            }
            let wanted = Wanted {
                url: format!("{}/{}", self.base, file.name.replace(' ', "%20")),
                what: format!("hf:{}:{}", self.repo, file.name),
                bearer: self.token.clone(),
                size: file.size,
                digest: file.digest.clone(),
            };
            download(self.http, &wanted, &dest, &mut progress)?;
            done += file.size.unwrap_or(0);
            progress.set(done);
        }
        Ok(())
    }
}

/// The part of a repository's card that is about its licence.
fn card(card: &Value) -> Value {
    let keys = ["license", "license_name", "license_link"];
    keys.iter().map(|key| (key.to_string(), card[key].clone())).collect::<serde_json::Map<_, _>>().into()
}

/// The licence that a repository's card states; where it has no link, the repository's page is that.
pub fn licence_of_card(card: &Value, repo: &str) -> Licence {
    let text = |key: &str| card[key].as_str().or_else(|| card[key][0].as_str());
    let stated = Licence::of_names(&[text("license_name"), text("license")], text("license_link"));
    Licence { link: stated.link.or_else(|| Some(format!("https://huggingface.co/{repo}"))), ..stated }
}
