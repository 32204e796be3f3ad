//! Our reading of `tokenizer.json` against the crate `tokenizers`, on random text: the same ids, the same text back.
//!
//! Every tokenizer gets 1,000 texts; with `HANDMILL_TEST_FULL=1` those of real models get 100,000 and the others 10,000.
//! Files of real models are looked for where `tests/tokenizers.rs` of the workspace looks; those written here cover
//! every component.

#[allow(dead_code)]
#[path = "../../tests/tokenizers/cases.rs"]
mod cases;
#[path = "tokenizer_oracle/files.rs"]
mod files;
#[path = "tokenizer_oracle/texts.rs"]
mod texts;

use std::io::Write;

use handmill_models::text::{StreamDecoder, Tokenizer};
use proptest::test_runner::{Config, TestCaseError, TestRunner};

/// One file in both readers.
struct Pair {
    ours: Tokenizer,
    oracle: tokenizers::Tokenizer,
    /// The oracle with control tokens left as text.
    literal: tokenizers::Tokenizer,
}

impl Pair {
    fn new(name: &str, json: &[u8]) -> Self {
        let ours = Tokenizer::from_tokenizer_json(name, json).unwrap_or_else(|e| panic!("{e}"));
        assert!(ours.warnings().is_empty(), "{:?}", ours.warnings());
        let mut oracle = tokenizers::Tokenizer::from_bytes(json).unwrap_or_else(|e| panic!("{name}: {e}"));
        oracle.with_padding(None).with_truncation(None).expect("no truncation");
        let mut literal = oracle.clone();
        literal.set_encode_special_tokens(true);
        Self { ours, oracle, literal }
    }

    /// Compares everything that the two make of `text`.
    fn check(&self, text: &str) -> Result<(), String> {
        let same = |what: &str, ours: String, oracle: String| {
            if ours == oracle {
                Ok(())
            } else {
                Err(format!("{what} of {text:?}:\n  ours   {ours}\n  oracle {oracle}"))
            }
        };
        for (add, parse) in [(false, true), (true, true), (false, false)] {
            let oracle = if parse { &self.oracle } else { &self.literal };
            let want = oracle.encode_fast(text, add).map_err(|e| e.to_string())?;
            let got = self.ours.encode(text, add, parse).map_err(|e| e.to_string())?;
            same(&format!("ids (add {add}, parse {parse})"), format!("{got:?}"), format!("{:?}", want.get_ids()))?;
            self.check_decoding(&got)?;
        }
        Ok(())
    }

    fn check_decoding(&self, ids: &[u32]) -> Result<(), String> {
        for skip in [false, true] {
            let want = self.oracle.decode(ids, skip).map_err(|e| e.to_string())?;
            let got = self.ours.decode(ids, skip);
            if got != want {
                return Err(format!("decoding {ids:?} (skip {skip}):\n  ours   {got:?}\n  oracle {want:?}"));
            }
            let mut stream = StreamDecoder::new(&self.ours, skip);
            let mut chunks: Vec<Option<String>> = ids.iter().map(|&id| stream.push(id).map(str::to_owned)).collect();
            // Where bytes are broken the oracle waits longer than it must.
            if !want.contains('\u{FFFD}') {
                let mut stream = self.oracle.decode_stream(skip);
                // It gives up where the start of a text is not that of a longer one.
                let wanted: Result<Vec<_>, _> = ids.iter().map(|&id| stream.step(id)).collect();
                if let Ok(wanted) = wanted
                    && wanted.iter().flatten().map(String::as_str).collect::<String>() == want
                    && chunks != wanted
                {
                    return Err(format!("streaming {ids:?}:\n  ours   {chunks:?}\n  oracle {wanted:?}"));
                }
            }
            chunks.push(stream.finish().map(str::to_owned));
            let whole: String = chunks.into_iter().flatten().collect();
            if whole != got {
                return Err(format!("the stream of {ids:?} is {whole:?}, not {got:?}"));
            }
        }
        Ok(())
    }

    /// Compares the two on random texts, which hold the tokens that `json` adds; on `most` texts where all is asked for.
    fn check_random(&self, name: &str, json: &[u8], most: u32) {
        let full = std::env::var_os("HANDMILL_TEST_FULL").is_some_and(|v| v == "1");
        let cases = if full { most } else { 1_000 };
        let config = Config { cases, failure_persistence: None, max_shrink_iters: 4_000, ..Config::default() };
        let names = texts::added(json);
        let outcome =
            TestRunner::new(config).run(&texts::texts(names), |text| self.check(&text).map_err(TestCaseError::fail));
        outcome.unwrap_or_else(|e| panic!("{name}: {e}"));
    }
}

fn real(name: &str, file: &str) {
    let Some(path) = cases::find_vocabulary(name, file) else {
        // Past the harness's capture, in the words of the workspace's tests.
        let line = format!("SKIPPED (opt-in): {name}: put {file} of {name} into $HANDMILL_TEST_VOCABS/{name}\n");
        let _ = std::io::stderr().write_all(line.as_bytes());
        return;
    };
    let json = std::fs::read(path).expect("reading");
    Pair::new(name, &json).check_random(name, &json, 100_000);
}

macro_rules! real {
    ($($name:ident: $file:literal;)*) => {$(
        #[test]
        fn $name() {
            real(stringify!($name), $file);
        }
    )*};
}

real! {
    llama3: "tokenizer.json";
    qwen3: "tokenizer.json";
    gemma3: "tokenizer.json";
    deepseek_v3: "tokenizer.json";
    gptoss: "tokenizer.json";
    qwen25_gguf: "tokenizer.rebuilt.json";
    smollm2_gguf: "tokenizer.rebuilt.json";
}

/// Every fourth of the files written here, beginning with `first`: the harness runs the four at once.
fn every_component(first: usize) {
    for (name, json) in files::all().into_iter().skip(first).step_by(4) {
        let json = json.to_string();
        Pair::new(&name, json.as_bytes()).check_random(&name, json.as_bytes(), 10_000);
    }
}

#[test]
fn every_component_0() {
    every_component(0);
}

#[test]
fn every_component_1() {
    every_component(1);
}

#[test]
fn every_component_2() {
    every_component(2);
}

#[test]
fn every_component_3() {
    every_component(3);
}

/// Random texts meet few of Unicode's characters, and the oracle's tables are of several ages.
#[test]
fn every_character() {
    let planes = (0..0x3_3480).chain(0xE_0000..0xE_0200).chain([0xF_FFFD, 0x10_FFFD]);
    let chars: Vec<char> = planes.filter_map(char::from_u32).collect();
    let mut wrong = Vec::new();
    for (name, json) in files::single() {
        let pair = Pair::new(&name, json.to_string().as_bytes());
        for &c in &chars {
            let text = format!("X{c}\u{301}Y{c}");
            let want =
                pair.oracle.encode_fast(text.as_str(), false).unwrap_or_else(|e| panic!("{name}, {text:?}: {e}"));
            let got = pair.ours.encode(&text, false, true).unwrap_or_else(|e| panic!("{name}, {text:?}: {e}"));
            if got != want.get_ids() {
                wrong.push(format!("{name} U+{:04X}", u32::from(c)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} differ: {wrong:?}", wrong.len());
}
