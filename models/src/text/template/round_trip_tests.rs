//! Replies there and back: a message that a template renders is parsed by the template's own syntax into the same
//! message, whether the text comes at once or one character at a time.

use serde_json::{Map, Value, json};

use super::super::reply::ReplyParser;
use super::calls::parting;
use super::fixture_tests::{noon, sets};
use super::mistral::Version;
use super::{ChatTemplate, Conversation, Format};
use crate::engine::{Reply, ToolCall};

const REASONING: &str = "I should look\nit up.";
const CONTENT: &str = "Here you go:\n- one";

/// What a message has, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shape {
    reasoning: bool,
    content: bool,
    calls: usize,
}

const SHAPES: &[Shape] = &[
    Shape { reasoning: false, content: true, calls: 0 },
    Shape { reasoning: true, content: true, calls: 0 },
    Shape { reasoning: false, content: false, calls: 1 },
    Shape { reasoning: false, content: false, calls: 2 },
    Shape { reasoning: false, content: true, calls: 1 },
    Shape { reasoning: true, content: false, calls: 1 },
    Shape { reasoning: true, content: true, calls: 2 },
];

impl Shape {
    fn name(self) -> String {
        let parts = [self.reasoning.then_some("reasoning"), self.content.then_some("content")];
        let mut parts: Vec<String> = parts.into_iter().flatten().map(str::to_owned).collect();
        if self.calls > 0 {
            parts.push(format!("{} calls", self.calls));
        }
        parts.join(", ")
    }

    fn reply(self) -> Reply {
        let call = |n| ToolCall {
            id: Some(format!("call0000{n}")),
            name: if n == 0 { "get_weather" } else { "add" }.to_owned(),
            arguments: if n == 0 { r#"{"city": "Zürich \"q\" <b>", "days": 2}"# } else { r#"{"a": 1.5, "b": -2}"# }
                .into(),
        };
        Reply {
            text: if self.content { CONTENT } else { "" }.to_owned(),
            reasoning: if self.reasoning { REASONING } else { "" }.to_owned(),
            calls: (0..self.calls).map(call).collect(),
            ..Reply::default()
        }
    }
}

fn tools() -> Value {
    let tool = |name: &str, properties: Value| {
        let parameters = json!({ "type": "object", "properties": properties });
        json!({ "type": "function", "function": { "name": name, "description": "A tool.", "parameters": parameters } })
    };
    json!([
        tool("get_weather", json!({ "city": { "type": "string" }, "days": { "type": "integer" } })),
        tool("add", json!({ "a": { "type": "number" }, "b": { "type": "number" } })),
    ])
}

/// The conversation of a question and, where there is one, the reply.
fn conversation(variables: &Map<String, Value>, reply: Option<&Reply>) -> Conversation {
    let mut messages = vec![json!({ "role": "user", "content": "What is the weather?" })];
    messages.extend(reply.map(|reply| {
        let mut message = reply.message();
        // Templates have one of these names.
        if !reply.reasoning.is_empty() {
            message["reasoning"] = REASONING.into();
            message["thinking"] = REASONING.into();
        }
        message
    }));
    let mut all = variables.clone();
    all.insert("messages".to_owned(), messages.into());
    all.insert("tools".to_owned(), tools());
    all.insert("add_generation_prompt".to_owned(), reply.is_none().into());
    Conversation::from_json(&Value::Object(all).to_string()).expect("a conversation")
}

/// The prompt of the question and the text of the reply to it, without the mark of the turn's end; `None` where the
/// template refuses the message.
fn rendered(template: &ChatTemplate, variables: &Map<String, Value>, reply: &Reply) -> Option<(String, String)> {
    let render = |reply| Some(template.render(&conversation(variables, reply), noon()).ok()?.text());
    let (asked, whole) = (render(None)?, render(Some(reply))?);
    let at = parting(&asked, &whole);
    let plain = Reply { text: "XYZZY".to_owned(), ..Reply::default() };
    let plain = render(Some(&plain))?;
    let eos = variables.get("eos_token").and_then(Value::as_str).unwrap_or_default();
    // Some templates open the next turn behind calls.
    let cut = |text: &str| {
        let at = [eos].iter().chain(TURN_ENDS).filter(|end| !end.is_empty()).filter_map(|end| text.find(end)).min();
        text[..at.unwrap_or(text.len())].trim().to_owned()
    };
    let text = whole[at..].trim_end();
    let text = &text[..cut(text).len() + text.len() - text.trim_start().len()];
    let end = cut(plain.rsplit_once("XYZZY")?.1);
    let text = text.strip_suffix(&*end).unwrap_or(text).trim_end();
    Some((whole[..at].to_owned(), text.to_owned()))
}

/// Control tokens that end a turn, beside the one that the cases name.
const TURN_ENDS: &[&str] = &["<|eom_id|>", "<|eot_id|>", "<|END_OF_TURN_TOKEN|>"];

fn parsed<'t>(template: &ChatTemplate, prompt: &str, chunks: impl Iterator<Item = &'t str>) -> Reply {
    let conversation = conversation(&Map::new(), None);
    let syntax = template.reply_syntax(&conversation);
    let mut parser = ReplyParser::new(&syntax, prompt).with_tools(conversation.tools.as_deref().unwrap_or_default());
    let mut events = Vec::new();
    chunks.for_each(|chunk| parser.push(chunk, &mut events));
    parser.finish(true, &mut events);
    let mut reply = Reply::default();
    events.iter().for_each(|event| reply.take(event));
    reply
}

