#[path = "../../tests/tokenizers/cases.rs"]
mod cases;
use cases::*;
use handmill_models::text::Tokenizer;
fn set(name: &str, r: Reference) {
    let c = Cases::load(name);
    let p = std::path::Path::new("/work/tmp/tok/tokenizers").join(name).join(c.vocabulary());
    let s = std::time::Instant::now();
    let t = Tokenizer::from_path(&p).unwrap();
    eprintln!("{name} loaded in {:?} vocab {} eot {:?}", s.elapsed(), t.vocab_size(), t.end_of_turn_ids());
    eprintln!("{name}: {} cases", c.check(&t, r));
}
macro_rules! sets { ($($n:ident $s:literal $r:ident;)*) => {$(#[test] fn $n() { set($s, Reference::$r) })*} }
sets! { llama3 "llama3" HuggingFace; qwen3 "qwen3" HuggingFace; gemma3 "gemma3" HuggingFace; deepseek "deepseek_v3" HuggingFace; gptoss "gptoss" HuggingFace;
rebuilt_smollm "smollm2_gguf" HuggingFace; rebuilt_qwen "qwen25_gguf" HuggingFace;
mistral "mistral_v3_spm" Sentencepiece; llama2 "llama2_spm_gguf" Sentencepiece; phi3 "phi3_spm_gguf" Sentencepiece; qwen35 "llamacpp_qwen35" HuggingFace; dsllm "llamacpp_deepseek-llm" HuggingFace; }
fn real(file: &str) -> Tokenizer {
    let p = std::path::PathBuf::from(std::env::var("HOME").unwrap()).join(".cache/handmill-models").join(file);
    for _ in 0..3 {
        let s = std::time::Instant::now();
        let t = Tokenizer::from_path(&p).unwrap();
        eprintln!(
            "{file} loaded in {:?} vocab {} eot {:?} bos {:?}",
            s.elapsed(),
            t.vocab_size(),
            t.end_of_turn_ids(),
            t.bos()
        );
        let text = std::fs::read_to_string("/work/shared/peers/reference/text.txt").unwrap().repeat(6);
        let s = std::time::Instant::now();
        let n = t.encode(&text, true, true).unwrap().len();
        eprintln!("{file} encode {} bytes -> {n} in {:?}", text.len(), s.elapsed());
        let text = "abcdefgh".repeat(12500);
        let s = std::time::Instant::now();
        let n = t.encode(&text, true, true).unwrap().len();
        eprintln!("{file} encode run {} bytes -> {n} in {:?}", text.len(), s.elapsed());
    }
    Tokenizer::from_path(&p).unwrap()
}
#[test]
fn real_smollm() {
    let t = real("SmolLM2-135M-Instruct-Q4_1.gguf");
    Cases::load("smollm2_gguf").check(&t, Reference::HuggingFace);
    check_llama_cpp(&t, "smollm2", false);
}
#[test]
fn real_qwen() {
    let t = real("qwen2.5-coder-0.5b-instruct-Q4_K_M.gguf");
    Cases::load("qwen25_gguf").check(&t, Reference::HuggingFace);
    check_llama_cpp(&t, "qwen05", true);
}
#[test]
fn real_gemma() {
    let t = real("gemma-3-270m-Q4_K_M.gguf");
    check_llama_cpp(&t, "gemma3", false);
    Cases::load("gemma3").check(&t, Reference::HuggingFace);
}
