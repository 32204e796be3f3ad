//! Chooses the tokens of one answer, some steps ahead of the caller where the device runs on by itself.

use std::collections::VecDeque;

use handmill_runtime::{
    BackendError,
    sample::{Choice, Chosen, SamplingError, SamplingParams},
    step::{Outputs, StepError, Ticket, Tokens},
};

use super::{Engine, Sequence, Step};
use crate::Error;

/// Chooses the tokens of one answer, one after the other.
pub(super) struct Chooser {
    params: SamplingParams,
    /// The choice behind the prompt, until it is handed out.
    first: Option<Chosen>,
    /// Steps under way, each of a token that the one before it chooses.
    under_way: VecDeque<Ticket>,
    /// The length at which no further step begins.
    end: usize,
}

impl Chooser {
    /// Runs `prompt` and chooses the token after it. `cancelled` hears how many tokens have been run; where it returns true
    /// before the end, the result is none. The sequence will not exceed the length `end`.
    pub fn new(
        engine: &mut Engine,
        params: &SamplingParams,
        sequence: &mut Sequence,
        prompt: &[u32],
        end: usize,
        cancelled: &dyn Fn(usize) -> bool,
    ) -> Result<Option<Self>, Error> {
        params.validate()?;
        let Some(rest) = engine.prefill_but_last(sequence, prompt, cancelled)? else { return Ok(None) };
        let last = Step::new(sequence, rest.tokens, Outputs::None).choosing(Choice::new(params));
        let first = engine.finish_prefill(&rest, last)?.chosen.pop();
        engine.keep_pages(sequence)?;
        Ok(Some(Self { params: params.clone(), first, under_way: VecDeque::new(), end }))
    }

    /// The next token.
    ///
    /// # Errors
    /// [`Error::NotFinite`] where the logits are not; the sequence is then empty, because its cache is useless.
    pub fn next(&mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<u32, Error> {
        let chosen = match self.first.take() {
            Some(first) => Ok(first),
            None => self.collect(engine, sequence),
        };
        let Ok(Chosen { token: None, .. }) = chosen else {
            if chosen.is_err() {
                self.take_back(engine, sequence)?;
                // The last token is that of the step that failed.
                let len = sequence.tokens.len().saturating_sub(1);
                engine.undo(sequence, len)?;
            }
            return Ok(chosen?.token.unwrap_or_default());
        };
        self.take_back(engine, sequence)?;
        let tokens = std::mem::take(&mut sequence.tokens);
        engine.truncate(sequence, 0)?;
        let n = engine.model().info().vocab_size;
        Err(match engine.first_not_finite(&tokens)? {
            Some(found) => engine.not_finite_in(found),
            None => SamplingError::NoCandidate { n }.into(),
        })
    }

    /// Keeps the device busy and waits for the earliest token that it chose.
    fn collect(&mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<Chosen, Error> {
        while let Some(last) = self.under_way.back()
            && self.under_way.len() < engine.backend.steps_ahead()
            && sequence.len() < self.end
        {
            let (next, len) = (Tokens::Chosen(*last, 0), sequence.len());
            let ahead = self.submit(engine, sequence, next);
            // A token that is ready may be the last one. If it is not, the next step says what is wrong.
            if ahead.is_err() && sequence.len() == len {
                break;
            }
            ahead?;
        }
        let Some(ticket) = self.under_way.pop_front() else {
            return Err(BackendError::from(StepError::NotUnderWay).into());
        };
        Ok(engine.collect(ticket)?.chosen.pop().unwrap_or_default())
    }

    fn submit(&mut self, engine: &mut Engine, sequence: &mut Sequence, next: Tokens<'_>) -> Result<(), Error> {
        let step = Step::new(sequence, next, Outputs::None).choosing(Choice::new(&self.params));
        self.under_way.push_back(engine.submit(&mut [step])?);
        Ok(())
    }

    /// Continues with `token`, the last one chosen.
    pub fn go_on(&mut self, engine: &mut Engine, sequence: &mut Sequence, token: u32) -> Result<(), Error> {
        if self.under_way.is_empty() {
            return self.submit(engine, sequence, Tokens::Ids(&[token]));
        }
        // The device has already continued with its token, unchecked.
        let vocab = engine.backend.plan().vocab();
        if token as usize >= vocab {
            self.take_back(engine, sequence)?;
            return Err(BackendError::from(StepError::TokenOutOfRange { id: token, vocab }).into());
        }
        sequence.confirm(token);
        Ok(())
    }

    /// Takes back the steps that went too far.
    pub fn finish(mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<(), Error> {
        self.take_back(engine, sequence)
    }

    fn take_back(&mut self, engine: &mut Engine, sequence: &mut Sequence) -> Result<(), Error> {
        let mut ended = Ok(());
        for ticket in self.under_way.drain(..) {
            ended = ended.and(engine.collect(ticket).map(drop));
        }
        engine.take_back(sequence)?;
        ended
    }
}
