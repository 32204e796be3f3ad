//! Small files of the kind `tokenizer.json`, which together have every component that is read.

use serde_json::{Map, Value, json};

/// The printable character of a byte, as GPT-2 has it.
fn alphabet(byte: u8) -> char {
    let own = |b: u8| matches!(b, 33..=126 | 161..=172 | 174..=255);
    match own(byte) {
        true => char::from(byte),
        false => char::from_u32(256 + (0..byte).filter(|&b| !own(b)).count() as u32).expect("a character"),
    }
}

/// A vocabulary under construction.
#[derive(Default)]
struct Model {
    vocab: Map<String, Value>,
    merges: Vec<(String, String)>,
}

impl Model {
    fn token(&mut self, text: &str) -> &mut Self {
        let next = self.vocab.len();
        self.vocab.entry(text.to_owned()).or_insert(json!(next));
        self
    }

    /// Adds merges with their tokens; `prefix` is taken from right sides.
    fn merges(&mut self, pairs: &[(&str, &str)], prefix: &str) -> &mut Self {
        for (left, right) in pairs {
            self.token(left).token(right);
            self.token(&format!("{left}{}", &right[prefix.len()..]));
            self.merges.push(((*left).to_owned(), (*right).to_owned()));
        }
        self
    }

    /// `model` of the file: these keys beside vocabulary and merges, in one of their spellings.
    fn with(&self, keys: Value) -> Value {
        let spaces = self.merges.iter().any(|(left, right)| left.contains(' ') || right.contains(' '));
        let merge = |(left, right): &(String, String)| match spaces || self.merges.len().is_multiple_of(2) {
            true => json!([left, right]),
            false => json!(format!("{left} {right}")),
        };
        let merges: Vec<Value> = self.merges.iter().map(merge).collect();
        let mut model = json!({"type": "BPE", "vocab": self.vocab, "merges": merges});
        model.as_object_mut().unwrap().extend(keys.as_object().unwrap().clone());
        model
    }
}

const LETTERS: &[(&str, &str)] = &[
    ("t", "h"),
    ("th", "e"),
    ("i", "n"),
    ("a", "b"),
    ("ab", "c"),
    ("b", "c"),
    ("a", "bc"),
    ("c", "a"),
    ("a", "a"),
    ("aa", "aa"),
    ("e", "r"),
    ("1", "2"),
    ("12", "3"),
    ("o", "n"),
    ("on", "e"),
    ("a", "n"),
    ("an", "d"),
    ("f", "i"),
    ("A", "B"),
    (".", "."),
];

/// Letters, signs and what merges make of them, with `sign` as the space.
fn letters(sign: &str) -> Model {
    let mut model = Model::default();
    model.token("<unk>").token("<s>").token("</s>");
    for c in "abcdefghijklmnopqrstuvwxyzABCDEFGHIJ0123456789.,!?-_'#<>/|é你好ก็ｶ\n".chars() {
        model.token(&c.to_string());
    }
    model.token(sign).merges(LETTERS, "");
    let pairs = [(sign, "a"), (sign, "t"), (sign, sign)];
    model.merges(&pairs, "").merges(&[(&format!("{sign}t"), "he"), (&sign.repeat(2), &sign.repeat(2))], "");
    model
}

fn bytes() -> Model {
    let mut model = Model::default();
    model.token("<s>").token("</s>");
    (0..=255).for_each(|byte| {
        model.token(&alphabet(byte).to_string());
    });
    model.merges(LETTERS, "").merges(&[("Ġ", "a"), ("Ġ", "t"), ("Ġt", "he"), ("Ġ", "Ġ"), ("Ã", "©"), ("ä½", "ł")], "");
    model.merges(&[("ä", "½"), ("Ċ", "Ċ"), ("č", "Ċ")], "");
    model
}

fn byte_fallback(mut model: Model) -> Model {
    (0..=255u8).for_each(|byte| {
        model.token(&format!("<0x{byte:02X}>"));
    });
    model
}

fn added(model: &Value, tokens: &[(&str, &str)]) -> Value {
    let vocab = model["vocab"].as_object().unwrap();
    let mut next = vocab.len();
    let token = |(text, flags): &(&str, &str)| {
        let id = vocab.get(*text).cloned().unwrap_or_else(|| {
            next += 1;
            json!(next - 1)
        });
        let has = |flag: &str| flags.split(' ').any(|f| f == flag);
        json!({"id": id, "content": text, "special": has("special"), "normalized": has("normalized"),
            "lstrip": has("lstrip"), "rstrip": has("rstrip"), "single_word": has("single_word")})
    };
    Value::Array(tokens.iter().map(token).collect())
}

