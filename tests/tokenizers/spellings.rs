//! One vocabulary in other files than its `tokenizer.json`.

use std::path::{Path, PathBuf};

use handmill_runtime::format::gguf::GgufWriter;
use serde_json::{Map, Value, json};

/// Text and kind (GGUF's number) of each id of a `tokenizer.json`; bytes are `byte`.
fn tokens(file: &Value, byte: i32) -> (Vec<String>, Vec<i32>) {
    let vocab = file["model"]["vocab"].as_object().expect("a vocabulary");
    let added = file["added_tokens"].as_array().expect("added tokens");
    let id = |value: &Value| value.as_u64().expect("an id") as usize;
    let ids = vocab.values().chain(added.iter().map(|token| &token["id"])).map(id);
    let count = ids.max().expect("tokens") + 1;
    let (mut texts, mut kinds) = ((0..count).map(|id| format!("[PAD{id}]")).collect::<Vec<_>>(), vec![5; count]);
    for (text, value) in vocab {
        texts[id(value)] = text.clone();
        kinds[id(value)] = if text.starts_with("<0x") && text.len() == 6 { byte } else { 1 };
    }
    for token in added {
        texts[id(&token["id"])] = token["content"].as_str().expect("text").to_owned();
        kinds[id(&token["id"])] = if token["special"] == true { 3 } else { 4 };
    }
    (texts, kinds)
}

fn merges(file: &Value) -> Vec<String> {
    let pair = |merge: &Value| match merge {
        Value::Array(pair) => format!("{} {}", pair[0].as_str().expect("text"), pair[1].as_str().expect("text")),
        merge => merge.as_str().expect("text").to_owned(),
    };
    file["model"]["merges"].as_array().expect("merges").iter().map(pair).collect()
}

fn gguf(file: &Value, folder: &Path, byte: i32, more: impl FnOnce(&mut GgufWriter)) -> PathBuf {
    let (texts, kinds) = tokens(file, byte);
    let mut gguf = GgufWriter::new();
    gguf.put("general.architecture", "gemma4")
        .put("tokenizer.ggml.tokens", texts)
        .put("tokenizer.ggml.token_type", kinds)
        .put("tokenizer.ggml.merges", merges(file))
        .put("tokenizer.ggml.bos_token_id", 2u32)
        .put("tokenizer.ggml.eos_token_id", 1u32);
    more(&mut gguf);
    let path = folder.join("vocab.gguf");
    std::fs::write(&path, gguf.to_bytes()).expect("writing");
    path
}

/// Gemma 4 as llama.cpp's converter writes it: scores that say nothing.
pub fn gemma4_gguf(file: &Value, folder: &Path) -> PathBuf {
    let scores = vec![-1000.0f32; tokens(file, 6).0.len()];
    gguf(file, folder, 6, |gguf| {
        gguf.put("tokenizer.ggml.model", "gemma4").put("tokenizer.ggml.scores", scores);
        gguf.put("tokenizer.ggml.add_space_prefix", false).put("tokenizer.ggml.add_bos_token", true);
    })
}

/// Gemma 4 as Ollama writes it: another model name, scores that are ids, and bytes that are plain text.
pub fn ollama_gguf(file: &Value, folder: &Path) -> PathBuf {
    let scores: Vec<f32> = (0..tokens(file, 1).0.len()).map(|id| id as f32).collect();
    gguf(file, folder, 1, |gguf| {
        gguf.put("tokenizer.ggml.model", "llama").put("tokenizer.ggml.pre", "gemma4");
        gguf.put("tokenizer.ggml.scores", scores);
    })
}

fn write(folder: &Path, name: &str, text: impl AsRef<[u8]>) {
    std::fs::write(folder.join(name), text).expect("writing");
}

/// What `tokenizer_config.json` says of the added tokens.
fn decoder(file: &Value) -> Value {
    let tokens = file["added_tokens"].as_array().expect("added tokens").iter();
    Value::Object(tokens.map(|token| (token["id"].to_string(), token.clone())).collect())
}

/// Qwen's tokenizer as its repositories also have it.
pub fn vocab_and_merges(file: &Value, folder: &Path) -> PathBuf {
    write(folder, "vocab.json", file["model"]["vocab"].to_string());
    write(folder, "merges.txt", format!("#version: 0.2\n{}\n", merges(file).join("\n")));
    let config = json!({
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": null, "eos_token": "<|im_end|>",
        "added_tokens_decoder": decoder(file),
    });
    write(folder, "tokenizer_config.json", config.to_string());
    folder.into()
}

/// The same `tokenizer.json` without its added tokens, which only `tokenizer_config.json` names.
pub fn added_tokens_decoder(file: &Value, folder: &Path) -> PathBuf {
    let mut bare: Map<String, Value> = file.as_object().expect("an object").clone();
    bare.insert("added_tokens".to_owned(), json!([]));
    write(folder, "tokenizer.json", Value::Object(bare).to_string());
    write(folder, "tokenizer_config.json", json!({ "added_tokens_decoder": decoder(file) }).to_string());
    folder.into()
}
