//! Tests of every mechanism on vocabularies small enough to check by hand. Real ones: `tests/tokenizers.rs`.

use std::io::Write;

use proptest::prelude::*;

use super::super::StreamDecoder;
use super::*;

/// The metadata of a GGUF file without tensors.
#[derive(Default)]
struct Meta {
    keys: u64,
    bytes: Vec<u8>,
}

impl Meta {
    fn key(mut self, key: &str, kind: u32) -> Self {
        self.keys += 1;
        self.string(key).u32_value(kind)
    }

    fn string(mut self, text: &str) -> Self {
        self.bytes.extend((text.len() as u64).to_le_bytes());
        self.bytes.extend(text.as_bytes());
        self
    }

    fn u32_value(mut self, value: u32) -> Self {
        self.bytes.extend(value.to_le_bytes());
        self
    }

    fn array(self, key: &str, element: u32, len: usize) -> Self {
        let mut meta = self.key(key, 9).u32_value(element);
        meta.bytes.extend((len as u64).to_le_bytes());
        meta
    }

    fn text(self, key: &str, value: &str) -> Self {
        self.key(key, 8).string(value)
    }

    fn number(self, key: &str, value: u32) -> Self {
        self.key(key, 4).u32_value(value)
    }

    fn flag(self, key: &str, value: bool) -> Self {
        let mut meta = self.key(key, 7);
        meta.bytes.push(value.into());
        meta
    }

    fn strings(self, key: &str, values: &[String]) -> Self {
        values.iter().fold(self.array(key, 8, values.len()), |meta, v| meta.string(v))
    }

    fn kinds(self, values: &[u32]) -> Self {
        values.iter().fold(self.array("tokenizer.ggml.token_type", 5, values.len()), |meta, v| meta.u32_value(*v))
    }

    fn scores(self, values: &[f32]) -> Self {
        let meta = self.array("tokenizer.ggml.scores", 6, values.len());
        values.iter().fold(meta, |meta, v| meta.u32_value(v.to_bits()))
    }

    /// Writes the file and loads it through the public door.
    fn load(self) -> Result<Tokenizer> {
        let mut file = tempfile::Builder::new().suffix(".gguf").tempfile().unwrap();
        let mut header = b"GGUF\x03\0\0\0".to_vec();
        header.extend(0u64.to_le_bytes());
        header.extend(self.keys.to_le_bytes());
        file.write_all(&header).and_then(|()| file.write_all(&self.bytes)).unwrap();
        Tokenizer::from_path(file.path())
    }
}

/// The printable alphabet, in the order of the bytes.
fn alphabet() -> Vec<String> {
    let mut other = 255;
    let visible = |b: u32| matches!(b, 33..=126 | 161..=172 | 174..=255);
    let mut char_of = |b: u32| {
        other += u32::from(!visible(b));
        char::from_u32(if visible(b) { b } else { other }).unwrap().to_string()
    };
    (0..256).map(&mut char_of).collect()
}

/// Bytes are ids 0–255, then come these.
const HE: u32 = 256;
const LL: u32 = 257;
const HELL: u32 = 258;
const LLO: u32 = 259;
const SPACE_A: u32 = 260;
const END: u32 = 261;
const TOOL: u32 = 262;
const BOS: u32 = 263;

fn byte_pairs_meta(pre: &str) -> Meta {
    let mut tokens = alphabet();
    tokens.extend(["he", "ll", "hell", "llo", "Ġa", "<|im_end|>", "<tool>", "<|start▁of|>"].map(String::from));
    let mut kinds = vec![1; tokens.len()];
    (kinds[END as usize], kinds[TOOL as usize], kinds[BOS as usize]) = (3, 4, 3);
    let merges = ["l l", "h e", "he ll", "ll o", "Ġ a", "x y"].map(String::from);
    Meta::default()
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", pre)
        .strings("tokenizer.ggml.tokens", &tokens)
        .kinds(&kinds)
        .strings("tokenizer.ggml.merges", &merges)
        .number("tokenizer.ggml.bos_token_id", BOS)
        .number("tokenizer.ggml.eos_token_id", u32::from(b'.'))
}

fn byte_pairs(pre: &str) -> Tokenizer {
    byte_pairs_meta(pre).load().unwrap()
}

