//! The licence of a model: what its files state, and what is known of that licence.
//!
//! A GGUF file states it in `general.license`, `general.license.name` and `general.license.link`. A folder states it in
//! the front matter of its `README.md` (<https://huggingface.co/docs/hub/model-cards#model-card-metadata>), in
//! `config.json`, or by the first lines of its `LICENSE` file. None of this is legal advice: the text behind the link
//! holds.

mod table;

use handmill_runtime::format::{Checkpoint, HfFolder, Kind, gguf::Value as GgufValue};
use std::{fmt, fs::File, io::Read, path::Path};

/// The licence of a model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Licence {
    /// Its full name where it is a known one, else what the files call it; none where they state nothing.
    pub name: Option<String>,
    /// Where it can be read: as the files state it, else the known address.
    pub link: Option<String>,
    /// One sentence on what a restricted licence restricts; none for free ones and for unknown ones.
    pub restricts: Option<&'static str>,
    /// Whether the licence is a known one. What an unknown one allows only its text says.
    pub known: bool,
}

/// Bytes of a text file that are looked at.
const LOOK: u64 = 64 << 10;

/// Longest name and link that are taken from a file, in characters.
const MOST: usize = 200;

/// The licence that the files of a checkpoint state.
pub fn of(checkpoint: &Checkpoint) -> Licence {
    match checkpoint.kind() {
        Kind::Gguf(gguf) => {
            let text = |key: &str| match gguf.get(key) {
                Some(GgufValue::Str(text)) => Some(text),
                _ => None,
            };
            let names = [text("general.license.name"), text("general.license")];
            Licence::of_names(&names, text("general.license.link"))
        }
        Kind::HuggingFace(folder) => of_folder(folder),
    }
}

fn of_folder(folder: &HfFolder) -> Licence {
    let card = beginning(&folder.dir().join("README.md")).unwrap_or_default();
    let names = [front_matter(&card, "license_name"), front_matter(&card, "license")];
    let by_card = Licence::of_names(&names, front_matter(&card, "license_link"));
    if by_card.name.is_some() {
        return by_card;
    }
    let by_config = Licence::of_names(&[folder.config["license"].as_str()], None);
    if by_config.name.is_some() {
        return by_config;
    }
    let files = ["LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE"];
    let found = files.iter().map(|name| folder.dir().join(name)).find(|path| path.is_file());
    let Some((path, text)) = found.and_then(|path| beginning(&path).map(|text| (path, text))) else {
        return Licence::default();
    };
    let lines: Vec<&str> =
        text.lines().map(|line| line.trim_matches([' ', '#', '*', '\t'])).filter(|line| !line.is_empty()).collect();
    let title = lines.iter().take(3).copied().collect::<Vec<_>>().join(" ");
    let link = path.display().to_string();
    match table::of_title(&title) {
        Some(row) => Licence { link: Some(link), ..Licence::of_row(row) },
        None => Licence { name: lines.first().and_then(|line| stated(line)), link: Some(link), ..Licence::default() },
    }
}

impl Licence {
    /// The licence that files, or a hub, call by the first known one of `names`, and that they say lies at `link`.
    pub fn of_names(names: &[Option<&str>], link: Option<&str>) -> Self {
        let is_link = |link: &&str| link.starts_with("https://") || link.starts_with("http://");
        let link = link.filter(is_link).and_then(stated);
        let names = || names.iter().copied().flatten().filter_map(stated);
        if let Some(row) = names().find_map(|name| table::of_name(&name)) {
            let known = Self::of_row(row);
            return Self { link: link.or(known.link), ..known };
        }
        // The hub's word for a licence that it has no word for.
        let name = names().find(|name| !name.eq_ignore_ascii_case("other") && !name.eq_ignore_ascii_case("unknown"));
        Self { name, link, ..Self::default() }
    }

    fn of_row(row: &'static table::Row) -> Self {
        let link = (!row.link.is_empty()).then(|| row.link.to_owned());
        Self { name: Some(row.name.to_owned()), link, restricts: row.restricts, known: true }
    }
}

/// One line: name, link, and what is restricted or unknown.
impl fmt::Display for Licence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name.as_deref().unwrap_or("not stated"))?;
        if let Some(link) = &self.link {
            write!(f, ", {link}")?;
        }
        match (self.restricts, self.known, &self.name) {
            (Some(restricts), ..) => write!(f, " ({restricts})"),
            (None, true, _) => Ok(()),
            (None, false, Some(_)) => f.write_str(" (not known here; read it before you build on the model)"),
            (None, false, None) => f.write_str("; what the model allows is unknown until its publisher says so"),
        }
    }
}

/// A name or link as a file states it, shortened; none where it is empty.
fn stated(text: &str) -> Option<String> {
    let text = text.trim();
    (!text.is_empty()).then(|| text.chars().take(MOST).collect())
}

