//! How far each request has come: what is counted of it, and what others see of it while it runs.
//!
//! A request's [`Progress`] goes with it from its arrival to its end. Others read the numbers of its [`Slot`] at any time,
//! also during a long step.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use handmill_models::engine::sampling::SamplingParams;

use super::request::{AnswerOptions, Request, Work};
use crate::metrics::{Metrics, Outcome};

/// What is known of all requests.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    pub metrics: Metrics,
    tasks: AtomicU64,
    /// By number; none where a slot is free. The lock is taken where a request begins, where it ends and where somebody
    /// looks, never in between.
    slots: Mutex<Vec<Option<Arc<Slot>>>>,
}

impl Monitor {
    /// The slots by number, up to the last that was ever taken; none where one is free.
    pub fn slots(&self) -> Vec<Option<Arc<Slot>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Requests that run now.
    pub fn running(&self) -> usize {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).iter().flatten().count()
    }

    /// Puts a slot where the first is free.
    fn take_slot(&self, slot: Arc<Slot>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        match slots.iter_mut().find(|slot| slot.is_none()) {
            Some(free) => *free = Some(slot),
            None => slots.push(Some(slot)),
        }
    }

    fn free_slot(&self, slot: &Arc<Slot>) {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        let own = |other: &&mut Option<Arc<Slot>>| other.as_ref().is_some_and(|other| Arc::ptr_eq(other, slot));
        if let Some(own) = slots.iter_mut().find(own) {
            *own = None;
        }
    }
}

/// What others see of a request that runs. It has numbers, and no text of anybody.
#[derive(Debug)]
pub(crate) struct Slot {
    /// The request's number.
    pub task: u64,
    /// Tokens of its prompt.
    pub prompt_tokens: usize,
    /// How it is answered; none where a vector is wanted.
    pub answer: Option<AnswerParams>,
    cached: AtomicUsize,
    processed: AtomicUsize,
    generated: AtomicUsize,
}

/// How a request is answered.
#[derive(Debug)]
pub(crate) struct AnswerParams {
    /// Without biases of tokens, which may be many.
    pub sampling: SamplingParams,
    pub max_tokens: Option<usize>,
    pub ignore_eos: bool,
    pub log_probabilities: Option<usize>,
}

impl AnswerParams {
    pub fn of(options: &AnswerOptions) -> Self {
        Self {
            sampling: SamplingParams { logit_bias: Vec::new(), ..options.sampling.clone() },
            max_tokens: options.max_tokens,
            ignore_eos: options.ignore_eos,
            log_probabilities: options.log_probabilities,
        }
    }
}

impl Slot {
    fn new(task: u64, request: &Request) -> Self {
        let answer = match &request.work {
            Work::Answer(options) => Some(AnswerParams::of(options)),
            Work::Embed(_) => None,
        };
        let (cached, processed, generated) = Default::default();
        Self { task, prompt_tokens: request.prompt.len(), answer, cached, processed, generated }
    }

    /// Tokens of its prompt that were in the cache.
    pub fn cached(&self) -> usize {
        self.cached.load(Ordering::Relaxed)
    }

    /// Tokens of its prompt that were run.
    pub fn processed(&self) -> usize {
        self.processed.load(Ordering::Relaxed)
    }

    /// Tokens generated.
    pub fn generated(&self) -> usize {
        self.generated.load(Ordering::Relaxed)
    }
}

/// One request on its way. Where it is dropped before its end, its client has left.
#[derive(Debug)]
pub(super) struct Progress {
    monitor: Arc<Monitor>,
    task: u64,
    arrived: Instant,
    /// When its last token was chosen.
    last: Option<Instant>,
    /// None while it waits, and behind its end.
    slot: Option<Arc<Slot>>,
    over: bool,
}

impl Progress {
    /// A request arrives.
    pub fn new(monitor: &Arc<Monitor>) -> Self {
        let task = monitor.tasks.fetch_add(1, Ordering::Relaxed);
        Self { monitor: monitor.clone(), task, arrived: Instant::now(), last: None, slot: None, over: false }
    }

