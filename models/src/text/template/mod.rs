//! Chat templates: from a conversation to a prompt in the model's own format.

mod calls;
mod context;
mod conversation;
mod files;
mod filters;
mod harmony;
mod jinja;
mod marks;
mod methods;
mod mistral;
mod parts;
mod prompt;
mod python;
mod source;
mod time;
mod typescript;

pub use calls::{ArgumentForm, CallForm, CallText};
pub use conversation::Conversation;
pub(crate) use conversation::is_system;
pub use prompt::Prompt;
pub use time::LocalTime;

use serde_json::{Map, Value};

use super::error::Result;
use super::reply::ReplySyntax;
use jinja::Jinja;
use mistral::Version;

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    format: Format,
    /// The template for conversations with tools, where it is another.
    with_tools: Option<Jinja>,
    /// `bos_token` and the like, as the files of the model name them.
    special_tokens: Map<String, Value>,
    may_add_bos: bool,
}

/// The ways to render a conversation.
#[derive(Debug)]
enum Format {
    Jinja(Box<Jinja>),
    /// The version, and whether the tokenizer is sentencepiece's.
    Mistral(Version, bool),
    Harmony,
}

impl From<Format> for ChatTemplate {
    fn from(format: Format) -> Self {
        Self { format, with_tools: None, special_tokens: Map::new(), may_add_bos: false }
    }
}

impl ChatTemplate {
    /// The template of a Jinja text; `what` names it in errors.
    ///
    /// # Errors
    /// [`TextError::Template`](super::TextError::Template) for text that is no template.
    pub fn from_jinja(what: &str, source: &str) -> Result<Self> {
        Ok(Format::Jinja(Box::new(Jinja::new(what, source)?)).into())
    }

    /// Renders `conversation`; `now` is the time that a template prints. Its own variables go before the special tokens
    /// of the model's files.
    ///
    /// # Errors
    /// Conversations without messages or with wrong types; exceptions of the template; templates that fail.
    pub fn render(&self, conversation: &Conversation, now: LocalTime) -> Result<Prompt> {
        conversation.check()?;
        let mut prompt = match (&self.format, &self.with_tools, &conversation.tools) {
            (_, Some(jinja), Some(_)) => jinja.render(&self.special_tokens, conversation, now)?,
            (Format::Jinja(jinja), ..) => jinja.render(&self.special_tokens, conversation, now)?,
            (&Format::Mistral(version, spaced), ..) => mistral::render(version, spaced, conversation)?,
            (Format::Harmony, ..) => harmony::render(conversation, now)?,
        };
        prompt.may_add_bos = self.may_add_bos;
        Ok(prompt)
    }

    /// The syntax of replies to `conversation`.
    pub fn reply_syntax(&self, conversation: &Conversation) -> ReplySyntax {
        let with_tools = self.with_tools.as_ref().filter(|_| conversation.tools.is_some());
        match (&self.format, with_tools) {
            (_, Some(jinja)) => ReplySyntax::of_template(jinja.source()),
            (Format::Jinja(jinja), None) => ReplySyntax::of_template(jinja.source()),
            (Format::Mistral(version, _), None) => ReplySyntax::named(version.replies()).unwrap_or_default(),
            (Format::Harmony, None) => ReplySyntax::named("harmony").unwrap_or_default(),
        }
    }

    /// The Jinja text, or the name of a coded format: `harmony`, `mistral v7`.
    pub fn source(&self) -> &str {
        match &self.format {
            Format::Jinja(jinja) => jinja.source(),
            Format::Mistral(version, _) => version.name(),
            Format::Harmony => "harmony",
        }
    }
}

#[cfg(test)]
mod fixture_tests;
#[cfg(test)]
mod hostile_tests;
#[cfg(test)]
mod jinja_tests;
#[cfg(test)]
mod round_trip_tests;
