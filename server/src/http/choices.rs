//! The answers of one request: several choices of a prompt, several prompts. Their news come through one place.

use std::{collections::VecDeque, future::poll_fn, task::Poll};

use tokio::sync::mpsc::UnboundedReceiver;

use crate::{
    Scheduler,
    scheduler::{Event, Request, RequestError},
};

/// Answers of one request that run or wait at once: the others wait here, so that a long list leaves the queue to others too.
const AT_ONCE: usize = 64;

/// The answers of one request.
pub(crate) struct Choices {
    scheduler: Scheduler,
    waiting: VecDeque<Waiting>,
    open: Vec<(usize, UnboundedReceiver<Event>)>,
    /// Whether that one's prompt has been read.
    read: Vec<bool>,
}

struct Waiting {
    index: usize,
    /// The choice whose prompt this one begins with: read before, it is in the cache.
    after: Option<usize>,
    request: Request,
}

impl Choices {
    /// Submits `n` choices for each prompt. Those of the first prompt have the first indices.
    ///
    /// # Errors
    /// A request that cannot be answered; the queue is full. Nothing runs then.
    pub fn submit(scheduler: &Scheduler, prompts: Vec<Request>, n: usize) -> Result<Self, RequestError> {
        prompts.iter().try_for_each(|request| scheduler.check(request))?;
        let mut waiting = VecDeque::new();
        for (i, request) in prompts.into_iter().enumerate() {
            for choice in 0..n {
                let mut request = request.clone();
                if let crate::scheduler::Work::Answer(options) = &mut request.work {
                    options.sampling.seed = options.sampling.seed.wrapping_add(choice as u64);
                }
                waiting.push_back(Waiting { index: i * n + choice, after: (choice > 0).then_some(i * n), request });
            }
        }
        let read = vec![false; waiting.len()];
        let mut choices = Self { scheduler: scheduler.clone(), waiting, open: Vec::new(), read };
        match choices.submit_some() {
            Some((_, error)) => Err(error),
            None => Ok(choices),
        }
    }

    /// Submits those whose time has come. Returns one that could not be.
    fn submit_some(&mut self) -> Option<(usize, RequestError)> {
        while self.open.len() < AT_ONCE {
            let may = |waiting: &Waiting| waiting.after.is_none_or(|of| self.read.get(of) == Some(&true));
            let at = self.waiting.iter().position(may)?;
            let Waiting { index, request, .. } = self.waiting.remove(at)?;
            match self.scheduler.submit(request) {
                Ok(receiver) => self.open.push((index, receiver)),
                Err(error) => return Some((index, error)),
            }
        }
        None
    }

    /// The next event, with the index of its choice; none at the end.
    pub async fn next(&mut self) -> Option<(usize, Event)> {
        if let Some((index, error)) = self.submit_some() {
            self.mark_read(index);
            return Some((index, Event::Failed(error)));
        }
        let next = poll_fn(|cx| {
            for (at, (index, receiver)) in self.open.iter_mut().enumerate() {
                if let Poll::Ready(event) = receiver.poll_recv(cx) {
                    return Poll::Ready(Some((at, *index, event)));
                }
            }
            if self.open.is_empty() { Poll::Ready(None) } else { Poll::Pending }
        });
        let (at, index, event) = next.await?;
        // A scheduler that ends drops what it has not begun.
        let event = event.unwrap_or(Event::Failed(RequestError::ShuttingDown));
        if !matches!(event, Event::Started(_) | Event::Prompt(_)) {
            self.mark_read(index);
        }
        if matches!(event, Event::Finished { .. } | Event::Failed(_)) {
            self.open.swap_remove(at);
        }
        Some((index, event))
    }

    fn mark_read(&mut self, index: usize) {
        if let Some(read) = self.read.get_mut(index) {
            *read = true;
        }
    }
}
