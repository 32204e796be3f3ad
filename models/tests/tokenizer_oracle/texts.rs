//! Random texts of everything that tokenizers tell apart.

use proptest::prelude::*;
use proptest::sample::select;
use serde_json::Value;

/// The texts of the tokens that a `tokenizer.json` adds: a handful of them.
pub fn added(json: &[u8]) -> Vec<String> {
    let file: Value = serde_json::from_slice(json).expect("JSON");
    let tokens = file["added_tokens"].as_array().cloned().unwrap_or_default();
    let step = tokens.len() / 40 + 1;
    let mut names: Vec<String> =
        tokens.iter().step_by(step).map(|t| t["content"].as_str().expect("text").to_owned()).collect();
    names.push("<|im_end|>".to_owned());
    names
}

const SPACES: &[char] =
    &[' ', ' ', ' ', ' ', '\n', '\n', '\t', '\r', '\u{3000}', '\u{A0}', '\u{2028}', '\u{85}', '\u{B}', '\u{200B}'];

/// Sequences whose characters belong together, and what normalization or a vocabulary might mistake.
const ODD: &[&str] = &[
    "e\u{301}",
    "é",
    "A\u{30A}",
    "\u{212B}",
    "ﬁ",
    "½",
    "Ⅳ",
    "²",
    "\u{1100}\u{1161}\u{11A8}",
    "각",
    "ß",
    "ẞ",
    "İ",
    "Σς",
    "👩‍👩‍👧‍👦",
    "🏳️‍🌈",
    "👍🏽",
    "🇩🇪",
    "\u{FE0F}",
    "\u{200D}",
    "\u{FEFF}",
    "\u{FFFD}",
    "\u{E000}",
    "\u{10FFFF}",
    "\u{0}",
    "ก็",
    "ที่นี่",
    "น้ำ",
    "مَرْحَبًا",
    "اللّٰه",
    "हिन्दी",
    "क्षि",
    "שָׁלוֹם",
    "ខ្មែរ",
    "你好，世界",
    "日本語テスト",
    "한국어",
    "ｶﾞ",
    "Ａ１",
    "▁",
    "▁▁",
    "Ġ",
    "Ċ",
    "Ã©",
    "<0x0A>",
    "<0xE4>",
    "'s",
    "'LL",
    "’s",
    "'T",
    "d'",
    "...",
    "!?",
    "——",
    "//",
    "\r\n",
    "http://a.b/c_d?e=1",
    "1234567",
    "3.14",
    "0x1F",
    "٣٤",
    "fn main() {\n    x += 1;\n}",
    "<",
    ">",
    "|",
    "</w>",
    "##",
    "the",
    "and",
    "\u{301}",
    "_",
];

fn piece(names: Vec<String>) -> impl Strategy<Value = String> {
    let cut = |name: String, n: usize| name.chars().take(n.max(1)).collect::<String>();
    prop_oneof![
        6 => "[a-zA-Z]{1,7}",
        2 => "[a-c]{1,12}",
        6 => proptest::collection::vec(select(SPACES), 1..5).prop_map(String::from_iter),
        2 => "[0-9]{1,9}",
        2 => "[!-/:-@\\[-`{-~]{1,4}",
        5 => select(ODD).prop_map(str::to_owned),
        // The tables of the oracle are those of old versions of Unicode.
        3 => "\\p{age:5.2}{1,3}",
        3 => select(names.clone()),
        1 => (select(names), 1..12usize).prop_map(move |(name, n)| cut(name, n)),
    ]
}

/// Texts of a few pieces.
pub fn texts(names: Vec<String>) -> impl Strategy<Value = String> {
    proptest::collection::vec(piece(names), 0..12).prop_map(|pieces| pieces.concat())
}
