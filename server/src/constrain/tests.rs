//! Random walks through the masks: whatever is chosen among the allowed tokens, the answer has the form.

use std::sync::Arc;

use handmill_models::text::{ArgumentForm, CallForm, CallText, Tokenizer};
use serde_json::{Value, json};

use super::{Calls, Constraint, ConstraintError, Grammars, Mask, Reasoning};

/// Small vocabularies of both kinds: pieces of bytes, and of sentencepiece with byte tokens.
fn tokenizers() -> Vec<Arc<Tokenizer>> {
    ["qwen3-sharded", "llama2"].map(|name| Arc::new(Tokenizer::from_path(fixture(name)).unwrap())).into()
}

fn fixture(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families").join(name)
}

struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) % n.max(1) as u64) as usize
    }
}

/// An answer made of tokens drawn among those that are allowed, if it ends within `most` tokens. The end is taken where it is
/// allowed.
fn walk(
    grammars: &Grammars,
    tokenizer: &Tokenizer,
    constraint: &Constraint,
    random: &mut Random,
    most: usize,
) -> Option<String> {
    let mut mask = grammars.mask(constraint, &Reasoning::None).unwrap();
    let mut bytes = Vec::new();
    for _ in 0..most {
        mask.prepare().unwrap();
        let allowed = mask.allowed().unwrap();
        let ids: Vec<u32> =
            (0..32 * allowed.len() as u32).filter(|id| allowed[*id as usize / 32] >> (id % 32) & 1 == 1).collect();
        assert!(!ids.is_empty(), "nothing is allowed behind {:?}", String::from_utf8_lossy(&bytes));
        if ids.iter().any(|id| tokenizer.is_end_of_turn(*id)) {
            return Some(String::from_utf8(bytes).unwrap());
        }
        let id = ids[random.below(ids.len())];
        bytes.extend(tokenizer.token_bytes(id).unwrap());
        mask.push(id).unwrap();
    }
    None
}

/// Whether a token may come next.
fn may(mask: &mut Mask, id: u32) -> bool {
    mask.prepare().unwrap();
    mask.allowed().is_none_or(|allowed| allowed[id as usize / 32] >> (id % 32) & 1 == 1)
}

#[test]
fn answers_have_the_form_that_was_asked_for() {
    let schema = json!({
        "type": "object",
        "properties": {
            "city": { "type": "string", "maxLength": 6 },
            "size": { "type": "integer", "minimum": 0, "maximum": 99 },
            "kind": { "enum": ["a", "b/c"] },
            "tags": { "type": "array", "items": { "type": "boolean" }, "maxItems": 3 },
        },
        "required": ["city", "size", "kind", "tags"],
        "additionalProperties": false,
    });
    let expression = "[a-c]{2,4}(-[0-9]{2})?";
    let gbnf = "root ::= pair (\",\" pair)? # comment\npair ::= [a-c]+ \"=\" digit{2}\n\ndigit ::= [0-9]\n";
    for tokenizer in tokenizers() {
        let grammars = Grammars::new(&tokenizer, tokenizer.vocab_size()).unwrap();
        let mut random = Random(7);
        let mut ended = [0; 5];
        for _ in 0..20 {
            let mut run = |kind: usize, constraint: &Constraint| {
                let answer = walk(&grammars, &tokenizer, constraint, &mut random, 120)?;
                ended[kind] += 1;
                Some(answer)
            };
            if let Some(answer) = run(0, &Constraint::JsonSchema(schema.clone())) {
                let value: Value = serde_json::from_str(&answer).unwrap();
                let size = value["size"].as_i64().unwrap();
                assert!((0..100).contains(&size) && value["city"].as_str().unwrap().chars().count() <= 6, "{answer}");
                assert!(["a", "b/c"].contains(&value["kind"].as_str().unwrap()), "{answer}");
                assert!(value["tags"].as_array().unwrap().iter().all(Value::is_boolean), "{answer}");
            }
            if let Some(answer) = run(1, &Constraint::Regex(expression.to_owned())) {
                let letters = answer.find('-').unwrap_or(answer.len());
                assert!(
                    (2..=4).contains(&letters) && answer[..letters].bytes().all(|b| (b'a'..=b'c').contains(&b)),
                    "{answer}"
                );
                assert!(
                    letters == answer.len() || answer[letters + 1..].parse::<u32>().is_ok_and(|n| n < 100),
                    "{answer}"
                );
            }
            let choices = ["yes", "no, \"never\"", "もしも"].map(str::to_owned);
            if let Some(answer) = run(2, &Constraint::Choice(choices.to_vec())) {
                assert!(choices.contains(&answer), "{answer}");
            }
            if let Some(answer) = run(3, &Constraint::Gbnf(gbnf.to_owned())) {
                for pair in answer.split(',') {
                    let (name, digits) = pair.split_once('=').unwrap();
                    assert!(!name.is_empty() && name.bytes().all(|b| (b'a'..=b'c').contains(&b)), "{answer}");
                    assert!(digits.len() == 2 && digits.parse::<u32>().is_ok(), "{answer}");
                }
            }
            if let Some(answer) = run(4, &Constraint::Lark("start: \"<\" /[xy]+/ \">\"".to_owned())) {
                assert!(answer.starts_with('<') && answer.ends_with('>'), "{answer}");
            }
        }
        // An object without bounds may go on for ever.
        assert!(ended.iter().all(|n| *n >= 10), "{ended:?}");
        let mut mask = grammars.mask(&Constraint::JsonObject, &Reasoning::None).unwrap();
        let brace = tokenizer.encode("{", false, false).unwrap();
        assert!(brace.iter().all(|id| may(&mut mask, *id) && mask.push(*id).is_ok()));
    }
}

