//! Models of the Hugging Face hub: `hf:owner/name`, `hf:owner/name:file`, either with `@revision` after the name.
//!
//! The hub's API names the commit, the files and their digests; the files come from its `resolve` addresses. Like the
//! hub's own clients, this honours `HF_ENDPOINT` and `HF_TOKEN`. Cached files are used without asking the hub again.

use super::{
    FetchError,
    cache::{self, Cache},
    download::{Digest, Wanted, download},
    http::{self, Http, Request},
    progress::Progress,
};
use crate::terminal::{harmless_line, human_bytes, note};
use serde_json::{Value, json};
use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// A name after `hf:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit; `main` where none is named.
    pub revision: String,
    /// One file of the repository, else the whole checkpoint.
    pub file: Option<String>,
}

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
];

/// Tokenizer files of repositories that have neither of those above.
const OTHER_TOKENIZERS: &[&str] = &["tekken.json", "vocab.json", "merges.txt"];

const INDEX: &str = "model.safetensors.index.json";

impl HubName {
    /// Reads `owner/name[@revision][:file]`.
    pub fn parse(text: &str) -> Result<Self, FetchError> {
        let wrong = || FetchError::Spelling {
            text: format!(
                "hf:{text} is not of the form hf:owner/name, hf:owner/name:file or hf:owner/name@revision:file"
            ),
        };
        let (front, file) = match text.split_once(':') {
            Some((front, file)) => (front, Some(file)),
            None => (text, None),
        };
        let (repo, revision) = front.split_once('@').unwrap_or((front, "main"));
        let plain = |part: &str| {
            // These become folders of the cache and pieces of URLs.
            plain_piece(part)
                && !part.starts_with('.')
                && part.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
        };
        let is_repo = repo.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name));
        let is_path = |path: &str| path.split('/').all(plain_piece);
        if !is_repo || !is_path(revision) || !file.is_none_or(is_path) {
            return Err(wrong());
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }
}

/// Whether a piece of a path names a file below its folder on every system. Windows ignores dots and spaces at the end,
/// so `name.` would be `name`, and takes some names for devices.
fn plain_piece(piece: &str) -> bool {
    let odd = |c: char| c.is_control() || "\\:?#%*\"<>|".contains(c);
    if cfg!(windows) && is_device(piece) {
        return false;
    }
    !piece.is_empty() && !piece.ends_with(['.', ' ']) && !piece.contains(odd)
}

/// Whether Windows takes a name for a device, whatever its extension is.
fn is_device(name: &str) -> bool {
    let stem = name.split('.').next().unwrap_or(name).trim_end().to_ascii_uppercase();
    let numbered =
        |kind: &str| stem.strip_prefix(kind).is_some_and(|n| n.len() == 1 && n.as_bytes()[0].is_ascii_digit());
    ["CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"].contains(&&stem[..]) || numbered("COM") || numbered("LPT")
}

/// A file in a repository's listing.
struct Listed {
    name: String,
    size: Option<u64>,
    digest: Option<Digest>,
}

/// The path of the model here: a file where one was named (or the repository has just one GGUF file), else a folder.
pub fn locate(cache: &Cache, name: &HubName, make_http: impl FnOnce() -> Http) -> Result<PathBuf, FetchError> {
    let root = cache.dir().join("hf").join(&name.repo);
    if let Some(path) = cached(&root, name) {
        return Ok(path);
    }
    let _lock = cache.lock(&format!("hf:{}", name.repo), || {
        note(&format!("another process is fetching {}; waiting for it", name.repo));
    })?;
    if let Some(path) = cached(&root, name) {
        return Ok(path);
    }
    fetch(&make_http(), cache, &root, name)
}

/// The path at which an earlier fetch of the same name put it, if all of it is still there.
fn cached(root: &Path, name: &HubName) -> Option<PathBuf> {
    let commit = fs::read_to_string(root.join("refs").join(file_key(&name.revision))).ok()?;
    let folder = root.join(commit.trim());
    let kept: Value = serde_json::from_slice(&fs::read(folder.join(complete_name(name))).ok()?).ok()?;
    let whole = kept["files"].as_object()?.iter().all(|(file, size)| {
        plain_path(file) && fs::metadata(folder.join(file)).is_ok_and(|meta| Some(meta.len()) == size.as_u64())
    });
    let path = kept["path"].as_str().filter(|path| path.is_empty() || plain_path(path))?;
    whole.then(|| if path.is_empty() { folder } else { folder.join(path) })
}

