//! Shows a reply as it comes: the answer on standard output, reasoning apart from it and dimmed on standard error.

use crate::{error::CliError, out, terminal};
use handmill_models::text::ReplyEvent;

/// Shows the events of one reply.
#[derive(Debug, Default)]
pub struct Shown {
    last: Option<Part>,
    /// Whether the last text ended a line.
    at_line_start: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Reasoning,
    Text,
    Call,
}

impl Shown {
    /// Shows one event.
    pub fn event(&mut self, event: &ReplyEvent) -> Result<(), CliError> {
        match event {
            ReplyEvent::Reasoning(text) => {
                self.begin(Part::Reasoning)?;
                terminal::dimmed(text);
                self.at_line_start = text.ends_with('\n');
            }
            ReplyEvent::Text(text) => {
                self.begin(Part::Text)?;
                out::answer(text)?;
                self.at_line_start = text.ends_with('\n');
            }
            ReplyEvent::CallBegins { name, .. } => {
                self.begin(Part::Call)?;
                out::answer(&format!("[tool call] {name} "))?;
                self.at_line_start = false;
            }
            ReplyEvent::CallArguments { json, .. } => out::answer(json)?,
            ReplyEvent::CallEnds { .. } => {
                out::answer("\n")?;
                self.at_line_start = true;
            }
        }
        Ok(())
    }

    /// Ends the last line of the reply.
    pub fn end(&mut self) -> Result<(), CliError> {
        match self.last.take() {
            Some(Part::Reasoning) => {
                terminal::dimmed("\n");
                Ok(())
            }
            Some(Part::Call) if self.at_line_start => Ok(()),
            _ => out::text("\n"),
        }
    }

    /// Puts an empty line between reasoning and what is not.
    fn begin(&mut self, part: Part) -> Result<(), CliError> {
        match self.last.replace(part) {
            Some(Part::Reasoning) if part != Part::Reasoning => {
                terminal::dimmed(if self.at_line_start { "\n" } else { "\n\n" });
                self.at_line_start = true;
            }
            Some(Part::Text) if part != Part::Text && !self.at_line_start => out::answer("\n")?,
            _ => {}
        }
        Ok(())
    }
}