/// A tokenizer of bytes with these control tokens.
pub(in crate::text) fn with_marks(names: &[&str]) -> Tokenizer {
    let mut tokens = alphabet();
    let mut kinds = vec![1; tokens.len()];
    tokens.extend(names.iter().map(|name| (*name).to_owned()));
    kinds.resize(tokens.len(), 3);
    let meta = Meta::default().text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "qwen2");
    meta.strings("tokenizer.ggml.tokens", &tokens).kinds(&kinds).strings("tokenizer.ggml.merges", &[]).load().unwrap()
}

fn b(text: &str) -> Vec<u32> {
    text.bytes().map(u32::from).collect()
}

#[test]
fn merges_go_by_rank_not_by_length() {
    let t = byte_pairs("gpt-2");
    assert_eq!(t.encode("hello", false, false).unwrap(), [HELL, u32::from(b'o')]);
    assert_eq!(t.encode("llo", false, false).unwrap(), [LLO]);
    assert_eq!(t.encode("lllo", false, false).unwrap(), [LL, u32::from(b'l'), u32::from(b'o')]);
    assert_eq!(t.encode(" a he", false, false).unwrap(), [SPACE_A, u32::from(b' '), HE]);
    assert_eq!(t.encode("ü\n", false, false).unwrap(), b("ü\n"));
    assert!(t.encode("", false, false).unwrap().is_empty());
}

#[test]
fn a_whole_word_wins_where_merges_are_ignored() {
    // "hello" is h-e, l-l, then "he ll"; with the word as a token and no merge to it, only llama3 finds it.
    let mut tokens = alphabet();
    tokens.push("hello".to_owned());
    let load = |pre| {
        let merges = ["l l".to_owned()];
        let meta = Meta::default().text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", pre);
        meta.strings("tokenizer.ggml.tokens", &tokens).strings("tokenizer.ggml.merges", &merges).load().unwrap()
    };
    assert_eq!(load("llama-bpe").encode("hello", true, true).unwrap(), [256]);
    assert_eq!(load("gpt-2").encode("hello", true, true).unwrap(), b("hello"));
}

#[test]
fn special_tokens_are_parsed_only_where_asked_for() {
    let t = byte_pairs("qwen2");
    assert_eq!(t.encode("he<|im_end|><tool>", false, true).unwrap(), [HE, END, TOOL]);
    let literal = t.encode("he<|im_end|><tool>", false, false).unwrap();
    assert_eq!(literal, [vec![HE], b("<|im_end|>"), vec![TOOL]].concat());
    assert_eq!(t.decode(&literal, true), "he<|im_end|><tool>");
    assert_eq!(t.decode(&[HE, END, TOOL, BOS], true), "he<tool>");
    assert_eq!(t.decode(&[HE, END, TOOL, BOS], false), "he<|im_end|><tool><|start▁of|>");
    assert!(t.is_special(END) && t.is_special(BOS) && !t.is_special(TOOL) && !t.is_special(HE));
}

#[test]
fn bos_and_the_ends_of_an_answer() {
    let t = byte_pairs("qwen2");
    assert_eq!((t.bos(), t.eos(), t.vocab_size()), (Some(BOS), Some(u32::from(b'.')), 264));
    assert_eq!(t.end_of_turn_ids(), [u32::from(b'.'), END]);
    assert!(t.is_end_of_turn(END) && !t.is_end_of_turn(HE));
    assert!(!t.add_bos_default());
    assert_eq!(t.encode("he", true, true).unwrap(), [HE]);
    let llama3 = byte_pairs("llama-bpe");
    assert!(llama3.add_bos_default());
    assert_eq!(llama3.encode("he", true, true).unwrap(), [BOS, HE]);
    assert_eq!(llama3.encode("he", false, true).unwrap(), [HE]);
    let meta = byte_pairs_meta("llama-bpe").flag("tokenizer.ggml.add_bos_token", false);
    let t = meta.flag("tokenizer.ggml.add_eos_token", true).number("tokenizer.ggml.eot_token_id", HE).load().unwrap();
    assert_eq!(t.encode("", true, true).unwrap(), [u32::from(b'.')]);
    assert_eq!(t.end_of_turn_ids(), [u32::from(b'.'), HE, END]);
}

#[test]
fn qwen_composes_text_first() {
    assert_eq!(byte_pairs("qwen2").encode("e\u{301}", false, false).unwrap(), b("é"));
    assert_eq!(byte_pairs("gpt-2").encode("e\u{301}", false, false).unwrap(), b("e\u{301}"));
}