/// Says how the reply that comes back differs from what the template renders of `shape`. Counts in `tripped` what came
/// back: a template leaves out what its model does not write.
fn check(
    template: &ChatTemplate,
    variables: &Map<String, Value>,
    shape: Shape,
    tripped: &mut [usize; 3],
) -> Result<(), String> {
    let mut sent = shape.reply();
    let Some((prompt, text)) = rendered(template, variables, &sent) else { return Ok(()) };
    if !text.contains("look\nit up") {
        sent.reasoning.clear();
    }
    if !text.contains("Here you go") {
        sent.text.clear();
    }
    sent.calls.retain(|call| text.contains(&call.name));
    let back = parsed(template, &prompt, std::iter::once(&text[..]));
    let slowly = parsed(template, &prompt, text.split_inclusive(|_: char| true));
    let told = || {
        let skipped = prompt.chars().count().saturating_sub(40);
        format!("{back:?} comes back of {text:?} after {:?}", prompt.chars().skip(skipped).collect::<String>())
    };
    if back != slowly {
        return Err(format!("{}, and {slowly:?} one character at a time", told()));
    }
    let arguments = |reply: &Reply| -> Vec<(String, Value)> {
        let read = |call: &ToolCall| (call.name.clone(), serde_json::from_str(&call.arguments).unwrap_or_default());
        reply.calls.iter().map(read).collect()
    };
    // Some templates number the calls themselves.
    let shown = |call: &ToolCall| call.id.as_ref().is_some_and(|id| text.contains(id));
    let ids = back.calls.iter().zip(&sent.calls).all(|(back, sent)| !shown(sent) || back.id == sent.id);
    let same = (back.text.trim(), back.reasoning.trim()) == (&sent.text, &sent.reasoning);
    if !same || !ids || arguments(&back) != arguments(&sent) {
        return Err(told());
    }
    let came = [!back.reasoning.is_empty(), !back.text.is_empty(), !back.calls.is_empty()];
    tripped.iter_mut().zip(came).for_each(|(n, came)| *n += usize::from(came));
    Ok(())
}

/// All shapes through one template.
fn check_all(
    name: &str,
    template: &ChatTemplate,
    variables: &Map<String, Value>,
    faults: &mut Vec<String>,
) -> [usize; 3] {
    let mut tripped = [0; 3];
    for &shape in SHAPES {
        let known = UNTRIPPED.iter().find(|(set, shapes, _)| *set == name && shapes.contains(&&shape.name()[..]));
        match (check(template, variables, shape, &mut tripped), known) {
            (Err(fault), None) => faults.push(format!("{name}, {}: {fault}", shape.name())),
            (Ok(()), Some((.., why))) => faults.push(format!("{name}, {} comes back after all: {why}", shape.name())),
            _ => {}
        }
    }
    tripped
}

#[test]
fn replies_of_real_templates_come_back() {
    let mut faults = Vec::new();
    for set in sets() {
        let name = set.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let source = std::fs::read_to_string(set.join("template.jinja")).expect("a template");
        let cases = std::fs::read(set.join("cases.json")).expect("cases");
        let cases: Value = serde_json::from_slice(&cases).expect("JSON");
        let template = ChatTemplate::from_jinja(&name, &source).expect("a template");
        let context = cases["cases"][0]["context"].as_object().expect("a context");
        let tokens = ["bos_token", "eos_token"].map(|key| (key.to_owned(), context[key].clone()));
        let [_, _, called] = check_all(&name, &template, &tokens.into_iter().collect(), &mut faults);
        let syntax = template.reply_syntax(&conversation(&Map::new(), None)).name();
        let expected = !["text", "think"].contains(&&*syntax) && !CALLS_NOT_RENDERED.contains(&&*name);
        if expected != (called > 0) {
            faults.push(format!("{name}, {syntax}: {called} messages with calls came back"));
        }
    }
    assert!(faults.is_empty(), "{} do not come back:\n{}", faults.len(), faults.join("\n"));
}

