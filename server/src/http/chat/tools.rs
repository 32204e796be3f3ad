//! Tools that an answer may call, or must.

use handmill_models::text::Conversation;
use serde_json::{Value, json};

use crate::http::error::ApiError;

/// The tools of a conversation.
#[derive(Debug)]
pub(crate) struct Tools {
    /// As templates read them: objects of the type `function`.
    pub all: Vec<Value>,
    pub choice: ToolChoice,
    /// Whether one answer may call several.
    pub parallel: bool,
}

/// Whether an answer calls tools.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ToolChoice {
    /// As the model likes.
    Auto,
    /// It does not: the model hears of no tools.
    None,
    /// It must: the one of that name, or any.
    Forced(Option<String>),
}

impl Tools {
    /// Those of the field `tools` of OpenAI's chats and Ollama's; tools of other types are left out.
    pub fn read(list: Option<&Vec<Value>>) -> Result<Vec<Value>, ApiError> {
        let mut tools = Vec::new();
        for (i, tool) in list.into_iter().flatten().enumerate() {
            let at = format!("tools[{i}]");
            match tool.get("type").and_then(Value::as_str) {
                Some("function") => {}
                // Tools that the client's own servers run.
                Some(_) => continue,
                None => return Err(ApiError::field(format!("{at}.type"), "must be a string")),
            }
            if !tool.pointer("/function/name").is_some_and(Value::is_string) {
                return Err(ApiError::field(format!("{at}.function.name"), "must be a string"));
            }
            tools.push(tool.clone());
        }
        Ok(tools)
    }

    /// A tool whose name, description and schema lie side by side in `tool`, as a template reads it.
    pub fn function(at: &str, tool: &Value, schema: &str) -> Result<Value, ApiError> {
        let name = tool.get("name").and_then(Value::as_str);
        let name = name.ok_or_else(|| ApiError::field(format!("{at}.name"), "must be a string"))?;
        let mut function = json!({ "name": name });
        if let Some(description) = tool.get("description").filter(|text| text.is_string()) {
            function["description"] = description.clone();
        }
        match tool.get(schema) {
            None | Some(Value::Null) => {}
            Some(parameters @ Value::Object(_)) => function["parameters"] = parameters.clone(),
            Some(_) => return Err(ApiError::field(format!("{at}.{schema}"), "must be an object")),
        }
        Ok(json!({ "type": "function", "function": function }))
    }

    /// Tells the model of them.
    ///
    /// # Errors
    /// A forced tool that there is not.
    pub fn offer(&self, conversation: &mut Conversation) -> Result<(), ApiError> {
        if let ToolChoice::Forced(name) = &self.choice {
            let known = |tool: &Value| name.as_ref().is_none_or(|name| tool["function"]["name"] == **name);
            if !self.all.iter().any(known) {
                return Err(ApiError::field("tool_choice", "asks for a function that is not among `tools`"));
            }
        }
        let heard = !self.all.is_empty() && self.choice != ToolChoice::None;
        conversation.tools = heard.then(|| self.all.clone());
        Ok(())
    }
}