#[test]
fn token_bytes_are_bytes_not_characters() {
    let t = byte_pairs("gpt-2");
    assert_eq!(t.token_bytes(0xE4), Some(vec![0xE4]));
    assert_eq!(t.token_bytes(SPACE_A), Some(b" a".to_vec()));
    assert_eq!(t.token_bytes(BOS), Some("<|start▁of|>".into()));
    assert_eq!(t.token_bytes(9999), None);
    assert_eq!(t.decode(&[9999, HE], false), "he");
}

#[test]
fn a_long_run_without_spaces_takes_no_quadratic_time() {
    let t = byte_pairs("gpt-2");
    let text = "l".repeat(400_000);
    let start = std::time::Instant::now();
    assert_eq!(t.encode(&text, false, false).unwrap(), vec![LL; 200_000]);
    // Quadratic would be hours; a slow machine needs a fraction of this.
    assert!(start.elapsed().as_secs() < 30);
}

#[test]
fn what_is_not_supported_is_named() {
    let error = |meta: Meta| meta.load().unwrap_err().to_string();
    assert!(error(byte_pairs_meta("pre-of-tomorrow")).contains("pre-of-tomorrow"));
    for name in ["bert", "t5", "rwkv", "plamo2"] {
        let error = error(Meta::default().text("tokenizer.ggml.model", name));
        assert!(error.contains(name) && error.contains("gpt2"), "{error}");
    }
    assert!(error(Meta::default()).contains("tokenizer.ggml.model"));
}

#[test]
fn broken_tables_are_refused() {
    let meta = || Meta::default().text("tokenizer.ggml.model", "gpt2").text("tokenizer.ggml.pre", "gpt-2");
    let tokens = ["a".to_owned(), "b".to_owned()];
    assert!(meta().load().unwrap_err().to_string().contains("tokenizer.ggml.tokens"));
    assert!(meta().strings("tokenizer.ggml.tokens", &[]).load().is_err());
    assert!(meta().array("tokenizer.ggml.tokens", 4, 0).load().is_err());
    let short = meta().strings("tokenizer.ggml.tokens", &tokens).kinds(&[1]).load();
    assert!(short.unwrap_err().to_string().contains("token_type has 1 kinds for 2 tokens"));
    // Merges without their tokens never apply.
    let odd = ["".to_owned(), " ".to_owned(), "a".to_owned(), "a b c".to_owned(), "x y".to_owned()];
    let meta = meta().strings("tokenizer.ggml.tokens", &tokens).strings("tokenizer.ggml.merges", &odd);
    assert_eq!(meta.load().unwrap().encode("abc", true, true).unwrap(), [0, 1]);
}

/// `<unk>` 0, `<s>` 1, `</s>` 2, bytes 3–258, then pieces.
fn piece_tokens() -> (Vec<String>, Vec<u32>, Vec<f32>) {
    let mut tokens: Vec<String> = ["<unk>", "<s>", "</s>"].map(String::from).into();
    let mut kinds = vec![2, 3, 3];
    tokens.extend((0..256).map(|b| format!("<0x{b:02X}>")));
    kinds.extend([6; 256]);
    let mut scores = vec![0.0; tokens.len()];
    let pieces = [("▁", -1.0), ("a", -2.0), ("b", -3.0), ("▁a", -10.0), ("ab", -5.0), ("▁▁", -4.0), ("▁ab", -20.0)];
    for (text, score) in pieces {
        tokens.push(text.to_owned());
        kinds.push(1);
        scores.push(score);
    }
    tokens.push("[x]".to_owned());
    kinds.push(4);
    scores.push(0.0);
    (tokens, kinds, scores)
}

const P: u32 = 259;
const A: u32 = P + 1;
const B: u32 = P + 2;
const PA: u32 = P + 3;
const PP: u32 = P + 5;
const PAB: u32 = P + 6;
const X: u32 = P + 7;

fn pieces_meta() -> Meta {
    let (tokens, kinds, scores) = piece_tokens();
    let meta = Meta::default().text("tokenizer.ggml.model", "llama").strings("tokenizer.ggml.tokens", &tokens);
    meta.kinds(&kinds).scores(&scores)
}

