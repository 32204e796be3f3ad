//! The form in which a model calls tools, learnt from its template: messages with made-up calls are rendered, and what the
//! template writes around their names and arguments is the form. So a grammar can ask for calls that the model knows.

use serde_json::{Map, Value, json};

use super::{ChatTemplate, Conversation, LocalTime};
use crate::text::{ReplyEvent, ReplyParser, ReplySyntax, Tokenizer};

/// What a template writes around the calls of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallForm {
    /// Before the first tool's name.
    pub begin: Vec<CallText>,
    /// Behind a call and before the next tool's name; none where the template renders one call a message.
    pub between: Option<Vec<CallText>>,
    /// Behind the last call, until the turn's end.
    pub end: Vec<CallText>,
    /// How arguments follow a name.
    pub arguments: ArgumentForm,
}

/// A text between the parts of calls that differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallText {
    /// Always this text, in which names of control tokens stand for these.
    Text(String),
    /// An identifier that the model makes up: nine letters and digits.
    Id,
}

/// How a template writes arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentForm {
    /// As one object in JSON.
    Json {
        /// Between the name and the object.
        before: Vec<CallText>,
    },
    /// Pair by pair: strings as they are, other values in JSON.
    Pairs {
        /// Behind the name.
        before: Vec<CallText>,
        /// Before each argument's name.
        open: String,
        /// Between an argument's name and its value, where that is a string.
        before_string: String,
        /// The same for other values.
        before_json: String,
        /// Behind a value.
        close: String,
    },
}

/// Words that no template writes by itself.
const NAMES: [&str; 2] = ["zqtoola", "zqtoolb"];
const KEYS: [&str; 2] = ["zqkeya", "zqkeyb"];
/// A string and a number.
const VALUES: [&str; 2] = ["zqvala", "7132059"];
/// Identifiers as Mistral's formats want them.
const IDS: [&str; 2] = ["zqcall001", "zqcall002"];

impl ChatTemplate {
    /// The form of calls in an answer to `conversation`; none where the template writes no calls, or in a way that is not
    /// seen through here.
    pub fn call_form(&self, conversation: &Conversation, now: LocalTime, tokenizer: &Tokenizer) -> Option<CallForm> {
        let name = |id: &u32| String::from_utf8(tokenizer.token_bytes(*id)?).ok();
        let ends: Vec<String> = tokenizer.end_of_turn_ids().iter().filter_map(name).collect();
        self.call_form_until(conversation, now, &ends)
    }

    /// The same, where turns end with one of these texts.
    fn call_form_until(&self, conversation: &Conversation, now: LocalTime, ends: &[String]) -> Option<CallForm> {
        let asked = Conversation { add_generation_prompt: true, ..conversation.clone() };
        let asked = self.render(&asked, now).ok()?.text();
        let syntax = self.reply_syntax(conversation);
        // Templates differ in how they want a message that has only calls.
        [json!(""), Value::Null].into_iter().find_map(|content| {
            [false, true].into_iter().find_map(|as_text| {
                // What the template writes for an answer with so many calls of so many arguments, without its reasoning.
                let answer = |calls: usize, arguments: usize| {
                    let message = message(&content, as_text, calls, arguments);
                    let mut with = Conversation { add_generation_prompt: false, ..conversation.clone() };
                    with.messages.push(message);
                    let whole = self.render(&with, now).ok()?.text();
                    let answer = syntax.behind_reasoning(&whole[parting(&asked, &whole)..]);
                    Some(until_end(answer, ends).to_owned())
                };
                form(answer).filter(|form| form.is_read(&syntax, &asked))
            })
        })
    }
}

