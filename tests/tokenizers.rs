//! Tokenizers against cases recorded with Hugging Face's tokenizers, sentencepiece and llama.cpp.
//!
//! Vocabularies belong to their makers and are not in the repository. Those of real models come with the model: that
//! of SmolLM2 always, the others with `HANDMILL_TEST_FULL=1`. Further ones are looked for as
//! `<name>/<file>` in `$HANDMILL_TEST_VOCABS` and in `vocabs` in handmill's cache. A set whose vocabulary is not there
//! says so and counts as skipped.

#[path = "tokenizers/cases.rs"]
mod cases;
#[path = "tokenizers/spellings.rs"]
mod spellings;
mod support;

use cases::{Cases, Reference, check_llama_cpp, find_vocabulary};
use handmill_models::text::Tokenizer;
use serde_json::Value;
use std::path::{Path, PathBuf};
use support::{Skip, full, model_path, skip};

/// Checks the set `name` where its vocabulary can be found.
fn check(name: &str, reference: Reference) {
    let cases = Cases::load(name);
    match find_vocabulary(name, cases.vocabulary()) {
        Some(path) => {
            let tokenizer = Tokenizer::from_path(&path).unwrap_or_else(|e| panic!("{e}"));
            cases.check(&tokenizer, reference, &[]);
        }
        None => {
            let why = format!("put {} of {name} into $HANDMILL_TEST_VOCABS/{name}", cases.vocabulary());
            skip(Skip::OptIn, name, &why);
        }
    }
}

macro_rules! sets {
    ($($test:ident: $name:literal, $reference:ident;)*) => {$(
        #[test]
        fn $test() {
            check($name, Reference::$reference);
        }
    )*};
}

sets! {
    llama3: "llama3", HuggingFace;
    qwen3: "qwen3", HuggingFace;
    gemma3: "gemma3", HuggingFace;
    deepseek_v3: "deepseek_v3", HuggingFace;
    gptoss: "gptoss", HuggingFace;
    qwen35_gguf: "llamacpp_qwen35", HuggingFace;
    deepseek_llm_gguf: "llamacpp_deepseek-llm", HuggingFace;
    llama2_model: "llama2_spm_gguf", Sentencepiece;
    mistral_model: "mistral_v3_spm", Sentencepiece;
    phi3_model: "phi3_spm_gguf", Sentencepiece;
    mistral_tekken: "mistral_tekken_240911", Sentencepiece;
}

/// Checks the set `name` with its `tokenizer.json` written as other files, which `write` puts into a folder; it returns
/// what of that to open.
fn check_as(name: &str, write: fn(&Value, &Path) -> PathBuf) {
    let cases = Cases::load(name);
    let Some(path) = find_vocabulary(name, cases.vocabulary()) else {
        let why = format!("put {} of {name} into $HANDMILL_TEST_VOCABS/{name}", cases.vocabulary());
        return skip(Skip::OptIn, name, &why);
    };
    let file = serde_json::from_slice(&std::fs::read(path).expect("a tokenizer.json")).expect("JSON");
    let folder = tempfile::tempdir().expect("a folder");
    let tokenizer = Tokenizer::from_path(write(&file, folder.path())).unwrap_or_else(|e| panic!("{e}"));
    assert!(tokenizer.warnings().is_empty(), "{:?}", tokenizer.warnings());
    cases.check(&tokenizer, Reference::HuggingFace, &[]);
}

#[test]
fn gemma_as_converters_write_gemma4() {
    check_as("gemma3", spellings::gemma4_gguf);
}

#[test]
fn gemma_as_ollama_writes_gemma4() {
    check_as("gemma3", spellings::ollama_gguf);
}

#[test]
fn qwen3_as_vocab_json_and_merges() {
    check_as("qwen3", spellings::vocab_and_merges);
}

#[test]
fn special_tokens_only_in_tokenizer_config() {
    check_as("llama3", spellings::added_tokens_decoder);
    check_as("qwen3", spellings::added_tokens_decoder);
}

/// The tokenizer of a real model, where it can be had.
fn of_model(test: &str, alias: &str) -> Option<Tokenizer> {
    let path = model_path(test, alias)?;
    Some(Tokenizer::from_path(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())))
}

#[test]
fn smollm2_gguf() {
    let Some(tokenizer) = of_model("smollm2_gguf", "smollm2") else { return };
    Cases::load("smollm2_gguf").check(&tokenizer, Reference::HuggingFace, &[]);
    check_llama_cpp(&tokenizer, "smollm2", false);
    assert_eq!(tokenizer.vocab_size(), 49152);
    // <|im_end|>, <|endoftext|>, <repo_name>, <reponame>, <file_sep>, <filename>.
    assert_eq!(tokenizer.end_of_turn_ids(), [2, 0, 3, 4, 5, 6]);
}

#[test]
fn qwen25_gguf() {
    if !full("qwen25_gguf") {
        return;
    }
    let Some(tokenizer) = of_model("qwen25_gguf", "qwen05") else { return };
    Cases::load("qwen25_gguf").check(&tokenizer, Reference::HuggingFace, &[]);
    check_llama_cpp(&tokenizer, "qwen05", true);
    // <|im_end|>, <|endoftext|>, <|fim_pad|>, <|repo_name|>, <|file_sep|>.
    assert_eq!(tokenizer.end_of_turn_ids(), [151645, 151643, 151662, 151663, 151664]);
}

#[test]
fn gemma3_gguf() {
    if !full("gemma3_gguf") {
        return;
    }
    let Some(tokenizer) = of_model("gemma3_gguf", "gemma3") else { return };
    // The GGUF calls <mask> and <unused12> control tokens, the tokenizer.json does not.
    Cases::load("gemma3").check(&tokenizer, Reference::HuggingFace, &["special-7"]);
    check_llama_cpp(&tokenizer, "gemma3", false);
    assert_eq!(tokenizer.end_of_turn_ids(), [1, 106], "<eos>, <end_of_turn>");
}
