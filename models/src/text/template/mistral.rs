//! Mistral's formats by the version of their tokenizers, as mistral-common encodes them
//! (`tokens/tokenizers/instruct.py` and the normalizers of `protocol/instruct` of github.com/mistralai/mistral-common):
//! for a `tekken.json`, or a `tokenizer.model.vN`, without a template.

use serde_json::{Value, json};

use super::super::error::{Result, TextError};
use super::conversation::Conversation;
use super::parts::{self, Text, json_dumps};
use super::prompt::Prompt;

/// A version of the format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// `[INST]` is plain text, and there are no tools.
    V1,
    /// The system prompt stands in the last message of the user.
    V2,
    /// Tool calls have ids.
    V3,
    /// The system prompt has tokens of its own.
    V7,
    /// Each call of a tool has tokens of its own.
    V11,
    /// Ids of calls are not written, and tools stand at the first message of the user.
    V13,
}

impl Version {
    /// The version of that name (`v3`, `v7m1`), or the newest one before it with another format.
    pub(super) fn named(name: &str) -> Option<Self> {
        let digits = name.strip_prefix('v')?;
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        // `m1` is the version of images.
        if !matches!(digits.as_bytes().get(end), None | Some(b'm')) {
            return None;
        }
        Some(match digits[..end].parse::<u32>().ok()? {
            0 => return None,
            1 => Self::V1,
            2 => Self::V2,
            3..7 => Self::V3,
            7..11 => Self::V7,
            11..13 => Self::V11,
            13.. => Self::V13,
        })
    }

    /// The format's name, as [`source`](super::ChatTemplate::source) gives it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::V1 => "mistral v1",
            Self::V2 => "mistral v2",
            Self::V3 => "mistral v3",
            Self::V7 => "mistral v7",
            Self::V11 => "mistral v11",
            Self::V13 => "mistral v13",
        }
    }

    /// The name of the syntax of its replies.
    pub(super) fn replies(self) -> &'static str {
        match self {
            Self::V1 => "text",
            Self::V2 | Self::V3 | Self::V7 => "mistral-list",
            Self::V11 => "mistral-args",
            Self::V13 => "mistral-think + mistral-args",
        }
    }
}

/// Renders `conversation`. `spaced` says that the tokenizer is sentencepiece's, which puts a space before a text: one
/// that follows another without a control token between them is written with that space.
pub(super) fn render(version: Version, spaced: bool, conversation: &Conversation) -> Result<Prompt> {
    let messages = normalized(version, conversation)?;
    let users = || messages.iter().enumerate().filter(|(_, message)| message.role == Role::User).map(|(n, _)| n);
    let (first, last) = (users().next(), users().next_back());
    let mut text = Text::default();
    text.own("<s>");
    for (n, message) in messages.iter().enumerate() {
        let history = last.is_some_and(|last| n < last);
        match message.role {
            Role::System => {
                text.own("[SYSTEM_PROMPT]");
                text.user(&message.text);
                text.own("[/SYSTEM_PROMPT]");
            }
            Role::User => {
                let tools = if version == Version::V13 { first == Some(n) } else { last == Some(n) };
                if let Some(tools) = conversation.tools.as_deref().filter(|list| tools && !list.is_empty()) {
                    text.own("[AVAILABLE_TOOLS]");
                    text.user(&json_dumps(&Value::from(tools.iter().map(tool).collect::<Vec<_>>())));
                    text.own("[/AVAILABLE_TOOLS]");
                }
                let (before, after) =
                    if version == Version::V1 { ("[INST] ", " [/INST]") } else { ("[INST]", "[/INST]") };
                text.own(before);
                text.user(&message.text);
                text.own(after);
            }
            // The second version forgets the calls before the last question.
            Role::Assistant | Role::Tool if version == Version::V2 && history && message.is_about_tools() => {}
            Role::Assistant => assistant(version, spaced, message, &mut text),
            Role::Tool => tool_result(version, message, &mut text),
        }
    }
    Ok(text.prompt())
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Role {
    System,
    User,
    Assistant,
    Tool,
}

/// A message in the form of mistral-common's requests.
struct Message<'c> {
    role: Role,
    /// Reasoning that stands before the text.
    thoughts: String,
    text: String,
    /// The message of the conversation; for the user's, the first of its neighbours.
    source: &'c Value,
}

impl Message<'_> {
    fn is_about_tools(&self) -> bool {
        self.role == Role::Tool || !parts::tool_calls(self.source).is_empty()
    }
}