/// The first bytes of a text file.
fn beginning(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LOOK).read_to_end(&mut bytes).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The text of a key at the top level of a model card's front matter; of a list its first entry.
fn front_matter<'a>(card: &'a str, key: &str) -> Option<&'a str> {
    let mut lines = card.trim_start_matches('\u{feff}').lines();
    if lines.next()?.trim_end() != "---" {
        return None;
    }
    let mut lines = lines.take_while(|line| line.trim_end() != "---");
    let value = lines.by_ref().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?.trim();
    let value = if value.is_empty() { lines.next()?.trim_start().strip_prefix("- ")? } else { value };
    let value = value.trim_matches([' ', '[', ']', '"', '\'']);
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_hub_and_files_are_known() {
        for (names, name, restricted) in [
            (&[Some("apache-2.0")][..], "Apache License 2.0", false),
            (&[None, Some("MIT")], "MIT License", false),
            (&[Some("llama3.2"), Some("other")], "Llama 3.2 Community License", true),
            (&[Some("Llama 3.1 Community License Agreement")], "Llama 3.1 Community License", true),
            (&[None, Some("gemma")], "Gemma Terms of Use", true),
            (&[Some("qwen-research"), Some("other")], "Qwen Research License", true),
            (&[Some("qwen"), Some("other")], "Qwen License", true),
            (&[Some("mrl")], "Mistral AI Research License", true),
            (&[Some("mnpl")], "Mistral AI Non-Production License", true),
            (&[Some("deepseek")], "DeepSeek Model License", true),
            (&[Some("cc-by-nc-4.0")], "Creative Commons Attribution-NonCommercial 4.0", true),
            (&[Some("cc-by-4.0")], "Creative Commons Attribution 4.0", false),
        ] {
            let licence = Licence::of_names(names, None);
            assert_eq!(licence.name.as_deref(), Some(name), "{names:?}");
            assert_eq!((licence.known, licence.restricts.is_some()), (true, restricted), "{names:?}");
            assert!(licence.link.is_some_and(|link| link.starts_with("https://")), "{names:?}");
        }
    }

    #[test]
    fn unknown_licences_are_said_to_be_unknown() {
        let odd = Licence::of_names(&[Some("my-own-1.0"), Some("other")], Some("https://x.example/l"));
        assert_eq!((odd.name.as_deref(), odd.known, odd.restricts), (Some("my-own-1.0"), false, None));
        assert_eq!(
            odd.to_string(),
            "my-own-1.0, https://x.example/l (not known here; read it before you build on the model)"
        );
        for nothing in [&[][..], &[None], &[Some("")], &[Some("other")], &[Some("unknown")]] {
            assert_eq!(Licence::of_names(nothing, None), Licence::default(), "{nothing:?}");
        }
        assert!(Licence::default().to_string().starts_with("not stated;"));
    }

    #[test]
    fn a_stated_link_goes_before_the_known_one() {
        let link = |stated| Licence::of_names(&[Some("gemma")], Some(stated)).link.unwrap();
        assert_eq!(link("https://x.example/gemma"), "https://x.example/gemma");
        // A file of the repository and scripts are no addresses.
        for other in ["LICENSE", "javascript:alert(1)", ""] {
            assert_eq!(link(other), "https://ai.google.dev/gemma/terms");
        }
    }

    #[test]
    fn front_matter_is_read() {
        let card =
            "---\nlanguage:\n- en\nlicense: other\nlicense_name: \"qwen-research\"\ntags: [a]\n---\nlicense: mit\n";
        assert_eq!(front_matter(card, "license"), Some("other"));
        assert_eq!(front_matter(card, "license_name"), Some("qwen-research"));
        assert_eq!(front_matter(card, "license_link"), None);
        assert_eq!(front_matter("---\r\nlicense:\r\n- mit\r\n---\r\n", "license"), Some("mit"));
        for none in ["", "# A model\nlicense: mit\n", "---\nlicense:\n---\n", "---\n  license: mit\n"] {
            assert_eq!(front_matter(none, "license"), None, "{none:?}");
        }
    }

    #[test]
    fn files_of_folders_state_licences() {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"model_type":"llama"}"#;
        let header = r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let weights = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &[0; 8]].concat();
        let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
        write("config.json", config.as_bytes());
        write("model.safetensors", &weights);
        let now = || of(&Checkpoint::open(folder.path()).unwrap());
        assert_eq!(now(), Licence::default());
        write("LICENSE", b"\n   My own terms\n\n you may look\n");
        assert_eq!((now().name.as_deref(), now().known), (Some("My own terms"), false));
        write("LICENSE", b"\n      Apache License\n   Version 2.0, January 2004\n");
        assert_eq!((now().name.as_deref(), now().known), (Some("Apache License 2.0"), true));
        assert!(now().link.unwrap().ends_with("LICENSE"));
        write("LICENSE", b"Modified MIT License\n\nCopyright (c) 2025 Moonshot AI\n\nPermission is\n");
        assert_eq!(now().name.as_deref(), Some("Modified MIT License of Kimi K2"));
        write("LICENSE", b"Modified MIT License\n\nCopyright (c) 2026 Somebody\n\nPermission is\n");
        assert_eq!((now().name.as_deref(), now().known), (Some("Modified MIT License"), true));
        write("LICENSE", b"OpenMDW License Agreement, version 1.1 (OpenMDW-1.1)\n");
        assert_eq!(now().name.as_deref(), Some("OpenMDW License 1.1"));
        write("LICENSE", b"LLAMA 3.2 COMMUNITY LICENSE AGREEMENT\n");
        assert_eq!(now().name.as_deref(), Some("Llama 3.2 Community License"));
        write("config.json", br#"{"model_type":"llama","license":"mit"}"#);
        assert_eq!(now().name.as_deref(), Some("MIT License"));
        write("README.md", b"---\nlicense: gemma\n---\n");
        assert_eq!(now().name.as_deref(), Some("Gemma Terms of Use"));
    }
}