fn plain_path(path: &str) -> bool {
    path.split('/').all(plain_piece)
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
        note(&format!("{repo}: {}", harmless_line(&licence(&info, repo))));
    }

    let run = Run { http, token, base: format!("{endpoint}/{repo}/resolve/{commit}"), folder: &folder, repo };
    let (path, files) = run.choose(&listed, name)?;
    run.fetch_all(&files)?;

    let sizes: serde_json::Map<String, Value> = files
        .iter()
        .filter_map(|file| Some((file.name.clone(), fs::metadata(folder.join(&file.name)).ok()?.len().into())))
        .collect();
    let write = |path: PathBuf, text: String| fs::write(&path, text).map_err(|e| FetchError::io("write", &path, e));
    write(folder.join(complete_name(name)), json!({ "path": path, "files": sizes }).to_string())?;
    cache::create_dir(&root.join("refs"))?;
    write(root.join("refs").join(file_key(&name.revision)), commit.to_owned())?;
    cached(root, name).ok_or_else(|| FetchError::Answer {
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
            let file = find(wanted).ok_or_else(|| lacks(format!("has no file {wanted}; it has {}", names(all))))?;
            return Ok((wanted.clone(), with_splits(file, all)));
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

/// The files of an API answer; names that could leave the folder are left out.
fn listing(info: &Value) -> Vec<Listed> {
    let siblings = info["siblings"].as_array().map(Vec::as_slice).unwrap_or_default();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    siblings
        .iter()
        .filter_map(|file| {
            let name = text(&file["rfilename"]).filter(|name| plain_path(name))?;
            let digest = match text(&file["lfs"]["sha256"]) {
                Some(sha256) => Some(Digest::Sha256(sha256)),
                None => text(&file["blobId"]).map(Digest::GitBlob),
            };
            Some(Listed { name, size: file["lfs"]["size"].as_u64().or(file["size"].as_u64()), digest })
        })
        .collect()
}

/// All pieces of a split GGUF (`-00001-of-00003.gguf`), else the file alone.
fn with_splits<'l>(file: &'l Listed, all: &'l [Listed]) -> Vec<&'l Listed> {
    let stem = |name: &str| -> Option<(String, String)> {
        let (front, count) = name.strip_suffix(".gguf")?.rsplit_once("-of-")?;
        let (stem, number) = front.rsplit_once('-')?;
        let digits = |s: &str| s.len() == 5 && s.bytes().all(|b| b.is_ascii_digit());
        (digits(number) && digits(count)).then(|| (stem.to_owned(), count.to_owned()))
    };
    match stem(&file.name) {
        Some(own) => all.iter().filter(|other| stem(&other.name).as_ref() == Some(&own)).collect(),
        None => vec![file],
    }
}

/// The licence that the repository's card states.
fn licence(info: &Value, repo: &str) -> String {
    let card = &info["cardData"];
    let page = format!("https://huggingface.co/{repo}");
    let link = card["license_link"].as_str().filter(|link| link.starts_with("http")).unwrap_or(&page);
    match card["license_name"].as_str().or(card["license"].as_str()) {
        Some(name) => format!("licence {name}, {link}"),
        None => format!("no licence stated, see {page}"),
    }
}

fn names(files: &[Listed]) -> String {
    names_of(&files.iter().collect::<Vec<_>>())
}

/// The first few names and how many more there are.
fn names_of(files: &[&Listed]) -> String {
    let total: u64 = files.iter().filter_map(|file| file.size).sum();
    let shown: Vec<&str> = files.iter().take(12).map(|file| file.name.as_str()).collect();
    let more = files.len().saturating_sub(shown.len());
    let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{tail} ({} in all)", shown.join(", "), human_bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let name = |repo: &str, revision: &str, file: Option<&str>| HubName {
            repo: repo.into(),
            revision: revision.into(),
            file: file.map(str::to_owned),
        };
        assert_eq!(HubName::parse("a/b").unwrap(), name("a/b", "main", None));
        assert_eq!(HubName::parse("a/b:x/y.gguf").unwrap(), name("a/b", "main", Some("x/y.gguf")));
        assert_eq!(HubName::parse("a/b@v1:y.gguf").unwrap(), name("a/b", "v1", Some("y.gguf")));
        for wrong in
            ["", "a", "a/", "/b", "a/b/c", "../b", "a/..", "a/b:", "a/b:../x", "a/b@", "a/b:/etc/x", "a/b:x//y"]
        {
            assert!(HubName::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_that_windows_takes_for_others_are_refused() {
        for wrong in ["a/b.", "a./b", "a/b:x.", "a/b:x /y", "a/b:x../y", "a/b:.. /y", "a/b:x|y", "a/b:c:d", "a/b:x\ty"]
        {
            assert!(HubName::parse(wrong).is_err(), "{wrong}");
        }
        for device in ["con", "NUL", "aux.json", "Com1", "lpt9.gguf", "nul .txt"] {
            assert!(is_device(device), "{device}");
            assert_eq!(HubName::parse(&format!("a/b:{device}")).is_err(), cfg!(windows), "{device}");
        }
        for name in ["config.json", "console", "com", "com10", "null.gguf"] {
            assert!(!is_device(name), "{name}");
        }
    }

    #[test]
    fn all_pieces_of_a_split_file_are_wanted() {
        let all: Vec<Listed> =
            ["q-00001-of-00002.gguf", "q-00002-of-00002.gguf", "r-00001-of-00002.gguf", "q.gguf", "config.json"]
                .map(|name| Listed { name: name.into(), size: None, digest: None })
                .into();
        let got: Vec<&str> = with_splits(&all[0], &all).iter().map(|f| f.name.as_str()).collect();
        assert_eq!(got, ["q-00001-of-00002.gguf", "q-00002-of-00002.gguf"]);
        assert_eq!(with_splits(&all[3], &all).len(), 1);
    }
}