/// The messages as mistral-common's normalizers leave them: neighbours of one role are one message, and before version
/// 7 the system's texts stand in a message of the user.
fn normalized(version: Version, conversation: &Conversation) -> Result<Vec<Message<'_>>> {
    let wrong = |n: usize, what: String| TextError::Conversation(format!("messages[{n}] of the conversation {what}"));
    let mut messages: Vec<Message<'_>> = Vec::new();
    let mut system: Vec<String> = Vec::new();
    for (n, source) in conversation.messages.iter().enumerate() {
        let role = match source["role"].as_str().unwrap_or_default() {
            "system" | "developer" => Role::System,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => return Err(wrong(n, format!("has the role `{other}`, which Mistral's format lacks"))),
        };
        let thoughts =
            if role == Role::Assistant && version >= Version::V13 { thoughts(source) } else { String::new() };
        let text = parts::text_of(n, source, "\n\n")?;
        let calls = role == Role::Assistant && !parts::tool_calls(source).is_empty();
        if version == Version::V1 && (calls || role == Role::Tool) {
            return Err(wrong(n, "is about tools, and the first version of Mistral's format has none".to_owned()));
        }
        if calls && !text.is_empty() && version < Version::V7 {
            return Err(wrong(n, "has both text and tool calls, and Mistral's format has one of them".to_owned()));
        }
        if role == Role::Assistant && text.is_empty() && thoughts.is_empty() && !calls {
            return Err(wrong(n, "has neither text nor tool calls".to_owned()));
        }
        match messages.last_mut() {
            _ if role == Role::System && version < Version::V7 => system.push(text),
            Some(last) if last.role == role && role == Role::User => {
                last.text += "\n\n";
                last.text += &text;
            }
            _ => messages.push(Message { role, thoughts, text, source }),
        }
    }
    if !system.is_empty() {
        let is_user = |message: &Message<'_>| message.role == Role::User;
        let at =
            if version == Version::V1 { messages.iter().position(is_user) } else { messages.iter().rposition(is_user) };
        if let Some(message) = at.map(|at| &mut messages[at]) {
            system.push(std::mem::take(&mut message.text));
            message.text = system.join("\n\n");
        }
    }
    Ok(messages)
}

/// The thoughts before the text of an assistant's message: parts of the type `thinking`, or the key that other
/// formats have for them.
fn thoughts(source: &Value) -> String {
    let parts = source["content"].as_array().into_iter().flatten().filter(|part| part["type"] == "thinking");
    let inner = |part: &Value| match part["thinking"].as_array() {
        Some(parts) => parts.iter().filter_map(|part| part["text"].as_str()).collect(),
        None => part["thinking"].as_str().unwrap_or_default().to_owned(),
    };
    let thoughts: String = parts.map(inner).collect();
    if thoughts.is_empty() { source["reasoning_content"].as_str().unwrap_or_default().to_owned() } else { thoughts }
}

/// A tool as `Tool.model_dump()` gives it.
fn tool(tool: &Value) -> Value {
    let function = tool.get("function").unwrap_or(tool);
    let empty = json!({});
    json!({
        "type": "function",
        "function": {
            "name": function["name"],
            "description": function["description"].as_str().unwrap_or_default(),
            "parameters": function.get("parameters").filter(|schema| !schema.is_null()).unwrap_or(&empty),
            "strict": function["strict"].as_bool().unwrap_or_default(),
        },
    })
}

fn assistant(version: Version, spaced: bool, message: &Message<'_>, text: &mut Text) {
    if !message.thoughts.is_empty() {
        text.own("[THINK]");
        text.user(&message.thoughts);
        text.own("[/THINK]");
    }
    if !message.text.is_empty() {
        // No control token stands before it in the first version.
        text.own(if version == Version::V1 && spaced { " " } else { "" });
        let content = if version == Version::V1 { &message.text } else { message.text.trim_end_matches(' ') };
        text.user(content);
    }
    let calls = parts::tool_calls(message.source);
    if version < Version::V11 && !calls.is_empty() {
        let call = |call: &parts::Call<'_>| {
            let mut value = json!({ "name": call.name, "arguments": call.arguments_value() });
            if let Some(id) = call.id.filter(|_| version >= Version::V3) {
                value["id"] = id.into();
            }
            value
        };
        text.own("[TOOL_CALLS]");
        text.user(&json_dumps(&Value::from(calls.iter().map(call).collect::<Vec<_>>())));
    } else {
        for call in &calls {
            text.own("[TOOL_CALLS]");
            text.user(call.name);
            if let Some(id) = call.id.filter(|_| version == Version::V11) {
                text.own("[CALL_ID]");
                text.user(id);
            }
            text.own("[ARGS]");
            text.user(&json_dumps(&call.arguments_value()));
        }
    }
    text.own("</s>");
}

fn tool_result(version: Version, message: &Message<'_>, text: &mut Text) {
    let id = message.source["tool_call_id"].as_str().unwrap_or_default();
    let content = parts::parsed(&Value::from(message.text.as_str()));
    text.own("[TOOL_RESULTS]");
    match version {
        Version::V1 | Version::V2 => {
            text.user(&json_dumps(&json!([{ "name": message.source["name"], "content": content }])));
        }
        Version::V3 => text.user(&json_dumps(&json!({ "content": content, "call_id": id }))),
        Version::V7 | Version::V11 => {
            text.user(id);
            text.own("[TOOL_CONTENT]");
            text.user(&message.text);
        }
        Version::V13 => text.user(&message.text),
    }
    text.own("[/TOOL_RESULTS]");
}
