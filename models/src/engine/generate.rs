//! Generation of text from a prompt.

use std::{
    ops::ControlFlow,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use handmill_runtime::sample::SamplingParams;

use super::{Engine, Sequence, chooser::Chooser};
use crate::{
    Error,
    text::{StopStrings, StreamDecoder},
};

/// Options of a generation.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Most tokens to generate; none means as many as the context holds.
    pub max_tokens: Option<usize>,
    /// Parameters of the choice of tokens.
    pub sampling: SamplingParams,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether to continue where the model ends its turn.
    pub ignore_end_of_turn: bool,
    /// Whether the names of control tokens are part of the text, as a [`ReplyParser`](crate::text::ReplyParser) needs
    /// them. That of the token which ends the turn never is.
    pub show_special: bool,
    /// Breaks this answer off once it is set, also between the parts of a long prompt.
    pub cancel: Option<Arc<AtomicBool>>,
    /// The statistics so far, kept current for a caller that cannot wait for the end.
    pub progress: Option<Arc<Mutex<GenerateStats>>>,
}

/// Whether the flag is set.
fn is_set(cancel: &Option<Arc<AtomicBool>>) -> bool {
    cancel.as_ref().is_some_and(|cancel| cancel.load(Ordering::Relaxed))
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: Some(256),
            sampling: SamplingParams::default(),
            stop: Vec::new(),
            ignore_end_of_turn: false,
            show_special: false,
            cancel: None,
            progress: None,
        }
    }
}

/// Reasons why an answer ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model ended its turn.
    EndOfTurn,
    /// A stop text appeared.
    StopText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The context is full.
    ContextFull,
    /// The caller broke off.
    #[default]
    Cancelled,
}

impl StopReason {
    /// Name in JSON.
    pub fn name(self) -> &'static str {
        match self {
            StopReason::EndOfTurn => "end_of_turn",
            StopReason::StopText => "stop_text",
            StopReason::MaxTokens => "max_tokens",
            StopReason::ContextFull => "context_full",
            StopReason::Cancelled => "cancelled",
        }
    }
}

/// Token counts and times of a generation.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct GenerateStats {
    /// Tokens of the prompt that were run: all of them, unless the caller broke off.
    pub prompt_tokens: usize,
    /// From the start to the prompt's logits, or to the break.
    pub prompt_seconds: f64,
    /// The tokens generated, an ending one included.
    pub generated: Vec<u32>,
    /// From the first generated token to the last.
    pub generation_seconds: f64,
    /// From the start to the first token; none where there is no token.
    pub time_to_first_token: Option<f64>,
    /// Why it ended.
    pub stop: StopReason,
}

impl GenerateStats {
    /// Prompt tokens a second.
    pub fn prompt_rate(&self) -> f64 {
        self.prompt_tokens as f64 / self.prompt_seconds.max(1e-9)
    }

    /// Generated tokens a second without the first, which comes with the prompt.
    pub fn generation_rate(&self) -> f64 {
        self.generated.len().saturating_sub(1) as f64 / self.generation_seconds.max(1e-9)
    }
}

impl Engine {
    /// Continues `prompt`, calling `on_text` with each piece of text as it comes (whole characters only). `on_text`
    /// breaks off by returning [`ControlFlow::Break`].
    ///
    /// # Errors
    /// An empty prompt or one longer than the context, bad sampling parameters, tokenizers that cannot be read;
    /// [`Error::NotFinite`] where a logit is +inf or no number.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        options: &GenerateOptions,
        on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GenerateStats, Error> {
        self.continue_sequence(&mut self.sequence(), prompt, options, on_text)
    }

    /// The `n` tokens after `prompt`, chosen as in [`Engine::generate`] but without an end of turn. It returns ids
    /// only, so a model without a tokenizer will do.
    ///
    /// # Errors
    /// An empty prompt, more tokens than the context holds, bad sampling parameters.
    pub fn generate_ids(&mut self, prompt: &[u32], sampling: &SamplingParams, n: usize) -> Result<Vec<u32>, Error> {
        self.continue_ids(&mut self.sequence(), prompt, sampling, n)
    }

