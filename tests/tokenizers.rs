//! Tokenizers against cases recorded with Hugging Face's tokenizers, sentencepiece and llama.cpp.
//!
//! Vocabularies belong to their makers and are not in the repository. Those of real models come with the model: that
//! of the default model always, the others with `HANDMILL_TEST_FULL=1`. Further ones are looked for as
//! `<name>/<file>` in `$HANDMILL_TEST_VOCABS` and in `vocabs` in handmill's cache. A set whose vocabulary is not there
//! says so and counts as skipped.

#[path = "tokenizers/cases.rs"]
mod cases;
mod support;

use cases::{Cases, Reference, check_llama_cpp, find_vocabulary};
use handmill_models::text::Tokenizer;
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
    assert_eq!(tokenizer.end_of_turn_ids(), [2, 0], "<|im_end|>, <|endoftext|>");
}

#[test]
fn qwen25_gguf() {
    if !full("qwen25_gguf") {
        return;
    }
    let Some(tokenizer) = of_model("qwen25_gguf", "qwen05") else { return };
    Cases::load("qwen25_gguf").check(&tokenizer, Reference::HuggingFace, &[]);
    check_llama_cpp(&tokenizer, "qwen05", true);
    assert_eq!(tokenizer.end_of_turn_ids(), [151645, 151643], "<|im_end|>, <|endoftext|>");
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
