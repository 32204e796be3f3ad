//! gpt-oss's harmony, as openai-harmony renders it (`encoding.rs` of github.com/openai/harmony): for vocabularies with
//! its control tokens whose files have no template.

use serde_json::Value;

use super::super::error::{Result, TextError};
use super::conversation::Conversation;
use super::parts::{self, Text};
use super::prompt::Prompt;
use super::time::LocalTime;
use super::typescript::type_of;

/// The control tokens by which a vocabulary is harmony's, the rarest first.
pub(super) const TOKENS: [&str; 5] = ["<|constrain|>", "<|channel|>", "<|message|>", "<|start|>", "<|call|>"];

/// Renders `conversation`.
///
/// Messages are those of chat completions, or of openai-harmony itself: then their contents may have the types
/// `system_content` and `developer_content`, and messages have `channel`, `recipient` and `content_type`.
pub(super) fn render(conversation: &Conversation, now: LocalTime) -> Result<Prompt> {
    let mut turns = Vec::new();
    let has_system = conversation.messages.iter().any(|message| contents(message, "system_content").next().is_some());
    if !has_system {
        turns.push(Turn::new("system", Body::System(default_system(conversation, now))));
    }
    let mut tools = conversation.tools.as_deref().unwrap_or_default();
    let instructed = |message: &Value| matches!(message["role"].as_str(), Some("system" | "developer"));
    if !tools.is_empty() && !conversation.messages.iter().any(instructed) {
        turns.push(Turn::new("developer", Body::Developer(String::new(), std::mem::take(&mut tools))));
    }
    for (n, message) in conversation.messages.iter().enumerate() {
        read(n, message, &conversation.messages[..n], &mut tools, &mut turns)?;
    }
    let functions = turns.iter().any(|turn| match &turn.body {
        Body::Developer(_, tools) => !tools.is_empty(),
        Body::Content(content) => content["tools"]["functions"]["tools"].as_array().is_some_and(|t| !t.is_empty()),
        _ => false,
    });
    let mut text = Text::default();
    for turn in kept(&turns) {
        turn.render(functions, &mut text);
    }
    if conversation.add_generation_prompt {
        text.own("<|start|>assistant");
    }
    Ok(text.prompt())
}

/// A message of harmony.
struct Turn<'c> {
    /// The role, or a tool's name.
    author: String,
    /// The name of the author, behind its role.
    name: Option<&'c str>,
    recipient: Option<String>,
    channel: Option<String>,
    content_type: Option<&'c str>,
    body: Body<'c>,
}

enum Body<'c> {
    /// Identity, effort and channels.
    System(Value),
    /// Instructions and tools of chat completions.
    Developer(String, &'c [Value]),
    /// `developer_content` of openai-harmony.
    Content(&'c Value),
    Text(String),
}

impl<'c> Turn<'c> {
    fn new(author: &str, body: Body<'c>) -> Self {
        Self { author: author.to_owned(), name: None, recipient: None, channel: None, content_type: None, body }
    }

    fn in_channel(mut self, channel: Option<&str>) -> Self {
        self.channel = channel.map(str::to_owned);
        self
    }

    fn is(&self, channel: &str) -> bool {
        self.channel.as_deref() == Some(channel)
    }

    fn render(&self, functions: bool, text: &mut Text) {
        text.own("<|start|>");
        text.user(&self.author);
        if let Some(name) = self.name {
            text.user(&format!(":{name}"));
        }
        if let Some(recipient) = self.recipient.as_deref().filter(|to| *to != "all") {
            text.user(&format!(" to={recipient}"));
        }
        if let Some(channel) = &self.channel {
            text.own("<|channel|>");
            text.user(channel);
        }
        if let Some(kind) = self.content_type {
            text.own(" ");
            let rest = kind.strip_prefix("<|constrain|>");
            text.own(rest.map_or("", |_| "<|constrain|>"));
            text.user(rest.unwrap_or(kind));
        }
        text.own("<|message|>");
        match &self.body {
            Body::System(content) => text.user(&system_text(content, functions)),
            Body::Developer(instructions, tools) => {
                let tools = tools.iter().map(|tool| tool.get("function").unwrap_or(tool));
                let section = namespace("functions", None, tools);
                text.user(&developer_text(Some(instructions).filter(|text| !text.is_empty()), &section));
            }
            Body::Content(content) => text.user(&developer_content(content)),
            Body::Text(content) => text.user(content),
        }
        text.own(if self.author == "assistant" && self.recipient.is_some() { "<|call|>" } else { "<|end|>" });
    }
}

/// The turns without the reasoning that led to the first final answer, where the last turn of the assistant is final.
fn kept<'t, 'c>(turns: &'t [Turn<'c>]) -> impl Iterator<Item = &'t Turn<'c>> {
    let done = turns.iter().rfind(|turn| turn.author == "assistant").is_some_and(|turn| turn.is("final"));
    let first = turns.iter().position(|turn| turn.is("final")).filter(|_| done).unwrap_or_default();
    turns.iter().enumerate().filter(move |(n, turn)| *n >= first || !turn.is("analysis")).map(|(_, turn)| turn)
}

