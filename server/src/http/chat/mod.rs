//! Chats, whatever API asks for them: a conversation and what is wanted of its answers go in, the events of the answers come out.
//! No shape of any API is known here.

pub mod blocks;
pub mod forms;
pub mod messages;
pub mod prompt;
pub mod tools;

use handmill_models::{
    Reply, StopReason,
    text::{Conversation, ReplyEvent, ReplyParser},
};
use serde_json::{Map, Value};

use super::{App, choices::Choices, error::ApiError, ids::new_id};
use crate::scheduler::{AnswerOptions, Event, Request, Scored, Usage, Work};
use forms::Form;
use prompt::Prompt;
use tools::Tools;

/// What is asked for.
pub(crate) struct Ask {
    pub conversation: Conversation,
    pub tools: Tools,
    pub form: Option<Form>,
    pub answer: AnswerOptions,
    /// Number of answers.
    pub n: usize,
    pub priority: i64,
    /// The field that the messages came in.
    pub field: &'static str,
}

/// Answers under way.
pub(crate) struct Chat {
    events: Choices,
    pub choices: Vec<Choice>,
    parallel: bool,
    field: &'static str,
}

/// One answer so far.
#[derive(Default)]
pub(crate) struct Choice {
    /// None where the answer is plain text.
    parser: Option<ReplyParser>,
    /// Its calls have ids.
    pub reply: Reply,
    pub end: Option<End>,
    pub usage: Usage,
    /// Tokens that brought reasoning.
    pub reasoning_tokens: usize,
}

/// Why an answer ended.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct End {
    pub reason: StopReason,
    /// The stop text that ended it.
    pub stop: Option<String>,
}

impl End {
    /// Whether the answer ended by itself, and was not cut off.
    pub fn is_complete(&self) -> bool {
        matches!(self.reason, StopReason::EndOfTurn | StopReason::StopText)
    }
}

/// What one event of the scheduler brought.
#[derive(Default)]
pub(crate) struct News {
    /// The answer's number.
    pub index: usize,
    /// Whether the prompt's usage is known from now on. It comes first, and once.
    pub starts: bool,
    /// Calls among them have ids.
    pub events: Vec<ReplyEvent>,
    pub scored: Option<Scored>,
    /// Whether the answer is complete.
    pub ends: bool,
}

impl Chat {
    /// Begins the answers to a conversation.
    ///
    /// # Errors
    /// What cannot be answered.
    pub fn start(app: &App, mut ask: Ask) -> Result<Self, ApiError> {
        ask.tools.offer(&mut ask.conversation)?;
        let prompt = Prompt::new(app, &ask.conversation, ask.field)?;
        if let Some(form) = prompt.form(app, &ask.tools, ask.form)? {
            ask.answer.mask = Some(forms::mask(app, &form, &prompt.reasoning())?);
        }
        ask.answer.show_special = true;
        let choice = || Choice { parser: Some(prompt.parser()), ..Choice::default() };
        let choices = (0..ask.n).map(|_| choice()).collect();
        let request = Request { priority: ask.priority, ..Request::new(prompt.ids.clone(), Work::Answer(ask.answer)) };
        Self::submit(app, request, choices, ask.tools.parallel, ask.field)
    }

    /// Begins the continuation of a text, which came in the field `field`.
    ///
    /// # Errors
    /// What cannot be continued.
    pub fn of_text(app: &App, ids: Vec<u32>, answer: AnswerOptions, field: &'static str) -> Result<Self, ApiError> {
        Self::submit(app, Request::new(ids, Work::Answer(answer)), vec![Choice::default()], true, field)
    }

    fn submit(
        app: &App,
        request: Request,
        choices: Vec<Choice>,
        parallel: bool,
        field: &'static str,
    ) -> Result<Self, ApiError> {
        let events = Choices::submit(&app.scheduler, vec![request], choices.len());
        let events = events.map_err(|error| ApiError::of_request(&error, field))?;
        Ok(Self { events, choices, parallel, field })
    }

    /// The next news; none at the end. Nothing behind an error counts.
    pub async fn next(&mut self) -> Option<Result<News, ApiError>> {
        loop {
            let (index, event) = self.events.next().await?;
            let Some(choice) = self.choices.get_mut(index) else { continue };
            let mut news = News { index, ..News::default() };
            return Some(match choice.take(event, self.parallel, &mut news) {
                Ok(()) => Ok(news),
                Err(error) => Err(ApiError::of_request(&error, self.field)),
            });
        }
    }

    /// Tokens in all; the prompt counts once.
    pub fn usage(&self) -> Usage {
        let mut sum = self.choices.first().map_or_else(Usage::default, |choice| choice.usage);
        sum.completion_tokens = self.choices.iter().map(|choice| choice.usage.completion_tokens).sum();
        sum
    }
}

impl Choice {
    /// Takes an event, and adds what it brought to `news`.
    fn take(&mut self, event: Event, parallel: bool, news: &mut News) -> Result<(), crate::scheduler::RequestError> {
        match event {
            Event::Started(usage) => (self.usage, news.starts) = (usage, true),
            Event::Token { scored, text } => {
                self.usage.completion_tokens += 1;
                self.push(text, &mut news.events);
                self.reasoning_tokens += usize::from(matches!(news.events[..], [ReplyEvent::Reasoning(_), ..]));
                news.scored = Some(scored);
            }
            Event::Finished { reason, stop, text, usage } => {
                self.push(text, &mut news.events);
                if let Some(parser) = &mut self.parser {
                    parser.finish(reason == StopReason::EndOfTurn, &mut news.events);
                }
                (self.usage, news.ends) = (usage, true);
                self.end = Some(End { reason, stop });
            }
            Event::Failed(error) => return Err(error),
            Event::Prompt(_) | Event::Embedding(_) => {}
        }
        news.events.retain(|event| match event {
            ReplyEvent::CallBegins { index, .. }
            | ReplyEvent::CallArguments { index, .. }
            | ReplyEvent::CallEnds { index } => parallel || *index == 0,
            _ => true,
        });
        for event in &mut news.events {
            if let ReplyEvent::CallBegins { id, .. } = event {
                id.get_or_insert_with(|| new_id("call-"));
            }
            self.reply.take(event);
        }
        Ok(())
    }

    fn push(&mut self, text: String, events: &mut Vec<ReplyEvent>) {
        match &mut self.parser {
            Some(parser) => parser.push(&text, events),
            None if text.is_empty() => {}
            None => events.push(ReplyEvent::Text(text)),
        }
    }

    /// Whether the answer ended by itself, with calls.
    pub fn calls(&self) -> bool {
        !self.reply.calls.is_empty() && self.end.as_ref().is_some_and(End::is_complete)
    }
}

/// The arguments of a call, for APIs that have them as an object; none where the answer ended before they did.
pub(crate) fn arguments(json: &str) -> Option<Map<String, Value>> {
    serde_json::from_str(json).ok()
}
