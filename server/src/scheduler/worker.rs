//! The thread: what it hears, what begins and what ends.

use std::{
    num::NonZero,
    sync::{
        Arc, PoisonError,
        atomic::Ordering,
        mpsc::{Receiver, TryRecvError},
    },
    thread,
    time::{Duration, Instant},
};

use handmill_models::{
    Engine, StopReason,
    engine::{Running, Sequence},
    text::Tokenizer,
};

use super::{
    Shared, Status,
    answer::Answer,
    pace::Pace,
    queue::{Job, Queue},
    reader::{Goal, Reader, Scores},
    request::{Event, RequestError, Usage, Work},
};
use crate::metrics::Outcome;

/// The longest shutdown: about a year, so that its end is a time.
const LONGEST: Duration = Duration::from_secs(1 << 25);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Command {
    Run(Box<Job>),
    Drain(Duration),
}

pub(super) struct Worker {
    pub engine: Engine,
    pub tokenizer: Arc<Tokenizer>,
    pub running: Running,
    pub answers: Vec<Answer>,
    pub readers: Vec<Reader>,
    queue: Queue,
    pub pace: Pace,
    turns: u64,
    inbox: Receiver<Command>,
    pub shared: Arc<Shared>,
    /// The end of a shutdown.
    deadline: Option<Instant>,
    /// Cores that this process may use: asking for them reads files.
    pub cores: usize,
}

impl Worker {
    pub fn new(engine: Engine, tokenizer: Arc<Tokenizer>, inbox: Receiver<Command>, shared: Arc<Shared>) -> Self {
        Self {
            engine,
            tokenizer,
            running: Running::new(),
            answers: Vec::new(),
            readers: Vec::new(),
            queue: Queue::default(),
            pace: Pace::new(),
            turns: 0,
            inbox,
            shared,
            deadline: None,
            cores: thread::available_parallelism().map_or(1, NonZero::get),
        }
    }

    /// Works until the scheduler is drained or nobody has it any more.
    pub fn run(mut self) -> Engine {
        self.show();
        while self.hear() {
            self.leave();
            if let Err(error) = self.begin().and_then(|()| self.step()) {
                self.fail(&error);
            }
            self.show();
        }
        self.engine
    }

    fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.answers.is_empty() && self.readers.is_empty()
    }

    /// Takes what the thread is told; waits for it where there is nothing to do. Returns false at the end.
    fn hear(&mut self) -> bool {
        loop {
            let command = match self.is_idle() {
                true if self.deadline.is_some() => return false,
                true => self.inbox.recv().map_err(|_| TryRecvError::Disconnected),
                false => self.inbox.try_recv(),
            };
            match command {
                Ok(Command::Run(job)) => self.queue.push(*job),
                Ok(Command::Drain(limit)) => self.deadline = Instant::now().checked_add(limit.min(LONGEST)),
                Err(TryRecvError::Disconnected) if self.is_idle() => return false,
                Err(_) => break,
            }
        }
        if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
            self.give_up();
        }
        true
    }

    /// Fails all that is there, at the end of a shutdown.
    fn give_up(&mut self) {
        for mut job in self.queue.drain() {
            job.progress.end(Outcome::Failed);
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            let _ = job.events.send(Event::Failed(RequestError::ShuttingDown));
        }
        self.answers.iter_mut().for_each(|answer| answer.fail(RequestError::ShuttingDown));
        self.readers.iter_mut().for_each(|reader| reader.fail(RequestError::ShuttingDown));
        self.leave();
    }

    /// Ends what is over, and what nobody waits for any more.
    pub fn leave(&mut self) {
        let left = self.queue.drop_left();
        self.shared.waiting.fetch_sub(left, Ordering::Relaxed);
        self.readers.retain(|reader| !reader.failed && !reader.events.is_closed());
        let (engine, running) = (&mut self.engine, &mut self.running);
        let mut useless = false;
        self.answers.retain(|answer| {
            let ended = answer.is_over() || answer.is_left();
            useless |= answer.is_useless();
            if let Some(run) = answer.run.filter(|_| ended) {
                // The sequence is this engine's own, so that it can be kept; the run is gone in any case.
                let _ = running.finish(engine, run);
            }
            !ended
        });
        if useless {
            // Only sequences of other engines cannot be forgotten.
            let _ = self.engine.forget_prefixes();
        }
    }

    /// Begins requests, as long as there is room for them.
    fn begin(&mut self) -> Result<(), handmill_models::Error> {
        let (step_tokens, most) = (self.engine.backend().max_step_tokens(), self.shared.sequences);
        while self.answers.len() + self.readers.len() < most && self.running.waiting() == 0 {
            let reading: usize = self.readers.iter().map(|reader| reader.rest().len()).sum();
            // A step full of prompts that are read is enough.
            let Some(job) = self.queue.pop(|job| !job.is_reading() || reading < step_tokens) else { break };
            self.shared.waiting.fetch_sub(1, Ordering::Relaxed);
            self.turns += 1;
            self.begin_job(job)?;
        }
        self.admit()
    }

    fn begin_job(&mut self, job: Job) -> Result<(), handmill_models::Error> {
        let reads = job.is_reading();
        let Job { request, events, mut progress } = job;
        progress.begin(&request);
        let (prompt, turn) = (request.prompt, self.turns);
        let usage = Usage { prompt_tokens: prompt.len(), ..Usage::default() };
        let goal = match request.work {
            Work::Answer(options) if !reads => {
                let mut answer = Answer::new(options, prompt.len(), turn, &self.tokenizer, events, progress);
                if answer.options.max_tokens == Some(0) {
                    answer.start(0);
                    answer.ended = Some(StopReason::MaxTokens);
                    answer.tell();
                    return Ok(());
                }
                answer.run = Some(self.running.add(&self.engine, prompt)?);
                self.answers.push(answer);
                return self.admit();
            }
            Work::Answer(options) => Goal::Score { options, scores: Box::new(Scores::new()) },
            Work::Embed(pooling) => {
                let plan = self.engine.backend().plan();
                let width = plan.hidden.map_or(0, |hidden| plan.graph.value(hidden).width);
                Goal::Embed { pooling, sums: vec![0.0; width] }
            }
        };
        progress.start(0);
        let _ = events.send(Event::Started(usage));
        let sequence = Sequence::default();
        self.readers.push(Reader { turn, prompt, sequence, goal, events, progress, failed: false, waits: None });
        Ok(())
    }

    /// Lets runs that wait begin.
    fn admit(&mut self) -> Result<(), handmill_models::Error> {
        while let Some(id) = self.running.admit(&mut self.engine)? {
            let cached = self.running.sequences().find(|(of, _)| *of == id).map_or(0, |(_, sequence)| sequence.len());
            if let Some(answer) = self.answers.iter_mut().find(|answer| answer.run == Some(id)) {
                answer.start(cached);
            }
        }
        Ok(())
    }

    /// Tells clients of their tokens, and ends what is over.
    pub fn tell(&mut self) {
        self.answers.iter_mut().for_each(Answer::tell);
    }

    /// Fails all that took part after an error of the engine, and forgets what it may have left in the cache.
    fn fail(&mut self, error: &handmill_models::Error) {
        self.tell();
        let error = RequestError::Engine(error.to_string());
        self.answers.iter_mut().for_each(|answer| answer.fail(error.clone()));
        self.readers.iter_mut().for_each(|reader| reader.fail(error.clone()));
        self.leave();
        // Only sequences of other engines cannot be forgotten.
        let _ = self.engine.forget_prefixes();
    }

    /// Lets others see the state.
    fn show(&mut self) {
        // What ended in this step gives its pages back before that is shown.
        self.leave();
        let room = self.engine.backend().pages().room();
        // A model whose layers cache no tokens has no bound of pages.
        let cache_tokens = if room.tokens == usize::MAX { self.engine.cache_tokens() } else { room.tokens };
        let status = Status {
            running: self.answers.len() + self.readers.len(),
            waiting: 0,
            cache_tokens,
            free_tokens: room.free_tokens.min(cache_tokens),
            kept_tokens: self.engine.kept_tokens(),
            set_aside: self.running.times_set_aside(),
        };
        *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner) = status;
    }
}
