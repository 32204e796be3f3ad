//! From a conversation to the tokens of a prompt, and what of the answer depends on it.

use handmill_models::text::{ChatTemplate, Conversation, LocalTime, ReplyParser, ReplySyntax, TextError};
use serde_json::Value;

use super::{
    forms::Form,
    tools::{ToolChoice, Tools},
};
use crate::{
    constrain::{Calls, Constraint, Reasoning},
    http::{App, error::ApiError},
};

/// A conversation that was rendered.
pub(crate) struct Prompt<'a> {
    pub ids: Vec<u32>,
    text: String,
    syntax: ReplySyntax,
    conversation: &'a Conversation,
    template: &'a ChatTemplate,
    now: LocalTime,
}

impl<'a> Prompt<'a> {
    /// Renders the conversation, whose messages came in the field `field`.
    ///
    /// # Errors
    /// A model without a template; a template that refuses the messages.
    pub fn new(app: &'a App, conversation: &'a Conversation, field: &str) -> Result<Self, ApiError> {
        let template = app.options.template.as_ref();
        let template = template.ok_or_else(|| {
            ApiError::status(400, "the model has no chat template; /v1/completions continues texts")
                .code("no_chat_template")
        })?;
        // The epoch, where the system knows no time.
        let now = (app.options.now)().or_else(|| LocalTime::new(1970, 1, 1, 0, 0, 0));
        let now = now.ok_or_else(|| ApiError::status(500, "the system's clock cannot be read"))?;
        let refused = |error: TextError| ApiError::field(field, format!("cannot be rendered: {error}"));
        let prompt = template.render(conversation, now).map_err(refused)?;
        let ids = prompt.encode(&app.tokenizer).map_err(refused)?;
        let (syntax, text) = (template.reply_syntax(conversation), prompt.text());
        Ok(Self { ids, text, syntax, conversation, template, now })
    }

    /// The text that was rendered.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What takes a reply apart.
    pub fn parser(&self) -> ReplyParser {
        let tools = self.conversation.tools.as_deref().unwrap_or_default();
        ReplyParser::new(&self.syntax, &self.text).with_tools(tools)
    }

    /// The reasoning that may come before a form.
    pub fn reasoning(&self) -> Reasoning {
        match (self.syntax.open_reasoning(&self.text), self.syntax.reasoning_marks()) {
            (Some(close), _) => Reasoning::Open(close.to_owned()),
            (None, Some((open, close))) => Reasoning::Between(open.to_owned(), close.to_owned()),
            (None, None) => Reasoning::None,
        }
    }

    /// The form of the answer: the one that was asked for, or that of a forced call.
    pub fn form(&self, app: &App, tools: &Tools, form: Option<Form>) -> Result<Option<Form>, ApiError> {
        let ToolChoice::Forced(name) = &tools.choice else { return Ok(form) };
        if let Some(form) = form {
            return Err(ApiError::field(form.field, "cannot be asked for together with a forced call"));
        }
        let form = self.template.call_form(self.conversation, self.now, &app.tokenizer).ok_or_else(|| {
            ApiError::field("tool_choice", "cannot force a call: the form of this model's calls is not known")
        })?;
        let functions = tools.all.iter().filter_map(|tool| tool.get("function").cloned());
        let is_chosen = |tool: &Value| name.as_ref().is_none_or(|name| tool["name"] == **name);
        let tools = Calls { form, tools: functions.filter(is_chosen).collect(), parallel: tools.parallel };
        Ok(Some(Form { field: "tools".to_owned(), constraint: Constraint::Calls(Box::new(tools)) }))
    }
}

/// Sets how much a model reasons, in OpenAI's words.
pub(crate) fn set_effort(conversation: &mut Conversation, effort: &str) {
    if effort == "none" {
        conversation.set_thinking(false);
    }
    conversation.variables.insert("reasoning_effort".to_owned(), effort.into());
}