impl CallForm {
    /// Whether calls in this form are read as what they are.
    fn is_read(&self, syntax: &ReplySyntax, prompt: &str) -> bool {
        let given = json!({ "city": "Bonn am Rhein", "days": 3, "of": { "a": [null, "x"] } });
        let calls = ["get_weather", "add"].map(|name| (name, given.clone()));
        (1..=if self.between.is_some() { 2 } else { 1 }).all(|n| {
            let opened = syntax.open_reasoning(prompt).unwrap_or_default();
            let mut events = Vec::new();
            let mut parser = ReplyParser::new(syntax, prompt);
            parser.push(&(opened.to_owned() + &self.write(&calls[..n])), &mut events);
            parser.finish(true, &mut events);
            let mut read: Vec<(&str, String)> = Vec::new();
            for event in &events {
                match event {
                    ReplyEvent::CallBegins { name, .. } => read.push((name, String::new())),
                    ReplyEvent::CallArguments { json, .. } => {
                        read.last_mut().into_iter().for_each(|(_, all)| all.push_str(json));
                    }
                    // Spaces, and what ends the turn where that is not known.
                    _ => {}
                }
            }
            let read = read.into_iter().map(|(name, json)| (name, serde_json::from_str(&json).unwrap_or_default()));
            read.eq(calls[..n].iter().cloned())
        })
    }

    /// An answer with these calls, whose arguments are objects.
    fn write(&self, calls: &[(&str, Value)]) -> String {
        let fixed = |parts: &[CallText]| {
            let text = |part: &CallText| match part {
                CallText::Text(text) => text.clone(),
                CallText::Id => IDS[0].to_owned(),
            };
            parts.iter().map(text).collect::<String>()
        };
        let mut written = fixed(&self.begin);
        for (n, (name, given)) in calls.iter().enumerate() {
            if n > 0 {
                written += &fixed(self.between.as_deref().unwrap_or_default());
            }
            written += name;
            match &self.arguments {
                ArgumentForm::Json { before } => written += &(fixed(before) + &given.to_string()),
                ArgumentForm::Pairs { before, open, before_string, before_json, close } => {
                    written += &fixed(before);
                    for (key, value) in given.as_object().into_iter().flatten() {
                        let (middle, value) = match value {
                            Value::String(text) => (before_string, text.clone()),
                            other => (before_json, other.to_string()),
                        };
                        written += &format!("{open}{key}{middle}{value}{close}");
                    }
                }
            }
        }
        written + &fixed(&self.end)
    }
}

/// The form of what `answer` writes for so many calls of so many arguments.
fn form(answer: impl Fn(usize, usize) -> Option<String>) -> Option<CallForm> {
    let one = answer(1, 2)?;
    let (begin, rest) = one.split_once(NAMES[0])?;
    let in_json =
        rest.split_once(&format!("\"{}\"", KEYS[0])).and_then(|(before, _)| before.trim_end().strip_suffix('{'));
    let (arguments, end) = match in_json {
        Some(before) => (ArgumentForm::Json { before: texts(before) }, behind_object(&rest[before.len()..])?),
        None => pairs(rest, answer(1, 0)?.split_once(NAMES[0])?.1)?,
    };
    let between = answer(2, 2).and_then(|two| {
        // What is between the first call's last value and the second name.
        let (before, _) = two.split_once(NAMES[1])?;
        let (_, last) = before.rsplit_once(VALUES[1])?;
        let behind = match &arguments {
            ArgumentForm::Json { .. } => last.trim_start().strip_prefix('}')?,
            ArgumentForm::Pairs { close, .. } => last.strip_prefix(close.as_str())?,
        };
        Some(texts(behind))
    });
    let made_up = |text: &str| NAMES.iter().chain(&KEYS).chain(&VALUES).any(|word| text.contains(word));
    let known = !made_up(begin) && !made_up(end);
    known.then(|| CallForm { begin: texts(begin), between, end: texts(end), arguments })
}

/// A message of made-up calls, with their arguments as an object or as its text.
fn message(content: &Value, as_text: bool, calls: usize, arguments: usize) -> Value {
    let values = [VALUES[0].into(), VALUES[1].parse::<u32>().map_or(Value::Null, Value::from)];
    let given: Map<String, Value> = KEYS.iter().map(|key| (*key).to_owned()).zip(values).take(arguments).collect();
    let mut given = Value::Object(given);
    if as_text {
        given = given.to_string().into();
    }
    let calls = NAMES.iter().zip(IDS).take(calls).map(
        |(name, id)| json!({ "type": "function", "id": id, "function": { "name": name, "arguments": given.clone() } }),
    );
    json!({ "role": "assistant", "content": content, "tool_calls": calls.collect::<Value>() })
}

