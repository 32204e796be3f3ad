//! The answers of `/completion` and `/infill`: one object for each prompt, or events.

use std::{sync::Arc, time::Duration};

use axum::response::Response;
use handmill_models::StopReason;
use serde_json::{Value, json};

use super::request::Asked;
use crate::{
    http::{
        App,
        choices::Choices,
        error::ApiError,
        json as respond,
        openai::logprobs::of_token,
        prompts::Prompt,
        stream,
        times::{Durations, Times},
    },
    scheduler::{Event, Request, Scored, Usage, Work},
};

/// Answers under way.
pub(super) struct Completion {
    app: Arc<App>,
    asked: Asked,
    prompts: Vec<Prompt>,
    /// Whether the answers come in a list.
    several: bool,
}

/// One answer so far.
struct Answer {
    times: Times,
    usage: Usage,
    /// What has not been sent: all of it, where the answer comes whole.
    text: String,
    tokens: Vec<u32>,
    scored: Vec<Scored>,
    has_new_line: bool,
    end: Option<(StopReason, Option<String>)>,
}

impl Answer {
    fn new() -> Self {
        Self {
            times: Times::new(),
            usage: Usage::default(),
            text: String::new(),
            tokens: Vec::new(),
            scored: Vec::new(),
            has_new_line: false,
            end: None,
        }
    }

    fn take(&mut self, event: Event) -> Result<(), ApiError> {
        match event {
            Event::Started(usage) => {
                self.usage = usage;
                self.times.start();
            }
            Event::Token { scored, text } => {
                self.times.token();
                self.usage.completion_tokens += 1;
                self.tokens.push(scored.id);
                self.scored.push(scored);
                self.push(&text);
            }
            Event::Finished { reason, stop, text, usage } => {
                self.push(&text);
                self.usage = usage;
                self.end = Some((reason, stop));
            }
            Event::Failed(error) => return Err(ApiError::of_request(&error, "prompt")),
            Event::Prompt(_) | Event::Embedding(_) => {}
        }
        Ok(())
    }

    fn push(&mut self, text: &str) {
        self.text += text;
        self.has_new_line |= text.contains('\n');
    }
}

impl Completion {
    pub async fn run(app: Arc<App>, asked: Asked, prompts: Vec<Prompt>, several: bool) -> Result<Response, ApiError> {
        let requests = prompts.iter().map(|p| Request::new(p.ids.clone(), Work::Answer(asked.answer.clone())));
        let events = Choices::submit(&app.scheduler, requests.collect(), 1);
        let events = events.map_err(|error| ApiError::of_request(&error, "prompt"))?;
        let completion = Self { app, asked, prompts, several };
        if !completion.asked.streams {
            return completion.whole(events).await;
        }
        let (sender, response) = stream::events(stream::COMMENT);
        tokio::spawn(async move { completion.stream(events, sender).await });
        Ok(response)
    }

    fn answers(&self) -> Vec<Answer> {
        self.prompts.iter().map(|_| Answer::new()).collect()
    }

    async fn whole(self, mut events: Choices) -> Result<Response, ApiError> {
        let mut answers = self.answers();
        while let Some((index, event)) = events.next().await {
            answers.get_mut(index).map_or(Ok(()), |answer| answer.take(event))?;
        }
        let mut all: Vec<Value> = answers.iter_mut().enumerate().map(|(i, answer)| self.last(i, answer)).collect();
        let one = if self.several { None } else { all.pop() };
        Ok(respond(&one.unwrap_or(Value::Array(all))))
    }

    async fn stream(self, mut events: Choices, sender: stream::Sender) -> Result<(), stream::Left> {
        let mut answers = self.answers();
        let every = self.app.options.keep_alive;
        while let Some((index, event)) = stream::or_keep_alive(&sender, every, events.next()).await? {
            let Some(answer) = answers.get_mut(index) else { continue };
            if let Err(error) = answer.take(event) {
                return sender.data(&error.json()).await;
            }
            if answer.end.is_some() {
                sender.data(&self.last(index, answer)).await?;
            } else if !answer.text.is_empty() {
                sender.data(&self.part(index, answer, true)).await?;
            }
        }
        Ok(())
    }

    /// What has not been sent yet.
    fn part(&self, index: usize, answer: &mut Answer, with_tokens: bool) -> Value {
        let tokens = std::mem::take(&mut answer.tokens);
        let mut part = json!({
            "index": index,
            "id_slot": index,
            "content": std::mem::take(&mut answer.text),
            "tokens": if with_tokens { tokens } else { Vec::new() },
            "stop": false,
            "tokens_predicted": answer.usage.completion_tokens,
            "tokens_evaluated": answer.usage.prompt_tokens,
        });
        let scored = std::mem::take(&mut answer.scored);
        if self.asked.answer.log_probabilities.is_some() {
            part["completion_probabilities"] = scored.iter().map(|scored| self.probabilities(scored)).collect();
        }
        part
    }

    /// The end of an answer, with what has not been sent.
    fn last(&self, index: usize, answer: &mut Answer) -> Value {
        let usage = answer.usage;
        let mut last = self.part(index, answer, self.asked.tokens && !self.asked.streams);
        let (kind, word) = match &answer.end {
            Some((StopReason::EndOfTurn, _)) => ("eos", ""),
            Some((StopReason::StopText, stop)) => ("word", stop.as_deref().unwrap_or_default()),
            Some(_) => ("limit", ""),
            None => ("none", ""),
        };
        let more = json!({
            "stop": true,
            "model": self.app.options.model_name,
            "prompt": self.prompts.get(index).map(|prompt| prompt.text.as_str()),
            "generation_settings": self.asked.settings,
            "has_new_line": answer.has_new_line,
            "truncated": false,
            "stop_type": kind,
            "stopping_word": word,
            "tokens_cached": usage.prompt_tokens + usage.completion_tokens,
            "timings": timings(answer.times.end(), usage),
        });
        if let (Value::Object(last), Value::Object(more)) = (&mut last, more) {
            last.extend(more);
        }
        last
    }

    fn probabilities(&self, scored: &Scored) -> Value {
        let one = |id: u32, log_probability| {
            let mut one = of_token(&self.app, id, log_probability);
            one["id"] = id.into();
            one
        };
        let mut all = one(scored.id, scored.log_probability);
        all["top_logprobs"] = scored.likeliest.iter().map(|&(id, p)| one(id, Some(p))).collect();
        all
    }
}

/// Counts and times; a prompt's are of what was run of it.
fn timings(times: Durations, usage: Usage) -> Value {
    let run = usage.prompt_tokens - usage.cached_tokens;
    let milliseconds = |time: Duration| time.as_secs_f64() * 1e3;
    let rates = |n: usize, time: Duration| {
        let each = |x: f64| if x.is_finite() { json!(x) } else { Value::Null };
        [each(milliseconds(time) / n as f64), each(n as f64 / time.as_secs_f64())]
    };
    let [prompt_each, prompt_rate] = rates(run, times.prompt);
    let [answer_each, answer_rate] = rates(usage.completion_tokens, times.answer);
    json!({
        "cache_n": usage.cached_tokens,
        "prompt_n": run,
        "prompt_ms": milliseconds(times.prompt),
        "prompt_per_token_ms": prompt_each,
        "prompt_per_second": prompt_rate,
        "predicted_n": usage.completion_tokens,
        "predicted_ms": milliseconds(times.answer),
        "predicted_per_token_ms": answer_each,
        "predicted_per_second": answer_rate,
    })
}
