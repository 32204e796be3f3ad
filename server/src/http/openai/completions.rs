//! `/v1/completions`: texts and ids that are continued.

use std::sync::Arc;

use axum::{
    extract::{Request as HttpRequest, State},
    response::Response,
};
use handmill_models::text::Infill;
use serde_json::{Value, json};

use super::{
    add_usage, finish_reason, forms,
    logprobs::OfCompletion,
    params::{self, MOST_LIKELIEST, Stream},
    usage_json,
};
use crate::{
    constrain::Reasoning,
    http::{
        App, body,
        chat::forms::mask,
        choices::Choices,
        error::ApiError,
        fields::Fields,
        ids::{new_id, now},
        json as respond,
        prompts::{self, Prompt},
        stream,
    },
    scheduler::{Event, Request, Usage, Work},
};

/// Tokens of an answer where the request names no number: OpenAI's.
const MAX_TOKENS: usize = 16;

/// A request that is under way.
struct Completion {
    app: Arc<App>,
    id: String,
    created: u64,
    prompts: Vec<Prompt>,
    n: usize,
    echo: bool,
    logprobs: bool,
}

/// One choice so far.
#[derive(Debug, Default)]
struct Choice {
    text: String,
    logprobs: OfCompletion,
    finish_reason: Option<&'static str>,
    usage: Usage,
}

pub(crate) async fn answer(State(app): State<Arc<App>>, request: HttpRequest) -> Result<Response, ApiError> {
    let fields = Fields::parse(&body(&app, request).await?)?;
    let mut params = params::read(&app, &fields, &["max_tokens"])?;
    params.answer.max_tokens.get_or_insert(MAX_TOKENS);
    let echo = fields.boolean("echo")?;
    params.answer.log_probabilities = fields.count("logprobs", 0, MOST_LIKELIEST)?;
    params.answer.of_prompt = echo && params.answer.log_probabilities.is_some();
    if let Some(form) = forms::read(&fields)? {
        params.answer.mask = Some(mask(&app, &form, &Reasoning::None)?);
    }
    let prompts = match fields.string("suffix")? {
        None => prompts::read(&app, "prompt", fields.get("prompt"))?,
        Some(suffix) => {
            let before = fields.string("prompt")?.unwrap_or_default();
            vec![prompts::of_gap(&app, &Infill::new(before, suffix), "suffix")?]
        }
    };
    let requests = prompts.iter().map(|prompt| Request {
        priority: params.priority,
        ..Request::new(prompt.ids.clone(), Work::Answer(params.answer.clone()))
    });
    let submitted = Choices::submit(&app.scheduler, requests.collect(), params.n);
    let choices = submitted.map_err(|error| ApiError::of_request(&error, "prompt"))?;
    let logprobs = params.answer.log_probabilities.is_some();
    let (id, created) = (new_id("cmpl-"), now());
    let completion = Completion { app, id, created, prompts, n: params.n, echo, logprobs };
    match params.stream {
        None => completion.whole(choices).await,
        Some(options) => {
            let (sender, response) = stream::events(stream::COMMENT);
            tokio::spawn(async move { completion.stream(choices, options, sender).await });
            Ok(response)
        }
    }
}

impl Completion {
    fn prompt(&self, index: usize) -> Option<&Prompt> {
        self.prompts.get(index / self.n)
    }

    /// The choices before their first event.
    fn choices(&self) -> Vec<Choice> {
        let all = (0..self.prompts.len() * self.n).map(|index| {
            let text = self.prompt(index).filter(|_| self.echo).map_or_else(String::new, |prompt| prompt.text.clone());
            Choice { text, ..Choice::default() }
        });
        all.collect()
    }

    /// Adds an event to its choice.
    fn take(&self, index: usize, choice: &mut Choice, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Started(usage) => choice.usage = usage,
            Event::Prompt(scored) => {
                if let Some(first) = self.prompt(index).and_then(|prompt| prompt.ids.first()) {
                    choice.logprobs.first(&self.app, *first);
                }
                scored.iter().for_each(|scored| choice.logprobs.push(&self.app, scored));
            }
            Event::Token { scored, text } => {
                choice.usage.completion_tokens += 1;
                choice.text += &text;
                if self.logprobs {
                    choice.logprobs.push(&self.app, &scored);
                }
            }
            Event::Finished { reason, text, usage, .. } => {
                choice.text += &text;
                choice.usage = usage;
                choice.finish_reason = Some(finish_reason(reason));
            }
            Event::Failed(error) => return Err(ApiError::of_request(&error, "prompt")),
            Event::Embedding(_) => {}
        }
        Ok(())
    }

    fn object(&self, choices: Value) -> Value {
        json!({
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.app.options.model_name,
            "choices": choices,
        })
    }

    /// A choice as JSON; its text and log-probabilities are taken out of it.
    fn choice(&self, index: usize, choice: &mut Choice) -> Value {
        json!({
            "index": index,
            "text": std::mem::take(&mut choice.text),
            "logprobs": if self.logprobs { choice.logprobs.take() } else { Value::Null },
            "finish_reason": choice.finish_reason,
        })
    }

    fn usage(&self, choices: &[Choice]) -> Value {
        let mut sum = Usage::default();
        choices.iter().enumerate().for_each(|(i, choice)| add_usage(&mut sum, choice.usage, i % self.n == 0));
        usage_json(sum)
    }

    async fn whole(self, mut events: Choices) -> Result<Response, ApiError> {
        let mut choices = self.choices();
        while let Some((index, event)) = events.next().await {
            if let Some(choice) = choices.get_mut(index) {
                self.take(index, choice, event)?;
            }
        }
        let usage = self.usage(&choices);
        let all = choices.iter_mut().enumerate().map(|(index, choice)| self.choice(index, choice)).collect();
        let mut object = self.object(all);
        object["usage"] = usage;
        Ok(respond(&object))
    }

    async fn stream(self, mut events: Choices, options: Stream, sender: stream::Sender) -> Result<(), stream::Left> {
        let mut choices = self.choices();
        let every = self.app.options.keep_alive;
        while let Some((index, event)) = stream::or_keep_alive(&sender, every, events.next()).await? {
            let Some(choice) = choices.get_mut(index) else { continue };
            let starts = matches!(event, Event::Started(_));
            if let Err(error) = self.take(index, choice, event) {
                sender.data(&error.json()).await?;
                return sender.done().await;
            }
            // The prompt that is echoed comes with its numbers.
            if starts {
                continue;
            }
            let json = self.choice(index, choice);
            let mut chunk = self.object(json!([json]));
            if options.usage {
                chunk["usage"] = if options.always { self.usage(&choices) } else { Value::Null };
            }
            sender.data(&chunk).await?;
        }
        if options.usage {
            let mut chunk = self.object(json!([]));
            chunk["usage"] = self.usage(&choices);
            sender.data(&chunk).await?;
        }
        sender.done().await
    }
}
