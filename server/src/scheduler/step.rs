//! A step: what it has in it, and what becomes of its results.

use std::time::Instant;

use handmill_models::{
    Error, StopReason,
    engine::{RunId, Step},
    runtime::{sample::Chosen, step::Outputs},
};

use super::{
    answer::Answer,
    reader::{Goal, Reader},
    request::{Event, RequestError, Usage},
    worker::Worker,
};
use crate::metrics::Outcome;

/// Bytes of logits that the prompts of one step may have.
const LOGITS: usize = 64 << 20;

/// What a step has in it.
#[derive(Debug, Default)]
struct Parts {
    /// Tokens of runs; those of running answers have one each.
    runs: Vec<(RunId, usize)>,
    /// The runs among them whose prompts are read.
    prompts: Vec<RunId>,
    /// Tokens of readers, by their index.
    readers: Vec<(usize, usize)>,
}

impl Worker {
    /// What the next step has in it: a token of each running answer, and parts of prompts in the order in which they began.
    fn parts(&mut self) -> Parts {
        let mut parts = Parts::default();
        let mut prompts = Vec::new();
        for (id, _) in self.running.sequences() {
            match self.running.pending(id).len() {
                0 => {}
                1 => parts.runs.push((id, 1)),
                rest => {
                    let turn =
                        self.answers.iter().find(|answer| answer.run == Some(id)).map_or(0, |answer| answer.turn);
                    prompts.push((turn, Ok(id), rest));
                }
            }
        }
        let (running, answers) = (parts.runs.len(), self.answers.len());
        for (i, reader) in self.readers.iter_mut().enumerate() {
            if reader.waits.is_none_or(|then| answers < then || answers == 0) {
                reader.waits = None;
                prompts.push((reader.turn, Err(i), reader.rest().len()));
            }
        }
        prompts.sort_unstable_by_key(|(turn, ..)| *turn);
        let backend = self.engine.backend();
        let vocab = backend.plan().vocab().max(1);
        // Each run may have an output row of its own.
        let outputs = backend.max_outputs().saturating_sub(answers);
        let mut rows = (LOGITS / 4 / vocab).clamp(16, 512).min(outputs);
        let mut budget = backend.max_step_tokens().saturating_sub(running).min(self.pace.prompt_tokens(running));
        for (_, which, rest) in prompts {
            if budget == 0 {
                break;
            }
            let n = match which {
                Ok(id) => {
                    let sequence = self.running.sequences().find(|(of, _)| *of == id).map(|(_, sequence)| sequence);
                    let Some(sequence) = sequence else { continue };
                    let n = self.engine.part_tokens(sequence, rest, budget);
                    parts.runs.push((id, n));
                    parts.prompts.push(id);
                    n
                }
                Err(i) => {
                    let Some(reader) = self.readers.get(i) else { continue };
                    let n = self.engine.part_tokens(&reader.sequence, rest, budget.min(rows));
                    rows -= n.min(rows);
                    if n > 0 {
                        parts.readers.push((i, n));
                    }
                    n
                }
            };
            budget -= n.min(budget);
        }
        parts
    }

    /// Makes room for a step: takes out of it what finds none.
    fn make_room(&mut self, parts: &mut Parts) -> Result<(), Error> {
        let aside = self.running.make_room(&mut self.engine, &parts.runs, false)?;
        parts.runs.retain(|(id, _)| !aside.contains(id));
        loop {
            let n = |id: RunId| parts.runs.iter().find(|(of, _)| *of == id).map_or(0, |(_, n)| *n);
            let mut steps: Vec<_> = self.running.sequences().map(|(id, sequence)| (sequence, n(id))).collect();
            let readers = parts.readers.iter().filter_map(|(i, n)| Some((&self.readers.get(*i)?.sequence, *n)));
            steps.extend(readers);
            let alone = steps.len() <= 1;
            if alone || self.engine.make_room(&steps, false)?.is_none() {
                return Ok(());
            }
            // The youngest begins anew where there is room; answers are not taken back for it.
            let Some((i, _)) = parts.readers.pop() else { return Ok(()) };
            let answers = self.answers.len();
            if let Some(reader) = self.readers.get_mut(i) {
                reader.restart(answers);
            }
        }
    }

