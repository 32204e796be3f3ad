//! Pre-tokenizers: how a text is cut into words before byte-level BPE sees it, by the names GGUF gives them
//! (`tokenizer.ggml.pre`), or by an expression of the file's own.
//!
//! Each kind is one or more stages; a stage cuts every piece of the stage before into its matches and what lies
//! between them. The expressions are the published ones of the tokenizers, with one abbreviation: an `|\s+` at the end
//! stands for the last alternatives `\s+(?!\S)|\s+`, which leave the last space of a run to the word after it.

use super::error::{Result, TextError};
use super::pattern::{Pattern, THOUSANDS};
use super::pre_tokenizers::{PreSplit, Stage};

pub(crate) const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+";
const DIGIT: &str = r"\p{N}";
const LLAMA3: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const QWEN35: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+";
const MINICPM5: &[&str] = &[
    r"\p{N}{1,3}",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}+| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+",
];
const SEED_CODER: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}\r\n]+|\s*[\r\n]+|\s+";
const UFAKZEKA: &str = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const BAILING: &str = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+";
const EXAONE_MOE: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+";
const BLOOM: &str = r" ?[^(\s|.,!?…。，、।۔،)]+";
/// As GPT-4o's, except that runs of Chinese stand alone.
const KIMI_K2: &str = r"\p{Han}+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+";
const YOUTU: &[&str] = &[
    r"[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\u{3040}-ゟ゠-ヿ]+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+",
];
const SPARK: &[&str] = &[
    r"\p{N}{1,3}",
    r"[一-龥\u{3040}-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+|[\r\n]|\s+"##,
    DIGIT,
];
const DEEPSEEK3: &[&str] = &[
    r"\p{N}{1,3}",
    r"[一-龥\u{3040}-ゟ゠-ヿ]+",
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+"##,
];
/// The letters that DeepSeek LLM lists: those with case in Unicode 14, without a few blocks.
const DEEPSEEK_LLM: &[&str] = &[
    r"[\r\n]",
    concat!(
        r"\s?[",
        r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}",
        r"\u{295}-\u{2AF}\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}",
        r"\u{38E}-\u{3A1}\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}",
        r"\u{13A0}-\u{13F5}\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}",
        r"\u{1D6B}-\u{1D77}\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}",
        r"\u{1F48}-\u{1F4D}\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}",
        r"\u{1FB6}-\u{1FBC}\u{1FBE}\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}",
        r"\u{1FE0}-\u{1FEC}\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}",
        r"\u{2119}-\u{211D}\u{2124}\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}",
        r"\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}",
        r"\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}\u{A680}-\u{A69B}\u{A722}-\u{A76F}",
        r"\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}",
        r"\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}",
        r"\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}\u{1E900}-\u{1E943}",
        r"]+",
    ),
    r"\s?[!-/:-~！-／：-～‘-‟　-。]+",
    r"\s+$",
    r"[一-龥ࠀ-一가-\u{D7FF}]+",
    r"\p{N}+",
];
const DEEPSEEK_CODER: &[&str] = &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", r"[一-龥ࠀ-一가-\u{D7FF}]+", r"\p{N}"];
const PUNCTUATION: &str = r"[\p{P}\$\+<=>\^~\|]+";

/// The behaviour of one name of `tokenizer.ggml.pre`.
#[derive(Debug)]
pub(crate) struct PreKind {
    names: &'static [&'static str],
    stages: &'static [&'static str],
    /// Whether the text is composed (NFC) first, as these tokenizers' own files ask for.
    pub(crate) nfc: bool,
    /// Whether a word that is a token is taken whole, without looking at merges.
    pub(crate) ignore_merges: bool,
    /// Whether BOS is added where the file has no key for it.
    pub(crate) add_bos: bool,
    /// Whether tokens join in the order of their ids where the file has no merges.
    pub(crate) by_ids: bool,
}

const fn kind(names: &'static [&'static str], stages: &'static [&'static str]) -> PreKind {
    PreKind { names, stages, nfc: false, ignore_merges: false, add_bos: false, by_ids: false }
}

