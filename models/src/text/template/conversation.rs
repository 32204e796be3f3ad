//! The conversation that a template renders.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::super::error::{Result, TextError};

/// Deepest nesting of a conversation's values; serde_json reads no deeper ones either.
const MAX_DEPTH: usize = 128;

/// Messages and all other variables of a chat template, as transformers' `apply_chat_template` takes them.
///
/// As JSON it is an object: `messages`, `tools`, `documents`, `add_generation_prompt` (true where it is missing), and
/// every other key is a variable of the template, `bos_token` and `eos_token` among them.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub struct Conversation {
    /// The messages: objects with a `role`, mostly `content`, and what else the template reads.
    pub messages: Vec<Value>,
    /// The tools that the model may call, each an object with JSON schema inside.
    pub tools: Option<Vec<Value>>,
    /// Documents to answer from.
    pub documents: Option<Vec<Value>>,
    /// Whether the prompt ends with the beginning of an answer.
    pub add_generation_prompt: bool,
    /// Further variables. `bos_token` and `eos_token` stand for the ones that the model's files name.
    pub variables: Map<String, Value>,
}

impl Conversation {
    /// A conversation of these messages, to be answered, without tools, documents and variables.
    pub fn new(messages: Vec<Value>) -> Self {
        Self { messages, tools: None, documents: None, add_generation_prompt: true, variables: Map::new() }
    }

    /// Reads the JSON of a conversation.
    ///
    /// # Errors
    /// [`TextError::Conversation`] for text that is not JSON, and for keys of a wrong type, by name.
    pub fn from_json(json: &str) -> Result<Self> {
        let conversation: Map<String, Value> = serde_json::from_str(json)
            .map_err(|e| TextError::Conversation(format!("the conversation is not a JSON object: {e}")))?;
        conversation.try_into().map_err(TextError::Conversation)
    }

    /// The same as JSON, which [`from_json`](Self::from_json) reads again.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("messages".to_owned(), self.messages.clone().into());
        for (key, list) in [("tools", &self.tools), ("documents", &self.documents)] {
            if let Some(list) = list {
                object.insert(key.to_owned(), list.clone().into());
            }
        }
        object.insert("add_generation_prompt".to_owned(), self.add_generation_prompt.into());
        object.extend(self.variables.clone());
        object.into()
    }

    /// Puts a message with instructions for the model in front, in place of one that is there. An empty text removes it.
    pub fn set_system(&mut self, text: &str) {
        if self.messages.first().is_some_and(is_system) {
            self.messages.remove(0);
        }
        if !text.is_empty() {
            self.messages.insert(0, json!({ "role": "system", "content": text }));
        }
    }

    /// The text of the message with instructions in front.
    pub fn system(&self) -> Option<&str> {
        self.messages.first().filter(|message| is_system(message))?.get("content")?.as_str()
    }

    /// Asks a model that can reason to do so before it answers, or not to. Templates have no common variable for it:
    /// most read `enable_thinking`, DeepSeek's and Granite's `thinking`, MiniMax's `thinking_mode`, and Seed's a budget
    /// of 0.
    pub fn set_thinking(&mut self, think: bool) {
        let mode = if think { "enabled" } else { "disabled" };
        let budget = (!think).then(|| ("thinking_budget", json!(0)));
        let variables = [("enable_thinking", json!(think)), ("thinking", json!(think)), ("thinking_mode", json!(mode))];
        for (name, value) in variables.into_iter().chain(budget) {
            self.variables.insert(name.to_owned(), value);
        }
    }

    /// Refuses what no template can render.
    ///
    /// # Errors
    /// No messages; a message that is no object or has no role; values nested too deep.
    pub(super) fn check(&self) -> Result<()> {
        if self.messages.is_empty() {
            return Err(TextError::Conversation("the conversation has no messages".to_owned()));
        }
        for (n, message) in self.messages.iter().enumerate() {
            let fault = match message {
                Value::Object(message) => match message.get("role") {
                    Some(Value::String(_)) => continue,
                    Some(_) => "has a role that is no string",
                    None => "has no role",
                },
                _ => "is no object",
            };
            return Err(TextError::Conversation(format!("messages[{n}] of the conversation {fault}")));
        }
        let lists = [Some(&self.messages), self.tools.as_ref(), self.documents.as_ref()];
        let values = lists.into_iter().flatten().flatten().chain(self.variables.values());
        if values.into_iter().any(|value| is_deeper(value, MAX_DEPTH)) {
            let said = format!("the conversation has values nested more than {MAX_DEPTH} deep");
            return Err(TextError::Conversation(said));
        }
        Ok(())
    }
}

/// Whether `message` has instructions for the model rather than something to answer.
pub(crate) fn is_system(message: &Value) -> bool {
    matches!(message.get("role").and_then(Value::as_str), Some("system" | "developer"))
}

/// Whether `value` is nested deeper than `depth`.
fn is_deeper(value: &Value, depth: usize) -> bool {
    match value {
        Value::Array(list) => depth == 0 || list.iter().any(|item| is_deeper(item, depth - 1)),
        Value::Object(object) => depth == 0 || object.values().any(|item| is_deeper(item, depth - 1)),
        _ => false,
    }
}

impl TryFrom<Map<String, Value>> for Conversation {
    type Error = String;

    fn try_from(mut object: Map<String, Value>) -> Result<Self, String> {
        let mut list = |key: &str| match object.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(format!("`{key}` of the conversation is no list")),
        };
        let messages = list("messages")?.ok_or("the conversation has no `messages`")?;
        let (tools, documents) = (list("tools")?, list("documents")?);
        let add_generation_prompt = match object.shift_remove("add_generation_prompt") {
            None | Some(Value::Null) => true,
            Some(Value::Bool(add)) => add,
            Some(_) => return Err("`add_generation_prompt` of the conversation is neither true nor false".to_owned()),
        };
        Ok(Self { messages, tools, documents, add_generation_prompt, variables: object })
    }
}