/// Where the answer in `whole` begins, which otherwise begins as `asked`. Where a template writes an earlier answer otherwise
/// than it asks for a new one, such as with another block of reasoning, that is behind the last mark that both have.
pub(super) fn parting(asked: &str, whole: &str) -> usize {
    let same: usize = asked.chars().zip(whole.chars()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum();
    match same == asked.len() {
        true => same,
        false => whole[..same].rfind(['>', '\n', ':', ']']).map_or(0, |at| at + 1),
    }
}

/// The text before the first of `ends`.
fn until_end<'a>(text: &'a str, ends: &[String]) -> &'a str {
    let end = ends.iter().filter(|end| !end.is_empty()).filter_map(|end| text.find(end)).min();
    &text[..end.unwrap_or(text.len())]
}

/// What is behind the object that `text` begins with.
fn behind_object(text: &str) -> Option<&str> {
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<Value>();
    let object = values.next()?.ok()?;
    let given: Vec<String> = object
        .as_object()?
        .values()
        .map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
        .collect();
    (given == VALUES).then(|| &text[values.byte_offset()..])
}

/// The form of arguments that are written pair by pair, of the texts behind the name with two pairs and with none; and what is
/// behind them.
fn pairs<'a>(two: &'a str, none: &str) -> Option<(ArgumentForm, &'a str)> {
    let (first, rest) = two.split_once(KEYS[0])?;
    let (before_string, rest) = rest.split_once(VALUES[0])?;
    let (second, rest) = rest.split_once(KEYS[1])?;
    let (before_json, end) = rest.split_once(VALUES[1])?;
    // The end without pairs has no value to close.
    let close = &end[..end.len().checked_sub(common_end(end, none))?];
    let open = second.strip_prefix(close)?;
    let before = first.strip_suffix(open)?;
    let form = ArgumentForm::Pairs {
        before: texts(before),
        open: open.to_owned(),
        before_string: before_string.to_owned(),
        before_json: before_json.to_owned(),
        close: close.to_owned(),
    };
    Some((form, &end[close.len()..]))
}

/// Bytes at the end that two texts have in common.
fn common_end(a: &str, b: &str) -> usize {
    a.chars().rev().zip(b.chars().rev()).take_while(|(a, b)| a == b).map(|(a, _)| a.len_utf8()).sum()
}

/// A text with the identifiers in it.
fn texts(text: &str) -> Vec<CallText> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((at, id)) = IDS.iter().filter_map(|id| Some((rest.find(id)?, *id))).min() {
        parts.push(CallText::Text(rest[..at].to_owned()));
        parts.push(CallText::Id);
        rest = &rest[at + id.len()..];
    }
    parts.push(CallText::Text(rest.to_owned()));
    parts.retain(|part| *part != CallText::Text(String::new()));
    parts
}

#[cfg(test)]
mod tests {
    use super::super::fixture_tests::{noon, sets};
    use super::*;

    const ENDS: &[&str] = &["<|im_end|>", "</s>", "<|eot_id|>", "<|eom_id|>", "<|END_OF_TURN_TOKEN|>", "<end_of_turn>"];

    fn form_of(what: &str, source: &str, eos: &str) -> Option<CallForm> {
        let parameters =
            json!({ "type": "object", "properties": { "city": { "type": "string" }, "days": { "type": "integer" } } });
        let function = json!({ "name": "get_weather", "description": "A tool.", "parameters": parameters });
        let conversation = json!({
            "messages": [{ "role": "user", "content": "What is the weather?" }],
            "tools": [{ "type": "function", "function": function }],
            "bos_token": "<s>", "eos_token": eos,
        });
        let template = ChatTemplate::from_jinja(what, source).unwrap();
        let ends: Vec<String> = ENDS.iter().copied().chain([eos]).map(str::to_owned).collect();
        template.call_form_until(&Conversation::from_json(&conversation.to_string()).unwrap(), noon(), &ends)
    }

    fn text(text: &str) -> Vec<CallText> {
        vec![CallText::Text(text.to_owned())]
    }