const TOKENS: &[(&str, &str)] = &[
    ("<s>", "special"),
    ("</s>", "special"),
    ("<|im_start|>", "special rstrip"),
    ("<|im_end|>", "special lstrip"),
    ("<mask>", "special lstrip rstrip"),
    ("<tool>", ""),
    ("<Tool>Ab", "normalized"),
    ("HÉ ", "normalized special"),
    ("word", "single_word"),
    ("<|im_end|>x", "rstrip"),
    ("im_start", "normalized single_word"),
    ("  ", ""),
    (" the", "normalized"),
];

fn file(model: Value, normalizer: Value, pre: Value, post: Value, decoder: Value) -> Value {
    json!({"version": "1.0", "truncation": {"direction": "Right", "max_length": 3, "strategy": "LongestFirst", "stride": 0},
        "padding": null, "added_tokens": added(&model, TOKENS), "normalizer": normalizer, "pre_tokenizer": pre,
        "post_processor": post, "decoder": decoder, "model": model})
}

fn template() -> Value {
    json!({"type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": "</s>", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1, 1], "tokens": ["<s>", "<s>"]},
            "</s>": {"id": "</s>", "ids": [2], "tokens": ["</s>"]}}})
}

fn byte_level(add_prefix_space: bool, use_regex: bool) -> Value {
    json!({"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": true, "use_regex": use_regex})
}

fn sequence(list: &str, parts: &[Value]) -> Value {
    json!({"type": "Sequence", list: parts})
}

fn pieces_decoder() -> Value {
    sequence(
        "decoders",
        &[
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        ],
    )
}

/// All files with names.
pub fn all() -> Vec<(String, Value)> {
    let fuse = || json!({"type": "Fuse"});
    let replace = |content: &str| json!({"type": "Replace", "pattern": {"String": " "}, "content": content});
    let prepend = json!({"type": "Prepend", "prepend": "▁"});
    let fallback = json!({"unk_token": "<unk>", "byte_fallback": true, "fuse_unk": true});
    let mut all = vec![
        (
            "as Llama 2".to_owned(),
            file(
                byte_fallback(letters("▁")).with(fallback.clone()),
                sequence("normalizers", &[prepend, replace("▁")]),
                Value::Null,
                template(),
                pieces_decoder(),
            ),
        ),
        (
            "as GPT-2 and RoBERTa".to_owned(),
            file(
                bytes().with(json!({"dropout": null, "continuing_subword_prefix": "", "end_of_word_suffix": ""})),
                Value::Null,
                byte_level(true, true),
                json!({"type": "RobertaProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0], "trim_offsets": true,
                    "add_prefix_space": true}),
                byte_level(true, true),
            ),
        ),
        (
            "bytes that the vocabulary lacks".to_owned(),
            file(
                letters("Ġ").with(json!({"unk_token": "<unk>", "ignore_merges": true})),
                json!({"type": "NFD"}),
                sequence("pretokenizers", &[json!({"type": "WhitespaceSplit"}), byte_level(true, false)]),
                sequence("processors", &[byte_level(true, true), template()]),
                byte_level(false, false),
            ),
        ),
        (
            "bytes that the vocabulary lacks, without an unknown token".to_owned(),
            file(
                letters("Ġ").with(json!({})),
                Value::Null,
                byte_level(false, true),
                Value::Null,
                byte_level(false, false),
            ),
        ),
        (
            "whole words".to_owned(),
            file(
                bytes().with(json!({"ignore_merges": true})),
                json!({"type": "NFC"}),
                byte_level(false, true),
                json!({"type": "BertProcessing", "sep": ["</s>", 1], "cls": ["<s>", 0]}),
                byte_level(false, false),
            ),
        ),
        (
            "some bytes".to_owned(),
            file(
                {
                    let mut model = letters("▁");
                    ["<0xC3>", "<0xA9>", "<0x20>", "<0xF0>", "<0x9F>"].iter().for_each(|byte| {
                        model.token(byte);
                    });
                    model.with(json!({"unk_token": "<unk>", "byte_fallback": true, "fuse_unk": false}))
                },
                json!({"type": "Lowercase"}),
                Value::Null,
                Value::Null,
                fuse(),
            ),
        ),
    ];
    for (scheme, split) in [("first", false), ("always", true), ("never", true), ("first", true)] {
        let meta = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme, "split": split});
        let model = byte_fallback(letters("▁")).with(fallback.clone());
        let decoder = sequence("decoders", &[json!({"type": "ByteFallback"}), meta.clone()]);
        let normalizer =
            if split { json!({"type": "Strip", "strip_left": true, "strip_right": false}) } else { Value::Null };
        all.push((format!("Metaspace {scheme} {split}"), file(model, normalizer, meta, template(), decoder)));
    }
    let old = json!({"type": "Metaspace", "replacement": "▁", "add_prefix_space": true});
    let model = letters("▁").with(json!({"unk_token": "<unk>"}));
    all.push(("the old Metaspace".to_owned(), file(model, json!({"type": "NFKC"}), old.clone(), template(), old)));
    let affixed = {
        let mut model = letters("▁");
        for c in "abcdefghijklmnopqrstuvwxyz0123456789".chars() {
            model.token(&format!("##{c}")).token(&format!("{c}</w>")).token(&format!("##{c}</w>"));
        }
        model.merges(
            &[("t", "##h"), ("th", "##e</w>"), ("a", "##b"), ("##b", "##c"), ("a", "##bc"), ("a", "##a")],
            "##",
        );
        let keys = json!({"continuing_subword_prefix": "##", "end_of_word_suffix": "</w>", "unk_token": "<unk>", "fuse_unk": true});
        // Without the merges that know no prefix.
        model.merges.retain(|(_, right)| right.starts_with("##"));
        model.with(keys)
    };
    let words = json!({"type": "Whitespace"});
    all.push(("prefix and suffix".to_owned(), file(affixed, json!({"type": "NFKD"}), words, Value::Null, fuse())));
    let patterns = [
        json!({"String": " "}),
        json!({"Regex": r"\p{N}{1,3}"}),
        json!({"Regex": r"(?i:'s|'t|'ll)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+|\s*[\r\n]+|\s+(?!\S)|\s+"}),
        json!({"Regex": r"(?=(\d{3})+(?!\d))"}),
        json!({"Regex": r"(?<=[a-z])(?=[A-Z])|(?<!\s)\s+(?=\S)"}),
        json!({"Regex": r"\b|a*"}),
        json!({"String": ""}),
    ];
    for (i, pattern) in patterns.iter().enumerate() {
        for behavior in ["Removed", "Isolated", "MergedWithPrevious", "MergedWithNext", "Contiguous"] {
            let invert = (i + behavior.len()) % 2 == 0;
            let split = json!({"type": "Split", "pattern": pattern, "behavior": behavior, "invert": invert});
            let digits = json!({"type": "Digits", "individual_digits": invert});
            let punctuation = json!({"type": "Punctuation", "behavior": behavior});
            let pre = sequence("pretokenizers", &[split, sequence("pretokenizers", &[digits, punctuation])]);
            let regex = json!({"type": "Replace", "pattern": {"Regex": "[b-d]+|\\s{2,}"}, "content": " the"});
            let strip = json!({"type": "Strip", "strip_left": invert, "strip_right": true});
            let normalizer = if i % 2 == 0 { Value::Null } else { sequence("normalizers", &[regex, strip]) };
            let model = letters(" ").with(json!({"unk_token": "<unk>", "fuse_unk": invert}));
            all.push((
                format!("Split {pattern} {behavior} {invert}"),
                file(model, normalizer, pre, Value::Null, fuse()),
            ));
        }
    }
    all
}