/// The parts of a message's content of that type.
fn contents<'v>(message: &'v Value, kind: &'static str) -> impl Iterator<Item = &'v Value> {
    message["content"].as_array().into_iter().flatten().filter(move |part| part["type"] == kind)
}

/// Appends the turns of message `n`, which follows `before`. The first message with instructions takes the `tools`.
fn read<'c>(
    n: usize,
    message: &'c Value,
    before: &'c [Value],
    tools: &mut &'c [Value],
    turns: &mut Vec<Turn<'c>>,
) -> Result<()> {
    let role = message["role"].as_str().unwrap_or_default();
    let channel = message["channel"].as_str();
    if let Some(content) = contents(message, "system_content").next() {
        turns.push(Turn::new(role, Body::System(content.clone())).in_channel(channel));
        return Ok(());
    }
    if let Some(content) = contents(message, "developer_content").next() {
        turns.push(Turn::new(role, Body::Content(content)).in_channel(channel));
        return Ok(());
    }
    let text = parts::text_of(n, message, "")?;
    match role {
        "system" | "developer" => turns.push(Turn::new("developer", Body::Developer(text, std::mem::take(tools)))),
        "assistant" => {
            let reasoning =
                ["reasoning_content", "reasoning", "thinking"].iter().find_map(|key| message[*key].as_str());
            if let Some(reasoning) = reasoning.filter(|text| !text.is_empty()) {
                turns.push(Turn::new(role, Body::Text(reasoning.to_owned())).in_channel(Some("analysis")));
            }
            let calls = parts::tool_calls(message);
            if !text.is_empty() || calls.is_empty() {
                let default = if calls.is_empty() { "final" } else { "commentary" };
                let mut turn = Turn::new(role, Body::Text(text)).in_channel(channel.or(Some(default)));
                turn.recipient = message["recipient"].as_str().map(str::to_owned);
                turn.content_type = message["content_type"].as_str();
                turns.push(turn);
            }
            for call in calls {
                let mut turn = Turn::new(role, Body::Text(call.arguments_text())).in_channel(Some("commentary"));
                turn.recipient = Some(format!("functions.{}", call.name));
                turn.content_type = Some("json");
                turns.push(turn);
            }
        }
        "tool" => {
            let called = || parts::called_name(before, message["tool_call_id"].as_str()?);
            let name = message["name"].as_str().or_else(called).ok_or_else(|| {
                TextError::Conversation(format!("messages[{n}] of the conversation is a tool's, and has no name"))
            })?;
            let name = if name.contains('.') { name.to_owned() } else { format!("functions.{name}") };
            let mut turn = Turn::new(&name, Body::Text(text)).in_channel(channel.or(Some("commentary")));
            turn.recipient = Some(message["recipient"].as_str().unwrap_or("assistant").to_owned());
            turns.push(turn);
        }
        role => {
            let mut turn = Turn::new(role, Body::Text(text)).in_channel(channel);
            turn.name = message["name"].as_str();
            turns.push(turn);
        }
    }
    Ok(())
}