    /// A template whose answers are what `answer` writes.
    fn template(answer: &str) -> String {
        let user =
            "{% for m in messages %}{% if m.role == 'user' %}<|im_start|>user\n{{ m.content }}<|im_end|>\n{% else %}";
        let rest =
            "<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";
        format!("{user}<|im_start|>assistant\n{answer}{rest}")
    }

    #[test]
    fn a_template_shows_its_form() {
        let hermes = template(concat!(
            "{{ m.content }}{% for c in m.tool_calls %}{% if not loop.first %}{{ '\\n' }}{% endif %}<tool_call>\n",
            "{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}\n</tool_call>{% endfor %}",
        ));
        let want = CallForm {
            begin: text("<tool_call>\n{\"name\": \""),
            between: Some(text("}\n</tool_call>\n<tool_call>\n{\"name\": \"")),
            end: text("}\n</tool_call>"),
            arguments: ArgumentForm::Json { before: text("\", \"arguments\": ") },
        };
        assert_eq!(form_of("hermes", &hermes, "<|im_end|>"), Some(want));

        let mistral = template(concat!(
            "{{ '[TOOL_CALLS][' }}{% for c in m.tool_calls %}{% if not loop.first %}, {% endif %}{\"name\": \"{{ c.function.name }}\", ",
            "\"arguments\": {{ c.function.arguments | tojson }}, \"id\": \"{{ c.id }}\"}{% endfor %}]",
        ));
        let id = |after: &str| [text(", \"id\": \""), vec![CallText::Id], text(after)].concat();
        let want = CallForm {
            begin: text("[TOOL_CALLS][{\"name\": \""),
            between: Some(id("\"}, {\"name\": \"")),
            end: id("\"}]"),
            arguments: ArgumentForm::Json { before: text("\", \"arguments\": ") },
        };
        assert_eq!(form_of("mistral", &mistral, "</s>"), Some(want));

        let pairs = template(concat!(
            "<tool_call>\n<function={{ m.tool_calls[0].function.name }}>\n",
            "{% for k, v in m.tool_calls[0].function.arguments | items %}<parameter={{ k }}>\n{{ v if v is string else v | tojson }}\n</parameter>\n",
            "{% endfor %}</function>\n</tool_call>",
        ));
        let form = form_of("pairs", &pairs, "<|im_end|>").unwrap();
        let ArgumentForm::Pairs { open, before_string, before_json, close, .. } = &form.arguments else {
            panic!("{form:?}")
        };
        assert_eq!((before_string.as_str(), before_json.as_str()), (">\n", ">\n"));
        let calls = [("add", json!({ "a": 1, "b": "two" }))];
        let want = "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\ntwo\n</parameter>\n</function>\n</tool_call>";
        assert_eq!((form.write(&calls).as_str(), &form.between), (want, &None), "{open:?} {close:?}");
    }

    #[test]
    fn a_template_without_calls_or_with_strange_ones_has_no_form() {
        assert_eq!(form_of("text", &template("{{ m.content }}"), "<|im_end|>"), None);
        // Read as text: no syntax that is known.
        let strange =
            template("CALL {{ m.tool_calls[0].function.name }} {{ m.tool_calls[0].function.arguments | tojson }}");
        assert_eq!(form_of("strange", &strange, "<|im_end|>"), None);
    }

    /// Most published templates show theirs.
    #[test]
    fn published_templates_show_their_forms() {
        let (mut without, mut all) = (Vec::new(), 0);
        for set in sets() {
            let name = set.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let read = |file: &str| std::fs::read_to_string(set.join(file)).unwrap();
            let source = read("template.jinja");
            let cases: Value = serde_json::from_str(&read("cases.json")).unwrap();
            let eos = cases["cases"][0]["context"]["eos_token"].as_str().unwrap_or_default();
            let calls = ReplySyntax::of_template(&source).name();
            if calls.ends_with("text") || calls == "think" {
                continue;
            }
            all += 1;
            if form_of(&name, &source, eos).is_none() {
                without.push(name);
            }
        }
        assert!(4 * without.len() <= all, "{} of {all}: {without:?}", without.len());
    }
}
