//! One file over HTTP: resumed where it stopped, checked against its digest, and named only then.
//!
//! During the download `NAME.part` has the bytes, and `NAME.part.json` has their URL, size and `ETag`.

use super::{
    FetchError, cache,
    http::{self, Http, Request},
    progress::Progress,
};
use crate::{
    interrupt::{self, LastWords},
    terminal::human_bytes,
};
use handmill_runtime::format::{HUGE_PAGE, Mapping};
use sha2::Digest as _;
use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// The expected digest of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Digest {
    /// sha256, in hexadecimal.
    Sha256(String),
    /// git's name of a blob: sha1 over `blob SIZE\0` and the bytes, in hexadecimal.
    GitBlob(String),
}

/// A file to fetch.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Where from.
    pub url: String,
    /// Its name for messages.
    pub what: String,
    /// Token for the host of `url`.
    pub bearer: Option<String>,
    /// Bytes, where known before.
    pub size: Option<u64>,
    /// Its digest, where known.
    pub digest: Option<Digest>,
}

/// Failures of the connection in a row without a byte between them; after so many a download is given up.
const MAX_STALLS: u32 = 4;

/// Fetches `wanted` to `dest`. `progress` counts on from where it is by the size of the file.
pub fn download(http: &Http, wanted: &Wanted, dest: &Path, progress: &mut Progress) -> Result<(), FetchError> {
    let base = progress.done();
    let mut part = Part::open(wanted, dest)?;
    let resumed = part.len > 0;
    part.fill(http, wanted, progress, base)?;
    match part.check(wanted) {
        // The bytes of an earlier run may be the damaged part: one try with fresh bytes.
        Err(FetchError::Corrupt { .. }) if resumed => {
            part = Part::open(wanted, dest)?;
            part.fill(http, wanted, progress, base)?;
            part.check(wanted)?;
        }
        other => other?,
    }
    part.finish(dest)
}

/// A partial file, and the facts about it.
struct Part {
    path: PathBuf,
    notes: PathBuf,
    file: File,
    /// Bytes there.
    len: u64,
    /// Bytes that the whole has, once known.
    total: Option<u64>,
    etag: Option<String>,
}

impl Part {
    /// Opens the partial file of an earlier run, or begins anew.
    fn open(wanted: &Wanted, dest: &Path) -> Result<Self, FetchError> {
        let with = |suffix: &str| {
            let mut name = dest.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (path, notes) = (with(".part"), with(".part.json"));
        let kept: serde_json::Value =
            fs::read(&notes).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
        let etag = kept["etag"].as_str().map(str::to_owned);
        // The same digest means the same bytes from any source; without a digest the URL and an ETag must agree.
        let same = match &wanted.digest {
            Some(digest) => kept["digest"].as_str() == Some(digest.text()),
            None => kept["url"].as_str() == Some(&wanted.url) && etag.is_some(),
        };
        let file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| FetchError::io("write", &path, e))?;
        let len = file.metadata().map_err(|e| FetchError::io("read", &path, e))?.len();
        let mut part = Self { path, notes, file, len, total: wanted.size, etag };
        if !same || part.total.is_some_and(|total| len > total) {
            part.restart()?;
        }
        Ok(part)
    }

    /// Throws the bytes away.
    fn restart(&mut self) -> Result<(), FetchError> {
        self.file.set_len(0).map_err(|e| FetchError::io("write", &self.path, e))?;
        self.len = 0;
        self.etag = None;
        Ok(())
    }

    /// Fetches until all bytes are there.
    fn fill(&mut self, http: &Http, wanted: &Wanted, progress: &mut Progress, base: u64) -> Result<(), FetchError> {
        let mut stalls = 0;
        loop {
            progress.set(base + self.len);
            if self.total == Some(self.len) {
                return Ok(());
            }
            let before = self.len;
            match self.pass(http, wanted, progress, base) {
                Ok(true) => return Ok(()),
                Ok(false) => {}
                Err(FetchError::Interrupted { .. }) => {
                    let kept = "; what has arrived is kept, and the same command goes on from there".to_owned();
                    return Err(FetchError::Interrupted { kept });
                }
                Err(error) => return Err(error),
            }
            // The connection ended early: go on from here, but not for ever where nothing comes any more.
            stalls = if self.len > before { 1 } else { stalls + 1 };
            if stalls > MAX_STALLS {
                return Err(FetchError::Network {
                    what: wanted.what.clone(),
                    host: http::host(&wanted.url),
                    reason: format!("the connection broke again and again after {}", human_bytes(self.len)),
                });
            }
            http::pause(Duration::from_millis(200 << stalls))?;
        }
    }

