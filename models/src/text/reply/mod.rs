//! Replies: a model's text becomes typed events while it streams.
//!
//! A model writes its reasoning and its tool calls in the syntax of its own chat template. [`ReplySyntax`] finds that
//! syntax in the template's source, and [`ReplyParser`] takes a reply apart by it.
//!
//! - The parser reads one character at a time. So the events do not depend on how the text was cut, once neighbouring
//!   deltas of the same kind are joined.
//! - Text and reasoning come out at once, except for what may begin a marker and for spaces that a marker would drop.
//! - A call comes out when it is complete, with all of its arguments. A truncated or malformed call comes out as text,
//!   from its first character on, as soon as it can no longer become a call.
//! - Code for a built-in tool is a call of that tool with the arguments `{"code": …}`, once the model ends its turn.
//! - In reasoning only control tokens open a call; words such as `<tool_call>` may be part of it.
//! - Where the conversation has tools, JSON that a reply begins with and that names one of them is a call, too, in
//!   families whose small models leave the markers out.
//! - Spaces that a template puts around reasoning, text and calls are dropped: the template puts them back.

mod bare;
mod call;
mod deepseek;
mod functionary;
mod gemma;
mod glm;
mod harmony;
mod invoke;
mod json;
mod kimi;
mod lexer;
mod llama;
mod marked_json;
mod markers;
mod minicpm;
mod minimax;
mod mistral;
mod muse;
mod parser;
mod python;
mod pythonic;
mod reasoning;
mod solar;
mod syntax;
mod values;
mod xml_function;

#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_complete;
#[cfg(test)]
mod tests_properties;
#[cfg(test)]
mod tests_syntax;
#[cfg(test)]
mod tests_templates;

pub use parser::ReplyParser;
pub use syntax::ReplySyntax;

/// A piece of a reply.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyEvent {
    /// More of the model's reasoning, not meant as part of the answer.
    Reasoning(String),
    /// More of the answer.
    Text(String),
    /// A tool call begins.
    CallBegins {
        /// Number of the call in this reply, from 0.
        index: usize,
        /// The tool's name.
        name: String,
        /// The call's identifier, where the syntax has one.
        id: Option<String>,
    },
    /// More of a call's arguments. The deltas of one call, joined, are one JSON object.
    CallArguments {
        /// Number of the call in this reply.
        index: usize,
        /// JSON text.
        json: String,
    },
    /// A tool call is complete.
    CallEnds {
        /// Number of the call in this reply.
        index: usize,
    },
}
