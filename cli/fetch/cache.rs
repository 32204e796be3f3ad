//! The folder where fetched models live.
//!
//! ```text
//! CACHE/SmolLM2-135M-Instruct-Q4_1.gguf          a model known by its alias
//! CACHE/SmolLM2-135M-Instruct-Q4_1.gguf.checked  that its sha256 was checked, with the size and time of the file then
//! CACHE/hf/OWNER/NAME/COMMIT/…                   files of a hub repository at one commit
//! CACHE/hf/OWNER/NAME/refs/REVISION              the commit that a branch or tag stood for when it was fetched
//! CACHE/partial/…                                downloads under way
//! CACHE/pipelines/…                              compiled GPU kernels, a file an adapter and driver
//! ```
//!
//! A file gets its final name only after its checksum was right, so everything under a final name can be used.

use super::FetchError;
use crate::interrupt;
use std::{
    env,
    fs::{self, File, Metadata, TryLockError},
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The cache folder, and operations on the whole of it.
#[derive(Clone, Debug)]
pub struct Cache {
    dir: PathBuf,
}

impl Cache {
    /// `$HANDMILL_CACHE`, else `handmill` in the platform's cache folder.
    pub fn from_env() -> Result<Self, FetchError> {
        let var = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        if let Some(dir) = var("HANDMILL_CACHE") {
            return Ok(Self { dir });
        }
        let platform = if cfg!(windows) {
            // A service or a remote shell may lack the variable; then Windows is asked for the user's folder.
            var("LOCALAPPDATA")
                .filter(|d| d.is_absolute())
                .or_else(|| env::home_dir().filter(|d| d.is_absolute()).map(|home| home.join("AppData").join("Local")))
        } else if cfg!(target_os = "macos") {
            var("HOME").map(|home| home.join("Library/Caches"))
        } else {
            // The XDG specification says to ignore a relative path there.
            var("XDG_CACHE_HOME").filter(|d| d.is_absolute()).or_else(|| var("HOME").map(|home| home.join(".cache")))
        };
        match platform {
            Some(dir) => Ok(Self { dir: dir.join("handmill") }),
            None => Err(FetchError::Spelling {
                text:
                    "no home folder is known, so there is no place for fetched models; set HANDMILL_CACHE to a folder"
                        .to_owned(),
            }),
        }
    }

    /// The folder itself.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where downloads under way are kept.
    pub fn partial(&self) -> PathBuf {
        self.dir.join("partial")
    }

    /// Takes the right to fetch `name`, waiting for another process that has it. Released when the file is dropped,
    /// also by a crash. `on_wait` is called once where there is something to wait for.
    pub fn lock(&self, name: &str, on_wait: impl FnOnce()) -> Result<File, FetchError> {
        let file = self.lock_file(name)?;
        let mut on_wait = Some(on_wait);
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => {
                    if let Some(tell) = on_wait.take() {
                        tell();
                    }
                    if interrupt::asked() {
                        return Err(FetchError::Interrupted { kept: String::new() });
                    }
                    std::thread::sleep(Duration::from_millis(100));
                }
                // Some network file systems have no locks. Two fetches at once then do the work twice and no harm,
                // because the checksum is checked before a file gets its final name.
                Err(TryLockError::Error(_)) => return Ok(file),
            }
        }
    }

    /// The same without waiting; none where another process fetches `name`.
    pub fn try_lock(&self, name: &str) -> Result<Option<File>, FetchError> {
        let file = self.lock_file(name)?;
        Ok((!matches!(file.try_lock(), Err(TryLockError::WouldBlock))).then_some(file))
    }

    fn lock_file(&self, name: &str) -> Result<File, FetchError> {
        let folder = self.partial();
        create_dir(&folder)?;
        let path = folder.join(format!("{}.lock", name.replace(['/', '\\', ':'], "--")));
        let open = File::options().create(true).truncate(false).write(true).open(&path);
        open.map_err(|e| FetchError::io("open", &path, e))
    }
}

/// Creates a folder of the cache with its parents.
pub fn create_dir(path: &Path) -> Result<(), FetchError> {
    fs::create_dir_all(path).map_err(|e| FetchError::io("create the cache folder", path, e))
}

/// The note that `file` was checked.
pub fn stamp_path(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".checked");
    name.into()
}

fn stamp(meta: &Metadata, sha256: &str) -> String {
    let time = meta.modified().ok().and_then(|t| t.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
    format!("{sha256} {} {}\n", meta.len(), time.as_nanos())
}

/// Whether `file` was once checked against `sha256` and has kept its size and time since: a start costs no second
/// reading of the whole file.
pub fn was_checked(file: &Path, sha256: &str) -> bool {
    let (Ok(meta), Ok(kept)) = (fs::metadata(file), fs::read_to_string(stamp_path(file))) else { return false };
    kept == stamp(&meta, sha256)
}

/// Notes the use of a model, in the time of the note that vouches for it. Where the cache cannot be written, it is not
/// noted.
pub fn note_used(note: &Path) {
    let _ = File::options().write(true).open(note).and_then(|file| file.set_modified(SystemTime::now()));
}

/// Notes that `file` has just been checked. Where the cache cannot be written, the next start checks again.
pub fn note_checked(file: &Path, sha256: &str) {
    if let Ok(meta) = fs::metadata(file) {
        let _ = fs::write(stamp_path(file), stamp(&meta, sha256));
    }
}
