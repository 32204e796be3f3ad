//! Checks a tokenizer against recorded cases.

use std::path::{Path, PathBuf};

use handmill_models::text::{StreamDecoder, Tokenizer};
use serde_json::Value;

/// What a set of cases was recorded with, which decides what can be compared.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Reference {
    /// Hugging Face's tokenizers: with and without special tokens, whole and streamed.
    HuggingFace,
    /// sentencepiece: control tokens are never read from text.
    Sentencepiece,
}

/// The recorded cases of one vocabulary.
pub struct Cases {
    pub name: String,
    file: Value,
}

/// Where the cases lie.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers")
}

/// The vocabulary `file` of the set `name`, if this machine has it: in `$HANDMILL_TEST_VOCABS`, or in `vocabs` in
/// handmill's cache. Vocabularies belong to others and are not in the repository.
pub fn find_vocabulary(name: &str, file: &str) -> Option<PathBuf> {
    let var = |name| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let cache = var("HANDMILL_CACHE")
        .or_else(|| Some(var("XDG_CACHE_HOME").or_else(|| Some(var("HOME")?.join(".cache")))?.join("handmill")));
    let folders = [var("HANDMILL_TEST_VOCABS"), cache.map(|c| c.join("vocabs"))];
    folders.into_iter().flatten().map(|f| f.join(name).join(file)).find(|path| path.is_file())
}

fn json(path: &Path) -> Value {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn ids(value: &Value) -> Option<Vec<u32>> {
    Some(value.as_array()?.iter().map(|id| id.as_u64().expect("an id") as u32).collect())
}

impl Cases {
    pub fn load(name: &str) -> Self {
        Self { name: name.to_owned(), file: json(&folder().join(name).join("cases.json")) }
    }

    /// The file name of the vocabulary.
    pub fn vocabulary(&self) -> &str {
        self.file["vocabulary"].as_str().expect("vocabulary")
    }

    /// Compares everything that was recorded, but for the cases named in `except`; panics with all differences.
    pub fn check(&self, tokenizer: &Tokenizer, reference: Reference, except: &[&str]) {
        let mut wrong = Vec::new();
        let cases = |key: &str| self.file[key].as_array().cloned().unwrap_or_default();
        let all: Vec<Value> = cases("cases").into_iter().chain(cases("decode_cases")).collect();
        for case in all.iter().filter(|c| !except.iter().any(|e| c["id"] == *e)) {
            check_case(tokenizer, reference, case, &mut wrong);
        }
        assert!(wrong.is_empty(), "{}: {} differences\n{}", self.name, wrong.len(), wrong.join("\n"));
        assert!(all.len() > 30, "{}: only {} cases", self.name, all.len());
    }
}

fn check_case(t: &Tokenizer, reference: Reference, case: &Value, wrong: &mut Vec<String>) {
    let mut expect = |what: &str, got: String, want: String| {
        if got != want {
            wrong.push(format!("{} {what} of {}\n  got  {got}\n  want {want}", case["id"], case["text"]));
        }
    };
    let parse = reference == Reference::HuggingFace;
    if let Some(text) = case["text"].as_str() {
        let encodings =
            [("ids", false, parse), ("ids_with_special", true, parse), ("ids_specials_as_text", false, false)];
        for (key, add_special, parse_special) in encodings {
            if let Some(want) = ids(&case[key]) {
                let got = t.encode(text, add_special, parse_special).expect("encoding");
                expect(key, format!("{got:?}"), format!("{want:?}"));
            }
        }
    }
    let Some(given) = ids(&case["ids"]) else { return };
    for (key, skip_special) in [("decode", false), ("decode_skip_special", true)] {
        if let Some(want) = case[key].as_str() {
            expect(key, format!("{:?}", t.decode(&given, skip_special)), format!("{want:?}"));
        }
    }
    let streamed = ids(&case["ids_with_special"]).unwrap_or_else(|| given.clone());
    let mut stream = StreamDecoder::new(t, true);
    let mut chunks: Vec<Option<String>> = streamed.iter().map(|&id| stream.push(id).map(str::to_owned)).collect();
    let last = stream.finish().map(str::to_owned);
    // Where bytes are broken the reference waits longer than it must; the text is compared above.
    if let Some(want) = case["stream_chunks"].as_array()
        && case["decode"].as_str().is_some_and(|text| !text.contains('\u{FFFD}'))
    {
        let want: Vec<Option<String>> = want.iter().map(|c| c.as_str().map(str::to_owned)).collect();
        expect("stream", format!("{chunks:?}"), format!("{want:?}"));
    }
    chunks.push(last);
    let whole: String = chunks.into_iter().flatten().collect();
    expect("the whole stream", format!("{whole:?}"), format!("{:?}", t.decode(&streamed, true)));
}

/// Compares with what llama.cpp makes of the texts in `llama_cpp.json`. `composes` marks tokenizers that compose the
/// text (NFC) as the model's own files ask for, which llama.cpp leaves out.
pub fn check_llama_cpp(tokenizer: &Tokenizer, model: &str, composes: bool) {
    let file = json(&folder().join("llama_cpp.json"));
    let cases = file[model]["tokenize"].as_array().expect("cases");
    assert!(cases.len() >= 4);
    for case in cases {
        let text = case["text"].as_str().expect("text");
        if composes && text.contains('\u{301}') {
            continue;
        }
        for (key, special) in [("ids_no_special_no_parse", false), ("ids_add_special_parse_special", true)] {
            let got = tokenizer.encode(text, special, special).expect("encoding");
            assert_eq!(Some(got), ids(&case[key]), "{model}, {key} of {text:?}");
        }
        let bytes: Vec<String> = ids(&case["ids_no_special_no_parse"])
            .into_iter()
            .flatten()
            .map(|id| tokenizer.token_bytes(id).unwrap_or_default().iter().map(|b| format!("{b:02x}")).collect())
            .collect();
        let want: Vec<&str> = case["pieces_hex"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        assert_eq!(bytes, want, "{model}, bytes of {text:?}");
    }
}
