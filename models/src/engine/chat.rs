//! A conversation: messages go in, a reply comes out piece by piece, and each turn runs only the tokens that are new.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::{Engine, GenerateOptions, GenerateStats, Sequence, StopReason};
use crate::{
    Error,
    text::{ChatTemplate, Conversation, LocalTime, Prompt, ReplyEvent, ReplyParser, Tokenizer, is_system},
};

/// A conversation with a model in the model's own format.
///
/// The messages may be changed between two replies in any way. What the new prompt has in common with the tokens of the
/// last one is not run again, as long as the model's cache can go back to where they part.
#[derive(Debug)]
pub struct Chat {
    template: ChatTemplate,
    conversation: Conversation,
    /// Messages left out because they do not fit: the first ones behind the system message.
    left_out: usize,
    sequence: Sequence,
    known: Known,
}

/// The last prompt with the answer to it, as text and as the tokens that the model saw or chose for it. Text that a
/// model wrote may have other tokens than the tokenizer would choose.
#[derive(Debug, Default)]
struct Known {
    text: String,
    /// Bytes of `text` that are the prompt.
    prompt: usize,
    ids: Vec<u32>,
}

/// A tool call in a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ToolCall {
    /// Its id, where the model's syntax has one.
    pub id: Option<String>,
    /// The tool.
    pub name: String,
    /// Its arguments, as JSON.
    pub arguments: String,
}

/// A whole reply.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Reply {
    /// The answer, without reasoning and tool calls.
    pub text: String,
    /// The reasoning that came with it.
    pub reasoning: String,
    /// The tools to be called.
    pub calls: Vec<ToolCall>,
    /// Counts and times. `prompt_tokens` are those that were run.
    pub stats: GenerateStats,
    /// Tokens of the prompt that were in the cache and were not run again.
    pub reused: usize,
    /// Messages that were left out of the prompt because the context is too short for all.
    pub left_out: usize,
}

impl Reply {
    /// Adds an event.
    pub fn take(&mut self, event: &ReplyEvent) {
        match event {
            ReplyEvent::Text(text) => self.text.push_str(text),
            ReplyEvent::Reasoning(text) => self.reasoning.push_str(text),
            ReplyEvent::CallBegins { name, id, .. } => {
                self.calls.push(ToolCall { id: id.clone(), name: name.clone(), arguments: String::new() });
            }
            ReplyEvent::CallArguments { json, .. } => {
                if let Some(call) = self.calls.last_mut() {
                    call.arguments.push_str(json);
                }
            }
            ReplyEvent::CallEnds { .. } => {}
        }
    }

    /// Whether nothing came.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.reasoning.is_empty() && self.calls.is_empty()
    }

    /// The assistant's message that stands for this reply, as templates read it.
    pub fn message(&self) -> Value {
        let mut message = json!({ "role": "assistant", "content": self.text });
        if !self.reasoning.is_empty() {
            message["reasoning_content"] = self.reasoning.as_str().into();
        }
        if !self.calls.is_empty() {
            let calls = self.calls.iter().map(|call| {
                // Most templates write the arguments as JSON themselves.
                let arguments =
                    serde_json::from_str(&call.arguments).unwrap_or_else(|_| call.arguments.as_str().into());
                let mut json = json!({
                    "type": "function",
                    "function": { "name": call.name, "arguments": Value::clone(&arguments) },
                });
                if let Some(id) = &call.id {
                    json["id"] = id.as_str().into();
                }
                json
            });
            message["tool_calls"] = calls.collect();
        }
        message
    }
}

impl Chat {
    /// An empty conversation in the format of `template`, for one engine.
    pub fn new(template: ChatTemplate) -> Self {
        let conversation = Conversation::new(Vec::new());
        Self { template, conversation, left_out: 0, sequence: Sequence::default(), known: Known::default() }
    }

    /// The messages so far, and what else the template is given.
    pub fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    /// The same to be changed.
    pub fn conversation_mut(&mut self) -> &mut Conversation {
        // Which messages fit is to be found out anew.
        self.left_out = 0;
        &mut self.conversation
    }

    /// The format.
    pub fn template(&self) -> &ChatTemplate {
        &self.template
    }

    /// Adds a user's message.
    pub fn say(&mut self, text: &str) {
        self.conversation.messages.push(json!({ "role": "user", "content": text }));
    }

