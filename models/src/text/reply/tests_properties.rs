//! Random replies: how a text is cut changes nothing, and what is no call loses no text.

use proptest::prelude::*;

use super::tests::{Part, cut, parse};
use super::tests_complete::complete;
use super::{ReplyParser, ReplySyntax};

/// All names that syntaxes of the tables have, with the end of a prompt.
fn syntaxes() -> Vec<(&'static str, &'static str)> {
    complete().into_iter().map(|(syntax, prompt, ..)| (syntax, prompt)).collect()
}

fn parser(syntax: &str, prompt: &str) -> ReplyParser {
    ReplyParser::new(&ReplySyntax::named(syntax).expect("a known syntax"), prompt)
}

/// Pieces of replies of any syntax: markers, halves of markers, JSON and text.
fn fragments() -> impl Strategy<Value = Vec<String>> {
    let mut pieces: Vec<String> =
        ["{", "}", "[", "]", "\"", ",", ":", " ", "\n", "a", "ü", "1", "<", "=", ">", "f", "name"]
            .map(str::to_owned)
            .to_vec();
    for (syntax, prompt, reply, _) in complete() {
        pieces.extend(parser(syntax, prompt).markers().map(str::to_owned));
        pieces.extend(reply.split_inclusive('>').map(str::to_owned));
    }
    pieces.sort();
    pieces.dedup();
    proptest::collection::vec(proptest::sample::select(pieces), 0..24)
}

/// Cuts `text` at places that `seed` chooses.
fn cut_by(text: &str, mut seed: u64) -> Vec<&str> {
    let mut chunks = vec![];
    let mut rest = text;
    while !rest.is_empty() {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let n = 1 + (seed >> 60) as usize;
        let end = rest.char_indices().nth(n).map_or(rest.len(), |(at, _)| at);
        chunks.push(&rest[..end]);
        rest = &rest[end..];
    }
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn cutting_changes_nothing(pieces in fragments(), which in 0usize..1000, seed: u64) {
        let all = syntaxes();
        let (syntax, prompt) = all[which % all.len()];
        let text = pieces.concat();
        let whole = parse(parser(syntax, prompt), [text.as_str()]);
        prop_assert_eq!(&whole, &parse(parser(syntax, prompt), cut(&text, 1)));
        prop_assert_eq!(&whole, &parse(parser(syntax, prompt), cut_by(&text, seed)));
    }

    /// A complete reply with one character changed, left out or doubled.
    #[test]
    fn damaged_replies(which in 0usize..1000, at in 0usize..1000, new in "[a<{}\"\\[>,:\n]?", seed: u64) {
        let all = complete();
        let (syntax, prompt, reply, _) = &all[which % all.len()];
        let (at, old) = reply.char_indices().nth(at % reply.chars().count()).expect("a character");
        let text = format!("{}{new}{}", &reply[..at], &reply[at + old.len_utf8()..]);
        let whole = parse(parser(syntax, prompt), [text.as_str()]);
        prop_assert_eq!(&whole, &parse(parser(syntax, prompt), cut_by(&text, seed)));
    }

    /// Where nothing became a call or reasoning, the text is all there, but for spaces and markers that only wrap it.
    #[test]
    fn malformed_text_is_not_lost(pieces in fragments(), which in 0usize..1000) {
        let all = syntaxes();
        let (syntax, prompt) = all[which % all.len()];
        // Headings are dropped on their own.
        if ["harmony", "muse", "functionary", "solar-think + solar"].contains(&syntax) {
            return Ok(());
        }
        let text = pieces.concat();
        let parts = parse(parser(syntax, prompt), [text.as_str()]);
        let mut given = String::new();
        for part in parts {
            match part {
                Part::T(text) | Part::R(text) => given.push_str(&text),
                Part::C(..) => return Ok(()),
            }
        }
        let squeezed = |text: &str| {
            let mut text: String = text.split_whitespace().collect();
            for marker in parser(syntax, prompt).dropped() {
                text = text.replace(&marker.split_whitespace().collect::<String>(), "");
            }
            text
        };
        prop_assert_eq!(squeezed(&given), squeezed(&text));
    }
}

/// The work is proportional to the text, whatever is in it.
#[test]
fn hostile_replies_take_linear_time() {
    let fragments = [
        ("hermes", "<tool_call>{"),
        ("hermes", "<tool_call>{\"name\":["),
        ("hermes", "<tool_call"),
        ("hermes", "<tool_call>{\"name\": \"f\", \"arguments\": {}}"),
        ("hermes", " \n"),
        ("glm", "<tool_call>f<arg_key>"),
        ("xml-function", "<tool_call><function=f><parameter=a>"),
        ("minimax-nested", "]<]minimax[>[<tool_call>]<]minimax[>[<invoke name=\"f\">]<]minimax[>[<a>"),
        ("pythonic", "<|tool_call_start|>[f(a=["),
        ("gemma", "<|tool_call>call:f{a:[{b:"),
        ("harmony", "<|channel|>commentary to=f<|message|>{\"a\":"),
        ("kimi", "<|tool_calls_section_begin|><|tool_call_begin|>f:0<|tool_call_argument_begin|>["),
        ("think", "<think></think>"),
        ("llama", "{\"name\""),
    ];
    let sized = fragments.map(|(syntax, fragment)| (syntax, fragment, 1 << 17));
    for (syntax, fragment, size) in sized.into_iter().chain([("hermes", "<tool_call>", 1 << 20)]) {
        let text = fragment.repeat(size / fragment.len());
        let start = std::time::Instant::now();
        let mut parser = parser(syntax, "dictionary of argument name and its value\n");
        let mut events = Vec::new();
        let mut given = 0;
        for chunk in cut(&text, 1) {
            parser.push(chunk, &mut events);
            given += events.drain(..).count();
        }
        parser.finish(true, &mut events);
        // Linear work takes a second at most, quadratic work many minutes.
        assert!(start.elapsed().as_secs() < 60, "{syntax}: {fragment}: {:?}, {given}", start.elapsed());
    }
}