/// The same vocabulary as a sentencepiece model, built field by field.
pub(in crate::text) fn sentencepiece_model(model_type: u8, squeeze: u8) -> Vec<u8> {
    let (tokens, kinds, scores) = piece_tokens();
    let mut out = Vec::new();
    for ((text, kind), score) in tokens.iter().zip(kinds).zip(scores) {
        let mut piece = vec![0x0A, text.len() as u8];
        piece.extend(text.as_bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, kind as u8]);
        out.extend([0x0A, piece.len() as u8]);
        out.extend(piece);
    }
    out.extend([0x12, 2, 0x18, model_type]);
    out.extend([0x1A, 2, 0x20, squeeze]);
    out
}

#[test]
fn pieces_join_by_score() {
    let t = pieces_meta().load().unwrap();
    assert_eq!(t.encode("ab", false, false).unwrap(), [PAB]);
    assert_eq!(t.encode("a b", false, false).unwrap(), [PA, P, B]);
    assert_eq!(t.encode("  a", false, false).unwrap(), [PP, PA], "the prefix makes it three spaces");
    assert_eq!(t.encode("é", false, false).unwrap(), [P, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(t.encode("a", true, false).unwrap(), [1, PA]);
    // What looks like a byte token or a control token is spelled out: a space, ten bytes or pieces.
    assert_eq!(t.encode("<0x41></s>", false, false).unwrap().len(), 11);
    assert_eq!((t.bos(), t.eos(), t.end_of_turn_ids()), (Some(1), Some(2), &[2][..]));
}

#[test]
fn space_prefix_after_special_tokens() {
    let t = pieces_meta().load().unwrap();
    assert_eq!(t.encode("a</s>a[x]b", false, true).unwrap(), [PA, 2, PA, X, P, B], "as llama.cpp does");
    let t = pieces_meta().flag("tokenizer.ggml.add_space_prefix", false).load().unwrap();
    assert_eq!(t.encode("a</s>a", false, true).unwrap(), [A, 2, A]);
    assert_eq!(t.decode(&[PA], true), " a", "nothing was added, so nothing is taken away");
    let t = Tokenizer::from_sentencepiece(&sentencepiece_model(2, 0)).unwrap();
    assert_eq!(t.encode("a[x]b", false, false).unwrap(), [PA, X, B], "as sentencepiece does");
}

#[test]
fn the_leading_space_is_taken_away_once() {
    let t = pieces_meta().load().unwrap();
    assert_eq!(t.decode(&[1, PA, P, B], true), "a b");
    assert_eq!(t.decode(&[PP, A], true), " a");
    assert_eq!(t.decode(&[A, PA], true), "a a");
    let mut stream = StreamDecoder::continuing(&t, true);
    assert_eq!(stream.push(PA), Some(" a"), "the answer goes on after a prompt");
}

#[test]
fn sentencepiece_models() {
    let t = Tokenizer::from_sentencepiece(&sentencepiece_model(2, 0)).unwrap();
    assert_eq!(t.encode("ab é", true, true).unwrap(), [1, PAB, P, 3 + 0xC3, 3 + 0xA9]);
    assert_eq!(t.decode(&[1, PAB, P, 3 + 0xC3, 3 + 0xA9], true), "ab é");
    let error = |bytes: &[u8]| Tokenizer::from_sentencepiece(bytes).unwrap_err().to_string();
    assert!(error(&sentencepiece_model(1, 0)).contains("unigram"));
    assert!(error(&sentencepiece_model(2, 1)).contains("remove_extra_whitespaces"));
    assert!(error(b"").contains("no pieces"));
    assert!(error(b"hello there").contains("not a valid tokenizer.model"));
    let whole = sentencepiece_model(2, 0);
    for len in [1, 2, 5, 7, whole.len() / 2, whole.len() - 1] {
        // Cut anywhere, it is an error or a shorter model, never a panic.
        let _ = Tokenizer::from_sentencepiece(&whole[..len]);
    }
}

pub(in crate::text) const JSON: &str = r#"{"version":"1.0","truncation":null,"padding":null,
 "added_tokens":[
  {"id":0,"content":"<s>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
  {"id":6,"content":"<|eot_id|>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true},
  {"id":7,"content":"<tool>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":false}],
 "normalizer":null,
 "pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
 "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":{"id":"A","type_id":0}}],
  "pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
  "special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},
 "decoder":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true},
 "model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":null,"end_of_word_suffix":null,
  "fuse_unk":false,"byte_fallback":false,"vocab":{"<s>":0,"h":1,"i":2,"hi":3,"Ġ":4,"Ã":5},"merges":["h i"]}}"#;

