//! Names of the hub's repositories and files, and which of them may become paths here.

use super::super::FetchError;

/// A name after `hf:`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HubName {
    /// `owner/name`.
    pub repo: String,
    /// Branch, tag or commit; `main` where none is named.
    pub revision: String,
    /// One file of the repository, or the kind of quantisation in a GGUF file's name (`Q4_K_M`); else the whole checkpoint.
    pub file: Option<String>,
}

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
pub fn plain_piece(piece: &str) -> bool {
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

/// Whether all pieces of a path are plain.
pub fn plain_path(path: &str) -> bool {
    path.split('/').all(plain_piece)
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
}