/// `(set, shapes, reason)`: messages that are not the same when they come back.
const UNTRIPPED: &[(&str, &[&str], &str)] = &[(
    "Apriel-1.6-15b-Thinker-fixed",
    &["reasoning, content", "reasoning, 1 calls", "reasoning, content, 2 calls"],
    "the prompt ends with the line that opens the reasoning, and the template renders earlier turns without it",
)];

/// Sets with a syntax of calls from which none comes back: the templates refuse tools or calls in this form, change lists
/// (which templates may not do here), or leave the calls out.
const CALLS_NOT_RENDERED: &[&str] = &[
    "CohereForAI-c4ai-command-r-plus-tool_use",
    "Kimi-K2-Instruct",
    "Kimi-K2-Thinking",
    "LFM2-8B-A1B",
    "LFM2.5-Instruct",
    "deepseek-ai-DeepSeek-R1-Distill-Llama-8B",
    "fireworks-ai-llama-3-firefunction-v2",
    "ibm-granite-granite-3.3-2B-Instruct",
    "lenml-deepseek_v3",
    "llama-cpp-deepseek-r1",
    "meetkai-functionary-medium-v3.2",
];

const LOOP: &str = "{% for m in messages %}{% if m.role == 'user' %}<user>{{ m.content }}</user>{% else %}<assistant>\n\
    {{ reasoning(m) }}{{ m.content }}{% for c in m.tool_calls %}{{ call(c.function, loop.first) }}{% endfor %}<end>{% endif %}\
    {% endfor %}{% if add_generation_prompt %}<assistant>\n{% endif %}";

/// Templates of our own: a name, the syntax that they show, and macros for `LOOP`.
const OWN: &[(&str, &str, &str)] = &[
    (
        "think + hermes",
        "{% if m.reasoning_content %}<think>\n{{ m.reasoning_content }}\n</think>\n\n{% endif %}",
        "\n<tool_call>\n{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}\n</tool_call>",
    ),
    (
        "think + glm",
        "<think>{{ m.reasoning_content }}</think>\n",
        "\n<tool_call>{{ f.name }}\n{% for k, v in f.arguments.items() %}<arg_key>{{ k }}</arg_key>\n<arg_value>\
            {{ v if v is string else v | tojson }}</arg_value>\n{% endfor %}</tool_call>",
    ),
    (
        "xml-function",
        "",
        "\n<tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}<parameter={{ k }}>\n\
            {{ v if v is string else v | tojson }}\n</parameter>\n{% endfor %}</function>\n</tool_call>",
    ),
    (
        "mistral-think + mistral-args",
        "{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}",
        "[TOOL_CALLS]{{ f.name }}[ARGS]{{ f.arguments | tojson }}",
    ),
    (
        "seed-think + seed",
        "{% if m.reasoning_content %}<seed:think>{{ m.reasoning_content }}</seed:think>{% endif %}",
        "\n<seed:tool_call>\n<function={{ f.name }}>\n{% for k, v in f.arguments.items() %}<parameter={{ k }}>\
            {{ v if v is string else v | tojson }}</parameter>\n{% endfor %}</function>\n</seed:tool_call>",
    ),
    ("phi", "", "<|tool_call|>{\"name\": \"{{ f.name }}\", \"arguments\": {{ f.arguments | tojson }}}<|/tool_call|>"),
];

#[test]
fn replies_of_own_templates_come_back() {
    let mut faults = Vec::new();
    for (syntax, reasoning, call) in OWN {
        let source = format!(
            "{{% macro reasoning(m) %}}{reasoning}{{% endmacro %}}{{% macro call(f, first) %}}{call}{{% endmacro %}}{LOOP}"
        );
        let template = ChatTemplate::from_jinja(syntax, &source).expect("a template");
        assert_eq!(template.reply_syntax(&conversation(&Map::new(), None)).name(), *syntax);
        let [reasoned, answered, called] = check_all(syntax, &template, &Map::new(), &mut faults);
        assert_eq!((reasoned > 0, answered, called), (!reasoning.is_empty(), 4, 5), "{syntax}: {faults:?}");
    }
    for (name, format) in [
        ("harmony", Format::Harmony),
        ("mistral v3", Format::Mistral(Version::V3, false)),
        ("mistral v11", Format::Mistral(Version::V11, false)),
        ("mistral v13", Format::Mistral(Version::V13, false)),
    ] {
        let [_, answered, called] = check_all(name, &format.into(), &Map::new(), &mut faults);
        assert!(answered > 0 && called > 0, "{name}: {faults:?}");
    }
    assert!(faults.is_empty(), "{} do not come back:\n{}", faults.len(), faults.join("\n"));
}