    /// Makes ready what the choices of the next step need: masks, several at a time where there are several.
    fn prepare(&mut self) {
        self.readers.iter_mut().for_each(Reader::prepare);
        let mut masked: Vec<&mut Answer> = self.answers.iter_mut().filter(|answer| answer.is_masked()).collect();
        let threads = self.cores.min(masked.len());
        if threads <= 1 {
            return masked.into_iter().for_each(Answer::prepare);
        }
        let each = masked.len().div_ceil(threads);
        let (own, others) = masked.split_at_mut(each);
        std::thread::scope(|scope| {
            for part in others.chunks_mut(each) {
                scope.spawn(|| part.iter_mut().for_each(|answer| answer.prepare()));
            }
            own.iter_mut().for_each(|answer| answer.prepare());
        });
    }

    /// Runs one step, if there is something to run.
    pub fn step(&mut self) -> Result<(), Error> {
        self.prepare();
        self.leave();
        let mut parts = self.parts();
        self.make_room(&mut parts)?;
        if parts.runs.is_empty() && parts.readers.is_empty() {
            self.tell();
            return Ok(());
        }
        let start = Instant::now();
        let (chosen, choosing) = self.run_parts(&parts)?;
        let tokens: usize = parts.runs.iter().map(|(_, n)| n).chain(parts.readers.iter().map(|(_, n)| n)).sum();
        let answers = parts.runs.iter().filter(|(id, _)| !parts.prompts.contains(id)).count();
        self.pace.observe(answers, tokens - answers, start.elapsed());
        self.count(&parts, tokens);
        // Prompts to come may begin with what these have run.
        for (id, sequence) in self.running.sequences() {
            if parts.prompts.contains(&id) {
                self.engine.keep_pages(sequence)?;
            }
        }
        let mut chosen = chosen.into_iter();
        let n_ctx = self.shared.n_ctx;
        for id in choosing {
            let Some(answer) = self.answers.iter_mut().find(|answer| answer.run == Some(id)) else { continue };
            if let Some(token) = answer.take(chosen.next().unwrap_or_default(), n_ctx) {
                self.running.push(id, token);
            }
        }
        self.finish_readers(&parts, chosen)?;
        // A device that runs by itself has the next step before the texts of this one are made.
        let next = self.answers.iter().any(|answer| answer.ended.is_none() && !answer.is_over());
        if self.engine.backend().steps_ahead() <= 1 || !next {
            self.tell();
        }
        Ok(())
    }

    /// Counts a step that has run, of so many rows.
    fn count(&self, parts: &Parts, rows: usize) {
        self.shared.monitor.metrics.step(rows);
        for (id, n) in &parts.runs {
            if let Some(answer) = self.answers.iter().find(|answer| answer.run == Some(*id)) {
                answer.progress.run(*n);
            }
        }
        for (i, n) in &parts.readers {
            if let Some(reader) = self.readers.get(*i) {
                reader.progress.run(*n);
            }
        }
    }