/// Files whose ids tell what one component makes of a character: normalizers show its bytes, pre-tokenizers by the
/// number of unknown pieces where they cut.
pub fn single() -> Vec<(String, Value)> {
    let kinds = |names: &[&str]| names.iter().map(|&name| (name.to_owned(), json!({"type": name}))).collect::<Vec<_>>();
    let normalizers = kinds(&["NFC", "NFD", "NFKC", "NFKD", "Lowercase"]);
    let mut pre_tokenizers = kinds(&["Whitespace", "WhitespaceSplit", "Punctuation"]);
    pre_tokenizers.push(("Digits".to_owned(), json!({"type": "Digits", "individual_digits": true})));
    for class in
        [r"\p{L}", r"\p{N}", r"\p{P}", r"\p{S}", r"\p{M}", r"\s", r"\w", r"(?i:s)", r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}]"]
    {
        let split = json!({"type": "Split", "pattern": {"Regex": class}, "behavior": "Isolated", "invert": false});
        pre_tokenizers.push((class.to_owned(), split));
    }
    let bytes = |normalizer| {
        let model = byte_fallback(letters("▁")).with(json!({"unk_token": "<unk>", "byte_fallback": true}));
        file(model, normalizer, Value::Null, Value::Null, json!({"type": "ByteFallback"}))
    };
    let pieces = |pre| {
        let model = letters("▁").with(json!({"unk_token": "<unk>", "fuse_unk": true}));
        file(model, Value::Null, pre, Value::Null, json!({"type": "Fuse"}))
    };
    let normalizers = normalizers.into_iter().map(|(name, part)| (name, bytes(part)));
    normalizers.chain(pre_tokenizers.into_iter().map(|(name, part)| (name, pieces(part)))).collect()
}
