//! One thread owns an engine and runs the requests of all clients on it.
//!
//! Every step has the next token of each running answer and, beside them, as much of the prompts that are being read as makes
//! it about twice as long as it would be without. Requests begin in the order of their priorities, then as they came, as soon as
//! the cache has room for their prompts; where it runs full, the youngest answer is set aside and comes back. Prompts begin
//! with what the cache has of earlier ones.
//!
//! On the CPU an answer has the same bits, whatever runs beside it.

mod answer;
mod pace;
mod progress;
mod queue;
mod reader;
mod request;
mod step;
mod worker;

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc::{self, SendError},
    },
    thread,
    time::Duration,
};

use handmill_models::Engine;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::{Error, metrics::Outcome};
use progress::{Monitor, Progress};
use queue::Job;
use worker::{Command, Worker};

pub(crate) use progress::{AnswerParams, Slot};
pub use request::{AnswerOptions, Event, Request, RequestError, Scored, Usage, Work};

/// Limits of a scheduler.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most requests that run at once; an engine whose steps take fewer tokens bounds it further.
    pub running: usize,
    /// Most requests that wait.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { running: 64, waiting: 512 }
    }
}

/// The state of a scheduler at its last step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Requests that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Tokens that the pages of the cache hold.
    pub cache_tokens: usize,
    /// Tokens of pages that neither an answer nor a kept prefix has.
    pub free_tokens: usize,
    /// Tokens kept for prompts to come.
    pub kept_tokens: usize,
    /// How often an answer was set aside.
    pub set_aside: u64,
}

/// The thread that owns an engine. Clones stand for the same.
#[derive(Clone, Debug)]
pub struct Scheduler {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    thread: Arc<Mutex<Option<thread::JoinHandle<Engine>>>>,
}

/// What the thread and its clients have in common.
#[derive(Debug)]
struct Shared {
    waiting: AtomicUsize,
    draining: AtomicBool,
    status: Mutex<Status>,
    monitor: Arc<Monitor>,
    limits: Limits,
    /// Most requests that run at once.
    sequences: usize,
    n_ctx: usize,
    vocab: usize,
    hidden: bool,
    device: String,
}

impl Scheduler {
    /// Starts the thread.
    ///
    /// # Errors
    /// A model without a tokenizer; no thread.
    pub fn start(mut engine: Engine, limits: Limits) -> Result<Self, Error> {
        let tokenizer = engine.model().tokenizer()?.clone();
        let n_ctx = engine.n_ctx();
        let backend = engine.backend();
        let shared = Arc::new(Shared {
            waiting: AtomicUsize::new(0),
            draining: AtomicBool::new(false),
            status: Mutex::default(),
            monitor: Arc::default(),
            limits,
            sequences: limits.running.min(backend.max_step_tokens()).min(backend.max_outputs()).max(1),
            n_ctx,
            vocab: backend.plan().vocab(),
            hidden: backend.plan().hidden.is_some(),
            device: backend.describe(),
        });
        let (commands, inbox) = mpsc::channel();
        let worker = Worker::new(engine, tokenizer, inbox, shared.clone());
        let thread =
            thread::Builder::new().name("scheduler".to_owned()).spawn(|| worker.run()).map_err(Error::Threads)?;
        Ok(Self { commands, shared, thread: Arc::new(Mutex::new(Some(thread))) })
    }

    /// Adds a request. Its news come through the receiver; dropping that ends the request within a step.
    ///
    /// # Errors
    /// Requests that cannot be answered, a full queue, a scheduler that shuts down.
    pub fn submit(&self, request: Request) -> Result<UnboundedReceiver<Event>, RequestError> {
        self.check(&request)?;
        let limit = self.shared.limits.waiting;
        let one_more = |n: usize| (n < limit).then_some(n + 1);
        let taken = self.shared.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more);
        let mut progress = Progress::new(&self.shared.monitor);
        if taken.is_err() {
            progress.end(Outcome::Refused);
            return Err(RequestError::QueueFull { limit });
        }
        let (events, receiver) = unbounded_channel();
        let sent = self.commands.send(Command::Run(Box::new(Job { request, events, progress })));
        sent.map_err(|SendError(command)| {
            if let Command::Run(mut job) = command {
                job.progress.end(Outcome::Refused);
            }
            RequestError::ShuttingDown
        })?;
        Ok(receiver)
    }

    /// Refuses what cannot be answered.
    ///
    /// # Errors
    /// As [`Scheduler::submit`], but for the queue.
    pub fn check(&self, request: &Request) -> Result<(), RequestError> {
        self.find_fault(request).inspect_err(|_| self.shared.monitor.metrics.request(Outcome::Refused))
    }

    fn find_fault(&self, request: &Request) -> Result<(), RequestError> {
        let Shared { n_ctx, vocab, hidden, draining, .. } = &*self.shared;
        if draining.load(Ordering::Relaxed) {
            return Err(RequestError::ShuttingDown);
        }
        let tokens = request.prompt.len();
        if tokens == 0 {
            return Err(RequestError::EmptyPrompt);
        }
        if tokens > *n_ctx {
            return Err(RequestError::PromptTooLong { tokens, n_ctx: *n_ctx });
        }
        if let Some(&id) = request.prompt.iter().find(|id| **id as usize >= *vocab) {
            return Err(RequestError::TokenOutOfRange { id, vocab: *vocab });
        }
        match &request.work {
            Work::Answer(options) => Ok(options.sampling.validate()?),
            Work::Embed(_) if *hidden => Ok(()),
            Work::Embed(_) => Err(RequestError::NoHidden),
        }
    }

    /// Takes no more requests. Those that run or wait have `limit` to end; what is left then fails. Returns at once.
    pub fn drain(&self, limit: Duration) {
        self.shared.draining.store(true, Ordering::Relaxed);
        // A thread that has ended needs not be told.
        let _ = self.commands.send(Command::Drain(limit));
    }

    /// Waits for the end of a scheduler that [drains](Scheduler::drain). Returns the engine; none where another has it, or
    /// where the thread ended otherwise.
    pub fn join(&self) -> Option<Engine> {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        thread?.join().ok()
    }

    /// Tokens that a prompt and its answer may have.
    pub fn n_ctx(&self) -> usize {
        self.shared.n_ctx
    }

    /// Tokens that the model has logits for.
    pub fn n_vocab(&self) -> usize {
        self.shared.vocab
    }

    /// Whether the engine can make vectors.
    pub fn embeds(&self) -> bool {
        self.shared.hidden
    }

    /// The device, for people.
    pub fn device(&self) -> &str {
        &self.shared.device
    }

    /// Most requests that run at once.
    pub(crate) fn sequences(&self) -> usize {
        self.shared.sequences
    }

    /// What is known of all requests.
    pub(crate) fn monitor(&self) -> &Monitor {
        &self.shared.monitor
    }

    /// The state at the last step.
    pub fn status(&self) -> Status {
        let status = *self.shared.status.lock().unwrap_or_else(PoisonError::into_inner);
        Status { waiting: self.shared.waiting.load(Ordering::Relaxed), ..status }
    }
}