/// The system message of a conversation that has none.
fn default_system(conversation: &Conversation, now: LocalTime) -> Value {
    let variable = |key: &str, default: &str| {
        conversation.variables.get(key).and_then(Value::as_str).unwrap_or(default).to_owned()
    };
    serde_json::json!({
        "model_identity": variable("model_identity", "You are ChatGPT, a large language model trained by OpenAI."),
        "reasoning_effort": variable("reasoning_effort", "medium"),
        "conversation_start_date": now.format("%Y-%m-%d"),
        "knowledge_cutoff": "2024-06",
        "channel_config": { "valid_channels": ["analysis", "commentary", "final"], "channel_required": true },
    })
}

fn system_text(content: &Value, functions: bool) -> String {
    let text = |key: &str, before: &str| content[key].as_str().map(|text| format!("{before}{text}"));
    let top: Vec<String> = [
        text("model_identity", ""),
        text("knowledge_cutoff", "Knowledge cutoff: "),
        text("conversation_start_date", "Current date: "),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut sections = vec![top.join("\n")];
    let effort = content["reasoning_effort"].as_str();
    sections.extend(effort.map(|effort| format!("Reasoning: {}", effort.to_lowercase())));
    sections.push(tools_section(&content["tools"]));
    let config = &content["channel_config"];
    let channels: Vec<&str> =
        config["valid_channels"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if !channels.is_empty() {
        let mut line = format!("# Valid channels: {}.", channels.join(", "));
        if config["channel_required"] == true {
            line.push_str(" Channel must be included for every message.");
        }
        if functions {
            line.push_str("\nCalls to these tools must go to the commentary channel: 'functions'.");
        }
        sections.push(line);
    }
    joined(sections)
}

fn developer_text(instructions: Option<&String>, tools: &str) -> String {
    let tools = if tools.is_empty() { String::new() } else { format!("# Tools\n\n{tools}") };
    joined(vec![instructions.map_or(String::new(), |text| format!("# Instructions\n\n{text}")), tools])
}

fn developer_content(content: &Value) -> String {
    let instructions = content["instructions"].as_str().map(|text| format!("# Instructions\n\n{text}"));
    joined(vec![instructions.unwrap_or_default(), tools_section(&content["tools"])])
}

/// The namespaces of tools, by name.
fn tools_section(tools: &Value) -> String {
    let Some(spaces) = tools.as_object().filter(|spaces| !spaces.is_empty()) else { return String::new() };
    let mut spaces: Vec<(&String, &Value)> = spaces.iter().collect();
    spaces.sort_by_key(|(key, _)| *key);
    let space = |(key, space): (&String, &Value)| {
        let name = space["name"].as_str().unwrap_or(key);
        namespace(name, space["description"].as_str(), space["tools"].as_array().into_iter().flatten())
    };
    std::iter::once("# Tools".to_owned()).chain(spaces.into_iter().map(space)).collect::<Vec<_>>().join("\n\n")
}

/// One namespace; nothing for one without tools and description.
fn namespace<'v>(name: &str, description: Option<&str>, tools: impl Iterator<Item = &'v Value>) -> String {
    let mut tools = tools.peekable();
    let empty = tools.peek().is_none();
    if empty && description.is_none() {
        return String::new();
    }
    let comment = if empty { "" } else { "// " };
    let mut lines = vec![format!("## {name}\n")];
    lines.extend(description.unwrap_or_default().lines().map(|line| format!("{comment}{line}")));
    if empty {
        return lines.join("\n");
    }
    lines.push(format!("namespace {name} {{\n"));
    for tool in tools {
        lines.extend(tool["description"].as_str().unwrap_or_default().lines().map(|line| format!("// {line}")));
        let name = tool["name"].as_str().unwrap_or_default();
        lines.push(match tool.get("parameters").filter(|schema| !schema.is_null()) {
            Some(schema) => format!("type {name} = (_: {}) => any;\n", type_of(schema, "")),
            None => format!("type {name} = () => any;\n"),
        });
    }
    lines.push(format!("}} // namespace {name}"));
    lines.join("\n")
}

/// The sections that have text.
fn joined(mut sections: Vec<String>) -> String {
    sections.retain(|section| !section.is_empty());
    sections.join("\n\n")
}