    fn continue_ids(
        &mut self,
        sequence: &mut Sequence,
        prompt: &[u32],
        sampling: &SamplingParams,
        n: usize,
    ) -> Result<Vec<u32>, Error> {
        // The last token is chosen but never run.
        let end = prompt.len().saturating_add(n.saturating_sub(1));
        self.check_context(end)?;
        let mut ids = Vec::with_capacity(n);
        let cancel = self.cancel.clone();
        let cancelled = || is_set(&cancel);
        let tokens = Chooser::new(self, sampling, sequence, prompt, end, &|_| cancelled())?;
        let mut tokens = tokens.ok_or(Error::Cancelled)?;
        while ids.len() < n {
            if cancelled() {
                tokens.finish(self, sequence)?;
                return Err(Error::Cancelled);
            }
            let token = tokens.next(self, sequence)?;
            ids.push(token);
            if ids.len() < n {
                tokens.go_on(self, sequence, token)?;
            }
        }
        tokens.finish(self, sequence)?;
        Ok(ids)
    }

    /// As [`Engine::generate`], on a sequence that may hold tokens already. The prompt and the answer stay in it,
    /// without the last token, which has not been run.
    ///
    /// # Errors
    /// As [`Engine::generate`]. With [`Error::NotFinite`] the sequence is empty: its cache was useless.
    pub fn continue_sequence(
        &mut self,
        sequence: &mut Sequence,
        prompt: &[u32],
        options: &GenerateOptions,
        mut on_text: impl FnMut(&str) -> ControlFlow<()>,
    ) -> Result<GenerateStats, Error> {
        let start = Instant::now();
        let tokenizer = self.model().tokenizer()?.clone();
        let mut decoder = StreamDecoder::continuing(tokenizer.clone(), !options.show_special);
        let mut stops = StopStrings::new(options.stop.iter().cloned());
        // The last token is chosen but never run.
        let longest = |n: usize| (sequence.len() + prompt.len()).saturating_add(n).saturating_sub(1);
        let end = options.max_tokens.map_or(self.n_ctx(), |n| self.n_ctx().min(longest(n)));
        let shared = options.progress.clone().unwrap_or_default();
        // The lock is never held during a step.
        let stats = || shared.lock().unwrap_or_else(PoisonError::into_inner);
        *stats() = GenerateStats::default();
        let whole = self.cancel.clone();
        let cancelled = || is_set(&options.cancel) || is_set(&whole);
        let ran = |n: usize| {
            let mut stats = stats();
            (stats.prompt_tokens, stats.prompt_seconds) = (n, start.elapsed().as_secs_f64());
        };
        let look = |n: usize| {
            ran(n);
            cancelled()
        };
        let tokens = match Chooser::new(self, &options.sampling, sequence, prompt, end, &look) {
            // Cancelled after the last look at the flag and before the step.
            Err(Error::Cancelled) => None,
            tokens => tokens?,
        };
        let Some(mut tokens) = tokens else {
            let n = stats().prompt_tokens;
            ran(n);
            return Ok(stats().clone());
        };
        ran(prompt.len());
        let first = Instant::now();
        let mut stop = StopReason::MaxTokens;
        let mut generated = 0;
        let mut text = String::new();
        let max_tokens = options.max_tokens.unwrap_or(usize::MAX);
        while generated < max_tokens {
            let token = tokens.next(self, sequence)?;
            generated += 1;
            {
                let mut stats = stats();
                stats.generated.push(token);
                stats.time_to_first_token.get_or_insert_with(|| start.elapsed().as_secs_f64());
                stats.generation_seconds = first.elapsed().as_secs_f64();
            }
            if !options.ignore_end_of_turn && tokenizer.is_end_of_turn(token) {
                stop = StopReason::EndOfTurn;
                break;
            }
            text.clear();
            let stopped = decoder.push(token).is_some_and(|piece| stops.push(piece, &mut text));
            let broken_off = !text.is_empty() && on_text(&text).is_break();
            if broken_off || cancelled() {
                stop = StopReason::Cancelled;
                break;
            }
            if stopped {
                stop = StopReason::StopText;
                break;
            }
            if generated == max_tokens {
                break;
            }
            if sequence.tokens.len() >= self.n_ctx() {
                stop = StopReason::ContextFull;
                break;
            }
            match tokens.go_on(self, sequence, token) {
                Err(Error::Cancelled) => {
                    stop = StopReason::Cancelled;
                    break;
                }
                gone_on => gone_on?,
            }
        }
        tokens.finish(self, sequence)?;
        if matches!(stop, StopReason::EndOfTurn | StopReason::MaxTokens | StopReason::ContextFull) {
            text.clear();
            if let Some(piece) = decoder.finish() {
                stops.push(piece, &mut text);
            }
            stops.finish(&mut text);
            if !text.is_empty() {
                // The answer is over whatever the caller returns.
                let _ = on_text(&text);
            }
        }
        let mut stats = stats();
        stats.stop = stop;
        Ok(stats.clone())
    }
}