static KINDS: &[PreKind] = &[
    kind(&["default"], &[PUNCTUATION, GPT2, r"\p{N}+", "[0-9][0-9][0-9]"]),
    kind(&["gpt-2", "phi-2", "exaone4", "a.x-4.0", "mellum", "modern-bert", "mpt", "jais"], &[GPT2]),
    kind(&["trillion", "granite-docling", "gigachat", "roberta-bpe"], &[GPT2]),
    PreKind { nfc: true, ..kind(&["olmo"], &[GPT2]) },
    kind(&["smollm", "starcoder", "refact", "codeshell", "exaone", "minerva-7b", "mellum2"], &[DIGIT, GPT2]),
    PreKind { nfc: true, ..kind(&["command-r"], &[DIGIT, GPT2]) },
    kind(&["falcon"], &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"]),
    PreKind {
        ignore_merges: true,
        add_bos: true,
        ..kind(
            &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "jina-v5-nano"],
            &[LLAMA3],
        )
    },
    PreKind { ignore_merges: true, ..kind(&["minicpm5"], MINICPM5) },
    kind(&["dbrx", "smaug-bpe", "chatglm-bpe"], &[LLAMA3]),
    PreKind { ignore_merges: true, ..kind(&["glm4", "glm5"], &[LLAMA3]) },
    PreKind { nfc: true, ..kind(&["qwen2"], &[QWEN2]) },
    kind(&["deepseek-r1-qwen", "kormo", "f2llmv2", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"], &[QWEN2]),
    kind(&["qwen35"], &[QWEN35]),
    PreKind { ignore_merges: true, add_bos: true, ..kind(&["tekken"], &[TEKKEN]) },
    PreKind { ignore_merges: true, ..kind(&["gpt-4o", "llama4", "kanana2"], &[GPT4O]) },
    kind(&["minimax-m2", "talkie"], &[GPT4O]),
    PreKind { ignore_merges: true, by_ids: true, ..kind(&["kimi-k2"], &[KIMI_K2]) },
    PreKind { ignore_merges: true, ..kind(&["youtu"], YOUTU) },
    kind(&["seed-coder"], &[SEED_CODER]),
    kind(&["ufakzeka"], &[UFAKZEKA]),
    kind(&["laguna"], &[r"[^\n]+|\n+", QWEN2]),
    kind(&["bailingmoe", "bailingmoe2", "llada-moe"], &[BAILING]),
    kind(&["exaone-moe"], &[EXAONE_MOE]),
    kind(&["poro-chat", "bloom", "gpt3-finnish"], &[BLOOM]),
    kind(&["viking"], &[BLOOM, DIGIT]),
    kind(&["superbpe"], &[THOUSANDS]),
    kind(&["spark2_5"], SPARK),
    kind(&["deepseek-llm"], DEEPSEEK_LLM),
    kind(&["deepseek-coder"], DEEPSEEK_CODER),
    kind(&["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"], DEEPSEEK3),
];

impl PreKind {
    /// The stages of the pre-tokenizer.
    fn stages(&self, name: &str) -> Result<PreSplit> {
        let pattern = |stage: &&str| match stage.strip_suffix(r"|\s+") {
            _ if *stage == THOUSANDS => Pattern::thousands(name),
            Some(front) => Pattern::with_spaces(name, front),
            None => Pattern::expression(name, stage),
        };
        let stages = self.stages.iter().map(|stage| Ok(Stage::isolating(pattern(stage)?)));
        Ok(PreSplit { stages: stages.collect::<Result<_>>()? })
    }
}

impl PreSplit {
    /// The pre-tokenizer of this GGUF name.
    ///
    /// # Errors
    /// [`TextError::Unsupported`] for an unknown kind: with wrong words every answer would be slightly wrong.
    pub(crate) fn named(name: &str) -> Result<(Self, &'static PreKind)> {
        let Some(kind) = KINDS.iter().find(|k| k.names.contains(&name)) else {
            return Err(TextError::Unsupported {
                what: "tokenizer.ggml.pre",
                name: name.to_owned(),
                supported: "default, gpt-2, smollm, llama-bpe, qwen2, qwen35, tekken, gpt-4o, deepseek-llm, deepseek-v3, kimi-k2, refact, starcoder and their kin",
            });
        };
        Ok((kind.stages(name)?, kind))
    }

    /// The pre-tokenizer of one expression in the file `what`, as tiktoken runs it.
    ///
    /// # Errors
    /// Expressions that are broken or too large.
    pub(crate) fn of_pattern(what: &str, pattern: &str) -> Result<Self> {
        Ok(Self { stages: vec![Stage::isolating(Pattern::expression(what, pattern)?)] })
    }
}

#[cfg(test)]
mod tests {
    use super::super::pre_tokenizers::Piece;
    use super::*;

    fn words(kind: &str, text: &str) -> Vec<String> {
        let (pre, _) = PreSplit::named(kind).unwrap();
        let out = cut(&pre, text);
        assert_eq!(out.concat(), text);
        out
    }

    fn cut(pre: &PreSplit, text: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut word = |word: &str| {
            out.push(word.to_owned());
            Ok(())
        };
        pre.words(Piece { text, head: 0 }, &mut word).unwrap();
        out
    }

    #[test]
    fn every_kind_compiles_and_names_are_unique() {
        let mut seen = std::collections::HashSet::new();
        for kind in KINDS {
            for name in kind.names {
                assert!(seen.insert(name), "{name} stands twice");
                assert!(!words(name, "Hello  wörld 12345\r\n\n  x'll ").is_empty());
            }
        }
    }

    #[test]
    fn the_last_space_goes_to_the_next_word() {
        assert_eq!(words("gpt-2", "a   b"), ["a", "  ", " b"]);
        assert_eq!(words("gpt-2", "a\n\n b  "), ["a", "\n\n", " b", "  "]);
        assert_eq!(words("gpt-2", "a \n b"), ["a", " \n", " b"]);
        assert_eq!(words("gpt-2", "\u{3000}\u{3000}b"), ["\u{3000}", "\u{3000}", "b"]);
        assert_eq!(words("llama3", "a  \n\n  b"), ["a", "  \n\n", " ", " b"]);
        assert_eq!(words("llama3", "a \t"), ["a", " \t"]);
    }

    #[test]
    fn digits_by_kind() {
        assert_eq!(words("smollm", "x 123"), ["x", " ", "1", "2", "3"]);
        assert_eq!(words("llama-bpe", "12345"), ["123", "45"]);
        assert_eq!(words("qwen2", "12 3"), ["1", "2", " ", "3"]);
        assert_eq!(words("gpt-2", "x 123"), ["x", " 123"]);
        assert_eq!(words("superbpe", "of 1234567 and 12"), ["of ", "1", "234", "567", " and ", "12"]);
        assert_eq!(words("minicpm5", "x 12345"), ["x", " ", "123", "45"]);
        assert_eq!(words("deepseek-llm", "x 1234\n"), ["x", " ", "1234", "\n"]);
    }

    #[test]
    fn contractions_and_case() {
        assert_eq!(words("qwen2", "I'M he'll"), ["I", "'M", " he", "'ll"]);
        assert_eq!(words("gpt-2", "I'M he'll"), ["I", "'", "M", " he", "'ll"]);
        assert_eq!(words("gpt-4o", "HelloWorld's"), ["Hello", "World's"]);
        assert_eq!(words("tekken", "HelloWorld's"), ["Hello", "World", "'s"]);
        assert_eq!(words("kimi-k2", "HelloWorld's 你好world"), ["Hello", "World's", " ", "你好", "world"]);
        assert_eq!(words("seed-coder", "I'M 12!\n"), ["I", "'M", " ", "1", "2", "!", "\n"]);
    }

    #[test]
    fn an_expression_out_of_a_file_gives_the_last_space_back_too() {
        let pre = PreSplit::of_pattern("file", r"\p{L}+|\s*[\r\n]+|\s+(?!\S)|\s+").unwrap();
        assert_eq!(cut(&pre, "a   b \n c  "), ["a", "  ", " ", "b", " \n", " ", "c", "  "]);
        assert_eq!(cut(&PreSplit::of_pattern("file", "a(?=b)").unwrap(), "aab"), ["a", "a", "b"]);
        let error = PreSplit::of_pattern("my file", "a(").unwrap_err().to_string();
        assert!(error.contains("my file") && error.contains("a("), "{error}");
    }

    #[test]
    fn an_unknown_kind_is_refused_by_name() {
        let error = PreSplit::named("kimi-k9").unwrap_err().to_string();
        assert!(error.contains("kimi-k9") && error.contains("qwen2"), "{error}");
    }
}