#[test]
fn what_cannot_be_followed_is_said() {
    let tokenizer = &tokenizers()[0];
    let grammars = Grammars::new(tokenizer, tokenizer.vocab_size()).unwrap();
    let refused = |constraint: Constraint| grammars.mask(&constraint, &Reasoning::None).unwrap_err();
    assert_eq!(refused(Constraint::Choice(vec![])), ConstraintError::NoChoice);
    let schema = json!({ "properties": { "a": { "$ref": "https://example.org/schema.json" } } });
    assert_eq!(
        refused(Constraint::JsonSchema(schema)),
        ConstraintError::ForeignReference("https://example.org/schema.json".to_owned())
    );
    for constraint in [
        Constraint::Regex("(".to_owned()),
        Constraint::Lark("nothing".to_owned()),
        Constraint::JsonSchema(json!({ "type": "bogus" })),
        Constraint::JsonSchema(json!({ "$ref": "#/nowhere" })),
        Constraint::JsonSchema(json!(["no", "schema"])),
        Constraint::Gbnf("root ::= other".to_owned()),
    ] {
        let error = refused(constraint.clone()).to_string();
        println!("{constraint:?}: {error}");
        assert!(!error.is_empty() && !error.contains('\n'), "{constraint:?}: {error}");
    }
    // A schema may call a property `$ref`, and values are no schemas.
    let schema = json!({ "properties": { "$ref": { "type": "string" } }, "enum": [{ "$ref": "x" }] });
    grammars.mask(&Constraint::JsonSchema(schema), &Reasoning::None).unwrap();
}

#[test]
fn a_token_that_is_not_allowed_is_an_error() {
    let tokenizer = &tokenizers()[0];
    let grammars = Grammars::new(tokenizer, tokenizer.vocab_size()).unwrap();
    let mut mask = grammars.mask(&Constraint::Choice(vec!["yes".to_owned()]), &Reasoning::None).unwrap();
    let other = tokenizer.encode("no", false, false).unwrap()[0];
    assert!(matches!(mask.push(other), Err(ConstraintError::Stuck(_))));
    assert!(mask.prepare().is_err());
}

fn text(text: &str) -> Vec<CallText> {
    vec![CallText::Text(text.to_owned())]
}

