//! Files that are broken or ask for what no step stands for. What good files give: `models/tests/tokenizer_oracle.rs`.

use serde_json::{Value, json};

use super::super::Tokenizer;

fn file() -> Value {
    json!({
        "version": "1.0", "added_tokens": [{"id": 4, "content": "<s>", "special": true}], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": {"type": "Fuse"},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2, "c": 3}, "merges": ["a b"]},
    })
}

fn load(file: &Value) -> Result<Tokenizer, String> {
    Tokenizer::from_tokenizer_json("my.json", file.to_string().as_bytes()).map_err(|e| e.to_string())
}

/// The file with another value at a place like `/model/type`.
fn with(place: &str, value: Value) -> Value {
    let mut file = file();
    let (parent, key) = place.rsplit_once('/').expect("a place");
    file.pointer_mut(parent).expect("a parent")[key] = value;
    file
}

#[test]
fn what_no_step_stands_for_is_refused_by_name_and_file() {
    let nest = |part: &str, list: &str| json!({"type": "Sequence", list: [{"type": part}]});
    for (place, value, says) in [
        ("/model/type", json!("WordPiece"), "WordPiece"),
        ("/model/type", json!("Unigram"), "Unigram"),
        ("/model/type", json!("WordLevel"), "WordLevel"),
        ("/model", json!({"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.5]]}), "Unigram"),
        ("/model", json!({"vocab": {"a": 0}}), "without a type"),
        ("/model/dropout", json!(0.1), "dropout"),
        ("/normalizer", nest("Precompiled", "normalizers"), "Precompiled"),
        ("/normalizer", json!({"type": "BertNormalizer"}), "BertNormalizer"),
        ("/pre_tokenizer", nest("UnicodeScripts", "pretokenizers"), "UnicodeScripts"),
        (
            "/pre_tokenizer",
            json!({"type": "Sequence", "pretokenizers": [
            {"type": "ByteLevel", "add_prefix_space": true}, {"type": "Whitespace"}]}),
            "Whitespace behind ByteLevel",
        ),
        ("/post_processor", json!({"type": "Tomorrow"}), "Tomorrow"),
        ("/decoder", nest("CTC", "decoders"), "CTC"),
        ("/decoder", json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}), "Strip"),
    ] {
        let error = load(&with(place, value)).unwrap_err();
        assert!(error.contains(says) && error.contains("my.json"), "{place}: {error}");
    }
}

#[test]
fn broken_files_are_errors_that_name_them() {
    let split = |pattern: Value| json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    let template = |single: Value| json!({"type": "TemplateProcessing", "single": single, "special_tokens": {}});
    for (place, value, says) in [
        ("/model/vocab/d", json!(4_000_000_000u32), "4000000000"),
        ("/model/vocab/d", json!(40_000_000_000u64), "40000000000"),
        ("/model/vocab/d", json!(-1), "-1"),
        ("/model/vocab/d", json!(0), "both have the id 0"),
        ("/model/vocab", json!({}), "no vocab"),
        ("/model/merges", json!(["a x"]), "`x`"),
        ("/model/merges", json!([["b", "a"]]), "`ba`"),
        ("/model/merges", json!(["a b c"]), "`a b c`"),
        ("/model/merges", json!([["a"]]), "merge"),
        ("/model/continuing_subword_prefix", json!("##"), "##"),
        ("/added_tokens/0/id", json!(-4), "-4"),
        ("/pre_tokenizer", split(json!({"Regex": "(a"})), "(a"),
        ("/pre_tokenizer", split(json!({"Regex": r"(?:\p{L}{1000}){1000}"})), "1000"),
        ("/pre_tokenizer", split(json!({"Regex": "a".repeat(100_000)})), "100000"),
        ("/pre_tokenizer", split(json!({})), "pattern"),
        ("/pre_tokenizer", json!({"type": "Metaspace", "replacement": "ab"}), "replacement"),
        ("/post_processor", template(json!([{"SpecialToken": {"id": "<x>"}}])), "<x>"),
        ("/post_processor", template(json!([])), "0 times"),
    ] {
        let error = load(&with(place, value)).unwrap_err();
        assert!(error.contains(says) && error.contains("my.json"), "{place}: {error}");
    }
    let twice = file().to_string().replace(r#""c":3"#, r#""c":3,"c":5"#);
    let error = Tokenizer::from_tokenizer_json("my.json", twice.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("`c` stands twice"), "{error}");
    let deep = format!("{}null{}", r#"{"type":"Sequence","normalizers":["#.repeat(100_000), "]}".repeat(100_000));
    let deep = file().to_string().replace(r#""normalizer":null"#, &format!(r#""normalizer":{deep}"#));
    let error = Tokenizer::from_tokenizer_json("my.json", deep.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("recursion") && error.contains("my.json"), "{error}");
}

#[test]
fn an_added_token_far_beyond_the_vocabulary_is_left_out_with_a_warning() {
    for id in [4_000_000_000u32, 1_000_000] {
        let t = load(&with("/added_tokens/0/id", json!(id))).unwrap();
        assert!(t.warnings().len() == 1 && t.warnings()[0].contains(&id.to_string()), "{:?}", t.warnings());
        assert_eq!(t.vocab_size(), 4);
    }
}

#[test]
fn text_never_joins_to_a_special_token() {
    let special = with("/added_tokens", json!([{"id": 2, "content": "ab", "special": true}]));
    for ignore_merges in [false, true] {
        let mut file = special.clone();
        file["model"]["ignore_merges"] = json!(ignore_merges);
        let t = load(&file).unwrap();
        assert_eq!(t.encode("abc", false, true).unwrap(), [2, 3]);
        assert_eq!(t.encode("abc", false, false).unwrap(), [0, 1, 3]);
        assert_eq!(t.encode("ab", false, false).unwrap(), [0, 1]);
    }
}

#[test]
fn a_text_that_takes_too_many_steps_back_is_an_error() {
    let pattern = json!({"Regex": "(?:(?=a)a|(?=a)a)*c"});
    let pre = json!({"type": "Split", "pattern": pattern, "behavior": "Isolated", "invert": false});
    let t = load(&with("/pre_tokenizer", pre)).unwrap();
    let error = t.encode(&"a".repeat(200), false, false).unwrap_err().to_string();
    assert!(error.contains("acktrack"), "{error}");
}
