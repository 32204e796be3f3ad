//! A repository's listing, and the files of it that make a model.

use super::super::download::Digest;
use super::name::plain_path;
use crate::terminal::human_bytes;
use serde_json::Value;

/// A file in a repository's listing.
pub struct Listed {
    /// Its path there.
    pub name: String,
    /// Its bytes, where the listing tells.
    pub size: Option<u64>,
    /// What its content must be, where the listing tells.
    pub digest: Option<Digest>,
}

/// The files of an API answer; names that could leave the folder are left out.
pub fn listing(info: &Value) -> Vec<Listed> {
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
pub fn with_splits<'l>(file: &'l Listed, all: &'l [Listed]) -> Vec<&'l Listed> {
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

/// The GGUF file whose name has that kind of quantisation in it, as a word of its own; of several the shortest name, which
/// has the least said beside it. Projectors of multimodal models are none.
pub fn of_kind<'l>(kind: &str, all: &'l [Listed]) -> Option<&'l Listed> {
    let kind = kind.to_ascii_lowercase();
    let word = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == b'_');
    let has_kind = |name: &str| {
        let found = name.match_indices(&kind).any(|(at, _)| {
            let bytes = name.as_bytes();
            !word(at.checked_sub(1).map(|i| bytes[i])) && !word(bytes.get(at + kind.len()).copied())
        });
        found && name.ends_with(".gguf") && !name.contains("mmproj")
    };
    let files = all.iter().filter(|file| has_kind(&file.name.to_ascii_lowercase()));
    files.min_by_key(|file| (file.name.len(), &file.name))
}

/// The names of those files.
pub fn names(files: &[Listed]) -> String {
    names_of(&files.iter().collect::<Vec<_>>())
}

/// The first few names and how many more there are.
pub fn names_of(files: &[&Listed]) -> String {
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
    fn kinds_of_quantisation_name_files() {
        let all: Vec<Listed> = [
            "x-Q4_K_M.gguf",
            "x-UD-Q4_K_M.gguf",
            "x-Q4_K_S.gguf",
            "mmproj-Q8_0.gguf",
            "x.Q8_0.gguf",
            "Q5_K_M/x-Q5_K_M-00001-of-00002.gguf",
            "Q5_K_M/x-Q5_K_M-00002-of-00002.gguf",
            "Q6_K.txt",
        ]
        .map(|name| Listed { name: name.into(), size: None, digest: None })
        .into();
        for (kind, file) in [
            ("Q4_K_M", Some("x-Q4_K_M.gguf")),
            ("q4_k_s", Some("x-Q4_K_S.gguf")),
            ("Q8_0", Some("x.Q8_0.gguf")),
            ("Q5_K_M", Some("Q5_K_M/x-Q5_K_M-00001-of-00002.gguf")),
            ("Q4_K", None),
            ("K_M", None),
            ("Q6_K", None),
        ] {
            assert_eq!(of_kind(kind, &all).map(|file| &file.name[..]), file, "{kind}");
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
