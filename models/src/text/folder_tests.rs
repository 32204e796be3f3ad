//! What the files of a checkpoint folder say together.

use super::super::tokenizer::tests::{JSON, sentencepiece_model};
use super::super::{TextError, TextSource, TokenKind, Tokenizer};

/// A folder of these files; `loaded` reads its tokenizer.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new(files: &[(&str, &str)]) -> Self {
        let folder = Self(tempfile::tempdir().expect("a folder"));
        files.iter().for_each(|(name, text)| folder.write(name, text));
        folder
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.0.path().join(name), text).expect("writing");
    }

    fn load(&self) -> Result<Tokenizer, TextError> {
        Tokenizer::from_path(self.0.path())
    }

    fn loaded(&self) -> Tokenizer {
        self.load().unwrap_or_else(|e| panic!("{e}"))
    }

    fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

fn encode(tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false, true).expect("encoding")
}

#[test]
fn folders_say_what_ends_an_answer() {
    let folder = Folder::new(&[]);
    assert!(matches!(Tokenizer::from_folder(folder.0.path()), Err(TextError::NoTokenizer { .. })));
    assert!(folder.load().is_err());
    folder.write("tokenizer.json", JSON);
    folder.write("config.json", r#"{"eos_token_id": 1}"#);
    let t = folder.loaded();
    assert_eq!((t.eos(), t.end_of_turn_ids()), (Some(1), &[1, 6][..]));
    folder.write("generation_config.json", r#"{"eos_token_id": [2, 4, 999]}"#);
    folder.write("tokenizer_config.json", r#"{"eos_token": {"content": "<|eot_id|>"}, "add_bos_token": false}"#);
    let t = folder.loaded();
    assert_eq!((t.eos(), t.end_of_turn_ids()), (Some(6), &[6, 2, 4, 1][..]), "none is lost");
    assert!(t.warnings().len() == 1 && t.warnings()[0].contains("999"), "{:?}", t.warnings());
    assert!(!t.add_bos_default());
    folder.write("config.json", "not json");
    assert!(folder.error().contains("config.json"));
    assert!(Tokenizer::from_path(folder.0.path().join("none.json")).is_err());
}

#[test]
fn an_end_counts_whichever_file_names_it() {
    for (file, text) in [
        ("tokenizer_config.json", r#"{"eos_token": "hi"}"#),
        ("tokenizer_config.json", r#"{"eot_token": {"content": "hi"}}"#),
        ("tokenizer_config.json", r#"{"extra_special_tokens": {"eot_token": "hi"}}"#),
        ("special_tokens_map.json", r#"{"eos_token": {"content": "hi", "lstrip": false}}"#),
        ("generation_config.json", r#"{"eos_token_id": [3]}"#),
        ("config.json", r#"{"eos_token_id": 3.0}"#),
        ("config.json", r#"{"text_config": {"eos_token_id": 3}}"#),
    ] {
        let t = Folder::new(&[("tokenizer.json", JSON), (file, text)]).loaded();
        assert!(t.is_end_of_turn(3), "{file}: {text}");
        assert!(t.warnings().is_empty(), "{:?}", t.warnings());
    }
}

#[test]
fn tokens_that_a_file_beside_tokenizer_json_adds_have_its_ids() {
    let decoder = r#"{"added_tokens_decoder": {
        "7": {"content": "<tool>", "special": false}, "9": {"content": "<|start|>", "special": true, "rstrip": true},
        "12": {"content": "<think>", "special": false}}}"#;
    let folder = Folder::new(&[("tokenizer.json", JSON), ("tokenizer_config.json", decoder)]);
    folder.write("added_tokens.json", r#"{"<|im_end|>": 8, "<|start|>": 9}"#);
    let t = folder.loaded();
    assert_eq!(encode(&t, "hi<|start|> \nh<|im_end|><think>"), [3, 9, 1, 8, 12]);
    assert_eq!((t.vocab_size(), t.end_of_turn_ids()), (13, &[6, 8][..]));
    assert_eq!(t.decode(&[3, 9, 8, 12, 10], true), "hi<think>", "an id that no file names has no text");
    assert_eq!([8, 9, 10, 12].map(|id| t.is_special(id)), [true, true, false, false]);
    let literal = t.encode("<|im_end|>", false, false).expect("encoding");
    assert!(!literal.contains(&8), "control tokens are parsed only where asked for");
    assert!(t.warnings().is_empty(), "{:?}", t.warnings());
    for (added, says) in [(r#"{"<|x|>": 3}"#, "`hi`"), (r#"{"<tool>": 9}"#, "7"), (r#"{"<|x|>": -1}"#, "-1")] {
        let t = Folder::new(&[("tokenizer.json", JSON), ("added_tokens.json", added)]).loaded();
        assert!(t.warnings().len() == 1 && t.warnings()[0].contains(says), "{added}: {:?}", t.warnings());
        assert_eq!(encode(&t, "hi<tool>"), [3, 7]);
    }
}

#[test]
fn added_tokens_of_a_tokenizer_json_have_the_ids_that_it_says() {
    // The library behind it counts on from the vocabulary whatever the ids are.
    let json = JSON.replace("\"id\":6,", "\"id\":11,");
    let folder = Folder::new(&[("tokenizer.json", &json)]);
    let t = folder.loaded();
    assert_eq!(encode(&t, "hi<tool><|eot_id|>"), [3, 7, 11]);
    assert_eq!((t.vocab_size(), t.end_of_turn_ids(), t.warnings()), (12, &[11][..], &[][..]));
    folder.write("config.json", r#"{"vocab_size": 10}"#);
    let t = folder.loaded();
    assert!(t.warnings().len() == 1 && t.warnings()[0].contains("11"), "{:?}", t.warnings());
    assert!(!encode(&t, "hi<|eot_id|>").contains(&6), "it never becomes another token");
    let taken = JSON.replace("\"id\":6,", "\"id\":2,");
    let t = Tokenizer::from_tokenizer_json("test", taken.as_bytes()).expect("a tokenizer");
    assert!(t.warnings().len() == 1 && t.warnings()[0].contains("`i`"), "{:?}", t.warnings());
}

#[test]
fn a_bos_beside_a_sentencepiece_model_takes_the_place_of_its_own() {
    let folder = Folder::new(&[
        ("added_tokens.json", r#"{"<|begin|>": 267}"#),
        ("tokenizer_config.json", r#"{"bos_token": "<|begin|>", "add_bos_token": true}"#),
    ]);
    folder.write("tokenizer.model", sentencepiece_model(2, 0));
    let t = folder.loaded();
    assert_eq!((t.encode("ab", true, true).expect("encoding"), t.bos()), (vec![267, 265], Some(267)));
}

#[test]
fn tokens_that_a_file_beside_tokenizer_model_adds_have_its_ids() {
    let folder = Folder::new(&[
        ("added_tokens.json", r#"{"<|im_start|>": 268, "<|im_end|>": 270}"#),
        ("tokenizer_config.json", r#"{"eos_token": "<|im_end|>", "bos_token": "<s>"}"#),
    ]);
    folder.write("tokenizer.model", sentencepiece_model(2, 0));
    let t = folder.loaded();
    assert_eq!(t.encode("<|im_start|>ab<|im_end|>", true, true).expect("encoding"), [1, 268, 265, 270]);
    assert_eq!((t.eos(), t.end_of_turn_ids(), t.vocab_size()), (Some(270), &[270, 2][..], 271));
    assert_eq!(
        [268, 269, 270].map(|id| t.token_kind(id)),
        [TokenKind::Control, TokenKind::Unused, TokenKind::Control].map(Some)
    );
    let phi = r#"{"added_tokens_decoder": {"268": {"content": "<|user|>", "rstrip": true, "special": true}}}"#;
    folder.write("added_tokens.json", "{}");
    folder.write("tokenizer_config.json", phi);
    assert_eq!(encode(&folder.loaded(), "<|user|>\nab"), [268, 265]);
    folder.write("tokenizer_config.json", phi.replace(r#"{"added"#, r#"{"legacy": false, "added"#));
    assert_eq!(encode(&folder.loaded(), "ab<|user|>ab"), [265, 268, 263], "a space only at the start");
}

/// transformers cuts added tokens out before sentencepiece sees the text, whether they are special or not.
#[test]
fn an_added_token_that_is_not_special_has_no_space_before_it() {
    let folder = Folder::new(&[("added_tokens.json", r#"{"<|im_start|>": 268, "<END>": 269}"#)]);
    folder.write("tokenizer.model", sentencepiece_model(2, 0));
    let t = folder.loaded();
    assert_eq!(t.token_kind(269), Some(TokenKind::UserDefined));
    assert_eq!(encode(&t, "<|im_start|><END>ab<END>"), [268, 269, 265, 269]);
}

#[test]
fn a_name_without_an_id_gets_the_one_that_a_file_says_for_what_it_is() {
    let folder = Folder::new(&[
        ("special_tokens_map.json", r#"{"eos_token": "<|im_end|>", "additional_special_tokens": ["<|new|>"]}"#),
        ("generation_config.json", r#"{"eos_token_id": 270}"#),
        ("config.json", r#"{"vocab_size": 272}"#),
    ]);
    folder.write("tokenizer.model", sentencepiece_model(2, 0));
    let t = folder.loaded();
    assert_eq!(encode(&t, "<|im_end|><|new|>"), [270, 271], "a further one comes next, as in transformers");
    assert_eq!((t.end_of_turn_ids(), t.warnings()), (&[270, 2][..], &[][..]));
    folder.write("config.json", r#"{"vocab_size": 271}"#);
    assert!(folder.loaded().warnings()[0].contains("<|new|>"), "the model has no row for it");
}

#[test]
fn ids_out_of_range_in_json_are_left_out_with_a_warning() {
    for (text, says) in [
        (r#"{"bos_token_id": 32000}"#, "bos_token_id of config.json is 32000"),
        (r#"{"bos_token_id": -1}"#, "-1"),
        (r#"{"eos_token_id": [1, 4294967297]}"#, "eos_token_id of config.json is 4294967297"),
        (r#"{"eos_token_id": "two"}"#, "\"two\""),
        (r#"{"eos_token_id": 1.5}"#, "1.5"),
    ] {
        let folder = Folder::new(&[("config.json", text), ("tokenizer_config.json", r#"{"add_bos_token": true}"#)]);
        folder.write("tokenizer.json", JSON.replace(r#"{"SpecialToken":{"id":"<s>","type_id":0}},"#, ""));
        let t = folder.loaded();
        assert_eq!(t.encode("hi", true, true).expect("encoding"), [3], "{text}");
        assert!(t.warnings().iter().any(|warning| warning.contains(says)), "{text}: {:?}", t.warnings());
    }
    let beyond =
        r#"{"bos_token": "<|b|>", "add_bos_token": true, "added_tokens_decoder": {"300": {"content": "<|b|>"}}}"#;
    let folder = Folder::new(&[("config.json", r#"{"vocab_size": 8}"#), ("tokenizer_config.json", beyond)]);
    folder.write("tokenizer.json", JSON.replace(r#"{"SpecialToken":{"id":"<s>","type_id":0}},"#, ""));
    let t = folder.loaded();
    assert_eq!(t.encode("hi", true, true).expect("encoding"), [3], "the model has no such row");
    assert!(t.warnings().iter().any(|warning| warning.starts_with("bos_token is")), "{:?}", t.warnings());
    let config = r#"{"eos_token_id": 9, "vocab_size": 16}"#;
    let t = Folder::new(&[("tokenizer.json", JSON), ("config.json", config)]).loaded();
    assert!(t.is_end_of_turn(9), "the model has a row for it");
    assert!(t.warnings()[0].contains("no file names"), "{:?}", t.warnings());
}

const VOCAB: &str = r#"{"<|endoftext|>":0,"1":1,"2":2,"a":3,"Ġ":4,"12":5,"Ġ1":6,"Ġa":7,"</s>":8}"#;
const MERGES: &str = "#version: 0.2\n1 2\nĠ a\r\nĠ 1\nx y\n\n";

#[test]
fn vocab_json_and_merges_txt_are_cut_as_the_class_says() {
    let folder = Folder::new(&[("vocab.json", VOCAB), ("merges.txt", MERGES)]);
    for (class, model_type, ids) in [
        ("Qwen2Tokenizer", "llama", &[3, 4, 1, 2, 7][..]),
        ("Qwen2TokenizerFast", "qwen2", &[3, 4, 1, 2, 7]),
        ("PreTrainedTokenizerFast", "qwen3", &[3, 4, 1, 2, 7]),
        ("GPT2Tokenizer", "llama", &[3, 4, 5, 7]),
        ("CodeGenTokenizer", "phi", &[3, 4, 5, 7]),
        ("GPT2TokenizerFast", "starcoder2", &[3, 4, 1, 2, 7]),
    ] {
        folder.write("tokenizer_config.json", format!(r#"{{"tokenizer_class": "{class}", "eos_token": "</s>"}}"#));
        folder.write("config.json", format!(r#"{{"model_type": "{model_type}"}}"#));
        let t = folder.loaded();
        assert_eq!(encode(&t, "a 12 a"), ids, "{class}, {model_type}");
        assert_eq!((encode(&t, "</s>a"), t.eos(), t.end_of_turn_ids()), (vec![8, 3], Some(8), &[8, 0][..]));
        assert_eq!((t.decode(ids, true).as_str(), t.bos()), ("a 12 a", None));
    }
    folder.write("tokenizer_config.json", r#"{"add_prefix_space": true, "bos_token": "</s>", "add_bos_token": true}"#);
    let t = Tokenizer::from_path(folder.0.path().join("vocab.json")).expect("a tokenizer");
    assert_eq!(t.encode("a", true, true).expect("encoding"), [8, 7]);
    folder.write("merges.txt", "1 2\n1 2 3\n");
    assert!(folder.error().contains("merges.txt") && folder.error().contains("line 2"));
    folder.write("vocab.json", r#"{"a": 0, "b": 0}"#);
    assert!(folder.error().contains("both have the id 0"));
}

/// A tekken.json of the bytes and `ab`, `bc`, `abc`, with the special tokens of `more`.
fn tekken(n_special: usize, more: &str) -> String {
    let base64 = |bytes: &[u8]| base64::Engine::encode(&base64::engine::general_purpose::STANDARD, bytes);
    let bytes: Vec<Vec<u8>> = (0..=255).map(|b| vec![b]).collect();
    let words = bytes.into_iter().chain([b"bc".to_vec(), b"ab".to_vec(), b"abc".to_vec(), b"beyond".to_vec()]);
    let words: Vec<String> = words
        .enumerate()
        .map(|(rank, word)| format!(r#"{{"rank":{rank},"token_bytes":"{}","token_str":null}}"#, base64(&word)))
        .collect();
    let size = n_special + 259;
    format!(
        r#"{{"config":{{"pattern":"\\p{{L}}+|\\p{{N}}|\\s+(?!\\S)|\\s+","num_vocab_tokens":260,"default_vocab_size":{size},
            "default_num_special_tokens":{n_special},"version":"v3"}},{more}"vocab":[{}]}}"#,
        words.join(",")
    )
}

#[test]
fn tekken_json_is_read_as_mistral_common_does() {
    let folder = Folder::new(&[("tekken.json", &tekken(21, ""))]);
    let t = folder.loaded();
    let byte = |b: u8| 21 + u32::from(b);
    let ids = t.encode("abcb a", true, true).expect("encoding");
    assert_eq!(ids, [1, 21 + 258, byte(b'b'), byte(b' '), byte(b'a')]);
    assert_eq!(encode(&t, "aabc"), [byte(b'a'), 21 + 258], "bc goes before ab");
    assert_eq!(encode(&t, "[INST]ab[/INST]"), [3, 21 + 257, 4]);
    assert_eq!((t.bos(), t.eos(), t.end_of_turn_ids(), t.vocab_size()), (Some(1), Some(2), &[2][..], 280));
    assert_eq!(t.decode(&[1, 20, 21 + 258, 3], false), "<s><SPECIAL_20>abc[INST]");
    assert_eq!(t.decode(&[1, 20, 21 + 258, 3], true), "abc");
    let special = r#""special_tokens":[{"rank":1,"token_str":"<s>","is_control":true},{"rank":0,"token_str":"[THINK]","is_control":true}],"#;
    folder.write("tekken.json", tekken(2, special));
    let t = folder.loaded();
    assert_eq!((encode(&t, "[THINK]ab"), t.bos(), t.eos()), (vec![0, 2 + 257], Some(1), None));
    assert_eq!(encode(&Tokenizer::from_path(folder.0.path().join("tekken.json")).expect("a tokenizer"), "ab"), [259]);
    for (text, says) in [
        (tekken(19, ""), "rank 19"),
        (tekken(21, "").replace("\"v3\"", "\"v11\""), "lists no special_tokens"),
        (tekken(21, "").replace("\"rank\":7,", "\"rank\":8,"), "entry 7"),
        (tekken(21, "").replace("AQ==", "Ag=="), "entry 1 "),
        (tekken(21, "").replace("(?!\\\\S)", "(?!\\\\S"), "the expression"),
        ("{}".to_owned(), "pattern"),
    ] {
        folder.write("tekken.json", &text);
        let error = folder.error();
        assert!(error.contains("tekken.json") && error.contains(says), "{says}: {error}");
    }
}

#[test]
fn one_opened_file_gives_tokenizer_and_template() {
    let folder = Folder::new(&[("tekken.json", &tekken(21, ""))]);
    let path = folder.0.path().join("tekken.json");
    let source = TextSource::open(&path).expect("a file");
    std::fs::remove_file(&path).expect("removing");
    assert_eq!(source.template().expect("a template").expect("one").source(), "mistral v3");
    assert_eq!(encode(&source.tokenizer().expect("a tokenizer"), "ab"), [21 + 257]);
    // A version in the name of sentencepiece's file chooses the format, and the file is still read as such.
    folder.write("tokenizer.model.v2", sentencepiece_model(2, 0));
    let source = TextSource::open(folder.0.path().join("tokenizer.model.v2")).expect("a file");
    assert_eq!(source.template().expect("a template").expect("one").source(), "mistral v2");
    source.tokenizer().expect("a tokenizer");
}

#[test]
fn a_tokenizer_file_that_is_not_read_is_named() {
    for name in ["qwen.tiktoken", "vocab.json", "merges.txt", "spiece.model", "vocab.txt"] {
        let error = Folder::new(&[(name, "x"), ("tokenizer_config.json", "{}")]).error();
        assert!(error.contains(name) && error.contains("tokenizer.json") && !error.contains("repository"), "{error}");
    }
    let error = Folder::new(&[("tokenizer.model", "IQ== 0\nIg== 1\n")]).error();
    assert!(error.contains("tiktoken"), "{error}");
}