#[test]
fn tokenizer_json() {
    let t = Tokenizer::from_tokenizer_json("test", JSON.as_bytes()).unwrap();
    assert_eq!(t.encode("hi h", true, true).unwrap(), [0, 3, 4, 1]);
    assert_eq!(t.encode("hi<tool><|eot_id|>", false, true).unwrap(), [3, 7, 6]);
    assert_eq!(t.encode("hi<tool><|eot_id|>", false, false).unwrap(), [3, 7, 2]);
    assert_eq!((t.bos(), t.add_bos_default(), t.vocab_size()), (Some(0), true, 8));
    assert_eq!(t.end_of_turn_ids(), [6]);
    assert_eq!(t.token_bytes(5), Some(vec![0xC3]));
    assert_eq!(t.decode(&[0, 3, 4, 1, 7, 6], true), "hi h<tool>");
    let wordpiece = JSON
        .replace(r#""decoder":{"type":"ByteLevel""#, r#""decoder":{"type":"WordPiece","prefix":"x","cleanup":true"#);
    let error = Tokenizer::from_tokenizer_json("test", wordpiece.as_bytes()).unwrap_err().to_string();
    assert!(error.contains("WordPiece"), "{error}");
    assert!(Tokenizer::from_tokenizer_json("my.json", b"{}").unwrap_err().to_string().contains("my.json"));
}

#[test]
fn a_text_that_begins_with_bos_is_told() {
    let t = Tokenizer::from_tokenizer_json("test", JSON.as_bytes()).unwrap();
    assert_eq!(t.doubled_bos("<s>hi").as_deref(), Some("<s>"));
    assert_eq!(t.doubled_bos("hi<s>"), None);
    assert_eq!(byte_pairs("llama-bpe").doubled_bos("<|start▁of|>he").as_deref(), Some("<|start▁of|>"));
    assert_eq!(byte_pairs("qwen2").doubled_bos("<|start▁of|>he"), None, "qwen adds none");
}

#[test]
fn an_id_of_the_post_processor_beyond_the_vocabulary_is_left_out() {
    let json = JSON.replace(r#""ids":[0]"#, r#""ids":[50]"#);
    let t = Tokenizer::from_tokenizer_json("test", json.as_bytes()).unwrap();
    assert_eq!((t.encode("hi", true, true).unwrap(), t.bos()), (vec![3], None));
    assert!(t.warnings()[0].contains("50") && t.warnings()[0].contains("post-processor"), "{:?}", t.warnings());
}

fn stream_equals_whole(t: &Tokenizer, ids: &[u32], skip_special: bool) {
    let mut stream = StreamDecoder::new(t, skip_special);
    let mut text: String = ids.iter().filter_map(|&id| stream.push(id).map(str::to_owned)).collect();
    text.extend(stream.finish());
    assert_eq!(text, t.decode(ids, skip_special));
}

proptest! {
    #[test]
    fn streams_equal_the_whole(ids in proptest::collection::vec(0..270u32, 0..60), skip_special: bool) {
        stream_equals_whole(&byte_pairs("gpt-2"), &ids, skip_special);
        stream_equals_whole(&pieces_meta().load().unwrap(), &ids, skip_special);
        stream_equals_whole(&Tokenizer::from_tokenizer_json("test", JSON.as_bytes()).unwrap(), &ids, skip_special);
        let bytes: Vec<u8> = ids.iter().filter(|&&id| id < 256).map(|&id| id as u8).collect();
        let only_bytes: Vec<u32> = bytes.iter().map(|&b| b.into()).collect();
        prop_assert_eq!(byte_pairs("gpt-2").decode(&only_bytes, false), String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn any_text_comes_back(text in "\\PC{0,40}") {
        for t in [byte_pairs("gpt-2"), byte_pairs("smollm"), byte_pairs("deepseek-v3"), pieces_meta().load().unwrap()] {
            let ids = t.encode(&text, true, false).unwrap();
            prop_assert_eq!(&t.decode(&ids, true), &text.replace('▁', if t.token_bytes(0) == Some(vec![0]) { "▁" } else { " " }));
        }
    }
}