    /// Whether the last message is one that is answered: a user's, or a tool's result.
    pub fn awaits_reply(&self) -> bool {
        let last = self.conversation.messages.last();
        last.and_then(|message| message.get("role")?.as_str()).is_some_and(|role| matches!(role, "user" | "tool"))
    }

    /// Takes back the last user's message and all behind it. Returns whether there was one.
    pub fn undo(&mut self) -> bool {
        let messages = &mut self.conversation_mut().messages;
        let last = messages.iter().rposition(is_user);
        if let Some(last) = last {
            messages.truncate(last);
        }
        last.is_some()
    }

    /// Takes back what is behind the last user's message. Returns whether that message is there to be answered.
    pub fn forget_reply(&mut self) -> bool {
        let messages = &mut self.conversation_mut().messages;
        let last = messages.iter().rposition(is_user);
        if let Some(last) = last {
            messages.truncate(last + 1);
        }
        last.is_some()
    }

    /// Takes back all messages but a system message.
    pub fn reset(&mut self) {
        let messages = &mut self.conversation_mut().messages;
        let kept = usize::from(messages.first().is_some_and(is_system));
        messages.truncate(kept);
    }

    /// Tokens in the cache.
    pub fn cached(&self) -> usize {
        self.sequence.len()
    }

    /// Answers the conversation and adds the reply to it. `on_event` hears each piece as it comes and breaks off by
    /// returning [`ControlFlow::Break`]; the reply so far then counts, if there is any.
    ///
    /// Where the conversation and a reply of `options.max_tokens` (or a quarter of the context, whichever is less) do not
    /// fit the context, the oldest turns are left out, until half of it is free.
    ///
    /// # Errors
    /// A template that refuses the messages; [`Error::ContextFull`] where the last turn alone does not fit; else as
    /// [`Engine::generate`]. The conversation is then unchanged.
    pub fn reply(
        &mut self,
        engine: &mut Engine,
        options: &GenerateOptions,
        now: LocalTime,
        mut on_event: impl FnMut(&ReplyEvent) -> ControlFlow<()>,
    ) -> Result<Reply, Error> {
        let tokenizer = engine.model().tokenizer()?.clone();
        let (prompt, ids) = self.fitting_prompt(engine, options, &tokenizer, now)?;
        let reused = self.go_back_to(engine, &ids)?;
        let text = prompt.text();
        let tools = self.conversation.tools.as_deref().unwrap_or_default();
        let syntax = self.template.reply_syntax(&self.conversation);
        let mut parser = ReplyParser::new(&syntax, &text).with_tools(tools);
        let mut reply = Reply { reused, left_out: self.left_out, ..Reply::default() };
        self.known = Known { prompt: text.len(), text, ids };
        let (mut raw, mut events) = (String::new(), Vec::new());
        let mut tell = |reply: &mut Reply, events: &mut Vec<ReplyEvent>| {
            for event in events.drain(..) {
                reply.take(&event);
                on_event(&event)?;
            }
            ControlFlow::Continue(())
        };
        let options = GenerateOptions { show_special: true, ..options.clone() };
        let new = &self.known.ids[reused..];
        reply.stats = engine.continue_sequence(&mut self.sequence, new, &options, |piece| {
            raw.push_str(piece);
            parser.push(piece, &mut events);
            tell(&mut reply, &mut events)
        })?;
        parser.finish(reply.stats.stop == StopReason::EndOfTurn, &mut events);
        // The reply is over whatever the caller returns.
        let _ = tell(&mut reply, &mut events);
        let generated = &reply.stats.generated;
        let all = match reply.stats.stop {
            StopReason::EndOfTurn => generated.len() - 1,
            StopReason::MaxTokens | StopReason::ContextFull => generated.len(),
            // Not all that was generated has been given out as text.
            StopReason::StopText | StopReason::Cancelled => 0,
        };
        if all > 0 {
            self.known.ids.extend_from_slice(&generated[..all]);
            self.known.text += &raw;
        }
        if !reply.is_empty() || reply.stats.stop != StopReason::Cancelled {
            self.conversation.messages.push(reply.message());
        }
        Ok(reply)
    }

