//! Files that `--out` and similar options name. A file appears whole or not at all; a pipe or a device is written
//! directly; a link stays, and its target is written.

use crate::system;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The file that stands for standard output.
const STDOUT: &str = "-";

/// Files that are not complete.
static UNFINISHED: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// An open output. A file gets its name only in [`OutFile::finish`].
pub struct OutFile {
    out: Out,
    /// Place of a file's bytes until it is complete.
    scratch: Option<Scratch>,
}

enum Out {
    Stdout(io::Stdout),
    File(BufWriter<File>),
}

struct Scratch {
    path: PathBuf,
    /// The file to replace.
    target: PathBuf,
}

impl OutFile {
    /// Opens `path` for writing; `-` is standard output.
    ///
    /// # Errors
    /// The system's error where the path cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if path == Path::new(STDOUT) || is_stdout(path) {
            return Ok(Self { out: Out::Stdout(io::stdout()), scratch: None });
        }
        #[cfg(windows)]
        if let Some(device) = system::open_device(path) {
            return Ok(Self { out: Out::File(BufWriter::new(device)), scratch: None });
        }
        let meta = match fs::metadata(path) {
            Ok(meta) => Some(meta),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        let straight =
            |options: &fs::OpenOptions| Ok(Self { out: Out::File(BufWriter::new(options.open(path)?)), scratch: None });
        if meta.as_ref().is_some_and(|meta| !meta.is_file()) {
            return straight(File::options().write(true));
        }
        // An open file of this process (/dev/stderr): appended to what others have written.
        let Some(target) = follow(path)? else { return straight(File::options().append(true)) };
        if meta.is_some() {
            // A file without write permission may not be replaced either.
            File::options().write(true).open(&target)?;
        }
        let (file, path) = create_beside(&target)?;
        if let Some(meta) = meta {
            // Some file systems have no permissions.
            let _ = fs::set_permissions(&path, meta.permissions());
        }
        unfinished().push(path.clone());
        system::remove_if_cut(Some(&path));
        Ok(Self { out: Out::File(BufWriter::new(file)), scratch: Some(Scratch { path, target }) })
    }

    /// Whether the bytes go to standard output, so that no other text may.
    pub fn is_stdout(&self) -> bool {
        matches!(self.out, Out::Stdout(_))
    }

    /// Writes buffered bytes, and gives a file its name.
    ///
    /// # Errors
    /// The system's error; no part of a file is left then.
    pub fn finish(mut self) -> io::Result<()> {
        self.flush()?;
        let Some(Scratch { path, target }) = &self.scratch else { return Ok(()) };
        // Other names of the same file must show the new bytes, too, and a file that is a mount cannot be replaced.
        if has_other_names(target) || fs::rename(path, target).is_err() {
            fs::copy(path, target)?;
        }
        Ok(())
    }
}

impl Write for OutFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.out {
            Out::Stdout(out) => out.write(bytes),
            Out::File(file) => file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match &mut self.out {
            Out::Stdout(out) => out.flush(),
            Out::File(file) => file.flush(),
        }
    }
}

impl Drop for OutFile {
    fn drop(&mut self) {
        if let Some(Scratch { path, .. }) = &self.scratch {
            // The file has its name already, or was given up.
            let _ = fs::remove_file(path);
            unfinished().retain(|other| other != path);
            system::remove_if_cut(None);
        }
    }
}

/// Removes incomplete files, for a process that ends without dropping them.
pub fn remove_unfinished() {
    for path in unfinished().drain(..) {
        let _ = fs::remove_file(path);
    }
}

fn unfinished() -> MutexGuard<'static, Vec<PathBuf>> {
    UNFINISHED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path at the end of all links, whether or not it exists; none where a link stands for an open file of a process.
fn follow(path: &Path) -> io::Result<Option<PathBuf>> {
    // As many as Linux follows.
    const MOST: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..MOST {
        let folder = path.parent().unwrap_or(Path::new(""));
        if folder.canonicalize().is_ok_and(|folder| folder.starts_with("/proc") && folder.ends_with("fd")) {
            return Ok(None);
        }
        match fs::read_link(&path) {
            Ok(to) => path = folder.join(to),
            // Not a link.
            Err(_) => return Ok(Some(path)),
        }
    }
    Err(io::Error::other("too many links"))
}

/// A new file in the folder of `target`, with an unused name.
fn create_beside(target: &Path) -> io::Result<(File, PathBuf)> {
    let mut n = 0;
    loop {
        // A process of another machine may have the same number and write to the same folder.
        let path = target.with_file_name(format!(".handmill-{}-{n}.part", process::id()));
        match File::options().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => n += 1,
            done => return Ok((done?, path)),
        }
    }
}

/// Whether `path` and standard output are the same file.
#[cfg(unix)]
fn is_stdout(path: &Path) -> bool {
    use std::os::{fd::AsFd, unix::fs::MetadataExt};
    let stdout = io::stdout().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    let (Ok(stdout), Ok(there)) = (stdout, fs::metadata(path)) else { return false };
    (stdout.dev(), stdout.ino()) == (there.dev(), there.ino())
}

#[cfg(not(unix))]
fn is_stdout(_: &Path) -> bool {
    false
}

/// Whether there are other hard links to the file.
#[cfg(unix)]
fn has_other_names(path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(path).is_ok_and(|meta| meta.nlink() > 1)
}

#[cfg(not(unix))]
fn has_other_names(_: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<String> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn files_appear_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = OutFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert!(names(folder.path()).is_empty());
        // Two at once.
        let (mut one, mut two) = (OutFile::create(&path).unwrap(), OutFile::create(&path).unwrap());
        one.write_all(b"one").unwrap();
        two.write_all(b"two").unwrap();
        one.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one");
        two.finish().unwrap();
        assert_eq!((fs::read(&path).unwrap(), names(folder.path())), (b"two".to_vec(), vec!["x".to_owned()]));
        // An unfinished output leaves the old file.
        drop(OutFile::create(&path).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert!(OutFile::create(folder.path()).is_err());
        assert!(OutFile::create(&folder.path().join("no/x")).is_err());
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_and_what_they_point_at_is_written() {
        use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("far")).unwrap();
        symlink("far/away", at("link")).unwrap();
        symlink("link", at("link2")).unwrap();
        let write = |name: &str, text: &str| {
            let mut file = OutFile::create(&at(name)).unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file.finish().unwrap();
        };
        // Nothing is there yet; then a file is.
        for text in ["new", "newer"] {
            write("link2", text);
            assert!(at("link").is_symlink() && at("link2").is_symlink());
            assert_eq!(fs::read_to_string(at("far/away")).unwrap(), text);
        }
        fs::hard_link(at("far/away"), at("hard")).unwrap();
        write("hard", "both");
        assert_eq!(fs::read_to_string(at("far/away")).unwrap(), "both");
        assert_eq!(fs::metadata(at("hard")).unwrap().nlink(), 2);
        write("mode", "a");
        fs::set_permissions(at("mode"), fs::Permissions::from_mode(0o640)).unwrap();
        write("mode", "b");
        assert_eq!(fs::metadata(at("mode")).unwrap().mode() & 0o777, 0o640);
        symlink("round", at("round")).unwrap();
        assert!(OutFile::create(&at("round")).is_err());
        assert_eq!(names(folder.path()), ["far", "hard", "link", "link2", "mode", "round"]);
    }
}
