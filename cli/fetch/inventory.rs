//! The models in the cache, and their removal.
//!
//! A note vouches for each whole model: `NAME.gguf.checked`, or `.complete-….json` for a model of the hub. The note's
//! time of modification is that of the model's last use: the access times of files are rarely kept.

use super::{
    FetchError,
    aliases::{self, Alias},
    cache::{self, Cache},
    hub::{self, HubName},
};
use handmill_models::licence::Licence;
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A model in the cache.
#[derive(Debug)]
pub struct Stored {
    /// Its name, as subcommands take it.
    pub name: String,
    /// Its path.
    pub path: PathBuf,
    /// Whether all of it is there; else what a fetch left that was broken off.
    pub whole: bool,
    /// Its licence as stated at the fetch, if it was.
    pub licence: Option<Licence>,
    /// The time of its last use.
    pub last_used: Option<SystemTime>,
    /// Its files, with their sizes.
    files: BTreeMap<PathBuf, u64>,
    /// The notes that vouch for it.
    notes: Vec<PathBuf>,
    /// `owner/name` on the hub.
    repo: Option<String>,
    /// The name under which it is locked.
    lock: String,
}

/// Deepest folder of the cache that is looked into.
const DEEPEST: usize = 16;

impl Stored {
    /// Bytes of its files.
    pub fn bytes(&self) -> u64 {
        self.files.values().sum()
    }
}

/// All models in the cache, by name.
pub fn stored(cache: &Cache) -> Vec<Stored> {
    let mut all: Vec<Stored> = aliases::ALIASES.iter().flat_map(|alias| of_alias(cache, alias)).collect();
    for (owner, path) in folders(&cache.dir().join("hf")) {
        for (name, root) in folders(&path) {
            all.extend(of_repository(&root, &format!("{owner}/{name}")));
        }
    }
    all.sort_by(|a, b| (&a.name, !a.whole).cmp(&(&b.name, !b.whole)));
    all
}

/// The models in the cache that `wanted` names: by name, by `hf:owner/name` all of that repository, or by path.
pub fn named(cache: &Cache, wanted: &str) -> Vec<Stored> {
    let wanted = super::own_name(wanted);
    let mut all = stored(cache);
    let whole_repository = wanted.strip_prefix("hf:").filter(|rest| !rest.contains([':', '@']));
    // A kind of quantisation, or another revision: the note of that name says which file it is.
    let by_note = wanted.strip_prefix("hf:").and_then(|rest| hub::already(cache, &HubName::parse(rest).ok()?));
    let path = by_note.or_else(|| fs::canonicalize(&*wanted).ok());
    all.retain(|model| {
        let same_path = || path.is_some() && fs::canonicalize(&model.path).ok() == path;
        model.name == wanted || (model.repo.is_some() && model.repo.as_deref() == whole_repository) || same_path()
    });
    all
}