#[test]
fn calls_have_the_form_of_the_template() {
    let tools = vec![
        json!({ "name": "get_weather", "parameters": {
            "type": "object",
            "properties": { "unit": { "enum": ["C", "F"] }, "days": { "type": "integer", "minimum": 0, "maximum": 9 } },
            "required": ["days"], "additionalProperties": false,
        } }),
        json!({ "name": "now" }),
    ];
    for tokenizer in tokenizers() {
        let grammars = Grammars::new(&tokenizer, tokenizer.vocab_size()).unwrap();
        let (name, id) = grammars.controls[0].clone();
        let begin = format!("<call>{name}{{\"name\": \"");
        let in_json = CallForm {
            begin: text(&begin),
            between: Some(text("}, {\"name\": \"")),
            end: text(", \"id\": \"\"}"),
            arguments: ArgumentForm::Json { before: text("\", \"arguments\": ") },
        };
        let in_pairs = CallForm {
            begin: text("<call name="),
            between: None,
            end: text("</call>"),
            arguments: ArgumentForm::Pairs {
                before: text(">"),
                open: "<arg name=".to_owned(),
                before_string: ">".to_owned(),
                before_json: " json>".to_owned(),
                close: "</arg>".to_owned(),
            },
        };
        let mut random = Random(3);
        let calls = |form: &CallForm| Calls { form: form.clone(), tools: tools.clone(), parallel: true };
        let mut ended = 0;
        for _ in 0..20 {
            let constraint = Constraint::Calls(Box::new(calls(&in_json)));
            if let Some(answer) = walk(&grammars, &tokenizer, &constraint, &mut random, 200) {
                ended += 1;
                let control = String::from_utf8(tokenizer.token_bytes(id).unwrap()).unwrap();
                let list = answer.strip_prefix(&format!("<call>{control}")).unwrap();
                let list: Value = serde_json::from_str(&format!("[{list}]")).unwrap();
                for call in list.as_array().unwrap() {
                    match call["name"].as_str().unwrap() {
                        "get_weather" => {
                            assert!((0..10).contains(&call["arguments"]["days"].as_i64().unwrap()), "{answer}")
                        }
                        other => assert_eq!((other, &call["arguments"]), ("now", &json!({}))),
                    }
                }
            }
            let constraint = Constraint::Calls(Box::new(calls(&in_pairs)));
            let answer = walk(&grammars, &tokenizer, &constraint, &mut random, 200).unwrap();
            let known = ["<call name=now></call>".to_owned()].into_iter().chain((0..10).flat_map(|days| {
                let days = format!("<arg name=days json>{days}</arg></call>");
                ["", "<arg name=unit>C</arg>", "<arg name=unit>F</arg>"]
                    .map(|unit| format!("<call name=get_weather>{unit}{days}"))
            }));
            assert!(known.into_iter().any(|known| known == answer), "{answer}");
        }
        assert!(ended > 10, "{ended}");
        assert!(matches!(
            grammars.mask(&Constraint::Calls(Box::new(Calls { tools: vec![], ..calls(&in_json) })), &Reasoning::None),
            Err(ConstraintError::NoChoice)
        ));
    }
}

#[test]
fn an_answer_may_reason_first() {
    let tokenizer = &tokenizers()[0];
    let grammars = Grammars::new(tokenizer, tokenizer.vocab_size()).unwrap();
    let (open, id) = grammars.controls[0].clone();
    let between = Reasoning::Between(open, "</think>".to_owned());
    let encode = |text: &str| tokenizer.encode(text, false, false).unwrap();
    let thought = [vec![id], encode("Well, [ ... </think>[now]")].concat();
    for (reasoning, answer) in [
        (Reasoning::Open("</think>".to_owned()), encode("Well, [ ... </think>[now]")),
        (between.clone(), thought),
        (between, encode("[now]")),
        (Reasoning::None, encode("[now]")),
    ] {
        let mut mask = grammars.mask(&Constraint::Choice(vec!["[now]".to_owned()]), &reasoning).unwrap();
        for id in answer {
            assert!(may(&mut mask, id), "{reasoning:?}");
            mask.push(id).unwrap();
        }
        assert!(tokenizer.end_of_turn_ids().iter().any(|id| may(&mut mask, *id)), "{reasoning:?}");
    }
}
