//! Chat templates: from a conversation to a prompt in the model's own format.

mod context;
mod conversation;
mod filters;
mod jinja;
mod marks;
mod methods;
mod prompt;
mod python;
mod source;
mod time;

pub use conversation::Conversation;
pub use prompt::Prompt;
pub use time::LocalTime;

use super::error::Result;
use jinja::Jinja;

/// A model's chat template.
#[derive(Debug)]
pub struct ChatTemplate {
    jinja: Jinja,
}

impl ChatTemplate {
    /// The template of a Jinja text; `what` names it in errors.
    ///
    /// # Errors
    /// [`TextError::Template`](super::TextError::Template) for text that is no template.
    pub fn from_jinja(what: &str, source: &str) -> Result<Self> {
        Ok(Self { jinja: Jinja::new(what, source)? })
    }

    /// Renders `conversation`; `now` is the time that a template prints.
    ///
    /// # Errors
    /// Conversations without messages or with wrong types; exceptions of the template; templates that fail.
    pub fn render(&self, conversation: &Conversation, now: LocalTime) -> Result<Prompt> {
        conversation.check()?;
        self.jinja.render(conversation, now)
    }

    /// The Jinja text, or the name of a coded format.
    pub fn source(&self) -> &str {
        self.jinja.source()
    }
}

#[cfg(test)]
mod fixture_tests;
