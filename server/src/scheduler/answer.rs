//! One answer under way: what is counted and told of it.

use std::sync::Arc;

use handmill_models::{
    StopReason,
    engine::RunId,
    runtime::sample::Chosen,
    text::{StopStrings, StreamDecoder, Tokenizer},
};
use tokio::sync::mpsc::UnboundedSender;

use super::{
    progress::Progress,
    request::{AnswerOptions, Event, RequestError, Scored, Usage},
};
use crate::metrics::Outcome;

/// An answer under way.
#[derive(Debug)]
pub(super) struct Answer {
    /// Its run; none where it ended with the token behind its prompt.
    pub run: Option<RunId>,
    /// Answers and readers in the order in which they began.
    pub turn: u64,
    pub options: AnswerOptions,
    pub usage: Usage,
    /// Whether its beginning was told.
    pub started: bool,
    /// Why it has ended, though perhaps not all is told.
    pub ended: Option<StopReason>,
    /// Whether its end was told.
    over: bool,
    /// Whether what it left in the cache is useless.
    useless: bool,
    /// Tokens that were chosen and are not told yet.
    untold: Vec<Scored>,
    tokenizer: Arc<Tokenizer>,
    decoder: StreamDecoder<Arc<Tokenizer>>,
    stops: StopStrings,
    events: UnboundedSender<Event>,
    pub progress: Progress,
}

impl Answer {
    pub fn new(
        options: AnswerOptions,
        prompt_tokens: usize,
        turn: u64,
        tokenizer: &Arc<Tokenizer>,
        events: UnboundedSender<Event>,
        progress: Progress,
    ) -> Self {
        Self {
            run: None,
            turn,
            usage: Usage { prompt_tokens, ..Usage::default() },
            started: false,
            ended: None,
            over: false,
            useless: false,
            untold: Vec::new(),
            tokenizer: tokenizer.clone(),
            decoder: StreamDecoder::continuing(tokenizer.clone(), !options.show_special),
            stops: StopStrings::new(options.stop.iter().cloned()),
            options,
            events,
            progress,
        }
    }

    /// Whether its next token needs a mask.
    pub fn is_masked(&self) -> bool {
        self.ended.is_none() && !self.over && self.options.mask.is_some()
    }

    /// Makes ready what the choice of its next token needs.
    pub fn prepare(&mut self) {
        if let Err(error) = self.options.prepare() {
            self.fail(error);
        }
    }

    /// Whether its client has left.
    pub fn is_left(&self) -> bool {
        self.events.is_closed()
    }

    /// Whether it is over and all is told.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Whether what it left in the cache is useless, because its values are no numbers.
    pub fn is_useless(&self) -> bool {
        self.useless
    }

    /// Tells that it has begun, `cached` tokens of its prompt behind the start. Later calls, as after it was set aside, tell
    /// nothing.
    pub fn start(&mut self, cached: usize) {
        if !self.started {
            self.started = true;
            self.usage.cached_tokens = cached;
            self.progress.start(cached);
            self.tell_of(Event::Started(self.usage));
        }
    }

    /// Tells something; a client that has left hears nothing.
    pub fn tell_of(&self, event: Event) {
        let _ = self.events.send(event);
    }

    /// Ends it with an error.
    pub fn fail(&mut self, error: RequestError) {
        if !self.over {
            self.progress.end(Outcome::Failed);
            self.tell_of(Event::Failed(error));
            self.over = true;
        }
    }

    /// Takes the token that was chosen for it. Returns the token where the answer goes on with it.
    pub fn take(&mut self, chosen: Chosen, n_ctx: usize) -> Option<u32> {
        if self.ended.is_some() || self.over {
            return None;
        }
        let Some(id) = chosen.token else {
            self.useless = true;
            self.fail(RequestError::NoToken);
            return None;
        };
        self.usage.completion_tokens += 1;
        self.progress.take();
        if !self.options.ignore_eos && self.tokenizer.is_end_of_turn(id) {
            self.ended = Some(StopReason::EndOfTurn);
            return None;
        }
        let mut complete = false;
        if let Some(mask) = &mut self.options.mask {
            if let Err(error) = mask.push(id) {
                self.fail(error.into());
                return None;
            }
            complete = mask.is_at_end();
        }
        let (log_probability, likeliest) = (chosen.log_probability, chosen.likeliest);
        self.untold.push(Scored { id, log_probability, likeliest });
        let generated = self.usage.completion_tokens;
        if complete {
            self.ended = Some(StopReason::EndOfTurn);
        } else if self.options.max_tokens.is_some_and(|most| generated >= most) {
            self.ended = Some(StopReason::MaxTokens);
        } else if self.usage.prompt_tokens + generated > n_ctx {
            // The last token is chosen but never run, so one more than the context holds can be had.
            self.ended = Some(StopReason::ContextFull);
        }
        self.ended.is_none().then_some(id)
    }

    /// Tells of the tokens that it took, and of its end.
    pub fn tell(&mut self) {
        if self.over {
            return;
        }
        for scored in std::mem::take(&mut self.untold) {
            let mut text = String::new();
            let stopped = self.decoder.push(scored.id).is_some_and(|piece| self.stops.push(piece, &mut text));
            self.tell_of(Event::Token { scored, text });
            if stopped {
                self.ended = Some(StopReason::StopText);
                break;
            }
        }
        if let Some(reason) = self.ended {
            let mut text = String::new();
            if reason != StopReason::StopText {
                if let Some(piece) = self.decoder.finish() {
                    self.stops.push(piece, &mut text);
                }
                self.stops.finish(&mut text);
            }
            let stop = self.stops.found().map(str::to_owned);
            self.progress.end(Outcome::Finished);
            self.tell_of(Event::Finished { reason, stop, text, usage: self.usage });
            self.over = true;
        }
    }
}