    /// Runs the parts of a step and gives readers what it found for them. Returns the tokens that were chosen, and the runs
    /// that the first of them are for; the others are for readers.
    fn run_parts(&mut self, parts: &Parts) -> Result<(Vec<Chosen>, Vec<RunId>), Error> {
        let (mut steps, mut choosing) = (Vec::new(), Vec::new());
        for (id, mut step) in self.running.steps(&parts.runs) {
            let answer = self.answers.iter().find(|answer| answer.run == Some(id));
            if let Some(answer) = answer.filter(|_| step.outputs == Outputs::Last) {
                step.outputs = Outputs::None;
                step = step.choosing(answer.options.choice());
                choosing.push(id);
            }
            steps.push(step);
        }
        for (i, reader) in self.readers.iter_mut().enumerate() {
            let Some((_, n)) = parts.readers.iter().find(|(of, _)| *of == i) else { continue };
            let len = reader.sequence.len();
            let last = len + n == reader.prompt.len();
            let (outputs, hidden) = reader.outputs(last);
            if reader.prompt.len() > 1 {
                reader.sequence.expect(reader.prompt.len());
            }
            let tokens = reader.prompt.get(len..len + n).unwrap_or_default();
            let mut step = Step::new(&mut reader.sequence, tokens, outputs).with_hidden(hidden);
            if let Goal::Score { options, .. } = &reader.goal
                && last
            {
                step = step.choosing(options.choice());
            }
            steps.push(step);
        }
        let ticket = self.engine.submit(&mut steps)?;
        drop(steps);
        if self.engine.backend().steps_ahead() > 1 {
            self.tell();
        }
        let plan = self.engine.backend().plan();
        let (vocab, width) = (plan.vocab(), plan.hidden.map_or(0, |hidden| plan.graph.value(hidden).width));
        let output = self.engine.collect(ticket)?;
        let (mut logits, mut hidden) = (output.logits, output.hidden);
        for (i, reader) in self.readers.iter_mut().enumerate() {
            let Some((_, n)) = parts.readers.iter().find(|(of, _)| *of == i) else { continue };
            let rows = |outputs| match outputs {
                Outputs::All => *n,
                Outputs::Last => 1,
                _ => 0,
            };
            let (of_logits, of_hidden) = reader.outputs(reader.rest().is_empty());
            let (own, others) = logits.split_at((rows(of_logits) * vocab).min(logits.len()));
            reader.take_logits(*n, own, vocab);
            logits = others;
            let (own, others) = hidden.split_at((rows(of_hidden) * width).min(hidden.len()));
            reader.take_hidden(own);
            hidden = others;
        }
        Ok((output.chosen, choosing))
    }

    /// Ends readers whose prompts are read; `chosen` are the tokens behind them, in the order of those that score.
    fn finish_readers(&mut self, parts: &Parts, mut chosen: impl Iterator<Item = Chosen>) -> Result<(), Error> {
        let mut done = Vec::new();
        for (i, reader) in self.readers.iter().enumerate() {
            if parts.readers.iter().any(|(of, _)| *of == i) && reader.rest().is_empty() {
                let scores = matches!(reader.goal, Goal::Score { .. });
                let behind = if scores { chosen.next() } else { None };
                done.push((i, behind.unwrap_or_default()));
            }
        }
        // From the last on, so that indices stay.
        for (i, chosen) in done.into_iter().rev() {
            let reader = self.readers.remove(i);
            self.finish_reading(reader, chosen)?;
        }
        Ok(())
    }

    fn finish_reading(&mut self, mut reader: Reader, chosen: Chosen) -> Result<(), Error> {
        let found = reader.goal.found();
        let prompt_tokens = reader.prompt.len();
        let options = match reader.goal {
            Goal::Score { options, .. } => options,
            Goal::Embed { sums, .. } => {
                let usage = Usage { prompt_tokens, ..Usage::default() };
                let finished =
                    Event::Finished { reason: StopReason::MaxTokens, stop: None, text: String::new(), usage };
                let (outcome, events) = match Reader::vector(&sums) {
                    Some(vector) => (Outcome::Finished, vec![Event::Embedding(vector), finished]),
                    None => (Outcome::Failed, vec![Event::Failed(RequestError::NotFinite)]),
                };
                reader.progress.end(outcome);
                // A client that has left hears nothing.
                events.into_iter().for_each(|event| drop(reader.events.send(event)));
                return Ok(());
            }
        };
        let mut answer =
            Answer::new(options, prompt_tokens, reader.turn, &self.tokenizer, reader.events, reader.progress);
        if chosen.token.is_none() {
            answer.fail(RequestError::NoToken);
            return Ok(());
        }
        answer.started = true;
        answer.tell_of(Event::Prompt(found));
        if answer.options.max_tokens == Some(0) {
            answer.ended = Some(StopReason::MaxTokens);
        } else if let Some(token) = answer.take(chosen, self.shared.n_ctx) {
            self.engine.retain(&reader.sequence)?;
            let run = self.running.add(&self.engine, reader.prompt)?;
            self.running.push(run, token);
            answer.run = Some(run);
        }
        self.answers.push(answer);
        Ok(())
    }
}