    /// One request and its body. `true`: the file is whole; `false`: the connection ended early.
    fn pass(&mut self, http: &Http, wanted: &Wanted, progress: &mut Progress, base: u64) -> Result<bool, FetchError> {
        let etag = self.etag.clone();
        let request = Request {
            url: &wanted.url,
            what: &wanted.what,
            accept: "*/*",
            bearer: wanted.bearer.as_deref(),
            from: (self.len > 0).then_some((self.len, etag.as_deref())),
        };
        let mut answer = http.get(&request)?;
        let header = |name: &str| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
        let length: Option<u64> = header("content-length").and_then(|v| v.parse().ok());
        let now = header("etag").filter(|tag| !tag.starts_with("W/"));
        match answer.status().as_u16() {
            206 => {
                // `bytes FIRST-LAST/TOTAL`
                let range = header("content-range").unwrap_or_default();
                let first = range.trim_start_matches("bytes ").split('-').next().and_then(|v| v.parse().ok());
                if first != Some(self.len) {
                    self.restart()?;
                    return Ok(false);
                }
                self.total = self.total.or_else(|| range.rsplit('/').next().and_then(|v| v.parse().ok()));
            }
            // A server that knows no ranges, or whose file has changed, sends all of it.
            200 => {
                self.restart()?;
                self.total = wanted.size.or(length);
            }
            416 => {
                self.restart()?;
                return Ok(false);
            }
            status => return Err(http::status_error(&request, status)),
        }
        self.etag = now;
        self.write_notes(wanted)?;
        self.file.seek(SeekFrom::Start(self.len)).map_err(|e| FetchError::io("write", &self.path, e))?;
        let mut body = answer.body_mut().as_reader();
        let unit = Arc::new(Mutex::new(Vec::new()));
        let _last = self.keep_at_the_end(&unit);
        let mut buffer = vec![0; 256 << 10];
        loop {
            // Up to the next whole unit, also of a file that goes on in the middle of one.
            let room = WRITE_BYTES - ((self.len + held(&unit).len() as u64) % WRITE_BYTES as u64) as usize;
            let most = room.min(buffer.len());
            let asked = interrupt::asked();
            let read = if asked { Ok(0) } else { body.read(&mut buffer[..most]) };
            let n = *read.as_ref().unwrap_or(&0);
            held(&unit).extend_from_slice(&buffer[..n]);
            progress.set(base + self.len + held(&unit).len() as u64);
            if n == 0 || n == room {
                self.append(&mut held(&unit))?;
            }
            if self.total.is_some_and(|total| self.len > total) {
                let reason = format!("more than the expected {} bytes came", self.total.unwrap_or(0));
                return Err(self.discard(wanted, reason));
            }
            match read {
                _ if asked => return Err(FetchError::Interrupted { kept: String::new() }),
                // Without any known length, the end of the body is the end of the file.
                Ok(0) => return Ok(self.total.is_none_or(|total| total == self.len)),
                Ok(_) => {}
                Err(_) => return Ok(false),
            }
        }
    }

    /// Writes `unit`, too, where Ctrl-C ends the process while the server is silent.
    fn keep_at_the_end(&self, unit: &Arc<Mutex<Vec<u8>>>) -> Option<LastWords> {
        // Both names of the file share its position.
        let (mut file, unit) = (self.file.try_clone().ok()?, unit.clone());
        Some(LastWords::new(move || {
            let mut unit = held(&unit);
            // Nobody is left to be told of an error.
            let _ = file.write_all(&unit);
            unit.clear();
        }))
    }

