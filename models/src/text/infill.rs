//! Prompts of models that were trained to fill a gap in a text (Bavarian et al. 2022). What they are trained with are control
//! tokens, which published vocabularies have under a few names.

use super::error::Result;
use super::tokenizer::Tokenizer;

/// A gap in a text, most often in a file of source code.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Infill<'a> {
    /// The text before the gap.
    pub prefix: &'a str,
    /// The text behind it.
    pub suffix: &'a str,
    /// How the text in the gap begins.
    pub start: &'a str,
    /// Other files that the model may know, with their names.
    pub files: &'a [(String, String)],
}

impl<'a> Infill<'a> {
    /// A gap between two texts.
    pub fn new(prefix: &'a str, suffix: &'a str) -> Self {
        Self { prefix, suffix, ..Self::default() }
    }
}

/// Control tokens before the prefix, before the suffix, and before the text in the gap.
const MARKS: &[[&str; 3]] = &[
    // Qwen2.5-Coder and its kin
    ["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>"],
    // StarCoder, Granite, SmolLM
    ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"],
    ["<fim-prefix>", "<fim-suffix>", "<fim-middle>"],
    // DeepSeek-Coder: begin, hole, end
    ["<｜fim▁begin｜>", "<｜fim▁hole｜>", "<｜fim▁end｜>"],
    // Code Llama
    ["▁<PRE>", "▁<SUF>", "▁<MID>"],
    ["<PRE>", "<SUF>", "<MID>"],
    // GLM
    ["<|code_prefix|>", "<|code_suffix|>", "<|code_middle|>"],
];

/// Codestral's: the suffix comes first, and the answer goes on behind the prefix.
const SUFFIX_FIRST: [&str; 2] = ["[SUFFIX]", "[PREFIX]"];

/// Control tokens before the name of a repository, and before that of a file.
const FILES: &[[&str; 2]] =
    &[["<|repo_name|>", "<|file_sep|>"], ["<repo_name>", "<file_sep>"], ["<reponame>", "<filename>"]];

/// The name of a repository of files that were given without one.
const REPOSITORY: &str = "repository";

impl Tokenizer {
    /// The prompt that has a model fill a gap; none where the vocabulary has no tokens for it. Names of control tokens in
    /// the texts stay text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn infill(&self, gap: &Infill<'_>) -> Result<Option<Vec<u32>>> {
        let mut out: Vec<u32> = if self.add_bos_default() { self.bos().into_iter().collect() } else { Vec::new() };
        let text = |out: &mut Vec<u32>, text: &str| -> Result<()> {
            out.extend(self.encode(text, false, false)?);
            Ok(())
        };
        if let Some([prefix, suffix, middle]) = MARKS.iter().find_map(|names| self.marks(names)) {
            self.push_files(gap.files, &mut out)?;
            for (mark, part) in [(prefix, gap.prefix), (suffix, gap.suffix), (middle, gap.start)] {
                out.push(mark);
                text(&mut out, part)?;
            }
            return Ok(Some(out));
        }
        let Some([suffix, prefix]) = self.marks(&SUFFIX_FIRST) else { return Ok(None) };
        out.push(suffix);
        text(&mut out, gap.suffix)?;
        out.push(prefix);
        self.push_files(gap.files, &mut out)?;
        text(&mut out, &[gap.prefix, gap.start].concat())?;
        Ok(Some(out))
    }

    /// Other files: behind control tokens where the vocabulary has them, else as text with their names.
    fn push_files(&self, files: &[(String, String)], out: &mut Vec<u32>) -> Result<()> {
        let marks = FILES.iter().find_map(|names| self.marks(names));
        if let (Some([repository, _]), false) = (marks, files.is_empty()) {
            out.push(repository);
            out.extend(self.encode(&format!("{REPOSITORY}\n"), false, false)?);
        }
        for (name, content) in files {
            let end = if marks.is_none() && !content.ends_with('\n') { "\n" } else { "" };
            out.extend(marks.map(|[_, file]| file));
            out.extend(self.encode(&format!("{name}\n{content}{end}"), false, false)?);
        }
        Ok(())
    }

    /// The tokens of these names, where there are all of them and none is plain text.
    fn marks<const N: usize>(&self, names: &[&str; N]) -> Option<[u32; N]> {
        let mut ids = [0; N];
        for (id, name) in ids.iter_mut().zip(names) {
            *id = self.mark(name)?;
        }
        Some(ids)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tokenizer::tests::with_marks;
    use super::*;

    fn text(t: &Tokenizer, gap: &Infill<'_>) -> String {
        t.decode(&t.infill(gap).unwrap().expect("marks"), false)
    }

    #[test]
    fn gaps_are_marked_as_the_vocabulary_has_it() {
        let gap = Infill { start: "s", ..Infill::new("he", "llo") };
        let qwen = with_marks(&["<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|repo_name|>", "<|file_sep|>"]);
        assert_eq!(text(&qwen, &gap), "<|fim_prefix|>he<|fim_suffix|>llo<|fim_middle|>s");
        let files = [("a.rs".to_owned(), "x\n".to_owned()), ("b.rs".to_owned(), "y".to_owned())];
        let gap = Infill { files: &files, ..gap };
        let before = "<|repo_name|>repository\n<|file_sep|>a.rs\nx\n<|file_sep|>b.rs\ny";
        assert_eq!(text(&qwen, &gap), format!("{before}<|fim_prefix|>he<|fim_suffix|>llo<|fim_middle|>s"));
        let llama = with_marks(&["▁<PRE>", "▁<SUF>", "▁<MID>"]);
        assert_eq!(text(&llama, &gap), "a.rs\nx\nb.rs\ny\n▁<PRE>he▁<SUF>llo▁<MID>s");
        let mistral = with_marks(&["[SUFFIX]", "[PREFIX]"]);
        assert_eq!(text(&mistral, &gap), "[SUFFIX]llo[PREFIX]a.rs\nx\nb.rs\ny\nhes");
        assert_eq!(with_marks(&["<|fim_prefix|>", "<|fim_suffix|>"]).infill(&gap).unwrap(), None);
    }

    #[test]
    fn the_texts_write_no_marks() {
        let t = with_marks(&["<fim_prefix>", "<fim_suffix>", "<fim_middle>"]);
        let marks = ["<fim_prefix>", "<fim_suffix>", "<fim_middle>"].map(|name| t.mark(name).expect("a mark"));
        let ids = t.infill(&Infill::new("<fim_suffix>", "<fim_middle>")).unwrap().expect("marks");
        assert_eq!(ids.iter().copied().filter(|id| marks.contains(id)).collect::<Vec<_>>(), marks);
    }
}
