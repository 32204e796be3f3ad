//! An HTTP server on 127.0.0.1 that behaves like the hub or the package index, and misbehaves when told to.

use super::Handmill;
use sha1::Digest as _;
use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::PathBuf,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

/// The commit that the repository is at.
pub const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A cache folder and a hub that has the files of one repository.
pub struct Setup {
    pub cache: tempfile::TempDir,
    pub server: Server,
}

impl Setup {
    pub fn new(files: Vec<RepoFile>) -> Self {
        Self { cache: tempfile::tempdir().unwrap(), server: Server::start(Repo::hub("own/name", files)) }
    }

    pub fn handmill(&self) -> Handmill {
        Handmill::new()
            .env("HANDMILL_CACHE", self.cache.path().to_str().unwrap())
            .env("HF_ENDPOINT", &self.server.url())
            .env("HANDMILL_PYPI", &format!("{}/simple", self.server.url()))
    }

    /// The folder of the repository's commit.
    pub fn commit(&self) -> PathBuf {
        self.cache.path().join("hf/own/name").join(COMMIT)
    }
}

/// What goes wrong with one request for a file.
#[derive(Clone, Debug)]
pub enum Fault {
    /// The connection breaks after so many bytes of the body.
    CutAfter(usize),
    /// Nothing more comes after so many bytes of the body.
    HangAfter(usize),
    /// An error status.
    Status(u16),
    /// One byte of the file arrives changed.
    FlipByte(usize),
    /// All of the file is sent whatever range was asked for.
    IgnoreRange,
    /// The file lies elsewhere.
    Redirect(String),
    /// The body takes so long.
    SlowlyFor(Duration),
}

/// A file of the repository.
#[derive(Clone)]
pub struct RepoFile {
    pub name: String,
    pub bytes: Vec<u8>,
    pub lfs: bool,
    /// Used up one a request.
    pub faults: Vec<Fault>,
}

impl RepoFile {
    pub fn lfs(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes, lfs: true, faults: Vec::new() }
    }

    pub fn small(name: &str, bytes: Vec<u8>) -> Self {
        Self { name: name.into(), bytes, lfs: false, faults: Vec::new() }
    }
}

/// Everything that is served: paths and files.
pub struct Repo {
    files: Vec<(String, RepoFile)>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

impl Repo {
    /// A hub with one repository.
    pub fn hub(repo: &str, files: Vec<RepoFile>) -> Self {
        let siblings: Vec<serde_json::Value> = files
            .iter()
            .map(|file| {
                let blob = sha1::Sha1::new_with_prefix(format!("blob {}\0", file.bytes.len()));
                let mut entry = serde_json::json!({
                    "rfilename": file.name,
                    "size": file.bytes.len(),
                    "blobId": hex(&blob.chain_update(&file.bytes).finalize()),
                });
                if file.lfs {
                    let sha256 = hex(&sha2::Sha256::digest(&file.bytes));
                    entry["lfs"] = serde_json::json!({ "sha256": sha256, "size": file.bytes.len() });
                }
                entry
            })
            .collect();
        let info = serde_json::json!({ "sha": COMMIT, "siblings": siblings, "cardData": { "license": "apache-2.0" } });
        let page = RepoFile::small("info", info.to_string().into_bytes());
        let mut all = vec![(format!("/api/models/{repo}/revision/main?blobs=true"), page)];
        all.extend(files.into_iter().map(|file| (format!("/{repo}/resolve/{COMMIT}/{}", file.name), file)));
        Self { files: all }
    }
}

/// A running server; its thread ends with the test process.
pub struct Server {
    port: u16,
    repo: Arc<Mutex<Repo>>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Server {
    pub fn start(repo: Repo) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (repo, log) = (Arc::new(Mutex::new(repo)), Arc::new(Mutex::new(Vec::new())));
        let (shared_repo, shared_log) = (repo.clone(), log.clone());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (repo, log) = (shared_repo.clone(), shared_log.clone());
                // Errors are connections that the client, or a fault, has ended.
                thread::spawn(move || drop(serve(&stream, &repo, &log)));
            }
        });
        Self { port, repo, log }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The same server under another host name.
    pub fn other_host(&self) -> String {
        format!("http://localhost:{}", self.port)
    }

    /// Head of each request so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn requests(&self) -> usize {
        self.log.lock().unwrap().len()
    }

    /// The ranges that were asked for, in order.
    pub fn ranges(&self) -> Vec<String> {
        let line = |head: &String| {
            head.lines().find_map(|line| line.to_lowercase().strip_prefix("range: ").map(str::to_owned))
        };
        self.log().iter().filter_map(line).collect()
    }

    /// Adds a Python package with one wheel of stored members.
    pub fn add_package(&self, name: &str, wheel: &str, members: &[(&str, &[u8])]) {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (member, bytes) in members {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            zip.start_file(*member, options).unwrap();
            zip.write_all(bytes).unwrap();
        }
        self.add_wheel(name, wheel, zip.finish().unwrap().into_inner());
    }

    /// Adds a Python package with that wheel.
    pub fn add_wheel(&self, name: &str, wheel: &str, bytes: Vec<u8>) {
        let page = serde_json::json!({ "files": [{
            "filename": wheel,
            "url": format!("/files/{wheel}"),
            "hashes": { "sha256": hex(&sha2::Sha256::digest(&bytes)) },
            "size": bytes.len(),
        }] });
        let mut repo = self.repo.lock().unwrap();
        repo.files.push((format!("/simple/{name}/"), RepoFile::small("page", page.to_string().into_bytes())));
        repo.files.push((format!("/files/{wheel}"), RepoFile::lfs(wheel, bytes)));
    }
}