    /// It leaves the queue.
    pub fn begin(&mut self, request: &Request) {
        let slot = Arc::new(Slot::new(self.task, request));
        self.monitor.take_slot(slot.clone());
        self.slot = Some(slot);
    }

    /// The cache has room for it, and `cached` tokens of its prompt already.
    pub fn start(&self, cached: usize) {
        let metrics = &self.monitor.metrics;
        metrics.queue.observe(self.arrived.elapsed());
        metrics.cached_tokens.add(cached as u64);
        if let Some(slot) = &self.slot {
            slot.cached.store(cached, Ordering::Relaxed);
        }
    }

    /// A step has run so many of its tokens. Those behind its prompt do not count, nor does what is run once more.
    pub fn run(&self, tokens: usize) {
        let Some(slot) = &self.slot else { return };
        let rest = slot.prompt_tokens.saturating_sub(slot.cached() + slot.processed());
        let new = tokens.min(rest);
        if new > 0 {
            slot.processed.fetch_add(new, Ordering::Relaxed);
            self.monitor.metrics.prompt_tokens.add(new as u64);
        }
    }

    /// A token was chosen for it.
    pub fn take(&mut self) {
        let (metrics, now) = (&self.monitor.metrics, Instant::now());
        metrics.generated_tokens.add(1);
        match self.last.replace(now) {
            Some(last) => metrics.inter_token.observe(now.saturating_duration_since(last)),
            None => metrics.time_to_first_token.observe(now.saturating_duration_since(self.arrived)),
        }
        if let Some(slot) = &self.slot {
            slot.generated.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// It has ended; later calls change nothing. Called before its client is told, who then finds it counted.
    pub fn end(&mut self, outcome: Outcome) {
        if !std::mem::replace(&mut self.over, true) {
            self.monitor.metrics.request(outcome);
            if let Some(slot) = self.slot.take() {
                self.monitor.free_slot(&slot);
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.end(Outcome::Cancelled);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn begun(monitor: &Arc<Monitor>, prompt_tokens: usize) -> Progress {
        let mut progress = Progress::new(monitor);
        progress.begin(&Request::new(vec![1; prompt_tokens], Work::Answer(AnswerOptions::default())));
        progress
    }

    fn tasks(monitor: &Monitor) -> Vec<Option<u64>> {
        monitor.slots().iter().map(|slot| slot.as_ref().map(|slot| slot.task)).collect()
    }

    #[test]
    fn a_slot_is_taken_again_when_it_is_free() {
        let monitor = Arc::default();
        let waiting = Progress::new(&monitor);
        let [mut first, second, third] = [1, 2, 3].map(|n| begun(&monitor, n));
        assert_eq!(tasks(&monitor), [Some(1), Some(2), Some(3)]);
        drop(second);
        first.end(Outcome::Finished);
        assert_eq!((tasks(&monitor), monitor.running()), (vec![None, None, Some(3)], 1));
        let fourth = begun(&monitor, 4);
        assert_eq!(tasks(&monitor), [Some(4), None, Some(3)]);
        drop((waiting, first, third, fourth));
        assert_eq!(monitor.running(), 0);
        let text = monitor.metrics.text("m", &crate::scheduler::Status::default());
        assert!(text.contains("{outcome=\"finished\"} 1\n") && text.contains("{outcome=\"cancelled\"} 4\n"), "{text}");
    }

    #[test]
    fn a_prompt_is_counted_once_however_often_it_is_run() {
        let monitor = Arc::default();
        let mut progress = begun(&monitor, 100);
        progress.start(30);
        // Parts of it, the last with a token of the answer; then its tokens once more, because it was set aside.
        for tokens in [50, 20, 1, 1, 102] {
            progress.run(tokens);
            progress.take();
        }
        let metrics = &monitor.metrics;
        assert_eq!((metrics.cached_tokens.get(), metrics.prompt_tokens.get()), (30, 70));
        assert_eq!(metrics.generated_tokens.get(), 5);
        let slot = monitor.slots()[0].clone().unwrap();
        assert_eq!((slot.cached(), slot.processed(), slot.generated()), (30, 70, 5));
    }
}