    /// Writes `unit` at the end and empties it, counting what a full disk still took.
    fn append(&mut self, unit: &mut Vec<u8>) -> Result<(), FetchError> {
        while !unit.is_empty() {
            match self.file.write(unit) {
                Ok(n) => {
                    self.len += n as u64;
                    unit.drain(..n);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(self.write_error(error)),
            }
        }
        Ok(())
    }

    fn write_error(&self, error: io::Error) -> FetchError {
        match FetchError::io("write", &self.path, error) {
            FetchError::DiskFull { path, .. } => {
                let need = match self.total {
                    Some(total) => format!("{} more", human_bytes(total.saturating_sub(self.len))),
                    None => "some space".to_owned(),
                };
                FetchError::DiskFull { path, need }
            }
            other => other,
        }
    }

    fn write_notes(&self, wanted: &Wanted) -> Result<(), FetchError> {
        let notes = serde_json::json!({
            "url": wanted.url,
            "size": self.total,
            "etag": self.etag,
            "digest": wanted.digest.as_ref().map(Digest::text),
        });
        fs::write(&self.notes, notes.to_string()).map_err(|e| FetchError::io("write", &self.notes, e))
    }

    /// Checks size and digest; a file that is wrong is deleted.
    fn check(&mut self, wanted: &Wanted) -> Result<(), FetchError> {
        if let Some(total) = self.total.filter(|&total| total != self.len) {
            return Err(self.discard(wanted, format!("{} bytes of {total} came", self.len)));
        }
        let Some(digest) = &wanted.digest else { return Ok(()) };
        let read = |e| FetchError::io("read", &self.path, e);
        self.file.rewind().map_err(read)?;
        let found = digest.of(&mut self.file, self.len).map_err(read)?;
        if found != digest.text() {
            let reason = format!("its digest is {found} instead of {}", digest.text());
            return Err(self.discard(wanted, reason));
        }
        Ok(())
    }

    fn discard(&self, wanted: &Wanted, reason: String) -> FetchError {
        let _ = fs::remove_file(&self.path);
        let _ = fs::remove_file(&self.notes);
        FetchError::Corrupt { what: wanted.what.clone(), reason }
    }

    /// Makes the bytes last and gives the file its name.
    fn finish(self, dest: &Path) -> Result<(), FetchError> {
        publish(&self.file, &self.path, dest)?;
        let _ = fs::remove_file(&self.notes);
        Ok(())
    }
}

/// Bytes of a write. Linux caches a file in units of its writes, and maps units of this size as huge pages: reading the
/// weights then needs far fewer address translations.
pub const WRITE_BYTES: usize = HUGE_PAGE;

/// Bytes that came and are not written yet.
fn held(unit: &Mutex<Vec<u8>>) -> MutexGuard<'_, Vec<u8>> {
    unit.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Flushes `file`, which is at `from`, to the disk and renames it to `to`, so that `to` is never half a file.
pub fn publish(file: &File, from: &Path, to: &Path) -> Result<(), FetchError> {
    file.sync_all().map_err(|e| FetchError::io("write", from, e))?;
    if let Some(folder) = to.parent() {
        cache::create_dir(folder)?;
    }
    fs::rename(from, to).map_err(|e| FetchError::io("write", to, e))?;
    // Only a hint, so errors do not matter.
    if let Ok(map) = Mapping::open(to) {
        map.drop_small_pages();
    }
    Ok(())
}

impl Digest {
    /// The hexadecimal text.
    pub fn text(&self) -> &str {
        match self {
            Self::Sha256(text) | Self::GitBlob(text) => text,
        }
    }

    /// The same digest of `len` bytes of `reader`.
    fn of(&self, reader: &mut impl Read, len: u64) -> io::Result<String> {
        match self {
            Self::Sha256(_) => hash(sha2::Sha256::new(), reader),
            Self::GitBlob(_) => hash(sha1::Sha1::new_with_prefix(format!("blob {len}\0")), reader),
        }
    }
}

fn hash<D: sha2::Digest>(mut state: D, reader: &mut impl Read) -> io::Result<String> {
    let mut buffer = vec![0; 1 << 20];
    loop {
        match reader.read(&mut buffer)? {
            0 => return Ok(hex(&state.finalize())),
            n => state.update(&buffer[..n]),
        }
    }
}

/// Lower-case hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// sha256 of a whole file.
pub fn sha256_of(path: &Path) -> Result<String, FetchError> {
    let error = |e| FetchError::io("read", path, e);
    hash(sha2::Sha256::new(), &mut File::open(path).map_err(error)?).map_err(error)
}