    /// The prompt of all messages that fit, and its tokens.
    fn fitting_prompt(
        &mut self,
        engine: &Engine,
        options: &GenerateOptions,
        tokenizer: &Tokenizer,
        now: LocalTime,
    ) -> Result<(Prompt, Vec<u32>), Error> {
        let n_ctx = engine.n_ctx();
        let answer = options.max_tokens.unwrap_or(usize::MAX).min(n_ctx / 4);
        let prompt = |left_out| {
            let prompt = self.template.render(&without(&self.conversation, left_out), now)?;
            let ids = self.known.ids_of(&prompt, tokenizer)?;
            Ok::<_, Error>((prompt, ids))
        };
        let mut best = prompt(self.left_out)?;
        if best.1.len() <= n_ctx - answer {
            return Ok(best);
        }
        // Fewer turns have fewer tokens: the first number that leaves half of the context free, else the last.
        let numbers = fewer_turns(&self.conversation.messages, self.left_out);
        let (mut from, mut to, mut left_out) = (0, numbers.len(), self.left_out);
        while from < to {
            let middle = from.midpoint(to);
            let shorter = prompt(numbers[middle])?;
            let fits = shorter.1.len() <= n_ctx / 2;
            if fits || middle + 1 == numbers.len() {
                (best, left_out) = (shorter, numbers[middle]);
            }
            if fits { to = middle } else { from = middle + 1 }
        }
        self.left_out = left_out;
        if best.1.len() < n_ctx { Ok(best) } else { Err(Error::ContextFull { tokens: best.1.len() + 1, n_ctx }) }
    }

    /// Makes the sequence hold only tokens that `ids` begins with, all but the last at most. Returns their number.
    ///
    /// What it held beyond them is kept, as are other sequences that were begun so: where one of them has more of `ids`,
    /// as after an answer that is taken back, the conversation goes on from there.
    fn go_back_to(&mut self, engine: &mut Engine, ids: &[u32]) -> Result<usize, Error> {
        let most = ids.len().saturating_sub(1);
        let same = self.sequence.tokens.iter().zip(&ids[..most]).take_while(|(a, b)| a == b).count();
        if same < self.sequence.len() || same == 0 {
            engine.retain(&self.sequence)?;
            let begun = engine.begin(ids)?;
            if begun.len() >= same || !engine.truncate(&mut self.sequence, same)? {
                self.sequence = begun;
            }
        }
        // However few of its tokens are new.
        self.sequence.expect(ids.len());
        Ok(self.sequence.len())
    }
}

impl Known {
    /// The tokens of `prompt`. Where it goes on from the known text with a special token, the known tokens are kept.
    fn ids_of(&self, prompt: &Prompt, tokenizer: &Tokenizer) -> Result<Vec<u32>, Error> {
        if let Some(rest) = self.rest_of(prompt) {
            let rest = rest.encode(tokenizer)?;
            if rest.first().is_some_and(|&id| tokenizer.is_end_of_turn(id) || tokenizer.is_special(id)) {
                return Ok([&self.ids[..], &rest].concat());
            }
        }
        Ok(prompt.encode(tokenizer)?)
    }

    /// `prompt` behind the known text.
    ///
    /// Where a prompt ends without white space, as `ASSISTANT:` does, one space in front of the answer is no part of its
    /// message: the template puts it back, or never has one, whatever the model wrote. Nothing else is between the two,
    /// so the model keeps what it wrote, and the answer is not run again.
    fn rest_of(&self, prompt: &Prompt) -> Option<Prompt> {
        if self.text.is_empty() {
            return None;
        }
        prompt.after(&self.text).or_else(|| {
            let (before, answer) = self.text.split_at(self.prompt);
            let other = match answer.strip_prefix(' ') {
                _ if before.ends_with(char::is_whitespace) => return None,
                Some(answer) => format!("{before}{answer}"),
                None => format!("{before} {answer}"),
            };
            prompt.after(&other)
        })
    }
}

fn is_user(message: &Value) -> bool {
    message.get("role").and_then(Value::as_str) == Some("user")
}

/// The conversation without `left_out` messages behind its system message.
fn without(conversation: &Conversation, left_out: usize) -> Conversation {
    let mut shorter = conversation.clone();
    let first = usize::from(shorter.messages.first().is_some_and(is_system));
    shorter.messages.drain(first..first + left_out);
    shorter
}

/// The numbers of messages to leave out instead of `left_out`, so that one more turn is gone, or two, up to all but one.
fn fewer_turns(messages: &[Value], left_out: usize) -> Vec<usize> {
    let first = usize::from(messages.first().is_some_and(is_system));
    let users = messages.iter().enumerate().skip(first + left_out + 1).filter(|(_, message)| is_user(message));
    users.map(|(at, _)| at - first).collect()
}