/// Removes the models, and gives the bytes that this freed for each. Files that other models in the cache have as well stay.
///
/// # Errors
/// Files that cannot be removed, and models that another process is fetching.
pub fn remove(cache: &Cache, models: &[Stored]) -> Result<Vec<u64>, FetchError> {
    let mut freed = Vec::new();
    for model in models {
        let _lock = cache.try_lock(&model.lock)?.ok_or_else(|| FetchError::Busy { name: model.name.clone() })?;
        let others: Vec<Stored> = stored(cache)
            .into_iter()
            .filter(|other| other.repo == model.repo && (&other.path, other.whole) != (&model.path, model.whole))
            .collect();
        // Without its notes the model is no longer there for others, whatever happens next.
        for note in &model.notes {
            fs::remove_file(note).map_err(failed(note))?;
        }
        let mut bytes = 0;
        for (file, size) in &model.files {
            if others.iter().any(|other| other.files.contains_key(file)) {
                continue;
            }
            fs::remove_file(file).map_err(failed(file))?;
            bytes += size;
            remove_empty(file.parent(), cache.dir());
        }
        if let Some(repo) = &model.repo {
            forget_commits(&cache.dir().join("hf").join(repo));
            remove_empty(Some(&cache.dir().join("hf").join(repo).join("refs")), cache.dir());
        }
        freed.push(bytes);
    }
    Ok(freed)
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> FetchError {
    move |e| FetchError::io("remove", path, e)
}

/// The licence that was stated when the model at `path` was fetched.
pub fn licence(cache: &Cache, path: &Path) -> Option<Licence> {
    let path = fs::canonicalize(path).ok()?;
    let same = |model: &Stored| fs::canonicalize(&model.path).is_ok_and(|other| other == path);
    stored(cache).into_iter().find(same)?.licence
}

fn of_alias(cache: &Cache, alias: &'static Alias) -> Vec<Stored> {
    let (path, partial) = (cache.dir().join(alias.file), cache.partial().join(alias.name));
    let one = |path: &Path, whole, files: BTreeMap<PathBuf, u64>, note: Option<PathBuf>| Stored {
        name: alias.name.to_owned(),
        path: path.to_owned(),
        whole,
        licence: Some(alias.licence()),
        last_used: note.as_deref().and_then(modified),
        files,
        notes: note.into_iter().collect(),
        repo: None,
        lock: alias.name.to_owned(),
    };
    let mut all = Vec::new();
    if let Ok(meta) = fs::symlink_metadata(&path) {
        let note = Some(cache::stamp_path(&path)).filter(|note| note.is_file());
        all.push(one(&path, true, [(path.clone(), meta.len())].into(), note));
    }
    let left = files(&partial, DEEPEST);
    if !left.is_empty() {
        all.push(one(&partial, false, left, None));
    }
    all
}

fn of_repository(root: &Path, repo: &str) -> Vec<Stored> {
    let refs: Vec<(String, String)> = files(&root.join("refs"), 1)
        .into_keys()
        .filter_map(|path| {
            let commit = fs::read_to_string(&path).ok()?.trim().to_owned();
            Some((path.file_name()?.to_str()?.replace("--", "/"), commit))
        })
        .collect();
    let mut all = Vec::new();
    for (commit, folder) in folders(root).into_iter().filter(|(name, _)| name != "refs") {
        let revision = |name: &&(String, String)| name.1 == commit;
        let at = match refs.iter().filter(revision).min_by_key(|(name, _)| name != "main") {
            Some((name, _)) if name == "main" => String::new(),
            Some((name, _)) => format!("@{name}"),
            None => format!("@{commit}"),
        };
        let mut left = files(&folder, DEEPEST);
        let mut models: BTreeMap<PathBuf, Stored> = BTreeMap::new();
        for note in hub::notes(&folder) {
            left.remove(&note.at);
            let present = note.files.iter().filter_map(|file| {
                let file = folder.join(file);
                Some((file.clone(), fs::symlink_metadata(&file).ok()?.len()))
            });
            let name =
                if note.path.is_empty() { format!("hf:{repo}{at}") } else { format!("hf:{repo}{at}:{}", note.path) };
            let path = if note.path.is_empty() { folder.clone() } else { folder.join(&note.path) };
            let model = models.entry(path.clone()).or_insert_with(|| Stored {
                name,
                path,
                whole: true,
                licence: Some(hub::licence_of_card(&note.card, repo)).filter(|licence| licence.name.is_some()),
                last_used: None,
                files: BTreeMap::new(),
                notes: Vec::new(),
                repo: Some(repo.to_owned()),
                lock: hub::lock_name(repo),
            });
            model.files.extend(present);
            model.last_used = model.last_used.max(modified(&note.at));
            model.notes.push(note.at);
        }
        left.retain(|file, _| !models.values().any(|model| model.files.contains_key(file)));
        if !left.is_empty() || models.is_empty() {
            all.push(Stored {
                name: format!("hf:{repo}{}", if at == format!("@{commit}") { "" } else { &at }),
                path: folder,
                whole: false,
                licence: None,
                last_used: None,
                files: left,
                notes: Vec::new(),
                repo: Some(repo.to_owned()),
                lock: hub::lock_name(repo),
            });
        }
        all.extend(models.into_values());
    }
    all
}

fn modified(path: &Path) -> Option<SystemTime> {
    fs::metadata(path).ok()?.modified().ok()
}

/// The folders in `dir`, with their names. A symbolic link is none: what it points at is not the cache's.
fn folders(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
        .collect()
}

/// All files below `dir`, with their sizes. A symbolic link counts as itself.
fn files(dir: &Path, depth: usize) -> BTreeMap<PathBuf, u64> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.is_dir() && depth > 1 => all.extend(files(&path, depth - 1)),
            Ok(meta) if !meta.is_dir() => drop(all.insert(path, meta.len())),
            _ => {}
        }
    }
    all
}

/// Removes `dir` and the folders around it where nothing is in them, up to `top`, which stays.
fn remove_empty(mut dir: Option<&Path>, top: &Path) {
    while let Some(folder) = dir.filter(|folder| folder.starts_with(top) && *folder != top) {
        if fs::remove_dir(folder).is_err() {
            return;
        }
        dir = folder.parent();
    }
}

/// Removes the names of commits that are no longer there.
fn forget_commits(root: &Path) {
    for name in files(&root.join("refs"), 1).into_keys() {
        let gone = fs::read_to_string(&name).is_ok_and(|commit| !root.join(commit.trim()).is_dir());
        if gone {
            // What cannot be removed costs a few bytes.
            let _ = fs::remove_file(&name);
        }
    }
}
