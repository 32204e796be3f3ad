//! Steps under way: submitted with their choices, read when they are collected.

use std::{sync::atomic::Ordering, time::Instant};

use super::{
    GpuBackend,
    flight::{Flight, HostChoice, Pending, Results},
    submitted::Submitted,
};
use crate::{
    StepOutput,
    gpu::{
        GpuError,
        ops::sample::{self, RESULT_WORDS},
    },
    sample::Choice,
    step::{AT_PLACE, ChoiceRef, MOST_UNDER_WAY, SequenceStep, StepError, Ticket, Tokens, check_results},
};

/// A token that a step under way has chosen.
enum Known {
    /// The host knows it; none where there was no choice.
    Id(Option<u32>),
    /// Its place in the buffer of tokens.
    Place(u32),
}

impl GpuBackend {
    /// See [`Backend::submit`](crate::Backend::submit).
    ///
    /// # Errors
    /// Token ids outside the vocabulary, more tokens than a step or the cache holds, sequences of another backend, too many
    /// steps under way or tokens of a step that is not, no memory: the sequences are then unchanged. After an error of the
    /// device, sequences with states may be empty.
    pub fn submit(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<Ticket, GpuError> {
        let start = Instant::now();
        self.prepare(steps)?;
        let used: Vec<usize> = self.under_way.iter_mut().map(|s| s.slot).collect();
        let slot = (0..MOST_UNDER_WAY).find(|s| !used.contains(s)).unwrap_or(0);
        let done = self.submit_admitted(steps, slot, start);
        let submitted = self.batch.finish(&mut self.book, steps, done)?;
        Ok(self.under_way.push(steps, submitted))
    }

    /// Submits the admitted step: rows of prompts apart from those that were chosen.
    fn submit_admitted(
        &mut self,
        steps: &[SequenceStep<'_>],
        slot: usize,
        start: Instant,
    ) -> Result<Submitted, GpuError> {
        let roles = self.batch.by_role();
        if roles.len() == 1 {
            let flight = self.submit_part(steps, slot, 0, start)?;
            return Ok(Submitted::whole(slot, flight));
        }
        let whole = std::mem::take(&mut self.batch);
        let (mut flights, mut failed, mut choices) = (Vec::new(), None, 0);
        for (i, of) in roles.iter().enumerate() {
            self.batch = whole.part(of, i == 0);
            match self.submit_part(steps, slot, choices, start) {
                Ok(flight) => {
                    choices += flight.on_device();
                    flights.push(flight);
                }
                Err(error) => {
                    failed = Some(error);
                    break;
                }
            }
        }
        let begun = self.batch.has_begun() || !flights.is_empty();
        self.batch = whole;
        if begun {
            self.batch.begin();
        }
        match failed {
            None => Ok(Submitted::parts(slot, flights, &self.batch, &roles)),
            Some(error) => Err(error),
        }
    }

    /// Admits a step that may build on steps under way.
    pub(super) fn prepare(&mut self, steps: &mut [SequenceStep<'_>]) -> Result<(), GpuError> {
        self.under_way.check(steps)?;
        let (rows, limit) = (steps.iter().map(SequenceStep::n_outputs).sum(), self.max_outputs());
        if rows > limit {
            return Err(StepError::TooManyOutputs { rows, limit }.into());
        }
        check_results(steps, &self.plan)?;
        let mut words = Vec::with_capacity(steps.len());
        for step in steps.iter() {
            words.push(match step.tokens.chosen().map(|input| self.known(input)).transpose()? {
                None => None,
                // As `lib/tokens.wgsl` reads it.
                Some(Known::Place(place)) => Some(AT_PLACE | place),
                // Where there was no choice, the step's results mean nothing, whatever it runs on.
                Some(Known::Id(id)) => Some(id.unwrap_or(0)),
            });
        }
        Ok(self.batch.admit(&mut self.book, steps, self.layout.max_tokens, self.vocab, &words)?)
    }

    /// What is known of a choice under way. Waits for it where the host makes it.
    fn known(&mut self, (ticket, i): ChoiceRef) -> Result<Known, GpuError> {
        let max_tokens = self.layout.max_tokens;
        let submitted = self.under_way.get(ticket).ok_or(StepError::NotUnderWay)?;
        match (&submitted.results, submitted.choice(i)) {
            (None, (flight, Pending::Device { at, .. })) => {
                Ok(Known::Place((max_tokens * (1 + submitted.slot) + flight.first_choice + at) as u32))
            }
            (None, (_, Pending::Host(_))) => {
                self.read(ticket)?;
                self.known((ticket, i))
            }
            (Some(results), _) => Ok(Known::Id(results.chosen.get(i).and_then(|chosen| chosen.token))),
        }
    }

    /// The tokens that the caller does not know at the end of a sequence, up to its row's own: those that the host knows,
    /// and the places of those that the device alone does.
    fn unknown(&mut self, step: &SequenceStep<'_>, choice: &Choice<'_>) -> Result<(Vec<u32>, Vec<u32>), GpuError> {
        let (mut ids, mut places) = (Vec::new(), Vec::new());
        let window = choice.params.penalty_window();
        match step.tokens {
            // Only penalties read them.
            _ if window == 0 => {}
            Tokens::Ids(tokens) => ids.extend_from_slice(&tokens[tokens.len() - tokens.len().min(window)..]),
            Tokens::Chosen(ticket, i) => {
                for input in self.under_way.chain((ticket, i)) {
                    match self.known(input)? {
                        Known::Id(id) => ids.extend(id),
                        Known::Place(place) => places.push(place),
                    }
                }
            }
        }
        Ok((ids, places))
    }

    /// Sorts the admitted step's choices into those of the device, which become records, and those of the host.
    fn sort_choices(&mut self, steps: &[SequenceStep<'_>]) -> Result<Vec<Pending>, GpuError> {
        self.records.clear();
        let mut pending = Vec::with_capacity(self.batch.choices.len());
        for at in self.batch.choices.clone() {
            let step = &steps[at.step];
            let Some(choice) = step.choice else { continue };
            let (mut ids, places) = self.unknown(step, &choice)?;
            if sample::on_device(&choice) {
                let listed = choice.log_probabilities;
                pending.push(Pending::Device { at: self.records.len(), listed });
                self.records.push(&choice, at.output, &ids, &places);
                continue;
            }
            if !places.is_empty() {
                // The host has to know all of them.
                if let Tokens::Chosen(ticket, i) = step.tokens {
                    for (ticket, _) in self.under_way.chain((ticket, i)) {
                        self.read(ticket)?;
                    }
                }
                ids = self.unknown(step, &choice)?.0;
            }
            pending.push(Pending::Host(HostChoice::new(&choice, ids, at.position, at.output)));
        }
        Ok(pending)
    }

    /// Submits the rows of the batch, whose choices are written to part `slot` of the chosen tokens, behind
    /// `first_choice` others.
    fn submit_part(
        &mut self,
        steps: &[SequenceStep<'_>],
        slot: usize,
        first_choice: usize,
        start: Instant,
    ) -> Result<Flight, GpuError> {
        let choices = self.sort_choices(steps)?;
        let mut flight = Flight::new(first_choice, choices, &self.records, &self.batch, &self.plan);
        let bytes = flight.read_bytes;
        // Before any kernel runs: a failure up to here leaves the sequences unchanged.
        let staging = if bytes > 0 { Some(self.staging.take(&self.gpu, bytes)?) } else { None };
        let chosen_at = self.layout.max_tokens * (1 + slot) + first_choice;
        let mut encoder = self.begin(steps, &flight, chosen_at)?;
        if let Some(buffer) = &staging {
            self.copy_results(&mut encoder, &flight, chosen_at, buffer);
        }
        flight.submission = Some(self.submit_encoder(encoder, start));
        match staging {
            Some(buffer) => {
                let there = flight.done.clone();
                buffer.map_async(wgpu::MapMode::Read, ..bytes, move |_| there.store(true, Ordering::Release));
                flight.staging = Some(buffer);
            }
            None => {
                let there = flight.done.clone();
                self.gpu.queue.on_submitted_work_done(move || there.store(true, Ordering::Release));
            }
        }
        self.finish_trace(start)?;
        Ok(flight)
    }

    /// Writes the admitted step's rows to the device and records all of its calls.
    fn begin(
        &mut self,
        steps: &[SequenceStep<'_>],
        flight: &Flight,
        chosen_at: usize,
    ) -> Result<wgpu::CommandEncoder, GpuError> {
        let start = Instant::now();
        let grown = self.upload(steps, chosen_at)?;
        let tail = match &mut self.choosing {
            Some(choosing) => {
                let read = !flight.rows.is_empty();
                choosing.prepare(&self.gpu, &self.memory, &self.weights, &self.records, read, grown)?;
                choosing.calls(&self.shape, &self.records, read)
            }
            None => Vec::new(),
        };
        self.batch.begin();
        if self.tracing.as_ref().is_some_and(|t| t.by_host()) {
            self.run_timed(start, &tail)?;
            return Ok(self.gpu.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default()));
        }
        Ok(self.encode(0..self.batch.stages(&self.plan), &tail))
    }

    /// Copies a step's results to where the host can read them: tokens, log-probabilities, rows of logits, hidden states.
    fn copy_results(&self, encoder: &mut wgpu::CommandEncoder, flight: &Flight, chosen_at: usize, to: &wgpu::Buffer) {
        let mut at = 0;
        let mut copy = |from: &wgpu::Buffer, first: usize, words: usize| {
            if words > 0 {
                encoder.copy_buffer_to_buffer(from, first as u64 * 4, to, at, Some(words as u64 * 4));
                at += words as u64 * 4;
            }
        };
        let n = self.records.len();
        copy(&self.memory.tokens, chosen_at, n);
        if let Some(choosing) = self.choosing.as_ref().filter(|_| self.records.log_probabilities) {
            copy(&choosing.results, 0, RESULT_WORDS * n);
        }
        let hidden = flight.hidden.iter().map(|slot| (slot, &flight.hidden_rows));
        for (slot, rows) in std::iter::once((&flight.logits, &flight.rows)).chain(hidden) {
            let first = self.layout.output_base() + slot.offset * self.batch.outputs.len();
            for rows in rows.chunk_by(|a, b| a + 1 == *b) {
                copy(&self.memory.arena, first + rows[0] * slot.stride, rows.len() * slot.stride);
            }
        }
    }

    /// See [`Backend::is_done`](crate::Backend::is_done).
    ///
    /// # Errors
    /// A step that is not under way; errors of the device.
    pub fn is_done(&mut self, ticket: Ticket) -> Result<bool, GpuError> {
        let submitted = self.under_way.get(ticket).ok_or(StepError::NotUnderWay)?;
        if !submitted.is_done() {
            let polled = self.gpu.device.poll(wgpu::PollType::Poll);
            self.gpu.check()?;
            polled.map_err(|e| self.gpu.failed(&e))?;
        }
        Ok(submitted.is_done())
    }

    /// See [`Backend::wait`](crate::Backend::wait).
    ///
    /// # Errors
    /// A step that is not under way; errors of the device, after which the step is no longer under way.
    pub fn wait(&mut self, ticket: Ticket) -> Result<(), GpuError> {
        let read = self.read(ticket);
        if read.is_err() {
            let _ = self.under_way.take(ticket);
        }
        read
    }

    /// See [`Backend::collect`](crate::Backend::collect).
    ///
    /// # Errors
    /// As [`GpuBackend::wait`].
    pub fn collect(&mut self, ticket: Ticket) -> Result<StepOutput<'_>, GpuError> {
        self.wait(ticket)?;
        let Results { chosen, logits, hidden } = self.under_way.take(ticket)?.results.unwrap_or_default();
        self.results = [logits, hidden];
        Ok(StepOutput { logits: &self.results[0], hidden: &self.results[1], chosen })
    }

    /// Waits for a step and reads its results, without collecting it.
    fn read(&mut self, ticket: Ticket) -> Result<(), GpuError> {
        let submitted = self.under_way.get(ticket).ok_or(StepError::NotUnderWay)?;
        if submitted.results.is_some() {
            return Ok(());
        }
        if submitted.failed {
            return Err(self.gpu.failed(&"an earlier error has made this step's results worthless"));
        }
        let read = self.read_parts(ticket);
        if read.is_err() {
            // The device reports an error once and does not say whose it is.
            self.under_way.iter_mut().filter(|s| s.results.is_none()).for_each(|s| s.failed = true);
        }
        read
    }

    fn read_parts(&mut self, ticket: Ticket) -> Result<(), GpuError> {
        let submitted = self.under_way.get_mut(ticket).ok_or(StepError::NotUnderWay)?;
        let mut parts = Vec::with_capacity(submitted.flights.len());
        for flight in &mut submitted.flights {
            if !flight.done.load(Ordering::Acquire) {
                // Later steps stay under way.
                let wait = wgpu::PollType::Wait { submission_index: flight.submission.clone(), timeout: None };
                let polled = self.gpu.device.poll(wait);
                self.gpu.check()?;
                polled.map_err(|e| self.gpu.failed(&e))?;
            }
            self.gpu.check()?;
            parts.push(match flight.staging.take() {
                None => Results::default(),
                Some(buffer) => {
                    let view = buffer.get_mapped_range(..flight.read_bytes).map_err(|e| self.gpu.failed(&e))?;
                    let results = flight.parse(bytemuck::cast_slice(&view), &mut self.sampler);
                    drop(view);
                    buffer.unmap();
                    self.staging.give_back(buffer);
                    results
                }
            });
        }
        submitted.results = Some(submitted.merge(parts));
        Ok(())
    }
}

/// Buffers in which results lie on their way to the host.
#[derive(Default)]
pub(super) struct StagingBuffers(Vec<wgpu::Buffer>);

impl StagingBuffers {
    /// A buffer of at least `bytes`.
    fn take(&mut self, gpu: &crate::gpu::Gpu, bytes: u64) -> Result<wgpu::Buffer, GpuError> {
        let fits = self.0.iter().enumerate().filter(|(_, b)| b.size() >= bytes);
        if let Some((i, _)) = fits.min_by_key(|(_, b)| b.size()) {
            return Ok(self.0.swap_remove(i));
        }
        // The new one takes its place.
        let largest = self.0.iter().enumerate().max_by_key(|(_, b)| b.size()).map(|(i, _)| i);
        largest.map(|i| self.0.swap_remove(i));
        gpu.buffer("results", bytes.next_power_of_two(), wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST)
    }

    fn give_back(&mut self, buffer: wgpu::Buffer) {
        self.0.push(buffer);
    }
}