fn serve(stream: &TcpStream, repo: &Mutex<Repo>, log: &Mutex<Vec<String>>) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        log.lock().unwrap().push(head.clone());
        let path = head.split(' ').nth(1).unwrap_or("");
        let (file, fault) = {
            let mut repo = repo.lock().unwrap();
            let Some((_, file)) = repo.files.iter_mut().find(|(at, _)| at == path) else {
                respond(stream, 404, &[], b"nothing here")?;
                continue;
            };
            let fault = if file.faults.is_empty() { None } else { Some(file.faults.remove(0)) };
            (file.clone(), fault)
        };
        let range = head.lines().find_map(|line| {
            line.to_lowercase().strip_prefix("range: bytes=")?.trim_end_matches('-').parse::<usize>().ok()
        });
        answer(stream, file.bytes, fault, range)?;
    }
}

fn respond(mut stream: &TcpStream, status: u16, headers: &[String], body: &[u8]) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    headers.iter().for_each(|header| head += &format!("{header}\r\n"));
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)
}

fn answer(
    mut stream: &TcpStream,
    mut bytes: Vec<u8>,
    fault: Option<Fault>,
    range: Option<usize>,
) -> std::io::Result<()> {
    let total = bytes.len();
    match &fault {
        Some(Fault::Status(status)) => return respond(stream, *status, &[], b""),
        Some(Fault::Redirect(to)) => return respond(stream, 302, &[format!("location: {to}")], b""),
        Some(Fault::FlipByte(at)) => bytes[*at] ^= 1,
        _ => {}
    }
    let first = range.filter(|_| !matches!(fault, Some(Fault::IgnoreRange))).unwrap_or(0);
    let body = &bytes[first.min(total)..];
    let status = if first > 0 { 206 } else { 200 };
    let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
    if first > 0 {
        head += &format!("content-range: bytes {first}-{}/{total}\r\n", total - 1);
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    match fault {
        Some(Fault::CutAfter(n)) => {
            stream.write_all(&body[..n])?;
            stream.shutdown(std::net::Shutdown::Both)
        }
        Some(Fault::HangAfter(n)) => {
            stream.write_all(&body[..n])?;
            thread::sleep(Duration::from_secs(30));
            stream.shutdown(std::net::Shutdown::Both)
        }
        Some(Fault::SlowlyFor(time)) => {
            let (one, two) = body.split_at(body.len() / 2);
            stream.write_all(one)?;
            thread::sleep(time);
            stream.write_all(two)
        }
        _ => stream.write_all(body),
    }
}
